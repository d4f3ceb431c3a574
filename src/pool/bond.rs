//! What makes a database believe the context that a connection is told: nothing, an entry, or a standing seal.

use std::time::{Duration, Instant};

use super::connection::{AskError, Connection};
use crate::config::{ContextForm, ContextNames};
use crate::context::Context;
use crate::context::seal::{self, Form, ShardKey, Who};
use crate::server::{self, ConnectError, ConnectSpec, Unfit};
use crate::wire::frame::{self, backend};

/// How long an entry may be under way.
const ENTRY_LIFE: Duration = Duration::from_secs(30);
/// How long a standing seal is good, and how old it may be when a statement begins under it.
const SEAL_LIFE: Duration = Duration::from_secs(30 * 60);
const SEAL_AGE_MAX: Duration = Duration::from_secs(5 * 60);

/// Which form the database has, its clock, and whether it has `partywall.clear()`.
const QUESTION: &str = "SELECT coalesce((SELECT CASE p.proname WHEN 'hello' THEN 'guarded' ELSE 'sealed' END \
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     WHERE n.nspname = 'partywall' AND p.proname IN ('hello', 'seal_holds') ORDER BY 1 LIMIT 1), 'plain'), \
     pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.clock_timestamp())), \
     EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     WHERE n.nspname = 'partywall' AND p.proname = 'clear' AND p.pronargs = 0 \
     AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))";

/// How a shard's connections are told contexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// The settings' names, and the form that is expected.
    pub names: ContextNames,
    /// The shard's keys, the one that seals first; empty: none is configured.
    pub keys: Vec<ShardKey>,
}

/// The server's clock, as it stood when it was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerClock {
    s: i64,
    at: Instant,
}

impl ServerClock {
    fn in_s(self, ahead: Duration) -> i64 {
        self.s.saturating_add_unsigned((self.at.elapsed() + ahead).as_secs())
    }
}

/// What ties contexts to one connection.
#[derive(Debug)]
pub(super) enum Bond {
    /// The database believes what it is told.
    Plain,
    /// Each change of who is who is entered, under a seal that works once.
    Guarded { key: ShardKey, names: ContextNames, nonce: String, generation: u64, clock: ServerClock, clears: bool },
    /// The settings stand under a seal, which is renewed.
    Sealed { key: ShardKey, names: ContextNames, clock: ServerClock, sealed_at: Option<Instant> },
}

fn who<'a>(names: &ContextNames, context: &'a Context) -> Who<'a> {
    let text = |name: &str| context.get(name).unwrap_or_default();
    Who {
        organization: text(&names.organization),
        user: text(&names.user),
        project: text(&names.project),
        roles: text(&names.roles),
        permissions: text(&names.permissions),
    }
}

impl Bond {
    /// Whether what was told is still believed for a while.
    pub(super) fn is_fresh(&self) -> bool {
        match self {
            Self::Plain | Self::Guarded { .. } => true,
            Self::Sealed { sealed_at, .. } => sealed_at.is_some_and(|at| at.elapsed() < SEAL_AGE_MAX),
        }
    }

    /// Whether the database resets settings without losing what the next entry needs; one whose policies are of an earlier
    /// release does not, and is greeted anew.
    pub(super) fn clears(&self) -> bool {
        matches!(self, Self::Guarded { clears: true, .. })
    }

    /// The form of the database.
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Plain => Form::Plain,
            Self::Guarded { .. } => Form::Guarded,
            Self::Sealed { .. } => Form::Sealed,
        }
    }

    /// The statement that makes the database believe `wanted` where it believed `told`; none where nothing need be said.
    pub(super) fn attest(&mut self, told: Option<&Context>, wanted: &Context, pid: i32) -> Option<String> {
        let blank = Context::new([]);
        let told = told.unwrap_or(&blank);
        match self {
            Self::Plain => None,
            Self::Guarded { key, names, nonce, generation, clock, .. } => {
                let wanted = who(names, wanted);
                if wanted == who(names, told) {
                    return None;
                }
                *generation += 1;
                let expiry_s = clock.in_s(ENTRY_LIFE);
                Some(key.entry(wanted, seal::Bond { pid, nonce, generation: *generation, expiry_s }))
            }
            Self::Sealed { key, names, clock, sealed_at } => {
                let fresh = sealed_at.is_some_and(|at| at.elapsed() < SEAL_AGE_MAX);
                let wanted = who(names, wanted);
                if wanted == who(names, told) && (fresh || wanted.organization.is_empty()) {
                    return None;
                }
                *sealed_at = Some(Instant::now());
                let seal = key.standing_seal(wanted, pid, clock.in_s(SEAL_LIFE));
                Some(format!("SET partywall.seal='{seal}'"))
            }
        }
    }
}

