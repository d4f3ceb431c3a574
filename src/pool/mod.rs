//! The pool: server connections of one shard on one data thread, and the one place where a statement waits.
//!
//! It alone gives server connections away, and only such as have confirmed the asker's context. Who waits is chosen by
//! the fair queue (`line`); which connection is chosen by what it was told: the same session's, then the same context's.

mod bond;
mod cleaning;
mod connection;
mod gate;
mod inquiry;
mod keeper;
mod lease;
mod line;
mod reaper;
mod pins;
mod statements;
pub mod stats;

pub use bond::Telling;
pub use cleaning::{Cleaning, Left};
pub use connection::{AskError, Connection, Taint};
pub use gate::{Fitness, Gate};
pub use inquiry::{Answer, ServerNo};
pub use lease::Lease;
pub use line::{Line, held_max};
pub use pins::PinPlace;
pub use statements::{Entry, LARGE_TEXT_BYTES, Prepared, Statement, StatementKey, Statements};

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use crate::context::Context;
use crate::event::Observer;
use crate::ids::{OrgId, SessionId};
use crate::limits::{OrgLimits, Permit, Queued};
use crate::refusal::{Kind, Refusal};
use crate::server::{self, ConnectSpec};
use keeper::{Chore, Health};
use lease::Grant;
use line::{Clock, Waiter};
use stats::PoolStats;

/// Attempts to tell a connection its context before the statement is refused; each failure closes one connection.
const TELL_ATTEMPTS: usize = 3;

/// What a pool is made to be; replaced whole on reload.
#[derive(Debug)]
pub struct PoolSettings {
    /// How to reach the shard.
    pub spec: ConnectSpec,
    /// How its connections are told contexts.
    pub telling: Telling,
    /// Whether the shard may be served.
    pub gate: Arc<Gate>,
    /// The most server connections.
    pub size: usize,
    /// Server connections kept open even when unused.
    pub min_size: usize,
    /// The age at which a connection is closed.
    pub lifetime: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How long a statement may wait, where its tier does not say.
    pub wait_timeout: Duration,
    /// Prepared statements kept on each connection.
    pub max_prepared_statements: usize,
    /// Rises with each reload that changes how the shard is reached; older connections are closed.
    pub epoch: u64,
    /// No connection is opened, and those that are idle or come back are closed, so that none is lent; who already has one
    /// goes on.
    pub paused: bool,
}

/// Who asks for a server connection.
#[derive(Clone)]
pub struct Asker {
    /// Its organization's line at this pool.
    pub line: Rc<Line>,
    /// What the connection must be.
    pub wish: Wish,
}

/// Which connection does without a word, and what another one must be told.
#[derive(Clone)]
pub struct Wish {
    /// The session.
    pub session: SessionId,
    /// What the connection must have confirmed.
    pub context: Context,
    /// The server process that remembers what the session last took from a sequence, if it is still the session's.
    pub sequences_on: Option<i32>,
    /// The session asks for `currval` or `lastval`, so that it must not meet what code took for another one.
    pub asks_sequences: bool,
}

/// A turn that is waited for.
type Turn = oneshot::Receiver<Result<Grant, Refusal>>;

/// The server connections of one shard on one data thread.
pub struct Pool {
    settings: RefCell<Rc<PoolSettings>>,
    stats: Arc<PoolStats>,
    observer: Arc<dyn Observer>,
    clock: Clock,
    /// Statements that sessions of this pool have prepared.
    pub statements: Statements,
    /// Connections nobody has, the longest unused first.
    idle: RefCell<VecDeque<Box<Connection>>>,
    /// Connections there are: idle, lent, being opened or closed.
    open: Cell<usize>,
    connecting: Cell<usize>,
    pinned: Cell<usize>,
    lines: RefCell<HashMap<OrgId, Weak<Line>>>,
    /// The lines with somebody in them.
    waiting: RefCell<Vec<Rc<Line>>>,
    health: RefCell<Health>,
    back_off: Cell<Duration>,
    retry_at: Cell<Instant>,
    /// A connection was lost or the shard is reached in another way now: whether it can be reached is to be tried.
    doubtful: Cell<bool>,
    /// What a fresh connection says of its settings.
    parameters: RefCell<Rc<[(String, String)]>>,
    chores: mpsc::UnboundedSender<Chore>,
    bell: Arc<Bell>,
    me: Weak<Pool>,
}

