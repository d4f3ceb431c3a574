//! The model: a session through the proxy against the same session on a connection of its own, step by step.
//!
//! Sessions of two organizations do random things at once over fewer server connections than there are sessions; the
//! same scripts run on connections of their own, in a copy of the database. After every step the answers, the settings
//! and the ParameterStatus values that the client holds must be equal.

mod script;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use script::{Pins, Script, Step, Until};

use crate::support::{Message, PATIENCE, Proxy, Random, Raw, Shard, Wire, scaled, seed};

/// The database that is the shard's copy, for the sessions on connections of their own.
pub const DIRECT: &str = "direct";
/// Sessions at a time: the first half are of one organization, the others of another.
const SESSIONS: usize = 6;
/// Steps of one session.
const STEPS: usize = 25;

/// What is looked at after every step. A session's own settings come as they are; `my.note` is empty on a connection
/// where another session once had one.
const PROBED: [&str; 22] = [
    "work_mem",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "search_path",
    "extra_float_digits",
    "application_name",
    "client_min_messages",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "default_transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "enable_seqscan",
    "bytea_output",
    "client_encoding",
    "row_security",
    "app.current_org_id",
    "app.current_roles",
];

/// A shard and its copy, where `own_0` and so on belong to one session each.
pub fn shard() -> &'static Shard {
    static SHARD: OnceLock<Shard> = OnceLock::new();
    SHARD.get_or_init(|| {
        let shard = Shard::start();
        let admission = format!("host {DIRECT} {} 127.0.0.1/32 password\n", Shard::USER);
        let hba = shard.cluster.folder().join("data/pg_hba.conf");
        let known = std::fs::read_to_string(&hba).expect("it has one");
        std::fs::write(&hba, admission + &known).expect("it can be written");
        // A thread of its own, as a runtime cannot be entered from within another.
        std::thread::scope(|scope| {
            let run = || tokio::runtime::Runtime::new().expect("a runtime").block_on(copy(&shard));
            scope.spawn(run).join().expect("the copy was made");
        });
        shard
    })
}

async fn copy(shard: &Shard) {
    let admin = shard.admin().await;
    for session in 0..2 * SESSIONS {
        let sql = format!(
            "CREATE TABLE own_{session} (org_id text NOT NULL, k int, note text,
               UNIQUE (org_id, k, note) DEFERRABLE INITIALLY DEFERRED);
             GRANT ALL ON own_{session} TO {user}; SELECT partywall.protect('public.own_{session}')",
            user = Shard::USER
        );
        admin.batch_execute(&sql).await.expect("a table");
    }
    drop(admin);
    let other = shard.cluster.connect("template1").await.expect("connects");
    other.batch_execute("SELECT pg_reload_conf()").await.expect("reloads");
    let sql = format!("CREATE DATABASE {DIRECT} TEMPLATE {}", Shard::DATABASE);
    while other.batch_execute(&sql).await.is_err() {
        // The connection above is still on its way out.
        tokio::task::yield_now().await;
    }
}

/// One side of the comparison: how to log in there.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    user: &'static str,
    database: &'static str,
    password: String,
    /// Switches that stand before the script's own: the context, where nobody else sets it.
    options: String,
}

/// A client, and the ParameterStatus values that it has heard.
struct Talk {
    raw: Raw,
    heard: BTreeMap<String, String>,
    probes: usize,
}

impl Talk {
    async fn begin(door: &Door, script: &Script) -> Self {
        let options = format!("{} {}", door.options, script.options);
        let mut parameters = vec![("user", door.user), ("database", door.database)];
        parameters.extend(&script.startup);
        if !options.trim().is_empty() {
            parameters.push(("options", &options));
        }
        let mut raw = Raw::dial(door.address).await;
        raw.send(Wire::startup(&parameters)).await;
        assert_eq!(raw.message().await.map(|message| message.tag), Some(b'R'), "a password is asked for");
        raw.send(Wire::new().password(&door.password)).await;
        let mut talk = Self { raw, heard: BTreeMap::new(), probes: 0 };
        let welcome = talk.answer(Until::Ready(1)).await;
        assert!(welcome.ends_with("ZI"), "logged in: {welcome} {parameters:?}");
        talk
    }

    /// Everything that is said in a step, and what can be seen after it.
    async fn step(&mut self, step: &Step, probe_by_query: bool) -> String {
        let mut said = String::new();
        for (wire, until) in &step.pieces {
            self.raw.send(wire.clone()).await;
            // After an error the server is silent up to Sync.
            if matches!(until, Until::Executed) && said.contains(" E(") {
                continue;
            }
            said += &self.answer(*until).await;
        }
        let (probe, until) = self.probe(probe_by_query);
        self.raw.send(probe).await;
        let seen = self.answer(until).await;
        let seen: Vec<_> = seen.split(' ').filter(|word| !word.starts_with(['T', 'C', '1', '2', '3'])).collect();
        let heard: Vec<_> = self.heard.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{said}\n   settings {}\n   heard {}", seen.join(" "), heard.join("; "))
    }

