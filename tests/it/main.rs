//! The integration tests: one binary, real clusters, real clients.
