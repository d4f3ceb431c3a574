//! The fair queue: one line an organization, and whose turn it is (start-time fair queueing, Goyal 1996).
//!
//! Each line is charged the server time it used, divided by its weight; the line that is charged least goes first. A line
//! that was away does not save up: it starts at the present.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Wish;
use super::lease::Grant;
use crate::limits::OrgLimits;
use crate::refusal::Refusal;

/// What a statement is charged before its time is known, where its organization has run none.
const FIRST_CHARGE_S: f64 = 0.001;

/// The most of `size` connections that one organization may hold: an eighth is left for those that hold none, and at
/// least one, where there is more than one.
pub fn held_max(size: usize) -> usize {
    size.saturating_sub((size / 8).max(1)).max(1)
}

/// The most of `size` connections that one organization's sessions may keep beyond their transactions: half.
pub(super) fn pinned_max(size: usize) -> usize {
    (size / 2).max(1)
}

/// A statement that waits.
pub(super) struct Waiter {
    pub(super) wish: Wish,
    pub(super) since: Instant,
    pub(super) patience: Duration,
    /// Not so where the session has one, and waits for its turn only.
    pub(super) wants_connection: bool,
    pub(super) answer: oneshot::Sender<Result<Grant, Refusal>>,
}

/// One organization's line at one pool. Sessions hold it; it is forgotten when none does.
pub struct Line {
    pub(super) limits: Arc<OrgLimits>,
    pub(super) waiters: RefCell<VecDeque<Waiter>>,
    /// Server connections this organization holds here.
    pub(super) holding: Cell<usize>,
    /// Sessions of it that keep their connection.
    pub(super) pinned: Cell<usize>,
    /// Virtual time up to which it has been charged.
    charged: Cell<f64>,
    /// What one of its statements has used lately, in seconds.
    usual_s: Cell<f64>,
}

impl Line {
    pub(super) fn new(limits: Arc<OrgLimits>) -> Self {
        Self {
            limits,
            waiters: RefCell::default(),
            holding: Cell::new(0),
            pinned: Cell::new(0),
            charged: Cell::new(0.0),
            usual_s: Cell::new(FIRST_CHARGE_S),
        }
    }

    fn weight(&self) -> f64 {
        f64::from(self.limits.weight().max(1))
    }

    /// Whether one more connection is more than what its weight among `waiting` makes of `size` connections, rounded up.
    fn would_exceed_its_share(&self, waiting: &[Rc<Self>], size: usize) -> bool {
        let all: f64 = waiting.iter().map(|line| line.weight()).sum();
        let share = (size as f64 * self.weight() / all).ceil();
        (self.holding.get() + 1) as f64 > share
    }
}

/// The virtual clock of one pool.
#[derive(Debug, Default)]
pub(super) struct Clock(Cell<f64>);

impl Clock {
    /// The virtual time at which the head of `line` would start.
    pub(super) fn start_of(&self, line: &Line) -> f64 {
        line.charged.get().max(self.0.get())
    }

    /// Starts a statement of `line`: charges what its statements usually use, and returns that.
    pub(super) fn begin(&self, line: &Line) -> f64 {
        let start = self.start_of(line);
        self.0.set(start);
        let charge = line.usual_s.get();
        line.charged.set(start + charge / line.weight());
        charge
    }

    /// Charges `line` for what was done for it outside of any statement.
    pub(super) fn charge(&self, line: &Line, used: Duration) {
        line.charged.set(self.start_of(line) + used.as_secs_f64() / line.weight());
    }

    /// Ends a statement of `line` that was charged `charge` and used `used`: corrects the charge.
    pub(super) fn end(&self, line: &Line, charge: f64, used: Duration) {
        let used = used.as_secs_f64();
        line.charged.set(line.charged.get() + (used - charge) / line.weight());
        line.usual_s.set(line.usual_s.get() * 0.875 + used * 0.125);
    }
}

/// Which of `lines` goes next: the one charged least of those that `may_go`; but before one that would hold more than
/// its share of `size` connections, one that holds none, whatever it has used before.
///
/// Looks at each waiting organization once or twice; there are as many as wait at one shard on one data thread.
pub(super) fn next<'a>(
    clock: &Clock,
    lines: &'a [Rc<Line>],
    size: usize,
    may_go: impl Fn(&Line) -> bool,
) -> Option<&'a Rc<Line>> {
    let best = least_charged(clock, lines, &may_go)?;
    if best.holding.get() == 0 || !best.would_exceed_its_share(lines, size) {
        return Some(best);
    }
    least_charged(clock, lines, |line| line.holding.get() == 0 && may_go(line)).or(Some(best))
}

