//! Long statements are judged here: on threads of their own, one text of an organization at a time, organizations in turn.
//!
//! To judge a text of a megabyte takes up to a second. On the thread of its session it would keep all others waiting; on
//! threads that are shared in the order of arrival, one organization's texts would keep everybody else's.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::frontend::{in_turn, statement_text};
use crate::guard::{Guard, Rights, Verdict};
use crate::ids::OrgId;
use crate::refusal::Refusal;
use crate::wire::frame;

/// The fewest threads: with one of them a second organization would wait for the first one's text.
const JUDGES_MIN: usize = 2;
/// The most threads.
const JUDGES_MAX: usize = 8;

/// A statement to be judged: a Query, or a Parse, at the beginning of what its session has read.
pub(super) struct LongStatement {
    /// What the session has read; shared, so that the text need not be copied.
    pub(super) message: Arc<Vec<u8>>,
    /// The size of the message.
    pub(super) size: usize,
    /// It is a Parse.
    pub(super) parse: bool,
    pub(super) guard: Arc<Guard>,
    pub(super) rights: Rights,
}

impl LongStatement {
    fn judge(&self) -> Result<Arc<Verdict>, Refusal> {
        let body = self.message.get(frame::HEADER_BYTES..self.size).unwrap_or_default();
        let text = if self.parse { frame::split_cstr(body).map_or(&[][..], |(_, rest)| rest) } else { body };
        let judge = |text| self.guard.judge(text, &self.rights).map_err(|refusal| in_turn(text, refusal));
        statement_text(text).and_then(judge)
    }
}

/// A verdict, or a refusal.
pub(super) struct Judged {
    pub(super) verdict: Result<Arc<Verdict>, Refusal>,
    /// How long judging took, without the wait for it.
    pub(super) took: Duration,
}

/// The threads that judge long statements, and the line before them. Dropping it ends the threads.
pub struct Judges(Arc<FairQueue<Job>>);

/// A long statement and who waits for the verdict.
struct Job {
    statement: LongStatement,
    answer: oneshot::Sender<Judged>,
}

impl Work for Job {
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn run(self) {
        let begun = Instant::now();
        let verdict = self.statement.judge();
        // The session wants its bytes back, in one piece.
        drop(self.statement);
        drop(self.answer.send(Judged { verdict, took: begun.elapsed() }));
    }
}

impl Judges {
    /// Starts the threads: one for every two cores, at least two.
    pub fn start() -> io::Result<Arc<Self>> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let judges = Arc::new(Self(Arc::default()));
        for index in 0..(cores / 2).clamp(JUDGES_MIN, JUDGES_MAX) {
            let queue = Arc::clone(&judges.0);
            thread::Builder::new().name(format!("judge-{index}")).spawn(move || queue.work())?;
        }
        Ok(judges)
    }

    /// Puts a statement at the end of its organization's line. Dropping the receiver takes it out again, if its turn has not
    /// come; an error of the receiver means that judging failed.
    pub(super) fn judge(&self, org: &OrgId, statement: LongStatement) -> oneshot::Receiver<Judged> {
        let (answer, verdict) = oneshot::channel();
        self.0.enter(org, Job { statement, answer });
        verdict
    }
}

impl Drop for Judges {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for Judges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judges").finish_non_exhaustive()
    }
}

/// Something to be done in turn.
trait Work: Send {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Does it.
    fn run(self);
}

/// The lines of all organizations, and the threads that serve them.
struct FairQueue<W> {
    lines: Mutex<Lines<W>>,
    /// Something is to be done.
    changed: Condvar,
}

impl<W> Default for FairQueue<W> {
    fn default() -> Self {
        Self { lines: Mutex::new(Lines::default()), changed: Condvar::new() }
    }
}

struct Lines<W> {
    /// What each organization waits for. It has as many sessions as its tier allows, and each waits for one thing.
    waiting: HashMap<OrgId, VecDeque<W>>,
    /// Organizations that wait and for which nothing is being done, the one whose turn it is first.
    turns: VecDeque<OrgId>,
    closed: bool,
}

impl<W> Default for Lines<W> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new(), closed: false }
    }
}

impl<W: Work> FairQueue<W> {
    fn enter(&self, org: &OrgId, work: W) {
        let mut lines = self.lines.lock();
        match lines.waiting.get_mut(org) {
            Some(line) => {
                // What nobody waits for any more is not to be kept until its turn comes.
                line.retain(Work::is_wanted);
                line.push_back(work);
            }
            None => {
                lines.waiting.insert(org.clone(), VecDeque::from([work]));
                lines.turns.push_back(org.clone());
                self.changed.notify_one();
            }
        }
    }

