//! Random SQL of a tenant, judged by the guard and run by a server: no row of another organization comes back, nothing
//! stays behind, and the two agree on what was said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall::config::ContextNames;
use partywall::control::load;
use partywall::event::StatementClass as Class;
use partywall::guard::{Guard, Rights, Verdict};
use partywall::refusal::Refusal;

use super::grammar::Grammar;
use super::{assert_no_process_died, tricks};
use crate::support::{Message, ORGANIZATIONS, Proxy, Random, Raw, Shard, Wire, scaled, seed};

/// How many texts one session sends before another organization gets its server connection.
const TEXTS: usize = 16;

/// Functions that only take time, or that end a session as they should.
const NOT_CALLED: &str = "proname NOT LIKE 'pg\\_sleep%'";

/// One statement at a time that runs away is stopped.
const TIERS: &str = r#"
default = "short"

[tiers.short]
max_concurrent_queries = "unlimited"
query_timeout_seconds = 2
max_result_size_mb = 64
cpu_cores = "dedicated"
memory_gb = "dedicated"
storage_quota_gb = "unlimited"
max_client_connections = "unlimited"
max_queued_queries = 10000
priority = 1
"#;

/// What the session of another organization sees of the connection that it shares.
const PROBE: &str = "SELECT (SELECT string_agg(DISTINCT org_id, ',') || count(*) || md5(string_agg(body, '' ORDER BY id)) FROM canary), \
    current_setting('app.current_org_id'), current_user, session_user, current_setting('work_mem'), \
    current_setting('TimeZone'), current_setting('search_path'), current_setting('statement_timeout'), \
    nullif(current_setting('my.own', true), ''), current_setting('row_security'), current_setting('transaction_read_only'), \
    current_setting('client_encoding'), (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())";

/// What happened to how many texts.
#[derive(Debug, Default)]
struct Figures {
    texts: usize,
    approved: usize,
    refused: usize,
    server_errors: usize,
    read_only: usize,
    sessions: usize,
    longest: Duration,
}

/// One run: the proxy's guard once more, and the one server connection past the proxy that may only read.
struct Run {
    guard: Guard,
    new_guard: Box<dyn Fn() -> Guard>,
    reader: Raw,
    figures: Figures,
}

impl Run {
    async fn begin(shard: &Shard, proxy: &Proxy) -> Self {
        let config = load(&proxy.files().path()).expect("the proxy's configuration");
        let ContextNames { organization, user, project, roles, permissions, .. } = config.context.clone();
        let names = [organization, user, project, roles, permissions];
        let new_guard = Box::new(move || Guard::new(&config.guard, &names, 1 << 20));
        let mut reader = Raw::past_the_proxy(shard, "acme").await;
        reader.query("SET default_transaction_read_only = on; SET statement_timeout = 2000").await;
        Self { guard: new_guard(), new_guard, reader, figures: Figures::default() }
    }

    /// The guard's answer, which is the same with its memory as without.
    fn judge(&mut self, text: &str, rights: &Rights) -> Result<Arc<Verdict>, Refusal> {
        let began = Instant::now();
        let verdict = self.guard.judge(text, rights);
        self.figures.longest = self.figures.longest.max(began.elapsed());
        let anew = (self.new_guard)().judge(text, rights);
        assert_eq!(verdict.as_deref().map(meaning), anew.as_deref().map(meaning), "{text}");
        verdict
    }

    /// One session of `acme` with this role.
    async fn session(&mut self, proxy: &Proxy, role: &str, random: &mut Random, functions: &[String]) {
        let rights = self.guard.rights(&[role], &[] as &[&str]);
        let mut raw = Raw::log_in(proxy.address(), &proxy.token("acme", "ada", &[role])).await;
        self.figures.sessions += 1;
        let mut failed = false;
        for _ in 0..TEXTS {
            let mut tokens = Grammar::text(random, functions);
            let text = tricks::write(&tokens, random);
            let verdict = self.judge(&text, &rights);
            for _ in 0..2 {
                Grammar::change_values(&mut tokens, random);
                drop(self.judge(&tricks::write(&tokens, random), &rights));
            }
            let by_query = random.one_in(2);
            let heard = send(&mut raw, &text, by_query).await;
            assert_nothing_foreign(&heard, &text);
            self.figures.texts += 1;
            let had_failed = std::mem::replace(&mut failed, heard.last().is_some_and(|message| message.body == b"E"));
            match &verdict {
                Err(refusal) => self.refused(refusal, had_failed, &heard, &text),
                Ok(verdict) => self.approved(verdict, &heard, by_query, &text).await,
            }
            if heard.last().is_none_or(|message| message.tag != b'Z') {
                return;
            }
        }
    }

    /// What the guard refuses, the proxy refuses so, and the server says nothing of it; but in a failed transaction the
    /// server has the first word, as it has on a direct connection.
    fn refused(&mut self, refusal: &Refusal, had_failed: bool, heard: &[Message], text: &str) {
        self.figures.refused += 1;
        assert!(!refusal.message().contains("the guard cannot read"), "a panic in the guard: {text}");
        let errors: Vec<String> = errors(heard);
        let expected = [refusal.sqlstate()];
        assert!(errors == expected || had_failed && errors == ["25P02"], "{text}\n{refusal}\n{errors:?}");
        assert!(!heard.iter().any(|message| b"DTCIGH".contains(&message.tag)), "{text}");
    }

