//! What a pool does on the side: opens, cleans and closes server connections, watches the shard's health, ends waits.
//!
//! One task a pool. Sessions hand it chores; none of them waits for it.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};

use super::Pool;
use super::cleaning::Cleaning;
use super::connection::{Connection, Taint};
use super::reaper::Held;
use crate::event::Event;
use crate::server;

/// How often waits, ages and health are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long an idle connection keeps the context of who had it last.
const CONTEXT_KEPT: Duration = Duration::from_secs(15);

/// The first and the longest pause between attempts to reach a shard.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Something to be done with a connection, or about one.
pub(super) enum Chore {
    /// Back from a session, at a safe point.
    Keep { connection: Box<Connection>, held: Held },
    /// Back from a session, after a cancel that may still be on its way.
    Settle { connection: Box<Connection>, cancel: Option<JoinHandle<bool>>, held: Held },
    /// In an unknown state; `cancel` what it runs first.
    Close { connection: Box<Connection>, cancel: bool, held: Option<Held> },
    /// Idle, with a context that must go.
    Blank { connection: Box<Connection> },
    /// Clean, but too old, unused, or one too many.
    Retire(Box<Connection>),
    /// A new connection is wanted; its place is already counted.
    Connect,
}

/// The state of the shard as this pool sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// No connection has been tried yet.
    Starting,
    /// Connections can be had.
    Up,
    /// They cannot, and why.
    Down(String),
    /// They could, but must not: the shard is not fit to be served, and why.
    Unfit(String),
}

/// Runs `pool` until nobody holds it any more.
pub(super) async fn keep(pool: Weak<Pool>, mut chores: mpsc::UnboundedReceiver<Chore>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let Some(bell) = pool.upgrade().map(|pool| std::sync::Arc::clone(&pool.bell)) else { return };
    loop {
        tokio::select! {
            chore = chores.recv() => {
                let (Some(chore), Some(pool)) = (chore, pool.upgrade()) else { return };
                spawn_local(do_chore(pool, chore));
            }
            () = bell.rung() => {
                let Some(pool) = pool.upgrade() else { return };
                pool.dispatch();
            }
            _ = tick.tick() => {
                let Some(pool) = pool.upgrade() else { return };
                pool.look_after();
            }
        }
    }
}

async fn do_chore(pool: Rc<Pool>, chore: Chore) {
    match chore {
        Chore::Keep { connection, held } => {
            drop(held);
            pool.put_idle(connection);
        }
        Chore::Settle { mut connection, cancel, held } => {
            let answered = match cancel {
                Some(cancel) => cancel.await.unwrap_or_default(),
                None => true,
            };
            if !answered {
                // The request may still be on its way, and would hit whoever had the connection next.
                pool.reap(connection, true, Some(held)).await;
                pool.gone();
                return;
            }
            match connection.settle().await {
                Ok(()) => {
                    drop(held);
                    pool.put_idle(connection);
                }
                Err(error) => {
                    tracing::debug!(shard = %pool.stats.shard, %error, "server connection closed after a cancel");
                    pool.doubt();
                    pool.reap(connection, true, Some(held)).await;
                    pool.discarded();
                }
            }
        }
        Chore::Close { connection, cancel, held } => {
            pool.reap(connection, cancel, held).await;
            pool.discarded();
        }
        Chore::Retire(connection) => {
            pool.reap(connection, false, None).await;
            pool.gone();
        }
        Chore::Blank { connection } => blank(pool, connection, Instant::now()).await,
        Chore::Connect => connect(pool).await,
    }
}

/// Takes the context off an idle connection, and everything else that was left there.
async fn blank(pool: Rc<Pool>, mut connection: Box<Connection>, since: Instant) {
    match connection.tell(None, Cleaning::All).await {
        Ok(_) => pool.put_idle_since(connection, since),
        Err(_) => {
            pool.doubt();
            pool.reap(connection, true, None).await;
            pool.discarded();
        }
    }
}

async fn connect(pool: Rc<Pool>) {
    let settings = pool.settings();
    let result = Connection::open(&settings.spec, &settings.telling).await;
    pool.connecting.set(pool.connecting.get() - 1);
    match result {
        Ok(mut connection) => {
            pool.stats.connects_total.fetch_add(1, Ordering::Relaxed);
            pool.came_up(&connection.server.parameters);
            connection.epoch = settings.epoch;
            pool.put_idle(connection);
        }
        Err(error) => {
            pool.stats.connect_failures_total.fetch_add(1, Ordering::Relaxed);
            // First the pause, so that those who wait do not try at once.
            pool.open.set(pool.open.get() - 1);
            pool.failed(&error);
            pool.dispatch();
        }
    }
}

impl Pool {
    /// Remembers that the shard serves, and what a fresh connection says of its settings.
    fn came_up(&self, parameters: &[(String, String)]) {
        let was_up = matches!(&*self.health.borrow(), Health::Up);
        *self.parameters.borrow_mut() = parameters.into();
        self.back_off.set(Duration::ZERO);
        self.retry_at.set(Instant::now());
        self.doubtful.set(false);
        if !was_up {
            *self.health.borrow_mut() = Health::Up;
            self.stats.up.store(1, Ordering::Relaxed);
            self.observer.event(&Event::ShardUp(self.stats.shard.clone()));
        }
    }

