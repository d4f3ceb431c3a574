//! Where tricks are tried: a shard, a proxy with one server connection for both organizations, and a long-running session
//! of the other one beside it.

use std::io::Write as _;

use partywall::context::seal::KeyFile;
use partywall::provision::policies;
use tempfile::NamedTempFile;
use tokio_postgres::Client;

use super::paths::Path;
use super::sight;
use crate::support::{Message, PATIENCE, Proxy, Raw, Shard, Wire, until};

const KEY: &str = "1 3333333333333333333333333333333333333333333333333333333333333333";

/// How rows are kept apart, and whether a guard stands before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Nothing but the guard and the lease: a plain context in a database that is not hardened.
    PlainWithGuard,
    /// A guarded context, hardened as `policies apply` does it, behind a guard.
    GuardedWithGuard,
    /// The same, behind a guard that lets everything through.
    GuardedAlone,
}

/// What would lock everybody out of the shared role, and with it the tricks that follow. Only the guard stops these
/// (docs/threat-model.md).
const LOCKS_EVERYBODY_OUT: [&str; 3] = ["ALTER ROLE", "ALTER USER", "REVOKE CONNECT"];

impl Form {
    fn has_guard(self) -> bool {
        self != Self::GuardedAlone
    }

    /// Whether the trick is tried in this form.
    pub fn dares(self, trick: &str) -> bool {
        self.has_guard() || !LOCKS_EVERYBODY_OUT.iter().any(|words| trick.to_uppercase().contains(words))
    }
}

const MORE: &str = "
    INSERT INTO canary SELECT 'globex', id, 'canary of globex' FROM generate_series(101, 7100) id;
    ANALYZE";

/// The lasting state of a server, but for acme's own rows: what no trick may change.
const LASTING: &str = "SELECT md5(concat_ws('/',
    (SELECT string_agg(a::text, ',' ORDER BY oid) FROM pg_authid a),
    (SELECT string_agg(d::text, ',' ORDER BY setdatabase, setrole) FROM pg_db_role_setting d),
    (SELECT string_agg(concat_ws(' ', datname, datacl, datconnlimit), ',' ORDER BY oid) FROM pg_database),
    (SELECT string_agg(concat_ws(' ', oid, relname, relkind, relowner, relacl, relrowsecurity, relforcerowsecurity, relchecks, relhasrules, relhastriggers, relnatts), ',' ORDER BY oid)
       FROM pg_class WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_' OR nspname = 'pg_toast')),
    (SELECT string_agg(concat_ws(' ', oid, proname, proacl, proowner, md5(prosrc)), ',' ORDER BY oid) FROM pg_proc),
    (SELECT string_agg(concat_ws(' ', oid, nspname, nspacl), ',' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
    (SELECT string_agg(p::text, ',' ORDER BY oid) FROM pg_policy p),
    (SELECT concat_ws(' ', (SELECT count(*) FROM pg_operator), (SELECT count(*) FROM pg_cast), (SELECT count(*) FROM pg_trigger),
       (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_replication_slots),
       (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_extension),
       (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM pg_default_acl), (SELECT count(*) FROM pg_auth_members),
       (SELECT count(*) FROM pg_description WHERE classoid = 'pg_class'::regclass), (SELECT count(*) FROM pg_seclabel),
       (SELECT count(*) FROM pg_tablespace), (SELECT count(*) FROM pg_language))),
    (SELECT count(*) || md5(string_agg(c::text, ',' ORDER BY org_id, id)) FROM canary c WHERE org_id <> 'acme'),
    (SELECT count(*) FROM ledger WHERE org_id NOT IN ('acme', 'globex'))))";

/// What the other organization keeps for itself, where temporary tables are left to it.
const HOARD: [&str; 2] = ["CREATE TEMP TABLE hoard AS SELECT body FROM canary", "ANALYZE pg_temp.hoard"];

/// Whose rows, and who one is.
const OWN: &str = "SELECT DISTINCT org_id, partywall.org() FROM public.canary";

/// The limits that one has and does not have by the tier.
const LIMITS: &str = "SELECT name, setting FROM pg_catalog.pg_settings
    WHERE name = 'statement_timeout' AND setting::bigint NOT BETWEEN 1 AND 5000
       OR name = 'work_mem' AND setting::bigint > 32768 OR name = 'hash_mem_multiplier' AND setting::float8 > 2
       OR name = 'max_parallel_workers_per_gather' AND setting::bigint > 2
       OR name = 'maintenance_work_mem' AND setting::bigint > 65536 OR name = 'temp_buffers' AND setting::bigint > 1024
       OR name = 'idle_in_transaction_session_timeout' AND setting::bigint NOT BETWEEN 1 AND 300000
       OR name IN ('row_security', 'standard_conforming_strings') AND setting <> 'on'
       OR name = 'client_encoding' AND setting NOT IN ('UTF8', 'SQL_ASCII')
       OR name = 'session_replication_role' AND setting <> 'origin'";

/// What no trick may change even where the guard is broken: the rows of others, and the policies on them.
const ROWS: &str = "SELECT md5(concat_ws('/',
    (SELECT string_agg(p::text, ',' ORDER BY oid) FROM pg_policy p),
    (SELECT string_agg(concat_ws(' ', oid, relowner, relacl, relrowsecurity, relforcerowsecurity), ',' ORDER BY oid)
       FROM pg_class WHERE relname IN ('canary', 'ledger')),
    (SELECT count(*) || md5(string_agg(c::text, ',' ORDER BY org_id, id)) FROM canary c WHERE org_id <> 'acme'),
    (SELECT count(*) FROM ledger WHERE org_id NOT IN ('acme', 'globex'))))";