/// Rung, from any thread, when a permit that somebody waits for has come free.
struct Bell(Notify);

impl Bell {
    async fn rung(&self) {
        self.0.notified().await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("shard", &self.stats.shard).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool and its keeper; must be called on the data thread whose pool it is. It ends when the last `Rc` is dropped.
    pub fn start(settings: PoolSettings, stats: Arc<PoolStats>, observer: Arc<dyn Observer>) -> Rc<Self> {
        let (chores, inbox) = mpsc::unbounded_channel();
        let pool = Rc::new_cyclic(|me| Self {
            settings: RefCell::new(Rc::new(settings)),
            stats,
            observer,
            clock: Clock::default(),
            statements: Statements::default(),
            idle: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            pinned: Cell::new(0),
            lines: RefCell::default(),
            waiting: RefCell::default(),
            health: RefCell::new(Health::Starting),
            back_off: Cell::new(Duration::ZERO),
            retry_at: Cell::new(Instant::now()),
            doubtful: Cell::new(false),
            parameters: RefCell::new(Rc::from([])),
            chores,
            bell: Arc::new(Bell(Notify::new())),
            me: Weak::clone(me),
        });
        spawn_local(keeper::keep(Rc::downgrade(&pool), inbox));
        pool.want_connection();
        pool
    }

    /// Replaces the settings; connections opened under another epoch close as they come back.
    pub fn configure(&self, settings: PoolSettings) {
        let old = self.settings.replace(Rc::new(settings));
        if old.epoch != self.settings.borrow().epoch {
            self.doubtful.set(true);
            self.retry_at.set(Instant::now());
        }
        if self.is_paused() {
            self.retire_idle(Instant::now());
        }
        self.dispatch();
    }

    /// Whether it makes sense to wait here; else the refusal (57P03) of a shard that is known not to be served.
    pub fn is_served(&self) -> Result<(), Refusal> {
        if self.settings.borrow().gate.fitness() == Fitness::Unfit {
            return Err(self.unavailable());
        }
        match &*self.health.borrow() {
            Health::Unfit(_) => Err(self.unavailable()),
            Health::Down(_) if self.open.get() == self.connecting.get() => Err(self.unavailable()),
            Health::Starting | Health::Up | Health::Down(_) => Ok(()),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Rc<PoolSettings> {
        Rc::clone(&self.settings.borrow())
    }

    /// Whether code in the shard's database may leave state on a connection that no statement shows.
    pub fn code_leaves(&self) -> bool {
        self.settings.borrow().gate.code_leaves()
    }

    /// What a fresh connection says of its settings; empty until there has been one.
    pub fn parameters(&self) -> Rc<[(String, String)]> {
        Rc::clone(&self.parameters.borrow())
    }

    /// Whether every connection is idle or being opened: none is lent, cancelled or closed.
    pub fn is_at_rest(&self) -> bool {
        self.open.get() == self.idle.borrow().len() + self.connecting.get()
    }

    /// The numbers of this pool.
    pub fn stats(&self) -> &Arc<PoolStats> {
        &self.stats
    }

    /// An organization's line here.
    pub fn line(&self, limits: &Arc<OrgLimits>) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        if let Some(line) = lines.get(limits.org()).and_then(Weak::upgrade)
            && Arc::ptr_eq(&line.limits, limits)
        {
            return line;
        }
        let line = Rc::new(Line::new(Arc::clone(limits)));
        lines.insert(limits.org().clone(), Rc::downgrade(&line));
        line
    }

    /// Lends a connection that already carries the asker's context, if its turn has come `now` and there is one.
    pub fn try_lease(&self, asker: &Asker, now: Instant) -> Option<Lease> {
        if !self.settings.borrow().gate.is_open() {
            return None;
        }
        let grant = self.turn_at_once(asker, true, now)?;
        debug_assert!(grant.suits(asker));
        Some(grant.into_lease(asker.wish.session))
    }

    /// Lends a connection that has confirmed the asker's context, after waiting its turn.
    ///
    /// Refused (53400) when the line is full or the wait too long, (57P03) when the shard cannot be reached or no
    /// connection would take the context. Dropping the future leaves the line.
    pub async fn lease(&self, asker: &Asker) -> Result<Lease, Refusal> {
        self.pass_gate().await?;
        let mut last = None;
        for _ in 0..TELL_ATTEMPTS {
            let grant = match self.turn_at_once(asker, false, Instant::now()) {
                Some(grant) => grant,
                None => {
                    // The place is the asker's, not the line's: who leaves makes room at once, wherever it stood.
                    let (_place, wait) = self.wait(asker, true)?;
                    wait.await.unwrap_or_else(|_| Err(self.unavailable()))?
                }
            };
            match grant.tell(asker).await {
                Ok(lease) => return Ok(lease),
                Err(error) => {
                    tracing::warn!(shard = %self.stats.shard, %error, "a server connection did not take a context");
                    last = Some(error);
                }
            }
        }
        Err(match last {
            Some(AskError::Refused(words)) => Refusal::new(
                Kind::ShardUnavailable,
                format!("the server does not accept this session's settings: {words}"),
            ),
            _ => self.unavailable(),
        })
    }

    /// Charges a line for work that the proxy did for it before its statement had a turn.
    pub fn charge(&self, line: &Line, used: Duration) {
        self.clock.charge(line, used);
    }

    /// Takes a turn for a lease that rests, waiting as for a new one; a lease that has one keeps it.
    pub async fn resume(&self, lease: &mut Lease, asker: &Asker) -> Result<(), Refusal> {
        if self.resume_at_once(lease, asker) {
            return Ok(());
        }
        let (_place, wait) = self.wait(asker, false)?;
        let grant = wait.await.unwrap_or_else(|_| Err(self.unavailable()))?;
        lease.take_turn(grant);
        Ok(())
    }

    /// Takes a turn for a lease that rests, if nobody of its organization waits; whether it has one now.
    pub fn resume_at_once(&self, lease: &mut Lease, asker: &Asker) -> bool {
        if !lease.is_resting() {
            return true;
        }
        let line = &asker.line;
        if !line.waiters.borrow().is_empty() {
            return false;
        }
        let (Some(permit), Some(pool)) = (line.limits.permit(), self.me.upgrade()) else { return false };
        lease.take_turn(Grant::new(pool, Rc::clone(line), None, permit, Instant::now()));
        true
    }

    /// Waits until the shard is known to be fit to be served; refused (57P03) where it is not, or not in a while.
    async fn pass_gate(&self) -> Result<(), Refusal> {
        let gate = Arc::clone(&self.settings.borrow().gate);
        if gate.is_open() || (self.is_served().is_ok() && gate.opens().await) {
            Ok(())
        } else {
            Err(self.unavailable())
        }
    }

    /// The refusal (57P03) of a shard that cannot be used; the client does not hear why.
    fn unavailable(&self) -> Refusal {
        Refusal::new(Kind::ShardUnavailable, "the database of this organization is not available now")
    }

    fn turn_at_once(&self, asker: &Asker, carrying: bool, now: Instant) -> Option<Grant> {
        let line = &asker.line;
        if !line.waiters.borrow().is_empty() || !self.may_hold_more(line) || self.is_unfit() {
            return None;
        }
        let at = self.pick(&asker.wish, carrying)?;
        let permit = line.limits.permit()?;
        self.grant(line, at, permit, now)
    }

    /// What a session has left on connections that it does not hold is nobody's from now on.
    pub fn disown(&self, session: SessionId) {
        let mut idle = self.idle.borrow_mut();
        idle.iter_mut().filter(|connection| connection.last_session == Some(session)).for_each(|it| it.disown());
    }

    /// Which idle connection suits best: the session's own last, else one of its context, else the longest unused.
    fn pick(&self, wish: &Wish, carrying: bool) -> Option<usize> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let (session, suits) = (wish.session, |connection: &Connection| connection.suits(wish));
            let own = idle.iter().rposition(|connection| connection.last_session == Some(session) && suits(connection));
            let like = own.or_else(|| idle.iter().rposition(|connection| suits(connection)));
            let at = match like {
                Some(at) => at,
                None if carrying || idle.is_empty() => return None,
                None => 0,
            };
            if idle.get_mut(at).is_some_and(|connection| connection.is_quiet()) {
                return Some(at);
            }
            if let Some(connection) = idle.remove(at) {
                self.doubt();
                self.hand_over(Chore::Close { connection, cancel: false, held: None });
            }
        }
    }