impl Connection {
    /// Opens a connection and finds out how its database keeps contexts; it has been told none.
    ///
    /// # Errors
    /// As [`server::connect`], and [`Unfit::Context`] where the form is not the one expected or does not work.
    pub async fn open(spec: &ConnectSpec, telling: &Telling) -> Result<Box<Self>, ConnectError> {
        let server = server::connect(spec).await?;
        let mut connection = Box::new(Self::new(server, Bond::Plain));
        if telling.names.form == ContextForm::Plain {
            return Ok(connection);
        }
        let unfit = |words: String| ConnectError::unfit_for(spec, Unfit::Context(words));
        let found = connection.look().await.map_err(|error| unfit(format!("its context: {error}")))?;
        connection.bond = bond(telling, found).map_err(unfit)?;
        let greeted = connection.greet().await;
        greeted.map_err(|error| unfit(format!("its guarded context does not open: {error}")))?;
        Ok(connection)
    }

    /// The form in which its database keeps contexts.
    pub fn form(&self) -> Form {
        self.bond.form()
    }

    async fn look(&mut self) -> Result<Found, AskError> {
        let row = self.ask_row(QUESTION).await?;
        let [Some(form), Some(s), Some(clears)] = row.as_slice() else { return Err(AskError::Protocol) };
        let form = Form::from_word(form).ok_or(AskError::Protocol)?;
        let clock = ServerClock { s: s.parse().map_err(|_| AskError::Protocol)?, at: Instant::now() };
        Ok(Found { form, clock, clears: clears == "t" })
    }

    /// Asks a guarded database for a nonce; nothing elsewhere.
    pub(super) async fn greet(&mut self) -> Result<(), AskError> {
        if !matches!(self.bond, Bond::Guarded { .. }) {
            return Ok(());
        }
        let row = self.ask_row("SELECT nonce, now_s FROM partywall.hello()").await?;
        let [Some(given), Some(now_s)] = row.as_slice() else { return Err(AskError::Protocol) };
        if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AskError::Protocol);
        }
        let s = now_s.parse().map_err(|_| AskError::Protocol)?;
        if let Bond::Guarded { nonce, generation, clock, .. } = &mut self.bond {
            given.clone_into(nonce);
            *generation = 0;
            *clock = ServerClock { s, at: Instant::now() };
        }
        Ok(())
    }

    /// The one row that a statement of ours answers with.
    async fn ask_row(&mut self, sql: &str) -> Result<Vec<Option<String>>, AskError> {
        let mut bytes = Vec::new();
        frame::put_query(&mut bytes, sql);
        let mut row = None;
        let keep = |tag, body: &[u8]| {
            if tag == backend::DATA_ROW {
                row = Some(frame::row_values(body).ok_or(AskError::Protocol)?);
            }
            Ok(())
        };
        self.ask(&bytes, 1, keep).await?;
        row.ok_or(AskError::Protocol)
    }
}

/// How a database keeps contexts.
struct Found {
    form: Form,
    clock: ServerClock,
    clears: bool,
}

/// The bond for what was found, or why it may not be served.
fn bond(telling: &Telling, found: Found) -> Result<Bond, String> {
    let Found { form: found, clock, clears } = found;
    let expected = match telling.names.form {
        ContextForm::Auto => found,
        ContextForm::Plain => Form::Plain,
        ContextForm::Guarded => Form::Guarded,
        ContextForm::Sealed => Form::Sealed,
    };
    if found != expected {
        return Err(format!(
            "its context is {found}, and context.form says {expected}: run `partywall policies apply`"
        ));
    }
    let names = telling.names.clone();
    let key = telling.keys.first().cloned();
    let key = key.ok_or_else(|| format!("its context is {found}, and context.seal_key_file names no key"));
    Ok(match found {
        Form::Plain => Bond::Plain,
        Form::Guarded => Bond::Guarded { key: key?, names, nonce: String::new(), generation: 0, clock, clears },
        Form::Sealed => Bond::Sealed { key: key?, names, clock, sealed_at: None },
    })
}