/// Locks of the shared role's sessions but one.
const LOCKS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE a.usename = 'partywall_app' AND pid <> $1 AND l.locktype <> 'virtualxid'";

/// Ends the shared role's sessions but one.
const END: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'partywall_app' AND pid <> $1";

/// The other organization's long work is alive: it holds what it locked first. (PostgreSQL 13 shows nobody's waiting where
/// track_activities is off, as hardening leaves it.)
const AT_WORK: &str =
    "SELECT count(*) FROM pg_locks WHERE pid = $1 AND relation = 'canary'::regclass AND mode = 'RowExclusiveLock'";

/// A place for tricks.
pub struct Arena {
    form: Form,
    proxy: Proxy,
    admin: Client,
    globex: Raw,
    /// What the other organization sees when nothing was tried yet, and what a colleague does.
    before: (String, String),
    victim: Victim,
    lasting: String,
    traces: usize,
    _shard: Shard,
    _keys: NamedTempFile,
}

/// The long work, on a proxy of its own.
struct Victim {
    pid: i32,
    _session: Raw,
    _proxy: Proxy,
}

impl Arena {
    /// Makes one.
    pub async fn open(form: Form) -> Self {
        let shard = Shard::start();
        let admin = shard.admin().await;
        let mut keys = NamedTempFile::new().expect("a file");
        keys.write_all(KEY.as_bytes()).expect("writes");
        if form != Form::PlainWithGuard {
            for file in policies::GUARDED.iter().chain([&policies::ADVISORY, &policies::HARDENING]) {
                admin.batch_execute(file.sql).await.expect(file.name);
            }
            let keys = KeyFile::parse(KEY).expect("a key").of_shard("shard_1");
            admin.batch_execute(&policies::keys_sql(&keys)).await.expect("takes keys");
        }
        admin.batch_execute(MORE).await.expect("has more rows");
        let plan = |seconds: u64| {
            let context = format!("[context]\nform = \"auto\"\nseal_key_file = \"{}\"", keys.path().display());
            let tiers = TIERS.replace("SECONDS", &seconds.to_string());
            let plan = Proxy::before(&shard).pool_size(1).tiers(&tiers).sections(&context);
            if form.has_guard() { plan } else { plan.guard_broken() }
        };
        let victim = Victim::begin(plan(3600).start().await, &admin, form == Form::PlainWithGuard).await;
        let proxy = plan(5).start().await;
        let mut globex = proxy.raw("globex").await;
        let before = (sight::of(&mut globex).await, sight::of(&mut colleague(&proxy).await).await);
        assert!(before.0.contains("D(globex,globex,canary of globex,canary of globex,7100)"), "{before:?}");
        assert!(before.1.contains("D(acme,acme,canary of acme,canary of acme,100)"), "{before:?}");
        let mut arena = Self {
            form,
            proxy,
            admin,
            globex,
            before,
            victim,
            lasting: String::new(),
            traces: 0,
            _shard: shard,
            _keys: keys,
        };
        arena.lasting = arena.look().await;
        arena
    }

