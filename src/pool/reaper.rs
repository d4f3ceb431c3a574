//! Server connections that are given up: each counts, for its pool and for its organization, until the server has closed
//! its end.
//!
//! A server process that computes without looking for interrupts (long numbers, some functions in C) takes notice neither
//! of a cancel nor of its client's going. Were its place free before, the organization could have another one at work in
//! it, and another, until the server has no connection left for anybody.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::Pool;
use super::connection::Connection;
use super::line::Line;
use super::stats::PoolStats;
use crate::limits::Permit;
use crate::wire::frame;

/// How long a server may take to close its end before that is worth a warning, and between two cancels of what it runs.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// What an organization holds of a pool while it has one of its connections; given back on drop.
pub(super) struct Held {
    line: Rc<Line>,
    /// None where the session kept the connection without a turn to use it.
    _permit: Option<Permit>,
}

impl Held {
    /// What `line` has counted as held already.
    pub(super) fn new(line: &Rc<Line>, permit: Option<Permit>) -> Self {
        Self { line: Rc::clone(line), _permit: permit }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.line.holding.set(self.line.holding.get().saturating_sub(1));
    }
}

/// A connection that is being closed, for the gauge.
struct Closing(Arc<PoolStats>);

impl Closing {
    fn new(stats: &Arc<PoolStats>) -> Self {
        stats.server_closing.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stats))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.server_closing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Closes `connection`, after a cancel of what runs on it where `cancel` says so, and gives back what was `held` when
    /// the server has closed its end, however long that takes. The pool's place stays taken: the caller frees it.
    ///
    /// A host that is gone ends the socket by TCP's own means ([`crate::net::tune`]).
    pub(super) async fn reap(&self, connection: Box<Connection>, cancel: bool, held: Option<Held>) {
        let _closing = Closing::new(&self.stats);
        let (pid, key) = (connection.server.pid, connection.server.secret_key.clone());
        if cancel {
            self.cancel_process(pid, &key).await;
        }
        let since = Instant::now();
        let mut closed = std::pin::pin!(close(connection));
        let mut warned = false;
        while tokio::time::timeout(CLOSES_WITHIN, &mut closed).await.is_err() {
            if !warned {
                warned = true;
                let organization = held.as_ref().map(|held| held.line.limits.org().as_str());
                tracing::warn!(
                    shard = %self.stats.shard,
                    organization,
                    server_pid = pid,
                    "a server process works on after its session has ended: its place comes back when it ends"
                );
            }
            if cancel {
                self.cancel_process(pid, &key).await;
            }
        }
        if warned {
            let after_s = since.elapsed().as_secs();
            tracing::info!(shard = %self.stats.shard, server_pid = pid, after_s, "that server process has ended");
        }
        drop(held);
    }

    async fn cancel_process(&self, pid: i32, key: &[u8]) {
        let settings = self.settings();
        if let Err(error) = crate::server::cancel(&settings.spec, pid, key).await {
            tracing::warn!(shard = %settings.spec.shard, %error, "a cancel request was not answered");
        }
    }
}

/// Says goodbye, and reads on until the server has closed its end: one that still sends gets rid of it, and reads.
async fn close(connection: Box<Connection>) {
    let (mut reader, mut writer) = tokio::io::split(connection.server.stream);
    let mut bytes = Vec::new();
    frame::put(&mut bytes, frame::frontend::TERMINATE, |_| {});
    let goodbye = async {
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
    };
    let ended = read_to_end(&mut reader);
    tokio::pin!(goodbye, ended);
    tokio::select! {
        () = &mut ended => {}
        () = &mut goodbye => ended.await,
    }
}

async fn read_to_end(reader: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = reader.read(&mut bytes).await {}
}
