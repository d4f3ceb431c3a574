//! Everything periodic, and everything read from files: the configuration and keys; directory, metering and reaping.

pub mod keys;
mod load;

pub use load::{SecretError, load, read_secret};