    /// Tries one trick by one path, and says what it got or left.
    pub async fn attempt(&mut self, trick: &str, path: Path) -> Result<(), String> {
        self.leave_traces().await?;
        let must_fail = trick.starts_with('!') && self.form.has_guard();
        let sql = trick.trim_start_matches('!');
        let mut acme = self.proxy.raw("acme").await;
        let heard = path.send(&mut acme, sql).await;
        self.judge(&heard)?;
        if must_fail && !heard.iter().any(|message| message.tag == b'E') {
            return Err(format!("was not refused: {}", crate::support::raw::brief(&heard)));
        }
        self.aftermath(acme).await
    }

    /// As [`Self::attempt`], with a conversation.
    pub async fn converse(&mut self, wire: Wire, readies: usize) -> Result<(), String> {
        self.leave_traces().await?;
        let mut acme = self.proxy.raw("acme").await;
        acme.send(wire).await;
        let heard = super::paths::hear(&mut acme, readies, false).await;
        self.judge(&heard)?;
        if readies == 0 {
            // It is gone in the middle of what it said.
            drop(acme);
            acme = self.proxy.raw("acme").await;
        } else {
            // More may have been answered than was meant; this is answered last, in every state.
            acme.send(Wire::new().query("last")).await;
            while let Some(message) = acme.message().await {
                self.judge(std::slice::from_ref(&message))?;
                if message.tag == b'E' && message.field(b'M').ends_with("at or near \"last\"") {
                    self.judge(&acme.until_ready().await)?;
                    break;
                }
            }
        }
        self.aftermath(acme).await
    }

    /// As [`Self::attempt`], with a start-up parameter.
    pub async fn begin_with(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.leave_traces().await?;
        let mut raw = Raw::dial(self.proxy.address()).await;
        let own = [("user", "ada"), ("database", Shard::DATABASE)];
        let own = own.iter().filter(|(own, _)| *own != name).copied();
        let all: Vec<_> = own.chain([(name, value)]).collect();
        raw.send(Wire::startup(&all)).await;
        raw.send(Wire::new().password(&self.proxy.token("acme", "ada", &["developer"]))).await;
        self.judge(&raw.until_ready().await)?;
        raw.send(Wire::new().query(OWN)).await;
        self.judge(&raw.until_ready().await)?;
        drop(raw);
        let acme = self.proxy.raw("acme").await;
        self.aftermath(acme).await
    }

    /// What the attacker sees afterwards, what a colleague and the other organization do, and what the server holds.
    async fn aftermath(&mut self, mut acme: Raw) -> Result<(), String> {
        acme.send(Wire::new().query(OWN)).await;
        let mut own = acme.until_ready().await;
        if own.is_empty() {
            // The trick has ended its session: somebody else of the organization looks.
            acme = self.proxy.raw("acme").await;
            acme.send(Wire::new().query(OWN)).await;
            own = acme.until_ready().await;
        }
        self.judge(&own)?;
        if self.form.has_guard() {
            let raised = acme.query(LIMITS).await;
            if raised.contains("D(") {
                return Err(format!("a limit is raised: {raised}"));
            }
        }
        let rows = own.iter().filter(|message| message.tag == b'D').map(Message::columns);
        if let Some(row) = rows.into_iter().find(|row| row.iter().any(|org| org != "acme" && org != "∅")) {
            return Err(format!("the attacker's own rows say {row:?}"));
        }
        drop(acme);
        let theirs = sight::of(&mut self.globex).await;
        sight::compare("the other organization", self.form.has_guard(), &self.before.0, &theirs)?;
        let colleagues = sight::of(&mut colleague(&self.proxy).await).await;
        let (before, now) = (sight::without_count(&self.before.1), sight::without_count(&colleagues));
        sight::compare("a colleague", self.form.has_guard(), &before, &now)?;
        if !self.form.has_guard() {
            // What a broken guard let pass may have spoilt the connection for everybody; that shows no rows, and is over.
            self.admin.execute(END, &[&self.victim.pid]).await.expect("ends the server connection");
            self.globex = self.proxy.raw("globex").await;
        }
        Ok(())
    }

