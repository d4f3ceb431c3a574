//! Being built.
pub mod stats;