    fn grant(&self, line: &Rc<Line>, at: usize, permit: Permit, now: Instant) -> Option<Grant> {
        let connection = self.idle.borrow_mut().remove(at)?;
        self.stats.leases_total.fetch_add(1, Ordering::Relaxed);
        Some(Grant::new(self.me.upgrade()?, Rc::clone(line), Some(connection), permit, now))
    }

    /// Whether an organization may have one more connection: a little headroom is left for those that hold none.
    fn may_hold_more(&self, line: &Line) -> bool {
        line.holding.get() < held_max(self.settings.borrow().size)
    }

    /// Takes a place in the line.
    fn wait(&self, asker: &Asker, wants_connection: bool) -> Result<(Queued, Turn), Refusal> {
        if wants_connection {
            self.is_served()?;
        }
        let line = &asker.line;
        let place = line.limits.queue()?;
        let (answer, wait) = oneshot::channel();
        let tier = line.limits.tier();
        let patience = tier.query_wait_timeout.unwrap_or(self.settings.borrow().wait_timeout);
        let mut waiters = line.waiters.borrow_mut();
        if waiters.len() >= tier.max_queued_queries as usize {
            // No more than that many have places: the others have left.
            waiters.retain(|waiter| !waiter.answer.is_closed());
        }
        waiters.push_back(Waiter {
            wish: asker.wish.clone(),
            since: Instant::now(),
            patience,
            wants_connection,
            answer,
        });
        drop(waiters);
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| Rc::ptr_eq(known, line)) {
            waiting.push(Rc::clone(line));
        }
        drop(waiting);
        self.dispatch();
        Ok((place, wait))
    }

    /// Gives idle connections to whose turn it is, and asks for more where that would help.
    fn dispatch(&self) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut starved: Vec<Rc<Line>> = Vec::new();
        loop {
            self.forget_who_left();
            let line = {
                let waiting = self.waiting.borrow();
                let may_go =
                    |line: &Line| self.may_hold_more(line) && !starved.iter().any(|other| std::ptr::eq(&**other, line));
                line::next(&self.clock, &waiting, self.settings.borrow().size, may_go).cloned()
            };
            let Some(line) = line else { return };
            let chosen = {
                let waiters = line.waiters.borrow();
                waiters.front().and_then(|waiter| match waiter.wants_connection {
                    true => self.pick(&waiter.wish, false).map(Some),
                    false => Some(None),
                })
            };
            let Some(at) = chosen else {
                self.want_connection_for_waiters();
                // Who has a connection already needs none to come free.
                starved.push(line);
                continue;
            };
            let Some(permit) = line.limits.permit_or_wake(&waker) else {
                starved.push(line);
                continue;
            };
            let waiter = line.waiters.borrow_mut().pop_front();
            let grant = match at {
                Some(at) => self.grant(&line, at, permit, Instant::now()),
                None => self.me.upgrade().map(|pool| Grant::new(pool, Rc::clone(&line), None, permit, Instant::now())),
            };
            let (Some(waiter), Some(grant)) = (waiter, grant) else { return };
            self.stats.waited_us_total.fetch_add(waiter.since.elapsed().as_micros() as u64, Ordering::Relaxed);
            // Who has left in this very moment gives the turn back by dropping it.
            drop(waiter.answer.send(Ok(grant)));
        }
    }

    /// Drops waiters whose session has gone, and lines with nobody in them.
    fn forget_who_left(&self) {
        self.waiting.borrow_mut().retain(|line| {
            let mut waiters = line.waiters.borrow_mut();
            while waiters.front().is_some_and(|waiter| waiter.answer.is_closed()) {
                waiters.pop_front();
            }
            !waiters.is_empty()
        });
    }

    fn want_connection_for_waiters(&self) {
        let waiting: usize = self.waiting.borrow().iter().map(|line| line.waiters.borrow().len()).sum();
        if self.connecting.get() < waiting && Instant::now() >= self.retry_at.get() {
            self.want_connection();
        }
    }

    fn want_connection(&self) {
        if self.open.get() < self.settings.borrow().size && !self.is_paused() {
            self.open.set(self.open.get() + 1);
            self.connecting.set(self.connecting.get() + 1);
            self.hand_over(Chore::Connect);
        }
    }

    /// A connection has come back from a session.
    fn returned(&self, chore: Chore, now: Instant) {
        match chore {
            Chore::Keep { connection, held } => {
                drop(held);
                self.put_idle_since(connection, now);
            }
            other => self.hand_over(other),
        }
    }

    fn hand_over(&self, chore: Chore) {
        // The keeper lives as long as the pool; when both end, dropping the chore closes its connection.
        drop(self.chores.send(chore));
    }

    fn put_idle(&self, connection: Box<Connection>) {
        self.put_idle_since(connection, Instant::now());
    }

    fn put_idle_since(&self, mut connection: Box<Connection>, since: Instant) {
        let settings = self.settings.borrow();
        let old = since.saturating_duration_since(connection.server.opened) > settings.lifetime;
        let surplus = self.open.get() > settings.size;
        let stale = connection.epoch != settings.epoch || surplus || settings.paused || self.is_unfit();
        drop(settings);
        if connection.taint == Taint::Close {
            self.hand_over(Chore::Close { connection, cancel: false, held: None });
            return;
        }
        if old || stale {
            self.hand_over(Chore::Retire(connection));
            return;
        }
        // Such a context is taken off at once, lest the next organization meet it.
        if connection.told.as_ref().is_some_and(Context::is_hasty) {
            self.hand_over(Chore::Blank { connection });
            return;
        }
        connection.idle_since = since;
        self.idle.borrow_mut().push_back(connection);
        if !self.waiting.borrow().is_empty() {
            self.dispatch();
        }
    }

    /// A connection is gone.
    fn gone(&self) {
        self.open.set(self.open.get() - 1);
        self.dispatch();
    }

    /// A server connection was lost: whether the shard can still be reached is to be tried soon.
    fn doubt(&self) {
        self.doubtful.set(true);
    }

    /// A connection is gone because its state was not known to be clean, or its server is.
    fn discarded(&self) {
        self.stats.discarded_total.fetch_add(1, Ordering::Relaxed);
        self.gone();
    }

    fn is_paused(&self) -> bool {
        self.settings.borrow().paused
    }

    fn is_unfit(&self) -> bool {
        matches!(&*self.health.borrow(), Health::Unfit(_))
    }

    fn refuse_waiters(&self) {
        for line in std::mem::take(&mut *self.waiting.borrow_mut()) {
            for waiter in std::mem::take(&mut *line.waiters.borrow_mut()) {
                drop(waiter.answer.send(Err(self.unavailable())));
            }
        }
    }

    fn end_long_waits(&self, now: Instant) {
        for line in self.waiting.borrow().iter() {
            let mut waiters = line.waiters.borrow_mut();
            waiters.retain(|waiter| !waiter.answer.is_closed());
            while let Some(waiter) = waiters.front()
                && now.duration_since(waiter.since) >= waiter.patience
            {
                let Some(waiter) = waiters.pop_front() else { break };
                let waited_s = now.duration_since(waiter.since).as_secs();
                drop(waiter.answer.send(Err(line.limits.waited_too_long(waited_s))));
            }
        }
    }

    fn count_told(&self) {
        self.stats.contexts_told_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the request was answered is what the task returns; where it was not, it may still be on its way.
    fn send_cancel(&self, connection: &Connection) -> JoinHandle<bool> {
        let settings = self.settings();
        let (pid, key) = (connection.server.pid, connection.server.secret_key.clone());
        spawn_local(async move {
            let sent = server::cancel(&settings.spec, pid, &key).await;
            if let Err(error) = &sent {
                tracing::warn!(shard = %settings.spec.shard, %error, "a cancel request was not answered");
            }
            sent.is_ok()
        })
    }
}