    /// What must be the same after any number of tricks.
    pub async fn lasting(&mut self) -> Result<(), String> {
        let now = self.look().await;
        if now != self.lasting {
            self.lasting = now;
            return Err("the lasting state of the server has changed".to_owned());
        }
        let pid = self.victim.pid;
        let count = async |sql: &str| self.admin.query_one(sql, &[&pid]).await.expect(sql).get::<_, i64>(0);
        if count(AT_WORK).await != 1 {
            return Err("the other organization's long work is gone".to_owned());
        }
        until("nobody holds a lock", async || count(LOCKS).await == 0).await;
        Ok(())
    }

    /// After a fault: so that it shows once.
    pub async fn renew(&mut self) {
        self.globex = self.proxy.raw("globex").await;
        self.lasting = self.look().await;
    }

    async fn look(&self) -> String {
        let sql = if self.form.has_guard() { LASTING } else { ROWS };
        self.admin.query_one(sql, &[]).await.expect("looks").get(0)
    }

    fn judge(&self, heard: &[Message]) -> Result<(), String> {
        sight::foreign(heard, self.form.has_guard())
    }

    /// What the other organization leaves on the connection, for the trick to find.
    async fn leave_traces(&mut self) -> Result<(), String> {
        for sql in [
            "INSERT INTO ledger (body) VALUES ('canary of globex')",
            "SELECT 'trace of globex' AS literal, nextval('ticket'), set_config('my.unsaid', 'x', true)",
        ] {
            let heard = self.globex.query(sql).await;
            if heard.contains("E(") {
                return Err(format!("the other organization cannot work: {sql}: {heard}"));
            }
        }
        self.traces += 1;
        let (name, sql) = (format!("trace_{}", self.traces), "SELECT 'trace of globex' WHERE $1 = 1");
        let named = Wire::new().parse(&name, sql).bind("", &name, &["1"]).execute("", 0);
        let unnamed = named.parse("", sql).bind("", "", &["1"]).execute("", 0).close(b'S', &name);
        let heard = self.globex.converse(unnamed.sync(), 1).await;
        if heard.contains("E(") { Err(heard) } else { Ok(()) }
    }
}

/// Nothing in the way of honest work, and an end for what does not end.
const TIERS: &str = r#"
default = "wide"

[tiers.wide]
max_concurrent_queries = "unlimited"
query_timeout_seconds = SECONDS
max_result_size_mb = 64
cpu_cores = 2
memory_gb = 1
storage_quota_gb = "unlimited"
max_client_connections = "unlimited"
max_queued_queries = 10000
priority = 1
"#;

/// Another user of the organization that attacks.
async fn colleague(proxy: &Proxy) -> Raw {
    Raw::log_in(proxy.address(), &proxy.token("acme", "bob", &["developer"])).await
}

impl Victim {
    async fn begin(proxy: Proxy, admin: &Client, may_hoard: bool) -> Self {
        let mut session = proxy.raw("globex").await;
        session.query("SET application_name = 'canary of globex'").await;
        // Temporary tables of all belong to one role, and what ANALYZE gathers of them stands in catalogs.
        for sql in HOARD {
            let heard = session.query(sql).await;
            assert!(!may_hoard || heard.starts_with("C("), "{sql}: {heard}");
        }
        session.query("BEGIN").await;
        session.query("UPDATE canary SET id = id WHERE id = 1").await;
        let sleep = format!("SELECT pg_sleep({}), 'canary of globex'", PATIENCE.as_secs() * 50);
        session.send(Wire::new().query(&sleep)).await;
        let pid = std::cell::Cell::new(0);
        until("the other organization is at work", async || {
            let sql = "SELECT pid FROM pg_locks WHERE relation = 'canary'::regclass AND mode = 'RowExclusiveLock'";
            let rows = admin.query(sql, &[]).await.expect("looks");
            pid.set(rows.first().map_or(0, |row| row.get(0)));
            pid.get() != 0
        })
        .await;
        Self { pid: pid.get(), _session: session, _proxy: proxy }
    }
}