/// The line with the earliest start; of equals, the one that holds least.
fn least_charged<'a>(clock: &Clock, lines: &'a [Rc<Line>], may_go: impl Fn(&Line) -> bool) -> Option<&'a Rc<Line>> {
    let mut best: Option<(&Rc<Line>, f64)> = None;
    for line in lines {
        let start = clock.start_of(line);
        let sooner = |(best, least): (&Rc<Line>, f64)| {
            start < least || start <= least && line.holding.get() < best.holding.get()
        };
        if best.is_none_or(sooner) && may_go(line) {
            best = Some((line, start));
        }
    }
    best.map(|(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tier;
    use crate::ids::OrgId;
    use crate::limits::Limits;

    fn line(name: &str, weight: u32) -> Rc<Line> {
        let tier = Arc::new(Tier { weight, ..Tier::default() });
        Rc::new(Line::new(Limits::default().organization(&OrgId::new(name).expect("a name"), &tier)))
    }

    fn share(lines: &[Rc<Line>], cost_s: &[f64], turns: usize) -> Vec<f64> {
        let clock = Clock::default();
        let mut used = vec![0.0; lines.len()];
        for _ in 0..turns {
            let line = next(&clock, lines, 1, |_| true).expect("somebody waits");
            let at = lines.iter().position(|other| Rc::ptr_eq(other, line)).expect("one of them");
            let charge = clock.begin(line);
            clock.end(line, charge, Duration::from_secs_f64(cost_s[at]));
            used[at] += cost_s[at];
        }
        let total: f64 = used.iter().sum();
        used.iter().map(|used| used / total).collect()
    }

    #[test]
    fn a_pool_of_any_size_keeps_a_connection_for_those_who_hold_none_unless_it_has_only_one() {
        let held = [1, 2, 3, 4, 7, 8, 9, 15, 16, 20, 24].map(|size| (size, held_max(size)));
        let expected = [(1, 1), (2, 1), (3, 2), (4, 3), (7, 6), (8, 7), (9, 8), (15, 14), (16, 14), (20, 18), (24, 21)];
        assert_eq!(held, expected);
        assert_eq!([1, 2, 3, 4, 20].map(pinned_max), [1, 1, 1, 2, 10]);
    }

    #[test]
    fn organizations_get_equal_time_however_long_their_statements_are() {
        let lines = [line("a", 1), line("b", 1), line("c", 1)];
        for part in share(&lines, &[0.1, 0.01, 0.003], 20_000) {
            assert!((part - 1.0 / 3.0).abs() < 0.02, "{part}");
        }
    }

    #[test]
    fn weights_are_shares() {
        let lines = [line("a", 1), line("b", 4)];
        let parts = share(&lines, &[0.01, 0.01], 10_000);
        assert!((parts[1] - 0.8).abs() < 0.02, "{parts:?}");
    }

    #[test]
    fn who_comes_new_goes_before_who_has_used_much_and_does_not_save_up() {
        let (busy, new) = (line("busy", 1), line("new", 1));
        let clock = Clock::default();
        for _ in 0..1000 {
            let charge = clock.begin(&busy);
            clock.end(&busy, charge, Duration::from_millis(10));
        }
        let lines = [Rc::clone(&busy), Rc::clone(&new)];
        assert!(next(&clock, &lines, 1, |_| true).is_some_and(|first| Rc::ptr_eq(first, &new)));
        // Having been away for long, it gets one turn ahead and not a thousand.
        let charge = clock.begin(&new);
        clock.end(&new, charge, Duration::from_millis(20));
        assert!(next(&clock, &lines, 1, |_| true).is_some_and(|first| Rc::ptr_eq(first, &busy)));
    }

    #[test]
    fn who_holds_nothing_goes_before_who_holds_its_share_whatever_it_has_used() {
        let (many, none) = (line("many", 1), line("none", 1));
        let clock = Clock::default();
        let charge = clock.begin(&none);
        clock.end(&none, charge, Duration::from_secs(100));
        let lines = [Rc::clone(&many), Rc::clone(&none)];
        for (holding, first) in [(0, &many), (1, &many), (2, &none), (3, &none)] {
            many.holding.set(holding);
            assert!(next(&clock, &lines, 4, |_| true).is_some_and(|next| Rc::ptr_eq(next, first)), "{holding}");
        }
        // A greater weight is a greater share: four fifths of four, rounded up.
        let heavy = line("heavy", 4);
        heavy.holding.set(3);
        let lines = [Rc::clone(&heavy), none];
        assert!(next(&clock, &lines, 4, |_| true).is_some_and(|next| Rc::ptr_eq(next, &heavy)));
    }

    #[test]
    fn what_was_done_for_a_line_before_its_turn_counts() {
        let lines = [line("judged", 1), line("other", 1)];
        let clock = Clock::default();
        clock.charge(&lines[0], Duration::from_millis(5));
        assert!(next(&clock, &lines, 1, |_| true).is_some_and(|next| Rc::ptr_eq(next, &lines[1])));
    }

    #[test]
    fn who_may_not_go_is_passed_over() {
        let lines = [line("a", 1), line("b", 1)];
        let clock = Clock::default();
        let first = next(&clock, &lines, 1, |line| line.limits.org().as_str() == "b");
        assert!(first.is_some_and(|line| line.limits.org().as_str() == "b"));
    }
}
