//! One client from its login to its goodbye: which statement goes to which server connection, and every byte between.
//!
//! A session is one task. Between transactions it holds nothing but its client's socket; a statement takes a lease and
//! keeps it to the next safe point. Three things only are awaited on the way of a statement: the client's socket, the
//! server's socket, and the pool's queue.

mod about;
mod backend;
mod bounds;
mod copy_in;
mod deadlines;
mod effects;
mod ending;
mod extended;
mod frontend;
mod judges;
mod lent;
mod lost;
mod names;
mod open;
mod outgoing;
mod pin;
mod relay;
mod run;
mod settings;
mod signals;
mod sources;
mod transaction;
mod turn;
mod undecided;
mod unnamed_portal;
mod watched;

pub use effects::{startup_settings, tier_limits};
pub use judges::Judges;
pub use open::{Opened, Opening};
pub use run::run;
pub use signals::{Signal, Signals};

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::auth::Identity;
use crate::config::{Config, ContextNames, CopyFrom, Tier};
use crate::context::Context;
use crate::event::{ClassSet, Observer, OrgObserver, SessionFacts, StatementClass};
use crate::guard::{Guard, Rights, Verdict};
use crate::limits::{ResultMeter, Seat, Share};
use crate::net::ClientStream;
use crate::pool::{Asker, Lease, Pool};
use crate::refusal::Refusal;
use crate::wire::flow::Flow;
use crate::wire::shorten::Shortener;
use about::AboutPortal;
use copy_in::Copying;
use deadlines::Deadlines;
use names::{Names, Undo};
use outgoing::Pending;
use pin::Pin;
use settings::OwnSettings;
use sources::Sources;
use transaction::Transaction;
use turn::Turn;
use undecided::Undecided;
use unnamed_portal::UnnamedPortal;
use watched::Watched;

/// The read buffer that all sessions of a data thread share: what is in it never outlives one poll of one session.
const BUFFER_BYTES: usize = 64 * 1024;

/// How much longer than its tier's time a statement may run before the proxy ends it: the server's own timeout is first.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);

/// How many different reports of settings are looked through for one that is the same.
const REPORTED_KEPT: usize = 8;

/// So many contexts are kept for sessions that log in with the same.
const CONTEXTS_KEPT: usize = 64;

/// The settings that a server reports, with their values.
type Reported = Rc<[(String, String)]>;

/// What the sessions of one data thread share.
pub struct Thread {
    buffer: RefCell<Box<[u8]>>,
    scratch: RefCell<Vec<u8>>,
    /// The time when the session that runs now began to: one look at the clock for all that it does before it waits.
    now: Cell<Instant>,
    /// What servers have reported of their settings lately, the latest first.
    reported: RefCell<VecDeque<Reported>>,
    /// What sessions have had server connections told lately, the latest first.
    contexts: RefCell<VecDeque<Context>>,
    /// The guard in force.
    pub guard: Arc<ArcSwap<Guard>>,
    /// The settings that carry the context.
    pub names: Arc<ContextNames>,
    /// Where long statements are judged.
    judges: Arc<Judges>,
    /// Who hears of what happens.
    pub observer: Arc<dyn Observer>,
    /// How long a client may leave a transaction open without a word.
    pub idle_transaction_timeout: Option<Duration>,
    /// The longest statement that is judged, in bytes.
    pub statement_bytes_max: usize,
    /// How long a session may keep a server connection without using it.
    pub idle_pin_timeout: Duration,
    /// What becomes of COPY FROM into protected tables.
    pub copy_from: CopyFrom,
}

impl Thread {
    /// The things of one data thread, as the configuration says them.
    pub fn new(guard: Arc<ArcSwap<Guard>>, judges: Arc<Judges>, observer: Arc<dyn Observer>, config: &Config) -> Self {
        Self {
            buffer: RefCell::new(vec![0; BUFFER_BYTES].into()),
            scratch: RefCell::default(),
            now: Cell::new(Instant::now()),
            reported: RefCell::default(),
            contexts: RefCell::default(),
            guard,
            judges,
            names: Arc::new(config.context.clone()),
            observer,
            idle_transaction_timeout: config.pool.idle_transaction_timeout,
            statement_bytes_max: config.guard.statement_bytes_max,
            idle_pin_timeout: config.pool.idle_pin_timeout,
            copy_from: config.guard.copy_from,
        }
    }

