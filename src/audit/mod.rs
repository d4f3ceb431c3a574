//! Writes who did what as JSON lines, off the hot path, through a bounded queue.
//!
//! When the queue is full: records of statements give way first (they may use three quarters of it), so that connects,
//! disconnects and refusals find room; whatever is lost nevertheless is counted ([`AuditCounters`]) and told in the file
//! itself by a line `audit_gap` as soon as there is space. Lines are flushed each second and at stop, without fsync: a
//! crash of the machine may lose what the kernel still held. The file is made anew when it was renamed or removed, which
//! is looked at each second, so that `logrotate` needs no signal.

mod record;
mod trail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::config::StatementAudit;
use crate::event::{Event, Observer, StatementClass};
use crate::metrics::AuditCounters;

pub use record::may_be_quoted;

use trail::Trail;

/// Records that wait to be written, at most.
const QUEUE_MAX: usize = 8192;
/// How often the file is flushed and looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why there can be no audit trail.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened for appending.
    #[error("the audit file {path} cannot be opened")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no thread to write it.
    #[error("no thread for the audit trail")]
    Thread(#[source] io::Error),
}

/// Starts the trail: what listens, and what writes. The file is made if need be, readable by its owner alone.
pub fn start(
    path: &Path,
    statements: StatementAudit,
    counters: Arc<AuditCounters>,
) -> Result<(AuditObserver, AuditWriter), AuditError> {
    let trail = Trail::open(path).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
    let (observer, receiver) = channel(QUEUE_MAX, statements, counters);
    let sender = observer.sender.clone();
    let scribe = Scribe { trail, shared: Arc::clone(&observer.shared) };
    let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || scribe.run(&receiver));
    let thread = thread.map_err(AuditError::Thread)?;
    Ok((observer, AuditWriter { sender, thread: Some(thread) }))
}

fn channel(
    queue_max: usize,
    statements: StatementAudit,
    counters: Arc<AuditCounters>,
) -> (AuditObserver, Receiver<Message>) {
    let (sender, receiver) = sync_channel(queue_max);
    let shared = Shared { queue_max, queued: AtomicUsize::new(0), gap: Gap::default(), counters };
    (AuditObserver { sender, shared: Arc::new(shared), statements }, receiver)
}

/// Puts what is to be recorded into the queue; never waits.
#[derive(Debug)]
pub struct AuditObserver {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    statements: StatementAudit,
}

impl Observer for AuditObserver {
    fn event(&self, event: &Event) {
        let importance = match event {
            Event::SessionOpened(_)
            | Event::SessionClosed { .. }
            | Event::LoginRefused { .. }
            | Event::Refused { .. } => Importance::Security,
            Event::Statement { class, .. } if wants(self.statements, *class) => Importance::Statement,
            Event::Statement { .. } | Event::ShardUp(_) | Event::ShardDown(..) | Event::ShardAttested { .. } => return,
        };
        if !self.shared.has_room(importance) {
            return self.shared.lost(importance, 1);
        }
        // Counted before it is sent, so that the count never falls below zero.
        self.shared.queued.fetch_add(1, Relaxed);
        let entry = Entry { at: SystemTime::now(), importance, event: event.clone() };
        if self.sender.try_send(Message::Entry(Box::new(entry))).is_err() {
            self.shared.queued.fetch_sub(1, Relaxed);
            self.shared.lost(importance, 1);
        }
    }

    fn wants_statements(&self, class: StatementClass) -> bool {
        wants(self.statements, class)
    }
}

fn wants(statements: StatementAudit, class: StatementClass) -> bool {
    use StatementClass::{Copy, Ddl, Read, Session, Transaction, Utility, Write};
    match statements {
        StatementAudit::All => true,
        StatementAudit::None => false,
        StatementAudit::Writes => match class {
            // COPY may be either; rather one line too many.
            Write | Ddl | Copy | Utility => true,
            Read | Session | Transaction => false,
        },
    }
}

