//! A data thread: its own runtime, listener and pools; nothing on the way of a statement leaves it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::{ServeError, client, listeners};
use crate::config::Config;
use crate::control::{ShardPlan, Snapshots};
use crate::ids::ShardName;
use crate::metrics::Metrics;
use crate::pool::stats::PoolStats;
use crate::pool::{Gate, Pool, PoolSettings, held_max};
use crate::session::Thread;

/// Threads of each data thread for what blocks: names of servers being looked up, passwords being hashed.
const BLOCKING_MAX: usize = 2;

/// So many connections of each pool a data thread has, where the number of threads is not configured: of fewer, what is
/// left for organizations that hold none is more than an eighth.
const WIDE_SHARE: usize = 8;

/// Of fewer connections of a pool than this, what one organization may hold is said at start.
const SMALL_SHARE: usize = 4;

/// How often the end is looked for when the proxy stops.
const ENDED_LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long cancelling what the last sessions left running may take when the proxy stops.
const CANCELS: Duration = Duration::from_secs(5);

/// What one data thread works with.
pub(super) struct Here {
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) thread: Rc<Thread>,
    pub(super) pools: Pools,
}

/// Starts all data threads; clients can connect when this returns.
pub(super) fn start_all(
    snapshots: &Arc<Snapshots>,
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let config = snapshots.config.load();
    let count = thread_count(&config);
    warn_of_small_shares(&config, count);
    let mut threads = Vec::with_capacity(count);
    for (index, listener) in listeners(config.listen.address, count)?.into_iter().enumerate() {
        let (snapshots, metrics, stopped) = (Arc::clone(snapshots), Arc::clone(metrics), stopped.clone());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().max_blocking_threads(BLOCKING_MAX).thread_keep_alive(Duration::from_secs(3600));
        let share = Share { index, count };
        let thread = thread::Builder::new().name(format!("data-{index}")).spawn(move || {
            match runtime.build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(serve(listener, snapshots, metrics, stopped, share)),
                Err(error) => tracing::error!(%error, "a data thread has no runtime"),
            }
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

/// As configured; else one for every two cores, but so few that each has eight connections of the smallest pool, if there
/// are as many. Never more than the smallest pool has connections: each thread has one of its own at least.
fn thread_count(config: &Config) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let smallest = config.shards.iter().map(|shard| shard.pool_size).min().unwrap_or(1).max(1);
    let wanted = config.listen.threads.unwrap_or((cores / 2).min(smallest / WIDE_SHARE));
    wanted.clamp(1, smallest)
}

/// Says where a pool has too few connections for its threads to keep organizations apart in it.
fn warn_of_small_shares(config: &Config, count: usize) {
    if let Some(asked) = config.listen.threads.filter(|&asked| asked > count) {
        tracing::warn!(asked, threads = count, "listen.threads is more than the smallest pool_size: fewer are started");
    }
    for shard in &config.shards {
        if let Some(words) = small_share(shard.pool_size, count) {
            let (shard, pool_size) = (&shard.name, shard.pool_size);
            tracing::warn!(%shard, pool_size, threads = count, "{words}: raise pool_size or lower listen.threads");
        }
    }
}

/// What is wrong with the smallest share of a pool, if anything is.
fn small_share(pool_size: usize, threads: usize) -> Option<String> {
    let share = pool_size / threads;
    if pool_size < threads {
        return Some(format!("each data thread opens a connection, which makes {threads}"));
    }
    match held_max(share) {
        held if held == share => {
            let words = "one organization can hold all the connections of a data thread, while others wait for it";
            Some(words.to_owned())
        }
        held if share < SMALL_SHARE => {
            Some(format!("an organization can hold {held} of a data thread's {share} connections"))
        }
        _ => None,
    }
}

/// Which part of each pool is this thread's.
#[derive(Debug, Clone, Copy)]
struct Share {
    index: usize,
    count: usize,
}

impl Share {
    /// This thread's part of `whole`; all threads' parts are `whole` together.
    fn of(self, whole: usize) -> usize {
        whole / self.count + usize::from(self.index < whole % self.count)
    }
}

async fn serve(
    listener: TcpListener,
    snapshots: Arc<Snapshots>,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
    share: Share,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a data thread cannot listen");
            return;
        }
    };
    let config = snapshots.config.load_full();
    let (guard, judges) = (Arc::clone(&snapshots.guard), Arc::clone(&snapshots.judges));
    let thread = Thread::new(guard, judges, Arc::clone(&snapshots.observer), &config);
    let mut shards = snapshots.shards.subscribe();
    let pools = Pools { open: RefCell::default(), metrics, share };
    pools.follow(&snapshots, &shards.borrow_and_update());
    let here = Rc::new(Here { snapshots, thread: Rc::new(thread), pools });
    loop {
        tokio::select! {
            accepted = listener.accept() => client::accepted(&here, accepted).await,
            Ok(()) = shards.changed() => here.pools.follow(&here.snapshots, &shards.borrow_and_update()),
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    // No client is accepted any more; the sessions go on to their ends.
    drop(listener);
    while !here.snapshots.registry.is_empty() {
        tokio::time::sleep(ENDED_LOOK_EVERY).await;
    }
    // What a session left running is being cancelled: the server would go on with it for nobody.
    let cancels = async {
        while !here.pools.are_at_rest() {
            tokio::time::sleep(ENDED_LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(CANCELS, cancels).await;
}

/// The pools of one data thread, one a shard.
pub(super) struct Pools {
    open: RefCell<HashMap<ShardName, Rc<Pool>>>,
    metrics: Arc<Metrics>,
    share: Share,
}

impl Pools {
    /// The pool of a shard; none when a reload has taken the shard away.
    pub(super) fn get(&self, shard: &ShardName) -> Option<Rc<Pool>> {
        self.open.borrow().get(shard).cloned()
    }

    /// Whether no pool cancels or closes anything.
    fn are_at_rest(&self) -> bool {
        self.open.borrow().values().all(|pool| pool.is_at_rest())
    }

    /// Opens, changes and gives up pools as the plans say. A pool that is given up lives as long as its sessions.
    fn follow(&self, snapshots: &Snapshots, plans: &[ShardPlan]) {
        let config = snapshots.config.load();
        let mut open = self.open.borrow_mut();
        open.retain(|name, _| plans.iter().any(|plan| plan.shard.name == *name));
        for plan in plans {
            let gate = snapshots.board.gate(&plan.shard.name);
            let settings = PoolSettings { paused: snapshots.is_paused(), ..self.settings(&config, plan, gate) };
            match open.get(&plan.shard.name) {
                Some(pool) => pool.configure(settings),
                None => {
                    let stats = Arc::new(PoolStats::new(plan.shard.name.clone(), self.share.index));
                    self.metrics.watch_pool(Arc::clone(&stats));
                    let pool = Pool::start(settings, stats, Arc::clone(&snapshots.observer));
                    open.insert(plan.shard.name.clone(), pool);
                }
            }
        }
    }

    fn settings(&self, config: &Config, plan: &ShardPlan, gate: Arc<Gate>) -> PoolSettings {
        PoolSettings {
            spec: plan.spec.clone(),
            telling: plan.telling.clone(),
            gate,
            size: self.share.of(plan.shard.pool_size).max(1),
            min_size: self.share.of(plan.shard.min_pool_size),
            lifetime: config.pool.server_lifetime,
            idle_timeout: config.pool.server_idle_timeout,
            wait_timeout: config.pool.query_wait_timeout,
            max_prepared_statements: config.pool.max_prepared_statements,
            epoch: plan.epoch,
            paused: false,
        }
    }
}

/// Runs `work` on this data thread, beside everything else.
pub(super) fn beside(work: impl Future<Output = ()> + 'static) {
    drop(spawn_local(work));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_too_small_is_named() {
        let words = |pool_size, threads| small_share(pool_size, threads).unwrap_or_default();
        assert_eq!(words(20, 2), "");
        assert_eq!(words(4, 1), "");
        assert!(words(20, 8).contains("can hold 1 of a data thread's 2"), "{}", words(20, 8));
        assert!(words(8, 8).contains("one organization can hold all"), "{}", words(8, 8));
        assert!(words(1, 1).contains("one organization can hold all"));
        assert!(words(5, 8).contains("which makes 8"), "{}", words(5, 8));
    }

    #[test]
    fn the_shares_of_all_threads_are_the_whole() {
        for (whole, count) in [(20, 8), (3, 3), (7, 2), (100, 7)] {
            let parts: Vec<_> = (0..count).map(|index| Share { index, count }.of(whole)).collect();
            assert_eq!(parts.iter().sum::<usize>(), whole);
            assert!(parts.iter().all(|&part| part >= whole / count));
        }
    }
}