    /// Looks at the clock; whoever has waited does it again.
    fn look_at_clock(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// `parameters`, in one copy for all sessions to which they have been reported: most have heard the same.
    fn shared(&self, parameters: &[(String, String)]) -> Reported {
        let mut known = self.reported.borrow_mut();
        match known.iter().position(|one| **one == *parameters) {
            Some(0) => {}
            Some(at) => known.swap(0, at),
            None => {
                known.truncate(REPORTED_KEPT - 1);
                known.push_front(parameters.into());
            }
        }
        Rc::clone(&known[0])
    }

    /// `context`, in one copy for all sessions that have the same: it is compared with that of idle server connections at
    /// each lease, and one copy is known to be equal without a look at its texts.
    fn shared_context(&self, context: Context) -> Context {
        let mut known = self.contexts.borrow_mut();
        match known.iter().position(|one| *one == context) {
            Some(0) => {}
            Some(at) => known.swap(0, at),
            None => {
                known.truncate(CONTEXTS_KEPT - 1);
                known.push_front(context);
            }
        }
        known[0].clone()
    }

    /// Whether `name` is a setting that carries who a session is.
    fn is_context(&self, name: &str) -> bool {
        let names = &self.names;
        [&names.organization, &names.user, &names.project, &names.roles, &names.permissions]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A client that has logged in.
pub struct Session {
    thread: Rc<Thread>,
    pool: Rc<Pool>,
    facts: Arc<SessionFacts>,
    identity: Arc<Identity>,
    rights: Rights,
    /// Who hears of each statement, and who of what those of some classes touch.
    org: Option<Arc<dyn OrgObserver>>,
    told: ClassSet,
    signals: Arc<Signals>,
    /// The task that `signals` wakes.
    ear: Option<Waker>,
    seat: Seat,
    /// What it keeps of what its organization may keep: bytes here, savepoints on the server.
    kept_bytes: Share,
    kept_savepoints: Share,
    /// The tier that `asker.wish.context` was made of.
    tier: Arc<Tier>,
    asker: Asker,
    own: OwnSettings,
    /// The reported settings as the client last heard them.
    heard: Reported,

    client: ClientStream,
    /// What has been read of the client and could not be sent on yet.
    from_client: Vec<u8>,
    to_client: Pending,
    /// Bytes of the client's current message that are still to come.
    client_rest: Rest,
    /// What keeps the bytes in `from_client` from being looked at.
    stalled: Stalled,
    /// What it may still do before others go on.
    turn: Turn,
    /// Its organization has had too many statements refused: until then its messages wait.
    delay: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,

    lease: Option<Lease>,
    from_server: Vec<u8>,
    to_server: Pending,
    server_rest: Rest,
    /// A long error or notice of the server's that is being shortened.
    shortening: Option<Box<Shortener>>,
    /// Replies made here wait for the end of the server's current message.
    locals_due: bool,
    flow: Flow<Undo>,

    names: Names,
    transaction: Transaction,
    undecided: Undecided,
    unnamed_portal: UnnamedPortal,
    /// The client's messages are dropped up to its Sync: one of them was refused here.
    skip_to_sync: bool,
    /// The verdict on the statement at the front of `from_client`, judged before it got a lease.
    judged: Option<Arc<Verdict>>,
    /// The Query on its way whose statements are counted, because some of them are about the session itself.
    watched: Option<Watched>,
    /// The COPY FROM on its way through a staging table.
    copying: Option<Box<Copying>>,
    /// The client's names under which statements stand on the server connection for the batch being sent.
    borrowed: Vec<Box<[u8]>>,
    /// Portals of statements about the session itself, by name: what is on the server connection only keeps the name.
    about_portals: HashMap<Box<[u8]>, AboutPortal>,
    /// DISCARD ALL, at the front of `from_client`, has been done but for its answer.
    reset_done: bool,

    /// Leases are kept to the end of the session.
    session_mode: bool,
    /// Why the lease is kept beyond its transaction.
    pin: Option<Pin>,
    /// Something may have been left on the server connection that does not move: it must be asked at the safe point.
    ask_state: bool,

    meter: ResultMeter,
    /// Whose rows the client's portals give.
    sources: Sources,
    /// The result is being cut short.
    cut: Option<Cut>,
    statement: Running,
    deadlines: Deadlines,
}

/// The rest of a message that is passed on, or dropped, as it comes.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    bytes: usize,
    forward: bool,
}

/// Why the client's bytes are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stalled {
    /// They are.
    No,
    /// A message is not whole yet.
    More,
    /// The message at the front needs a server connection.
    Lease,
    /// The statement at the front is long and is judged elsewhere.
    Judge,
    /// Too many replies are owed.
    Owed,
    /// The client does not take the answers that it is sent.
    Unread,
    /// What the message at the front means is decided by the answer to an earlier batch.
    Answers,
    /// The message at the front must wait until nothing is owed.
    Quiet,
    /// Its turn is over.
    Turn,
    /// Its organization has had too many statements refused.
    Delayed,
}

/// How the result limit ends a statement.
#[derive(Debug)]
enum Cut {
    /// The refusal is owed; rows are dropped. The server is not read until the cancel request has been answered.
    Cancelling(Box<Refusal>),
    /// Rows are dropped until the statement ends.
    Draining(Box<Refusal>),
    /// The client has heard the refusal; everything up to ReadyForQuery is dropped.
    Told {
        /// The server ended the statement before the cancel came, and knows of no error.
        unaware: bool,
    },
}

/// The statement being run, for limits and metrics.
#[derive(Debug)]
struct Running {
    class: StatementClass,
    since: Option<Instant>,
    waited: Duration,
    result_bytes: u64,
    failed: bool,
    verdict: Option<Arc<Verdict>>,
    /// Executes that have been sent and not been answered; the server tells of their ends when it has enough to send.
    executes: u32,
    /// So often has it been given its time once more, as it was not known which of them runs.
    spared: u32,
    /// A cancel for running too long has been sent.
    overdue: bool,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            class: StatementClass::Utility,
            since: None,
            waited: Duration::ZERO,
            result_bytes: 0,
            failed: false,
            verdict: None,
            executes: 0,
            spared: 0,
            overdue: false,
        }
    }
}