    /// What the guard approves is to the server as many statements, of the same kinds; what reads to the guard needs
    /// no right to write.
    async fn approved(&mut self, verdict: &Verdict, heard: &[Message], by_query: bool, text: &str) {
        self.figures.approved += 1;
        let tags: Vec<String> = heard.iter().filter(|message| message.tag == b'C').map(tag).collect();
        let classes: Vec<Class> = verdict.statements().iter().map(|statement| statement.class()).collect();
        let failed = heard.iter().any(|message| message.tag == b'E');
        self.figures.server_errors += usize::from(failed);
        if failed {
            assert!(tags.len() < classes.len().max(1), "{text}\n{tags:?} {classes:?}");
        } else {
            assert_eq!(tags.len(), classes.len(), "{text}\n{tags:?} {classes:?}");
            assert!(by_query || classes.len() <= 1, "{text}");
        }
        for (tag, class) in tags.iter().zip(&classes) {
            assert!(agree(tag, *class), "{text}\n{tag} {class:?}");
        }
        if classes.iter().all(|class| *class == Class::Read) {
            self.figures.read_only += 1;
            let heard = send(&mut self.reader, text, true).await;
            assert_nothing_foreign(&heard, text);
            assert!(!errors(&heard).contains(&"25006".to_owned()), "it writes: {text}");
        }
    }
}

/// What a verdict says, but for the places of its statements.
fn meaning(verdict: &Verdict) -> impl PartialEq + std::fmt::Debug {
    let statements: Vec<_> =
        verdict.statements().iter().map(|statement| (statement.class(), statement.changes().to_vec())).collect();
    let touched = (verdict.reads().to_vec(), verdict.writes().to_vec(), verdict.taints(), verdict.grows_data());
    (verdict.class(), statements, touched, verdict.rewritten().map(str::to_owned))
}

/// Sends a text, and whatever ends a COPY that it may begin.
async fn send(raw: &mut Raw, text: &str, by_query: bool) -> Vec<Message> {
    let (wire, readies) = if by_query {
        (Wire::new().query(text).copy_fail("no").sync(), 2)
    } else {
        (Wire::new().parse("", text).bind("", "", &[]).execute("", 0).copy_fail("no").sync(), 1)
    };
    raw.send(wire).await;
    raw.until_readies(readies).await
}

fn assert_nothing_foreign(heard: &[Message], text: &str) {
    for message in heard {
        let said = String::from_utf8_lossy(&message.body);
        let foreign = ORGANIZATIONS.iter().find(|org| **org != "acme" && said.contains(**org));
        assert_eq!(foreign, None, "{text}\n{said}");
    }
}

fn errors(heard: &[Message]) -> Vec<String> {
    heard.iter().filter(|message| message.tag == b'E').map(|message| message.field(b'C')).collect()
}

/// The words of a CommandComplete, without its number of rows.
fn tag(message: &Message) -> String {
    let words = String::from_utf8_lossy(&message.body);
    words.trim_end_matches('\0').trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ').to_owned()
}

/// Whether the server's tag is one of a statement of that class.
fn agree(tag: &str, class: Class) -> bool {
    let begins = |words: &[&str]| words.iter().any(|word| tag.starts_with(word));
    match class {
        Class::Read => begins(&["SELECT", "EXPLAIN", "FETCH", "MOVE", "DECLARE CURSOR", "INSERT", "UPDATE", "DELETE"]),
        Class::Write => {
            begins(&["INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "DECLARE CURSOR", "CALL", "TRUNCATE"])
        }
        Class::Ddl => begins(&["CREATE", "DROP", "ALTER", "SELECT", "COMMENT"]),
        Class::Transaction => begins(&["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET"]),
        Class::Session => {
            begins(&["SET", "RESET", "SHOW", "DISCARD", "PREPARE", "DEALLOCATE", "LISTEN", "UNLISTEN", "SELECT"])
        }
        Class::Copy => begins(&["COPY"]),
        // EXECUTE has the tag of what it runs.
        Class::Utility => !begins(&["CREATE", "DROP", "ALTER", "COPY", "SET", "RESET"]),
    }
}

#[tokio::test]
async fn random_sql_shows_nothing_leaves_nothing_and_means_to_the_guard_what_it_means_to_the_server() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(1).tiers(TIERS).start().await;
    let admin = shard.admin().await;
    let names = format!("SELECT DISTINCT proname::text FROM pg_proc WHERE {NOT_CALLED} ORDER BY 1");
    let functions: Vec<String> = admin.query(&names, &[]).await.expect("reads").iter().map(|row| row.get(0)).collect();
    let mut run = Run::begin(&shard, &proxy).await;
    let mut globex = proxy.raw("globex").await;
    let before = globex.query(PROBE).await;
    assert!(before.contains("globex100") && !before.contains("acme"), "{before}");
    let first = seed();
    for seed in (0..scaled(1500) as u64).map(|at| first.wrapping_add(at)) {
        let mut random = Random::new(seed);
        let role = random.pick(&["developer", "developer", "analyst", "owner"]);
        println!("PARTYWALL_TEST_SEED={seed} {role}");
        run.session(&proxy, role, &mut random, &functions).await;
        assert_eq!(globex.query(PROBE).await, before, "PARTYWALL_TEST_SEED={seed}");
    }
    assert_no_process_died(&shard, "at the end");
    println!("{:?}", run.figures);
}
