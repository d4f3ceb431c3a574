//! The beginning of a session: its context, its settings, and the answer to a login.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::deadlines::Deadlines;
use super::names::Names;
use super::outgoing::Pending;
use super::settings::OwnSettings;
use super::transaction::Transaction;
use super::turn::Turn;
use super::undecided::Undecided;
use super::unnamed_portal::UnnamedPortal;
use super::{Rest, Running, Session, Signals, Stalled, Thread, tier_limits};
use crate::auth::{Identity, joined};
use crate::context::{Context, Setting, timeout_ms};
use crate::event::{ClassSet, SessionFacts};
use crate::guard::TIER_LIMITS;
use crate::limits::{Kept, ResultMeter, Seat, Share};
use crate::net::ClientStream;
use crate::pool::{Asker, Pool, Wish};
use crate::refusal::Refusal;
use crate::wire::flow::{Flow, Status};
use crate::wire::welcome;

/// Everything that a session begins with.
pub struct Opening {
    /// What its data thread's sessions share.
    pub thread: Rc<Thread>,
    /// The pool of its organization's shard.
    pub pool: Rc<Pool>,
    /// Who it is, for observers.
    pub facts: Arc<SessionFacts>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its place among its organization's connections.
    pub seat: Seat,
    /// Its letter box.
    pub signals: Arc<Signals>,
    /// Its client, which waits for the answer to its login.
    pub client: ClientStream,
    /// Whether it keeps a server connection to its end.
    pub session_mode: bool,
    /// The settings it asked for at start-up; the guard has allowed them.
    pub settings: Vec<(String, String)>,
    /// The secret that the client shows to cancel.
    pub cancel_key: Vec<u8>,
}

/// A session that is ready to run, or a client and why it gets none.
pub type Opened = Result<Box<Session>, Box<(ClientStream, Refusal)>>;

impl Opening {
    /// Answers the login: AuthenticationOk, the settings as they are for this session, the cancel key, ReadyForQuery.
    ///
    /// Where the session asks for settings of its own, a server connection is told them first, so that what the client
    /// hears is what the server made of them, and a value that Postgres does not take is refused now.
    pub async fn open(self) -> Opened {
        let number = self.facts.session;
        let key = self.cancel_key.clone();
        let mut session = self.into_session();
        let parameters = match session.first_parameters().await {
            Ok(parameters) => parameters,
            Err(refusal) => return Err(Box::new((session.client, refusal.fatal()))),
        };
        session.heard = session.thread.shared(&parameters);
        // Now at the latest it is known which settings the server has.
        session.remake_context();
        let out = session.to_client.writer();
        welcome::authentication_ok(out);
        for (name, value) in session.heard.iter() {
            welcome::parameter_status(name, value, out);
        }
        welcome::backend_key_data(number, &key, out);
        welcome::ready_for_query(Status::Idle, out);
        Ok(session)
    }

    fn into_session(self) -> Box<Session> {
        let Self { thread, pool, facts, identity, seat, signals, client, settings, session_mode, .. } = self;
        let tier = seat.limits().tier();
        let own = OwnSettings::at_start(&settings);
        let rights = thread.guard.load().session_rights(identity.roles(), identity.permissions(), identity.is_bare());
        let rights = rights.with_limits(tier_limits(&tier, thread.idle_transaction_timeout));
        let asker = Asker {
            line: pool.line(seat.limits()),
            wish: Wish { session: facts.session, context: Context::new([]), sequences_on: None, asks_sequences: false },
        };
        let org = thread.observer.organization(&facts.org);
        let told = ClassSet::of(|class| thread.observer.wants_statements(class));
        let mut session = Box::new(Session {
            thread,
            pool,
            facts,
            identity,
            rights,
            org,
            told,
            signals,
            ear: None,
            kept_bytes: Share::new(seat.limits(), Kept::Bytes),
            kept_savepoints: Share::new(seat.limits(), Kept::Savepoints),
            seat,
            tier,
            asker,
            own,
            heard: Rc::from([]),
            client,
            from_client: Vec::new(),
            to_client: Pending::default(),
            client_rest: Rest::default(),
            stalled: Stalled::No,
            turn: Turn::default(),
            delay: None,
            lease: None,
            from_server: Vec::new(),
            to_server: Pending::default(),
            server_rest: Rest::default(),
            locals_due: false,
            flow: Flow::default(),
            names: Names::default(),
            transaction: Transaction::default(),
            undecided: Undecided::default(),
            unnamed_portal: UnnamedPortal::default(),
            skip_to_sync: false,
            judged: None,
            watched: None,
            copying: None,
            borrowed: Vec::new(),
            about_portals: HashMap::new(),
            reset_done: false,
            session_mode,
            pin: None,
            ask_state: false,
            meter: ResultMeter::default(),
            sources: Default::default(),
            shortening: None,
            cut: None,
            statement: Running::default(),
            deadlines: Deadlines::default(),
        });
        session.remake_context();
        session
    }
}

