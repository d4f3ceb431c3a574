//! The demo: two throw-away shards, three organizations with rows, keys, certificates and tokens, in one folder that holds
//! a complete configuration.
//!
//! It prepares; serving is not its job: whoever called [`prepare`] serves the configuration that it wrote, and then
//! prints [`Prepared::banner`].

mod banner;
mod files;
mod organizations;
mod place;
mod shards;

pub use organizations::{ORGANIZATIONS, PEOPLE, Person, SampleOrganization};

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::auth::mint::MintError;
use crate::provision::ProvisionError;
use files::{ShardFacts, Written};
use place::Place;
use shards::Filled;

/// The database that holds the tables, on each shard.
pub const DATABASE: &str = "app";

/// What the demo is asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The port for clients; 0 takes a free one.
    pub port: u16,
    /// The port for operators; 0 takes a free one.
    pub admin_port: u16,
    /// Where everything lives; a temporary folder when absent. Of a folder that was there before
    /// only what the demo put into it goes at the end; one that the demo made goes whole.
    pub data: Option<PathBuf>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { port: 6432, admin_port: 9432, data: None }
    }
}

/// Why the demo could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A cluster could not be made, or refused what it was told.
    #[error("{doing}: {source}")]
    Shard {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: ProvisionError,
    },
    /// A database refused a statement.
    #[error("{doing}: {}", source.as_db_error().map_or_else(|| source.to_string(), ToString::to_string))]
    Sql {
        /// What was tried.
        doing: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// A file or folder could not be used.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds somebody's own configuration.
    #[error("{0} is not the demo's: name another folder with --data")]
    Taken(PathBuf),
    /// The database servers, which root runs as another user, could not reach their clusters.
    #[error("only root may enter {}, and the demo's database servers do not run as root: name another folder than {} \
             with --data, or set TMPDIR", .folder.display(), .wanted.display())]
    Closed {
        /// Where they would be stopped.
        folder: PathBuf,
        /// The demo's folder.
        wanted: PathBuf,
    },
    /// No certificate could be made.
    #[error("making the demo's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// No token could be made.
    #[error("making a token: {0}")]
    Token(#[from] MintError),
    /// A task of the preparation was lost.
    #[error("a task of the preparation was lost")]
    Lost,
}

/// Everything that the demo made. Dropping it (which blocks for a moment) stops the clusters and removes the folders.
#[derive(Debug)]
pub struct Prepared {
    // Dropped in this order: the clusters live inside the place.
    shards: Vec<Filled>,
    written: Written,
    port: u16,
    admin_port: u16,
    place: Arc<Place>,
}

impl Prepared {
    /// The configuration to serve.
    pub fn config_path(&self) -> PathBuf {
        self.place.path().join(files::CONFIG)
    }

    /// The folder that holds the configuration, keys, certificates, tokens and clusters.
    pub fn folder(&self) -> &Path {
        self.place.path()
    }

    /// The port at which clients will connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port at which operators will connect.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// The token of one of [`PEOPLE`] in one of [`ORGANIZATIONS`].
    pub fn token(&self, org: &str, person: &str) -> Option<&str> {
        let found = self.written.tokens.iter().find(|token| token.org == org && token.person == person);
        found.map(|token| token.text.as_str())
    }

    /// Stops the clusters and removes the folders without blocking the runtime's thread; returns when all is gone.
    pub async fn close(self) {
        // A panic of the task is all that could be reported, and the guards of the clusters act even then.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// What to paste, for people; print it once clients can connect.
    pub fn banner(&self) -> String {
        banner::banner(self)
    }

    /// The one line that says to programs that clients can connect, and how.
    pub fn ready_line(&self) -> String {
        let Person { name, .. } = PEOPLE[0];
        format!("ready: postgres://{name}@127.0.0.1:{}/{DATABASE}?sslmode=require", self.port)
    }
}

/// Makes everything; tells `progress` a line for each step, with the time since the start. Takes a few seconds.
///
/// Dropping the future leaves nothing behind, after the moment that a starting cluster needs to notice.
///
/// # Errors
/// Says which step failed and why; what was made until then is removed.
pub async fn prepare(options: &DemoOptions, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<Prepared, DemoError> {
    let start = Instant::now();
    let tell = |what: &str| progress(&format!("[{:5.1} s] {what}", start.elapsed().as_secs_f64()));
    let data = options.data.clone();
    let place = Arc::new(blocking(move || Place::make(data.as_deref())).await?);
    tell(&format!("everything lives in {}", place.path().display()));

    let (one, two) = tokio::try_join!(shards::start(&place, 0), shards::start(&place, 1))?;
    tell("two throw-away Postgres clusters have started");
    let seal_keys = shards::seal_keys()?;
    let (one, two) = tokio::try_join!(shards::fill(one, 0, &seal_keys), shards::fill(two, 1, &seal_keys))?;
    let shards = vec![one, two];
    let rows: i64 = shards.iter().flat_map(|shard| &shard.organizations).map(|org| org.rows).sum();
    tell(&format!(
        "{} organizations have {rows} rows, behind row-level security and a guarded context",
        ORGANIZATIONS.len()
    ));

    let (port, admin_port) = (free_unless_given(options.port)?, free_unless_given(options.admin_port)?);
    let facts: Vec<ShardFacts> = shards.iter().map(Filled::facts).collect();
    let folder = place.path().to_owned();
    let written = blocking(move || files::write(&folder, port, admin_port, &facts, &seal_keys)).await?;
    tell("configuration, certificate, keys and tokens are written");
    Ok(Prepared { shards, written, port, admin_port, place })
}

/// Runs what blocks where blocking does no harm.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DemoError> + Send + 'static,
) -> Result<T, DemoError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| DemoError::Lost)?
}

fn free_unless_given(port: u16) -> Result<u16, DemoError> {
    if port != 0 {
        return Ok(port);
    }
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(file_error("finding a free port on", Path::new("127.0.0.1")))
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DemoError {
    let path = path.to_owned();
    move |source| DemoError::File { doing, path, source }
}
