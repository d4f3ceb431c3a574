//! The proxy as a whole: control on its runtime, data threads on theirs, from start to drained.

mod client;
mod data_thread;
mod shutdown;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::admin::{self, Health, Readiness, ShardState, State};
use crate::audit::{self, AuditError, AuditWriter};
use crate::config::{Config, StatementAudit};
use crate::control::keys::{KeyFaults, KeyKeeper, Timing};
use crate::control::observe::{Fanout, LogObserver, tell_what_is_left_out};
use crate::control::{self, Board, MakeGuard, Snapshots, Unusable, keep_attested, keep_current, sweep};
use crate::event::Observer;
use crate::guard;
use crate::ids::ShardName;
use crate::metrics::Metrics;
use crate::net;
use crate::pool::Fitness;
use crate::session::Signal;
use shutdown::Request;
pub use shutdown::ShutdownSignals;

/// The commit that the program was built from; `unknown` where it was built outside of a git checkout.
pub const COMMIT: &str = env!("PARTYWALL_COMMIT");

/// How many organizations have metrics under their own name.
const NAMED_ORGANIZATIONS_MAX: usize = 50;

/// Why the proxy cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A key file cannot be used.
    #[error("{0}")]
    Keys(#[from] KeyFaults),
    /// A certificate, a password or a shard's TLS cannot be used.
    #[error("{0}")]
    Unusable(#[from] Unusable),
    /// The audit file cannot be written.
    #[error("{0}: {source}", source = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Audit(#[from] AuditError),
    /// The admin token cannot be read.
    #[error("admin.token_file: {0}")]
    AdminToken(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals or threads cannot be had.
    #[error("the system does not let the proxy start: {0}")]
    System(#[from] io::Error),
}

/// What a running proxy is told and asked.
pub struct Proxy {
    snapshots: Arc<Snapshots>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    audit: Option<AuditWriter>,
    reload: Arc<Notify>,
    path: Option<PathBuf>,
}

impl Proxy {
    /// Starts everything; clients can connect when this returns.
    ///
    /// Must be called on the control runtime, which runs the tasks that watch keys, files and sessions until it ends.
    pub async fn start(config: Config, path: Option<PathBuf>) -> Result<Self, ServeError> {
        Self::start_judged_by(control::guard, config, path).await
    }

    /// As [`Self::start`], with another judge: for tests of what holds when it fails.
    pub async fn start_judged_by(
        make_guard: MakeGuard,
        config: Config,
        path: Option<PathBuf>,
    ) -> Result<Self, ServeError> {
        make_room_for_sockets(&config);
        let (metrics, board) = (Arc::new(Metrics::new(NAMED_ORGANIZATIONS_MAX)), Arc::new(Board::default()));
        let (observer, audit) = observers(&config, &metrics, &board)?;
        let (keys, keeper) = KeyKeeper::open(&config.auth, Timing::default()).await?;
        let (auth, auth_changes) = watch::channel(Arc::new(config.auth.clone()));
        tokio::spawn(keeper.run(auth_changes));
        let (stop, stopped) = watch::channel(false);
        let snapshots = {
            let board = Arc::clone(&board);
            let work = move || Snapshots::new(config, keys, observer, board, make_guard);
            Arc::new(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
        };
        serve_admin(&snapshots, &metrics, stopped.clone()).await?;
        let threads = data_thread::start_all(&snapshots, &metrics, &stopped)?;
        tokio::spawn(sweep(Arc::clone(&snapshots)));
        keep_attested(&snapshots)?;
        let reload = Arc::new(Notify::new());
        if let Some(path) = path.clone() {
            tokio::spawn(keep_current(path, Arc::clone(&snapshots), auth, Arc::clone(&reload)));
        }
        Ok(Self { snapshots, threads, stop, audit, reload, path })
    }

    /// Logs in one line what is served, and from which configuration.
    pub fn announce(&self) {
        let config = self.snapshots.config.load();
        let shards: Vec<&str> = config.shards.iter().map(|shard| shard.name.as_str()).collect();
        let path = self.path.as_ref().map(|path| path.display().to_string());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            commit = COMMIT,
            grammar = guard::GRAMMAR,
            pid = std::process::id(),
            config = path,
            listen = %config.listen.address,
            admin = %config.admin.address,
            tls = config.listen.tls.is_some(),
            threads = self.threads.len(),
            shards = shards.join(","),
            organizations = config.organizations.len(),
            tiers = config.tiers.tiers.len(),
            "serving"
        );
    }

    /// Waits until every shard has been reached, or has been tried and failed, for at most `patience`.
    pub async fn settled(&self, patience: Duration) {
        let board = &self.snapshots.board;
        let all_up = || {
            let decided = |name: &ShardName| board.gate(name).fitness() != Fitness::Unknown;
            board.shards().iter().all(|(name, state)| state.is_ok() && decided(name))
        };
        let wait = async {
            while !all_up() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, wait).await;
    }

    /// Serves until SIGTERM or SIGINT, then drains; SIGQUIT ends at once. SIGHUP reloads, SIGUSR1 pauses, SIGUSR2 resumes
    /// (as PgBouncer's manual, "Signals").
    ///
    /// Draining begins with `listen.drain_delay_s`, in which clients are still accepted while `/readyz` says no, so that
    /// balancers can follow. Then no client is accepted any more, and each session ends at its next safe point, for at
    /// most `timeout` (`listen.drain_timeout_s` where it is `None`). A second signal to stop ends everything at once.
    pub async fn run(self, timeout: Option<Duration>, mut signals: ShutdownSignals) -> Result<(), ServeError> {
        loop {
            match signals.next().await {
                Request::Drain => break,
                Request::Quit => return self.drain(Duration::ZERO, std::future::ready(())).await,
                Request::Reload => self.reload.notify_one(),
                Request::Pause => self.snapshots.pause(true),
                Request::Resume => self.snapshots.pause(false),
            }
        }
        let listen = self.snapshots.config.load().listen.clone();
        self.snapshots.board.drain();
        if !listen.drain_delay.is_zero() {
            tracing::info!(
                delay_s = listen.drain_delay.as_secs(),
                "clients are accepted for a last while: /readyz says no"
            );
            tokio::select! {
                () = tokio::time::sleep(listen.drain_delay) => {}
                () = signals.stop() => return self.drain(Duration::ZERO, std::future::ready(())).await,
            }
        }
        self.drain(timeout.unwrap_or(listen.drain_timeout), async move { signals.stop().await }).await
    }

    /// Drains for at most `timeout` or until `hurry` is done, and ends: no client is accepted any more, each session ends
    /// at its next safe point, the audit trail is written.
    pub async fn drain(mut self, timeout: Duration, hurry: impl Future<Output = ()>) -> Result<(), ServeError> {
        tracing::info!(sessions = self.snapshots.registry.len(), "draining");
        self.snapshots.board.drain();
        self.stop.send_replace(true);
        self.snapshots.registry.each(|signals| signals.raise(Signal::Drain));
        let empty = async {
            while !self.snapshots.registry.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = empty => {}
            () = tokio::time::sleep(timeout) => {}
            () = hurry => {}
        }
        self.snapshots.registry.each(|signals| signals.raise(Signal::Kill));
        let (threads, audit) = (std::mem::take(&mut self.threads), self.audit.take());
        let ending = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a data thread ended by a panic");
                }
            }
            if let Some(audit) = audit {
                audit.stop();
            }
        });
        ending.await.map_err(io::Error::other)?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The board as `/readyz` shows it.
impl Readiness for Board {
    fn shards(&self) -> Vec<ShardState> {
        let state = |(name, state): (ShardName, Result<(), String>)| {
            let breach = self.breach(&name);
            let health = match (&state, &breach) {
                (Ok(()), None) if self.gate(&name).is_open() => Health::Up,
                (Ok(()), None) | (Err(_), _) => Health::Down,
                (Ok(()), Some(_)) => Health::Unattested,
            };
            let reason = state.err().or(breach);
            let reason = reason.or_else(|| (health != Health::Up).then(|| "not attested yet".to_owned()));
            ShardState { name, health, reason }
        };
        Board::shards(self).into_iter().map(state).collect()
    }

    fn is_draining(&self) -> bool {
        Board::is_draining(self)
    }
}

fn observers(
    config: &Config,
    metrics: &Arc<Metrics>,
    board: &Arc<Board>,
) -> Result<(Arc<dyn Observer>, Option<AuditWriter>), ServeError> {
    let log = Arc::new(LogObserver::default());
    tokio::spawn(tell_what_is_left_out(Arc::clone(&log)));
    let mut observers: Vec<Arc<dyn Observer>> = vec![metrics.clone(), board.clone(), log];
    let mut writer = None;
    if let Some(file) = &config.audit.file {
        let statements: StatementAudit = config.audit.statements;
        let (observer, started) = audit::start(file, statements, metrics.audit())?;
        observers.push(Arc::new(observer));
        writer = Some(started);
    }
    Ok((Arc::new(Fanout::new(observers)), writer))
}

async fn serve_admin(
    snapshots: &Arc<Snapshots>,
    metrics: &Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let settings = snapshots.config.load().admin.clone();
    let token = match settings.token_file {
        Some(file) => {
            let loaded = tokio::task::spawn_blocking(move || admin::Token::load(&file)).await;
            Some(loaded.map_err(io::Error::other)?.map_err(|error| ServeError::AdminToken(error.to_string()))?)
        }
        None => None,
    };
    let address = settings.address;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    let state = Arc::new(State { metrics: Arc::clone(metrics), readiness: snapshots.board.clone(), token });
    tokio::spawn(async move {
        let stop = async move {
            // A sender that is gone means that the process ends.
            let _ = stopped.wait_for(|stop| *stop).await;
            // Operators watch the drain.
            tokio::time::sleep(Duration::from_secs(3600)).await;
        };
        if let Err(error) = admin::serve(listener, state, stop).await {
            tracing::error!(%error, "the admin door is shut");
        }
    });
    Ok(())
}

/// Files that are open besides clients' and servers' sockets: listeners, logs, the operators' connections.
const OTHER_FILES: usize = 256;

/// Sees to it that as many clients as the configuration allows do not take the sockets that their servers need.
fn make_room_for_sockets(config: &Config) {
    // A connection to a server may need a second one, for a cancel.
    let servers: usize = config.shards.iter().map(|shard| shard.pool_size * 2).sum();
    let wanted = (config.listen.max_client_conn + servers + OTHER_FILES) as u64;
    match net::allow_open_files(wanted) {
        Ok(allowed) if allowed < wanted => {
            tracing::warn!(
                allowed,
                wanted,
                "the system lets this process open fewer files than the configuration has connections: raise the limit \
                 (ulimit -n, LimitNOFILE) or lower listen.max_client_conn"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files is not known"),
    }
}

/// The listeners of all data threads on one address, bound before any thread starts.
fn listeners(address: SocketAddr, count: usize) -> Result<Vec<std::net::TcpListener>, ServeError> {
    // With SO_REUSEPORT a second proxy would share the port unnoticed.
    drop(std::net::TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })?);
    (0..count).map(|_| net::listen(address).map_err(|source| ServeError::Listen { address, source })).collect()
}