    /// Waits before the next attempt; where no connection is left, the shard is down and nobody need wait for it.
    fn failed(&self, error: &server::ConnectError) {
        let now = Instant::now();
        if now >= self.retry_at.get() {
            // Attempts that were under way together fail together, and are one failure.
            let back_off = (self.back_off.get() * 2).clamp(BACK_OFF.0, BACK_OFF.1);
            self.back_off.set(back_off);
            self.retry_at.set(now + back_off);
        }
        if self.open.get() > self.connecting.get() && error.unfit().is_none() {
            tracing::warn!(shard = %self.stats.shard, %error, "cannot open another server connection");
            return;
        }
        let why = error.to_string();
        let health = if error.unfit().is_some() { Health::Unfit(why.clone()) } else { Health::Down(why.clone()) };
        let news = *self.health.borrow() != health;
        *self.health.borrow_mut() = health;
        self.stats.up.store(0, Ordering::Relaxed);
        if news {
            self.observer.event(&Event::ShardDown(self.stats.shard.clone(), why));
        }
        self.refuse_waiters();
    }

    /// The periodic look: ages, waits, health, gauges.
    fn look_after(&self) {
        let now = Instant::now();
        self.end_long_waits(now);
        self.retire_idle(now);
        self.blank_idle(now);
        let settings = self.settings();
        let tried = self.connecting.get() > 0;
        let down = !matches!(&*self.health.borrow(), Health::Up);
        let wanted = (down || self.doubtful.get()) && !tried || self.open.get() < settings.min_size;
        if wanted && now >= self.retry_at.get() {
            self.want_connection();
        }
        self.dispatch();
        self.lines.borrow_mut().retain(|_, line| line.strong_count() > 0);
        self.show(now);
    }

    /// Closes idle connections that are too old, unused for too long, or gone at the other end.
    pub(super) fn retire_idle(&self, now: Instant) {
        let settings = self.settings();
        let mut spare = self.open.get().saturating_sub(settings.min_size);
        let mut surplus = self.open.get().saturating_sub(settings.size);
        let unfit = self.is_unfit() || settings.paused;
        let mut leaving = Vec::new();
        let mut staying = VecDeque::new();
        for mut connection in std::mem::take(&mut *self.idle.borrow_mut()) {
            let old = now.duration_since(connection.server.opened) > settings.lifetime;
            let unused = spare > 0 && now.duration_since(connection.idle_since) > settings.idle_timeout;
            let quiet = connection.is_quiet();
            let fit = !unfit && !connection.is_swollen() && connection.epoch == settings.epoch;
            if quiet && !old && !unused && fit && surplus == 0 {
                staying.push_back(connection);
                continue;
            }
            spare = spare.saturating_sub(1);
            surplus = surplus.saturating_sub(1);
            leaving.push(if quiet {
                Chore::Retire(connection)
            } else {
                self.doubt();
                Chore::Close { connection, cancel: false, held: None }
            });
        }
        *self.idle.borrow_mut() = staying;
        leaving.into_iter().for_each(|chore| self.hand_over(chore));
    }

    /// Takes the context off connections that have been idle for a moment.
    fn blank_idle(&self, now: Instant) {
        loop {
            let mut idle = self.idle.borrow_mut();
            let stale = |connection: &Connection| {
                (connection.told.is_some() || connection.last_org.is_some() || connection.taint != Taint::None)
                    && now.duration_since(connection.idle_since) > CONTEXT_KEPT
            };
            let Some(at) = idle.iter().position(|connection| stale(connection)) else { return };
            let Some(connection) = idle.remove(at) else { return };
            drop(idle);
            let Some(pool) = self.me.upgrade() else { return };
            let since = connection.idle_since;
            spawn_local(blank(pool, connection, since));
        }
    }

    fn show(&self, now: Instant) {
        let waiting = self.waiting.borrow();
        let oldest = waiting
            .iter()
            .filter_map(|line| line.waiters.borrow().front().map(|waiter| now.duration_since(waiter.since)))
            .max()
            .unwrap_or_default();
        let count: usize = waiting.iter().map(|line| line.waiters.borrow().len()).sum();
        let (idle, connecting) = (self.idle.borrow().len(), self.connecting.get());
        let closing = self.stats.server_closing.load(Ordering::Relaxed) as usize;
        let active = self.open.get().saturating_sub(idle + connecting + closing);
        self.stats.waiting.store(count as u32, Ordering::Relaxed);
        self.stats.waiting_us_max.store(oldest.as_micros() as u64, Ordering::Relaxed);
        self.stats.server_idle.store(idle as u32, Ordering::Relaxed);
        self.stats.server_connecting.store(connecting as u32, Ordering::Relaxed);
        self.stats.server_active.store(active as u32, Ordering::Relaxed);
    }
}
