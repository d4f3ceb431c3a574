//! The integration tests: one binary, real clusters, real clients.

mod cluster;
