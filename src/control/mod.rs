//! Everything periodic, and everything read from files: the configuration and keys; directory, metering and reaping.

pub mod keys;
mod load;
pub mod logging;
pub mod observe;

pub use load::{SecretError, load, read_secret};
