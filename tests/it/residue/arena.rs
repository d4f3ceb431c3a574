//! Where residue is looked for: a shard with code of every kind, and a proxy whose one server connection all sessions share.

use std::collections::HashSet;
use std::io::Write as _;

use partywall::context::seal::{Form, KeyFile};
use partywall::provision::{Binaries, ClusterOptions, policies};
use tempfile::NamedTempFile;
use tokio_postgres::Client;

use super::sight;
use super::states::{STATES, State};
use super::ways::{self, Path};
use crate::support::raw::brief;
use crate::support::{Proxy, Raw, Shard, Wire, until};

const KEY: &str = "1 4444444444444444444444444444444444444444444444444444444444444444";

/// Who has the server process next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Another organization.
    Tenant,
    /// Another session of the same user.
    Colleague,
}

/// Both of them.
pub const NEIGHBOURS: [Neighbour; 2] = [Neighbour::Tenant, Neighbour::Colleague];

/// One server process, and the sessions that come to it one after another.
pub struct Arena {
    pub proxy: Proxy,
    pub admin: Client,
    globex: Raw,
    /// What each sees on a connection that nobody had before.
    fresh: String,
    fresh_colleague: String,
    /// Every random number that was ever seen, and those that follow `setseed(0.5)`.
    random: HashSet<String>,
    seeded: HashSet<String>,
    shard: Shard,
    _keys: NamedTempFile,
}

impl Arena {
    /// A place of that form, on those server programs.
    pub async fn open(form: Form, binaries: Option<Binaries>) -> Self {
        let shard = Shard::start_with(&ClusterOptions { binaries, ..ClusterOptions::default() });
        let admin = shard.admin().await;
        let mut keys = NamedTempFile::new().expect("a file");
        keys.write_all(KEY.as_bytes()).expect("writes");
        admin.batch_execute("CREATE EXTENSION pg_trgm").await.expect("extends");
        if form != Form::Plain {
            let hardening = [&policies::ADVISORY, &policies::HARDENING];
            for file in policies::of_form(form).iter().chain(hardening.iter().copied()) {
                admin.batch_execute(file.sql).await.expect(file.name);
            }
            let keys = KeyFile::parse(KEY).expect("a key").of_shard("shard_1");
            admin.batch_execute(&policies::keys_sql(&keys)).await.expect("takes keys");
        }
        admin.batch_execute(sight::PROBE).await.expect("looks");
        for (number, state) in STATES.iter().enumerate() {
            let sql = ways::make(number, &leave(number, state));
            admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{state:?}: {error:?}"));
        }
        let context = format!("[context]\nform = \"auto\"\nseal_key_file = \"{}\"", keys.path().display());
        let proxy = Proxy::before(&shard).pool_size(1).sections(&context).start().await;
        until("the shard is attested", async || proxy.metrics().await.contains("partywall_shard_attested{")).await;
        let mut seeded = HashSet::new();
        admin.batch_execute("SELECT setseed(0.5)").await.expect("seeds");
        for row in admin.query("SELECT random()::text FROM generate_series(1, 20)", &[]).await.expect("draws") {
            seeded.insert(row.get::<_, String>(0));
        }
        let mut globex = proxy.raw("globex").await;
        sight::prepare(&mut globex).await;
        let fresh = sight::of(&mut globex).await;
        assert!(fresh.contains("own T D(globex,globex,100,globex,partywall_app,t)"), "{fresh}");
        let mut arena = Self {
            proxy,
            admin,
            globex,
            fresh,
            fresh_colleague: String::new(),
            random: HashSet::new(),
            seeded,
            shard,
            _keys: keys,
        };
        arena.renew().await;
        arena.fresh_colleague = arena.colleague().await;
        // What is innocent leaves nothing either.
        for neighbour in NEIGHBOURS {
            assert_eq!(arena.look(neighbour).await, Ok(()));
        }
        arena
    }

    /// acme leaves something by a text, and goes.
    pub async fn leave(&mut self, path: Path, sql: &str, copied: Option<&str>) -> Option<String> {
        let mut acme = self.proxy.raw("acme").await;
        let heard = path.send(&mut acme, sql, copied).await?;
        // Where the guard has refused it, the server connection has not changed hands yet.
        acme.query("SELECT 1").await;
        // It has gone when the proxy has taken its leave.
        acme.send(Wire::new().terminate()).await;
        acme.until_closed().await;
        Some(brief(&heard))
    }

    /// What a neighbour finds that it would not find on a connection that nobody had before.
    pub async fn look(&mut self, neighbour: Neighbour) -> Result<(), String> {
        match neighbour {
            Neighbour::Tenant => self.tenant().await,
            Neighbour::Colleague => {
                let now = self.colleague().await;
                self.judge(&self.fresh_colleague, &now)
            }
        }
    }

    /// Another session of the very user who left something: its context is the same.
    async fn colleague(&self) -> String {
        let mut colleague = self.proxy.raw("acme").await;
        sight::prepare(&mut colleague).await;
        sight::of(&mut colleague).await
    }

    async fn tenant(&mut self) -> Result<(), String> {
        let now = sight::of(&mut self.globex).await;
        let random = sight::random(&mut self.globex).await;
        self.judge(&self.fresh, &now)?;
        for number in random {
            if self.seeded.contains(&number) || !self.random.insert(number) {
                return Err("the random stream goes on as somebody left it".to_owned());
            }
        }
        Ok(())
    }

    /// What a session that has the server to itself sees before and after a state was left, and a random number then.
    pub async fn direct(&self, number: usize) -> (String, String, String) {
        let mut raw = Raw::past_the_proxy(&self.shard, "acme").await;
        sight::prepare(&mut raw).await;
        let before = sight::of(&mut raw).await;
        raw.query(&format!("SELECT s{number}.leave('x')")).await;
        let random = sight::random(&mut raw).await;
        (before, sight::of(&mut raw).await, random.into_iter().next().unwrap_or_default())
    }

    /// Whether it is one of the numbers that follow `setseed(0.5)`.
    pub fn is_seeded(&self, random: &str) -> bool {
        self.seeded.contains(random)
    }

    fn judge(&self, before: &str, now: &str) -> Result<(), String> {
        sight::difference(before, now).map_or(Ok(()), Err)
    }

    /// A server process that nobody had before, so that a fault shows once.
    pub async fn renew(&mut self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'partywall_app'";
        self.admin.batch_execute(end).await.expect("ends the server connection");
        self.globex = self.proxy.raw("globex").await;
        sight::prepare(&mut self.globex).await;
    }
}

/// The function that leaves a state.
fn leave(number: usize, state: &State) -> String {
    let definer = if state.definer { "SECURITY DEFINER" } else { "" };
    let code = state.code;
    format!(
        "CREATE FUNCTION s{number}.leave(v text) RETURNS text LANGUAGE plpgsql {definer} AS $leave$ BEGIN {code} RETURN v; END $leave$"
    )
}