/// Whether a server with these settings knows `transaction_timeout`: PostgreSQL does since its release 17.
fn has_transaction_timeout(parameters: &[(String, String)]) -> bool {
    let version = parameters.iter().find(|(name, _)| name == "server_version").map(|(_, version)| version);
    let major = version.and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= 17)
}

impl Session {
    /// The settings as the server reports them for this session.
    async fn first_parameters(&mut self) -> Result<Vec<(String, String)>, Refusal> {
        self.pool.is_served()?;
        let known = self.pool.parameters();
        let only_named = self.own.iter().all(|setting| &*setting.name == "application_name");
        if !known.is_empty() && only_named {
            let mut parameters = known.to_vec();
            for own in self.own.iter() {
                if let Some((_, value)) = parameters.iter_mut().find(|(name, _)| **name == *own.name) {
                    *value = own.value.to_string();
                }
            }
            return Ok(parameters);
        }
        let lease = self.pool.lease(&self.asker).await?;
        let parameters = lease.server.parameters.clone();
        lease.release(Instant::now());
        Ok(parameters)
    }

    /// What the organization, the user and the tier say, without the session's own settings.
    pub(super) fn base_context(&self) -> Vec<Setting> {
        let names = &self.thread.names;
        let identity = &self.identity;
        let text = |text: Option<&str>| Arc::<str>::from(text.unwrap_or_default());
        let mut settings = vec![
            Setting::new(names.organization.as_str(), identity.org().as_str()),
            Setting::new(names.user.as_str(), text(identity.user().map(|user| user.as_str()))),
            Setting::new(names.project.as_str(), text(identity.project())),
            Setting::new(names.roles.as_str(), joined(identity.roles())),
            Setting::new(names.permissions.as_str(), joined(identity.permissions())),
            Setting::new("statement_timeout", timeout_ms(self.tier.query_timeout)),
        ];
        if has_transaction_timeout(&self.pool.parameters()) {
            settings.push(Setting::new("transaction_timeout", timeout_ms(self.tier.max_transaction)));
        }
        if let Some(timeout) = self.tier.idle_transaction.or(self.thread.idle_transaction_timeout) {
            settings.push(Setting::new("idle_in_transaction_session_timeout", timeout_ms(timeout)));
        }
        if self.rights.is_read_only() {
            settings.push(Setting::new("default_transaction_read_only", "on"));
        }
        settings
    }

    /// Makes the context anew, of the tier that the session knows and its own settings.
    pub(super) fn remake_context(&mut self) {
        let base = self.base_context();
        let who = base.iter().filter(|setting| self.thread.is_context(&setting.name)).cloned().collect::<Vec<_>>();
        // Who the session is comes last: nothing that it has set itself can stand above it.
        let settings = base.into_iter().chain(self.own.iter()).chain(who);
        let context = Context::planned_apart(settings, self.own.scope());
        self.asker.wish.context = self.thread.shared_context(context);
    }

    /// Takes over a tier that has changed; limits that the session had lowered for itself are the new tier's again.
    pub(super) fn refresh_tier(&mut self) {
        if !self.seat.limits().has_tier(&self.tier) {
            self.tier = self.seat.limits().tier();
            self.own.forget(&TIER_LIMITS);
            let limits = tier_limits(&self.tier, self.thread.idle_transaction_timeout);
            self.rights = std::mem::take(&mut self.rights).with_limits(limits);
            self.remake_context();
        }
    }
}
