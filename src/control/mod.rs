//! Everything periodic, and everything read from files: the configuration now; keys, directory, metering and reaping.

mod load;

pub use load::{SecretError, load, read_secret};
