//! Against a live Postgres.
