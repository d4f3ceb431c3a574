//! Writes who did what as JSON lines, off the hot path, through a bounded queue.
//!
//! Equal records of a second are one with a count, and each organization has a share of the trail and of the queue
//! (`shares`): what is beyond it is summed up in a line `audit_gap` of that organization's. When the queue is full all the
//! same, records of statements give way first, then refusals, so that connects and disconnects find room; whatever is lost
//! is counted ([`AuditCounters`]) and told in the file itself by a line `audit_gap` of nobody's, as soon as there is space.
//! Lines are written each second and at stop, without fsync: a crash of the machine may lose what the kernel still held. A
//! write that fails is tried again each second. The file is made anew when it was renamed or removed, which
//! is looked at each second, so that `logrotate` needs no signal.

mod record;
mod shares;
mod trail;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::config::StatementAudit;
use crate::event::{Event, Observer, StatementClass};
use crate::ids::OrgId;
use crate::metrics::AuditCounters;

pub use record::{cut, quoted};

use shares::{LeftOut, Place, Repeats, Share, Shares, Taken};
use trail::Trail;

/// Records that wait to be written, at most.
const QUEUE_MAX: usize = 16_384;
/// How often shares that nobody uses are looked for, in ticks.
const REAP_EVERY: u32 = 60;
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
    let scribe = Scribe::new(trail, Arc::clone(&observer.shared));
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
    let (queued, gap, shares) = Default::default();
    let shared = Arc::new(Shared { queue_max, queued, gap, shares, counters });
    (AuditObserver { sender, shared, statements, hashes: RandomState::new() }, receiver)
}

/// Puts what is to be recorded into the queue; never waits.
#[derive(Debug)]
pub struct AuditObserver {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    statements: StatementAudit,
    hashes: RandomState,
}

impl Observer for AuditObserver {
    fn event(&self, event: &Event) {
        let (importance, org) = match event {
            Event::SessionOpened(facts) | Event::SessionClosed { facts, .. } => (Importance::Session, Some(&facts.org)),
            Event::LoginRefused { org, .. } => (Importance::Refusal, org.as_ref()),
            Event::Refused { facts, .. } => (Importance::Refusal, Some(&facts.org)),
            Event::Statement { facts, class, .. } if wants(self.statements, *class) => {
                (Importance::Statement, Some(&facts.org))
            }
            Event::Statement { .. } | Event::ShardUp(_) | Event::ShardDown(..) | Event::ShardAttested { .. } => return,
        };
        let address = if let Event::LoginRefused { address, .. } = event { *address } else { None };
        let share = self.shared.shares.of(org, address);
        if !self.shared.has_room(importance, &share) {
            return self.shared.lost(importance, 1);
        }
        match share.take(Instant::now(), importance, self.key(event), record::bytes(event)) {
            Taken::Repeated | Taken::LeftOut(None) => {}
            Taken::New(repeats) => self.queue(share, importance, What::Event(record::kept(event), repeats)),
            Taken::LeftOut(Some(left_out)) => {
                self.queue(share, Importance::Session, What::LeftOut(org.cloned(), left_out));
            }
        }
    }

    fn wants_statements(&self, class: StatementClass) -> bool {
        wants(self.statements, class)
    }
}

impl AuditObserver {
    /// The same number for records that would be equal but for their time; none for those that never are.
    fn key(&self, event: &Event) -> Option<u64> {
        let mut hasher = self.hashes.build_hasher();
        match event {
            Event::LoginRefused { address, org, kind, why } => {
                (0, address, org, kind, cut(why)).hash(&mut hasher);
            }
            Event::Refused { facts, kind, message } => {
                (1, facts.session, kind, quoted(*kind, message)).hash(&mut hasher);
            }
            Event::Statement { facts, class, relations, failed } => {
                (2, facts.session, class, relations, failed).hash(&mut hasher);
            }
            _ => return None,
        }
        Some(hasher.finish())
    }