    fn probe(&mut self, by_query: bool) -> (Wire, Until) {
        if by_query {
            let all: Vec<_> = PROBED.iter().map(|name| format!("SHOW {name}")).collect();
            return (Wire::new().query(&all.join(";")), Until::Ready(1));
        }
        self.probes += 1;
        let name = format!("probe {}", self.probes);
        let all: Vec<_> = PROBED.iter().map(|name| format!("current_setting('{name}')")).collect();
        let sql = format!("SELECT {}, coalesce(current_setting('my.note', true), '')", all.join(","));
        let wire = Wire::new().parse(&name, &sql).bind("probe", &name, &[]).execute("probe", 0).close(b'S', &name);
        (wire.sync(), Until::Ready(1))
    }

    async fn answer(&mut self, until: Until) -> String {
        let mut said = String::new();
        let mut readies = 0;
        while let Some(message) = self.raw.message().await {
            if message.tag == b'S' {
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let mut words = text.split('\0').map(str::to_owned);
                self.heard.insert(words.next().unwrap_or_default(), words.next().unwrap_or_default());
                continue;
            }
            said.push(' ');
            said.push_str(&told(&message));
            readies += usize::from(message.tag == b'Z');
            match until {
                Until::Ready(count) if readies == count => return said,
                Until::Executed if b"CEsIZ".contains(&message.tag) => return said,
                Until::Ready(_) | Until::Executed => {}
            }
        }
        said + " the end"
    }

    async fn end(mut self) {
        self.raw.send(Wire::new().terminate()).await;
        self.raw.until_closed().await;
    }
}

/// A message, but for what differs between two databases: the numbers of tables, and whose key it is.
fn told(message: &Message) -> String {
    match message.tag {
        // A server connection may have, or not have, an empty pg_temp of an earlier time.
        b'E' | b'N' if message.field(b'M').contains("pg_temp") || message.field(b'M').starts_with("table \"t") => {
            format!("{}(nothing temporary)", char::from(message.tag))
        }
        b'E' | b'N' => {
            let mut fields = [b'V', b'C', b'M', b'D', b'P', b'n'].map(|field| message.field(field));
            // Of two names for one statement the proxy may say either.
            if let Some((before, name)) = fields[2].split_once("but prepared statement \"") {
                fields[2] = format!("{before}{}", name.split_once('"').map_or("", |(_, after)| after));
            }
            format!("{}({})", char::from(message.tag), fields.join("|"))
        }
        b'T' => format!("T({})", columns(&message.body)),
        b't' => format!("t{:?}", message.body),
        b'R' | b'K' => String::new(),
        _ => message.brief(),
    }
}

