//! Throw-away Postgres clusters, made from the binaries on this machine: for the demo and for the tests.
//!
//! Not for data that anybody wants to keep: durability is switched off, and dropping a [`Cluster`] deletes it.

mod binaries;
mod cluster;
pub mod policies;
mod postmaster;

pub use binaries::Binaries;
pub use cluster::{Cluster, ClusterOptions, ClusterTls};
pub use postmaster::Stop;

use std::io;
use std::path::PathBuf;

/// Why a throw-away cluster could not be made, started or reached.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No PostgreSQL server programs were found on this machine.
    #[error(
        "no PostgreSQL server programs found (looked at {looked_at}); install PostgreSQL 13 or newer, or name the folder of `initdb` in PARTYWALL_PG_BIN"
    )]
    NoBinaries {
        /// The places that were looked at.
        looked_at: String,
    },
    /// We are root, Postgres refuses to be, and there is nobody to run it as.
    #[error("Postgres does not run as root, and this machine has neither a user `postgres` nor `nobody` to run it as")]
    NoOrdinaryUser,
    /// A file or folder of the cluster could not be used.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be run.
    #[error("running {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `initdb` ended with an error.
    #[error("initdb failed: {said}")]
    Initdb {
        /// The end of what it wrote.
        said: String,
    },
    /// The server ended, or was not ready in time.
    #[error("the server did not become ready: {said}")]
    NotReady {
        /// The end of its log.
        said: String,
    },
    /// The server did not stop in time.
    #[error("the server did not stop within {timeout_s} s")]
    NotStopped {
        /// How long we waited, in seconds.
        timeout_s: u64,
    },
    /// A signal could not be sent, or a process not waited for.
    #[error("signalling the server: {0}")]
    Signal(io::Error),
    /// The system has no random bytes for us.
    #[error("no random bytes from the system")]
    Random,
    /// A setting that cannot be written into a configuration file.
    #[error("the setting {0} cannot be written into a configuration file")]
    BadSetting(String),
    /// The database refused, or the connection failed.
    #[error("the database refused")]
    Database(#[from] tokio_postgres::Error),
}

impl ProvisionError {
    fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}

/// `bytes` random bytes from the system, as lower-case hexadecimal digits: a password that needs no quoting anywhere.
pub fn random_hex(bytes: usize) -> Result<String, ProvisionError> {
    use std::fmt::Write as _;
    let mut buffer = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut buffer).map_err(|_| ProvisionError::Random)?;
    let mut text = String::with_capacity(bytes * 2);
    for byte in buffer {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