    fn queue(&self, share: Arc<Share>, importance: Importance, what: What) {
        // Counted before it is sent, so that the count never falls below zero.
        self.shared.queued.fetch_add(1, Relaxed);
        let entry = Entry { at: SystemTime::now(), importance, what, _place: Place::take(share) };
        let (TrySendError::Full(message) | TrySendError::Disconnected(message)) =
            match self.sender.try_send(Message::Entry(Box::new(entry))) {
                Ok(()) => return,
                Err(error) => error,
            };
        self.shared.queued.fetch_sub(1, Relaxed);
        if let Message::Entry(entry) = message {
            entry.lose(&self.shared);
        }
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

/// What is to be recorded, as it was when it happened.
#[derive(Debug)]
struct Entry {
    at: SystemTime,
    importance: Importance,
    what: What,
    _place: Place,
}

#[derive(Debug)]
enum What {
    /// An event, and how often it has been met.
    Event(Event, Arc<Repeats>),
    /// What was beyond an organization's share.
    LeftOut(Option<OrgId>, Arc<LeftOut>),
}

impl Entry {
    /// Its line, without its end; and how many records it stands for, by importance.
    fn line(&self) -> (Option<String>, [u64; 3]) {
        let mut counts = [0; 3];
        let line = match &self.what {
            What::Event(event, repeats) => {
                counts[self.importance as usize] = repeats.take();
                record::line(self.at, event, counts[self.importance as usize])
            }
            What::LeftOut(org, left_out) => {
                counts = left_out.take();
                record::left_out(self.at, org.as_ref(), counts)
            }
        };
        (line, counts)
    }

    /// Counts all that it stands for as lost.
    fn lose(&self, shared: &Shared) {
        shared.all_lost(self.line().1);
    }
}

/// Who gives way when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Importance {
    /// Connects and disconnects.
    Session,
    /// Refusals, of logins too.
    Refusal,
    /// Statements that went through.
    Statement,
}

impl Importance {
    const ALL: [Self; 3] = [Self::Session, Self::Refusal, Self::Statement];
}

#[derive(Debug)]
struct Shared {
    queue_max: usize,
    queued: AtomicUsize,
    gap: Gap,
    shares: Shares,
    counters: Arc<AuditCounters>,
}

impl Shared {
    /// Whether a record may be queued: what it may use of the whole queue, and its organization of that.
    fn has_room(&self, importance: Importance, share: &Share) -> bool {
        let sixteenths = match importance {
            Importance::Session => 16,
            Importance::Refusal => 12,
            Importance::Statement => 8,
        };
        let most = self.queue_max * sixteenths / 16;
        self.queued.load(Relaxed) < most && share.queued.load(Relaxed) < most.div_ceil(4)
    }

    fn all_lost(&self, counts: [u64; 3]) {
        for (importance, count) in Importance::ALL.into_iter().zip(counts) {
            self.lost(importance, count);
        }
    }

    fn lost(&self, importance: Importance, count: u64) {
        let (gap, total) = match importance {
            Importance::Session | Importance::Refusal => (&self.gap.security, &self.counters.security_dropped_total),
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
    /// What has come since the last tick: equal records are still counted in these.
    pending: Vec<Entry>,
    ticks: u32,
}

impl Scribe {
    fn new(trail: Trail, shared: Arc<Shared>) -> Self {
        Self { trail, shared, pending: Vec::new(), ticks: 0 }
    }

    /// Until told to stop, or until nobody is left to tell anything.
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut ticked = Instant::now();
        loop {
            match receiver.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Message::Entry(entry)) => self.pending.push(*entry),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            } else if self.pending.len() >= self.shared.queue_max / 2 {
                self.write_pending();
            }
        }
        self.write_pending();
        self.tell_gap();
        self.flush();
    }

    fn tick(&mut self) {
        self.write_pending();
        self.tell_gap();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(REAP_EVERY) {
            self.shared.shares.reap(Instant::now());
        }
        self.flush();
        if self.trail.has_moved() {
            let opened = self.trail.reopen();
            self.note(opened);
        }
    }

    fn write_pending(&mut self) {
        for entry in std::mem::take(&mut self.pending) {
            self.write(&entry);
            if self.trail.is_large() {
                self.flush();
            }
        }
    }

    fn write(&mut self, entry: &Entry) {
        self.shared.queued.fetch_sub(1, Relaxed);
        self.tell_gap();
        let (line, counts) = entry.line();
        let Some(line) = line else { return };
        if !self.trail.append(&line) {
            self.shared.all_lost(counts);
        } else if matches!(entry.what, What::LeftOut(..)) {
            self.shared.counters.summarized_total.fetch_add(counts.iter().sum(), Relaxed);
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