/// The columns of a RowDescription: name, type, modifier and format.
fn columns(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut all = Vec::new();
    while let Some(end) = rest.iter().position(|&byte| byte == 0) {
        let (name, after) = (String::from_utf8_lossy(&rest[..end]), &rest[end + 1..]);
        all.push(format!("{name}:{}", hex(&after[6..18])));
        rest = &after[18..];
    }
    all.join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a script to its end, or up to where its client vanishes.
async fn run(door: Door, script: &Script, mut probes: Random) -> Vec<String> {
    let mut talk = Talk::begin(&door, script).await;
    let mut history = vec![format!("{:?}", talk.heard)];
    for (at, step) in script.steps.iter().enumerate() {
        if script.killed_at == Some(at) {
            for (wire, _) in &step.pieces {
                talk.raw.send(wire.clone()).await;
            }
            return history;
        }
        history.push(talk.step(step, probes.one_in(2)).await);
    }
    talk.end().await;
    history
}

/// The two sides, and how many of the sessions may keep server connections.
struct Sides {
    proxy: Proxy,
    pinners: usize,
    /// The number of the first table.
    tables: usize,
    direct: BTreeMap<&'static str, String>,
}

impl Sides {
    async fn new(plan: crate::support::Plan, pinners: usize, tables: usize) -> Self {
        let proxy = plan.start().await;
        let mut direct = BTreeMap::new();
        for org in ["acme", "globex"] {
            let client = proxy.connect(org).await;
            let mut options = String::new();
            let context = ["organization_id", "user_id", "project_id", "roles", "permissions"];
            let context = context.map(|name| format!("app.current_{}", name.replace("organization", "org")));
            let more = ["statement_timeout", "idle_in_transaction_session_timeout", "application_name"];
            for name in context.iter().map(String::as_str).chain(more) {
                let row = client.query_one("SELECT current_setting($1)", &[&name]).await.expect("is set");
                options += &format!(" -c {name}={}", row.get::<_, String>(0));
            }
            direct.insert(org, options);
        }
        Self { proxy, pinners, tables, direct }
    }

    /// Both doors for the session of that number.
    fn doors(&self, session: usize) -> [Door; 2] {
        let org = if session < SESSIONS / 2 { "acme" } else { "globex" };
        let through = Door {
            address: self.proxy.address(),
            user: "ada",
            database: Shard::DATABASE,
            password: self.proxy.token(org, "ada", &["developer"]),
            options: String::new(),
        };
        let direct = Door {
            address: ([127, 0, 0, 1], shard().cluster.port()).into(),
            user: Shard::USER,
            database: DIRECT,
            password: shard().password.clone(),
            options: self.direct[org].clone(),
        };
        [through, direct]
    }

    /// All sessions at once, on both sides.
    async fn round(&self, seed: u64) {
        let mut random = Random::new(seed);
        // The pinning session of a small pool is of either organization.
        let first = random.below(SESSIONS);
        let runs = (0..SESSIONS).map(|session| {
            let pins = (session + first) % SESSIONS < self.pinners;
            let pins = if pins { Pins::Allowed } else { Pins::None };
            let script = Script::new(&mut random, self.tables + session, STEPS, pins);
            let [through, direct] = self.doors(session);
            let probes = Random::new(random.next());
            tokio::spawn(async move {
                let (seen, model) = tokio::join!(run(through, &script, probes.clone()), run(direct, &script, probes));
                difference(session, &script, &seen, &model)
            })
        });
        let runs: Vec<_> = runs.collect();
        let mut differences = String::new();
        for run in runs {
            let ended = tokio::time::timeout(2 * PATIENCE, run).await.expect("in time").expect("both sides are heard");
            differences += &ended.unwrap_or_default();
        }
        if differences.contains("57P0") {
            differences += &shard().cluster.log_tail();
        }
        assert!(differences.is_empty(), "PARTYWALL_TEST_SEED={seed}\n{differences}");
        self.clear().await;
    }

    /// Empties the tables: nothing of this round holds a lock on them for long.
    async fn clear(&self) {
        for database in [Shard::DATABASE, DIRECT] {
            let admin = shard().cluster.connect(database).await.expect("the superuser connects");
            let all: Vec<_> = (self.tables..self.tables + SESSIONS).map(|table| format!("own_{table}")).collect();
            let sql = format!("TRUNCATE {}", all.join(","));
            crate::support::soon("nobody holds a lock", admin.batch_execute(&sql)).await.expect("truncates");
        }
        // A client that vanished gives its pin back a little later.
        let probe = self.proxy.connect("initech").await;
        crate::support::until("a session may be pinned again", async || {
            probe.batch_execute("CREATE TEMP TABLE t1 (); DROP TABLE pg_temp.t1").await.is_ok()
        })
        .await;
    }
}

/// What differs first, and what led to it; nothing where the two sides are equal.
fn difference(session: usize, script: &Script, seen: &[String], model: &[String]) -> Option<String> {
    let at = (0..seen.len().max(model.len())).find(|&at| seen.get(at) != model.get(at))?;
    let said = |at: usize| if at == 0 { "login" } else { &*script.steps[at - 1].said };
    let history = std::env::var("PARTYWALL_MODEL_HISTORY").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut story = format!("session {session}, {:?} {:?}\n", script.startup, script.options);
    for (before, heard) in seen.iter().enumerate().take(at).skip(at.saturating_sub(history)) {
        story += &format!("{before}: {}\n   {}\n", said(before), heard.lines().next().unwrap_or_default());
    }
    let (seen, model) = (seen.get(at).map_or("nothing", |seen| seen), model.get(at).map_or("nothing", |seen| seen));
    story += &format!("{at}: {}\n", said(at));
    for (seen, model) in seen.lines().zip(model.lines()) {
        let words =
            if seen == model { format!("same:   {seen}\n") } else { format!("proxy:  {seen}\ndirect: {model}\n") };
        story += &words;
    }
    Some(story)
}

async fn rounds(sides: Sides, count: usize) {
    let seed = seed();
    for round in 0..count as u64 {
        sides.round(seed.wrapping_add(round)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_over_two_server_connections_are_as_on_connections_of_their_own() {
    let plan = Proxy::before(shard()).pool_size(3);
    rounds(Sides::new(plan, 1, 0).await, scaled(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_keep_server_connections_are_as_on_connections_of_their_own() {
    let plan = Proxy::before(shard()).pool_size(2 * SESSIONS);
    rounds(Sides::new(plan, SESSIONS - 1, SESSIONS).await, scaled(100)).await;
}