/// The writing side. Dropping it writes what is queued and ends the thread, as [`AuditWriter::stop`] does.
#[derive(Debug)]
pub struct AuditWriter {
    sender: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl AuditWriter {
    /// Writes what is queued, then ends. Blocks until it is written; what comes later is counted as lost.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Waits for room at most as long as the writer needs to make it; a writer that died has no receiver.
        let told = self.sender.send(Message::Stop);
        if told.is_err() | thread.join().is_err() {
            tracing::error!("the audit writer ended before it was told to");
        }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

#[derive(Debug)]
enum Message {
    Entry(Box<Entry>),
    Stop,
}

/// An event, as it was when it happened.
#[derive(Debug)]
struct Entry {
    at: SystemTime,
    importance: Importance,
    event: Event,
}

/// Who gives way when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Importance {
    /// Connects, disconnects, refusals.
    Security,
    /// Statements that went through.
    Statement,
}

#[derive(Debug)]
struct Shared {
    queue_max: usize,
    queued: AtomicUsize,
    gap: Gap,
    counters: Arc<AuditCounters>,
}

impl Shared {
    fn has_room(&self, importance: Importance) -> bool {
        match importance {
            // The channel itself is the bound.
            Importance::Security => true,
            Importance::Statement => self.queued.load(Relaxed) < self.queue_max / 4 * 3,
        }
    }

    fn lost(&self, importance: Importance, count: u64) {
        let (gap, total) = match importance {
            Importance::Security => (&self.gap.security, &self.counters.security_dropped_total),
            Importance::Statement => (&self.gap.statements, &self.counters.statements_dropped_total),
        };
        gap.fetch_add(count, Relaxed);
        total.fetch_add(count, Relaxed);
    }
}

/// What was lost and is not told in the file yet.
#[derive(Debug, Default)]
struct Gap {
    security: AtomicU64,
    statements: AtomicU64,
}

/// The thread that writes.
struct Scribe {
    trail: Trail,
    shared: Arc<Shared>,
}

impl Scribe {
    /// Until told to stop, or until nobody is left to tell anything.
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut ticked = Instant::now();
        loop {
            match receiver.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Message::Entry(entry)) => self.write(&entry),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            } else if self.trail.is_large() {
                self.flush();
            }
        }
        self.tell_gap();
        self.flush();
    }

    fn tick(&mut self) {
        self.tell_gap();
        self.flush();
        if self.trail.has_moved() {
            let opened = self.trail.reopen();
            self.note(opened);
        }
    }

    fn write(&mut self, entry: &Entry) {
        self.shared.queued.fetch_sub(1, Relaxed);
        self.tell_gap();
        let Some(line) = record::line(entry.at, &entry.event) else { return };
        if !self.trail.append(&line) {
            self.shared.lost(entry.importance, 1);
        }
    }

    /// Says in the file what was lost, if anything was and there is space to say it.
    fn tell_gap(&mut self) {
        let gap = &self.shared.gap;
        let (security, statements) = (gap.security.swap(0, Relaxed), gap.statements.swap(0, Relaxed));
        if security + statements == 0 {
            return;
        }
        if !self.trail.append(&record::gap(SystemTime::now(), security, statements)) {
            gap.security.fetch_add(security, Relaxed);
            gap.statements.fetch_add(statements, Relaxed);
        }
    }

    fn flush(&mut self) {
        let flushed = self.trail.flush();
        let written = self.trail.take_written();
        self.shared.counters.written_total.fetch_add(written, Relaxed);
        self.note(flushed);
    }

    fn note(&mut self, result: io::Result<()>) {
        if result.is_err() {
            self.shared.counters.write_failures_total.fetch_add(1, Relaxed);
        }
        match (self.trail.set_failing(result.is_err()), result) {
            (true, Err(error)) => tracing::error!(%error, "the audit file cannot be written"),
            (true, Ok(())) => tracing::warn!("the audit file can be written again"),
            (false, _) => {}
        }
    }
}

#[cfg(test)]
mod tests;