    /// What is to be done next, and for whom; none when the queue is closed.
    fn next(&self) -> Option<(OrgId, W)> {
        let mut lines = self.lines.lock();
        loop {
            if lines.closed {
                return None;
            }
            let Some(org) = lines.turns.pop_front() else {
                self.changed.wait(&mut lines);
                continue;
            };
            let line = lines.waiting.get_mut(&org);
            let work = line.and_then(|line| std::iter::from_fn(|| line.pop_front()).find(Work::is_wanted));
            match work {
                Some(work) => return Some((org, work)),
                None => drop(lines.waiting.remove(&org)),
            }
        }
    }

    /// Something of `org` is done: it goes to the end of the turns, if it waits for more.
    fn done(&self, org: OrgId) {
        let mut lines = self.lines.lock();
        if lines.waiting.get(&org).is_some_and(|line| !line.is_empty()) {
            lines.turns.push_back(org);
            self.changed.notify_one();
        } else {
            lines.waiting.remove(&org);
        }
    }

    fn work(&self) {
        while let Some((org, work)) = self.next() {
            // A panic must not take the thread away from all others; its session hears that judging failed.
            let ran = catch_unwind(AssertUnwindSafe(|| work.run()));
            if ran.is_err() {
                tracing::error!(%org, "judging a statement panicked");
            }
            self.done(org);
        }
    }

    fn close(&self) {
        let mut lines = self.lines.lock();
        *lines = Lines { closed: true, ..Lines::default() };
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Note {
        wanted: bool,
        name: &'static str,
    }

    impl Work for Note {
        fn is_wanted(&self) -> bool {
            self.wanted
        }

        fn run(self) {
            assert_ne!(self.name, "panics");
        }
    }

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    fn enter(queue: &FairQueue<Note>, of: &str, name: &'static str) {
        queue.enter(&org(of), Note { wanted: true, name });
    }

    fn order(queue: &FairQueue<Note>, count: usize) -> Vec<&'static str> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (org, note) = queue.next().unwrap();
            names.push(note.name);
            queue.done(org);
        }
        names
    }

    #[test]
    fn organizations_take_turns_however_many_texts_one_of_them_has() {
        let queue = FairQueue::default();
        for name in ["a1", "a2", "a3", "a4"] {
            enter(&queue, "a", name);
        }
        enter(&queue, "b", "b1");
        enter(&queue, "c", "c1");
        enter(&queue, "b", "b2");
        assert_eq!(order(&queue, 7), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert!(queue.lines.lock().waiting.is_empty(), "who waits for nothing is forgotten");
    }

    #[test]
    fn an_organization_has_one_text_judged_at_a_time() {
        let queue = FairQueue::default();
        for (of, name) in [("a", "a1"), ("a", "a2"), ("b", "b1")] {
            enter(&queue, of, name);
        }
        let (a, first) = queue.next().unwrap();
        let (b, second) = queue.next().unwrap();
        assert_eq!((first.name, second.name), ("a1", "b1"), "a second thread does not take a second one of the same");
        enter(&queue, "a", "a3");
        assert!(queue.lines.lock().turns.is_empty());
        queue.done(b);
        assert!(queue.lines.lock().turns.is_empty());
        queue.done(a);
        assert_eq!(order(&queue, 2), ["a2", "a3"]);
    }

    #[test]
    fn who_has_left_is_passed_over_and_forgotten() {
        let queue = FairQueue::default();
        for (wanted, name) in [(true, "1"), (false, "2"), (false, "3"), (true, "4"), (false, "5")] {
            queue.enter(&org("a"), Note { wanted, name });
        }
        assert!(queue.lines.lock().waiting[&org("a")].len() <= 3, "what nobody waits for does not pile up");
        enter(&queue, "b", "b");
        assert_eq!(order(&queue, 3), ["1", "b", "4"]);
        queue.enter(&org("c"), Note { wanted: false, name: "6" });
        enter(&queue, "b", "b");
        assert_eq!(order(&queue, 1), ["b"]);
        assert!(queue.lines.lock().waiting.is_empty());
    }

    #[test]
    fn a_panic_costs_neither_the_thread_nor_the_turn() {
        let queue = Arc::new(FairQueue::default());
        enter(&queue, "a", "panics");
        enter(&queue, "a", "goes on");
        enter(&queue, "b", "goes on");
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.work())
        };
        while !queue.lines.lock().waiting.is_empty() {
            thread::yield_now();
        }
        queue.close();
        worker.join().unwrap();
    }
}
