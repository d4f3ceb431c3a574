//! What published faults of other poolers, proxies and drivers teach: a test for each, under its number.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use partywall::auth::mint::Grant;
use tokio::io::AsyncWriteExt;

use crate::support::proxy::token;
use crate::support::raw::{brief, cancel};
use crate::support::{Proxy, Raw, Scripted, Shard, Wire, until};

const READ: &str = "SELECT DISTINCT body FROM canary";
const HEARD: &str = "T D(canary of acme) C(SELECT 1) ZI";

/// A session of acme still reads its rows: whatever was tried, the proxy lives.
async fn acme_reads(proxy: &Proxy) {
    assert_eq!(proxy.raw("acme").await.query(READ).await, HEARD);
}

/// CVE-2021-3935, CVE-2021-23214: bytes stuffed behind the request for TLS were taken as if they had come encrypted.
#[tokio::test]
async fn cve_2021_3935_bytes_before_tls_are_no_part_of_the_session() {
    let proxy = Proxy::before(Shard::shared()).tls().start().await;
    let mut stuffed = vec![0, 0, 0, 8];
    stuffed.extend(80_877_103_u32.to_be_bytes());
    let startup = Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]);
    stuffed.extend(startup.password(&proxy.token("acme", "ada", &[])).query("DELETE FROM canary").0);
    let mut raw = Raw::dial(proxy.address()).await;
    raw.stream.write_all(&stuffed).await.expect("is taken");
    let mut heard = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut raw.stream, &mut heard).await.expect("ends");
    assert!(!heard.starts_with(b"S"), "no TLS is begun over what was stuffed: {:?}", String::from_utf8_lossy(&heard));
    acme_reads(&proxy).await;
}

/// CVE-2025-12819: a client's `search_path` held for the pooler's own queries, whose functions and operators anybody
/// could then put in their place.
#[tokio::test]
async fn cve_2025_12819_a_search_path_bends_no_query_of_the_proxys_own() {
    let shard = Shard::start();
    let admin = shard.admin().await;
    let mut schema = "CREATE SCHEMA evil; CREATE TABLE evil.bitten (what text); GRANT USAGE ON SCHEMA evil TO PUBLIC; \
        GRANT ALL ON evil.bitten TO PUBLIC; CREATE TABLE evil.pg_class (relnamespace oid); \
        CREATE TABLE evil.pg_cursors (is_holdable bool); CREATE TABLE evil.pg_prepared_statements (from_sql bool); \
        CREATE TABLE evil.pg_settings (name text, setting text); GRANT SELECT ON ALL TABLES IN SCHEMA evil TO PUBLIC;"
        .to_owned();
    for (signature, returns) in [
        ("set_config(text, text, boolean)", "text"),
        ("current_setting(text, boolean)", "text"),
        ("current_setting(text)", "text"),
        ("pg_my_temp_schema()", "oid"),
        ("pg_backend_pid()", "int"),
        ("is(oid, oid)", "boolean"),
        ("is(text, text)", "boolean"),
        ("is(name, name)", "boolean"),
    ] {
        schema.push_str(&format!(
            "CREATE FUNCTION evil.{signature} RETURNS {returns} LANGUAGE sql VOLATILE AS \
             $$ INSERT INTO evil.bitten VALUES ('{signature}'); SELECT NULL::{returns} $$;"
        ));
    }
    for of in ["oid", "text", "name"] {
        // What compares in the proxy's own queries.
        schema.push_str(&format!("CREATE OPERATOR evil.= (leftarg = {of}, rightarg = {of}, function = evil.is);"));
    }
    admin.batch_execute(&schema).await.expect("an evil schema");
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let path = [("search_path", "evil, pg_catalog, public")];
    let mut acme = Raw::log_in_with(proxy.address(), &proxy.token("acme", "ada", &["developer"]), &path).await;
    let mut globex = Raw::log_in_with(proxy.address(), &proxy.token("globex", "ada", &["developer"]), &path).await;
    let texts = [
        "SELECT 1",
        "SET timezone = 'UTC'",
        "RESET ALL",
        "SET search_path = evil, pg_catalog, public",
        "CREATE TEMP TABLE t (a int)",
        "INSERT INTO t VALUES (1)",
        "DROP TABLE pg_temp.t",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "DISCARD ALL",
    ];
    // By turns, so that the one server connection is handed over with every kind of thing on it.
    for raw in [&mut acme, &mut globex] {
        for sql in texts {
            let heard = raw.query(sql).await;
            assert!(!heard.contains("E("), "{sql}: {heard}");
        }
    }
    let bitten = admin.query("SELECT DISTINCT what FROM evil.bitten", &[]).await.expect("looks");
    let bitten: Vec<String> = bitten.iter().map(|row| row.get(0)).collect();
    assert!(bitten.is_empty(), "the proxy's own queries called {bitten:?}");
}

fn grant(ttl_s: u64) -> Grant {
    Grant { org: "acme".to_owned(), user: Some("ada".to_owned()), ttl_s, ..Grant::default() }
}

/// What a client hears who shows this token.
async fn shows(proxy: &Proxy, token: &str) -> String {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).password(token)).await;
    raw.until_ready()
        .await
        .iter()
        .find(|message| matches!(message.tag, b'E' | b'Z'))
        .map_or_else(String::new, |m| m.brief())
}

/// CVE-2025-2291: the end of a password's life was not looked at. Here also where the token was found good before.
#[tokio::test]
async fn cve_2025_2291_an_expired_identity_is_none_even_where_it_was_good_before() {
    let proxy = Proxy::before(Shard::shared()).option("auth", "leeway_s = 0").start().await;
    let short = token(&grant(3));
    assert_eq!(shows(&proxy, &short).await, "ZI");
    let born = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    until("the token is refused", async || shows(&proxy, &short).await == "E(28P01)").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(now >= born + 2, "not before its time");
    acme_reads(&proxy).await;
}

/// CVE-2026-6664: a length from nobody known overflowed.
#[tokio::test]
async fn cve_2026_6664_no_length_of_a_stranger_overflows() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let startup = || Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).0;
    let lengths = [0_u32, 1, 3, 4, 5, 7, 10_001, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_fffc, 0xffff_ffff];
    for length in lengths {
        for (before, tag) in [(Vec::new(), None), (startup(), Some(b'p'))] {
            // 0x10000-byte tokens are well; only lengths beyond are not.
            let length = if tag.is_some() && length == 10_001 { 100_001 } else { length };
            let bytes = [&before[..], tag.as_slice(), &length.to_be_bytes(), &[0; 64]].concat();
            let mut raw = Raw::dial(proxy.address()).await;
            raw.stream.write_all(&bytes).await.expect("is taken");
            let heard = brief(&raw.until_closed().await);
            assert!(!heard.contains('Z'), "{length:#x} after {} bytes: {heard}", before.len());
        }
    }
    acme_reads(&proxy).await;
}

/// CVE-2026-6665, -6666 and -4427: lengths and missing fields of a server overflowed a buffer, were read through a null
/// pointer, and made a driver panic.
#[tokio::test]
async fn cve_2026_6665_6666_4427_no_word_of_a_server_is_taken_on_trust() {
    let server = Scripted::listen().await;
    let plan = Proxy::before_port(server.port, "unused").pool_size(1);
    let proxy = plan.sections("[context]\nform = \"plain\"").start().await;
    let row = |body: &[u8]| frame(b'D', body);
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("a value shorter than nothing", row(b"\0\x01\xff\xff\xff\xfe")),
        ("a value longer than its row", row(b"\0\x01\x7f\xff\xff\xffx")),
        ("fewer values than counted", row(b"\xff\xff\0\0\0\x01x")),
        ("a row without a count", row(b"")),
        ("an error without fields", frame(b'E', b"")),
        ("an error without its end", frame(b'E', b"SERROR")),
        ("an error without a code", frame(b'E', b"SERROR\0Mwell\0\0")),
        ("an error without words", frame(b'E', b"SERROR\0C\0\0")),
        ("a notice of nothing", frame(b'N', b"\0")),
        ("a parameter without a value", frame(b'S', b"name\0")),
        ("a parameter of nothing", frame(b'S', b"")),
        ("a completion without a word", frame(b'C', b"")),
        ("ready, for nothing", frame(b'Z', b"")),
        ("ready, in a state of no name", frame(b'Z', b"?")),
        ("a COPY of nothing", frame(b'G', b"")),
        ("data of no COPY", frame(b'd', b"x")),
        ("a length below itself", vec![b'D', 0, 0, 0, 3]),
        ("a length of nothing", vec![b'T', 0, 0, 0, 0]),
        ("a length beyond all", vec![b'D', 0xff, 0xff, 0xff, 0xff]),
        ("a length that turns negative", vec![b'D', 0x80, 0, 0, 0]),
        ("an authentication out of turn", frame(b'R', &[0, 0, 0, 0])),
        ("a kind that is none", frame(0xff, b"x")),
    ];
    for (what, bytes) in hostile {
        let mut acme = proxy.raw("acme").await;
        server.answer_next(&[&bytes[..], &frame(b'C', b"SELECT 0\0"), &frame(b'Z', b"I")].concat());
        // An answer, an error or the end: anything but silence, and never the end of the proxy.
        acme.send(Wire::new().query("SELECT 'hostile'")).await;
        let heard = acme.until_ready().await;
        drop(acme);
        let mut next = proxy.raw("globex").await;
        assert_eq!(next.query("SELECT 'after'").await, "C(SELECT 0) ZI", "{what}: {}", heard.len());
    }
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    Wire::new().message(tag, body).0
}

/// CVE-2026-6667, and CVE-2026-17350: verbs of the operator's without a look at who asks.
#[tokio::test]
async fn cve_2026_6667_verbs_of_the_operators_are_nobody_elses() {
    let plan = Proxy::before(Shard::shared()).file("admin.token", "the operator's own token, of more than 32 bytes");
    let proxy = plan.option("admin", "token_file = \"admin.token\"").start().await;
    for owner in [true, false] {
        let roles: &[&str] = if owner { &["owner"] } else { &["developer"] };
        let mut raw = Raw::log_in(proxy.address(), &proxy.token("acme", "ada", roles)).await;
        for sql in [
            "KILL",
            "KILL_CLIENT 1",
            "PAUSE",
            "RESUME",
            "SHUTDOWN",
            "RELOAD",
            "SUSPEND",
            "DISABLE acme",
            "SHOW CLIENTS",
            "SHOW SERVERS",
            "SHOW CONFIG",
            "SHOW USERS",
            "RECONNECT",
            "WAIT_CLOSE",
        ] {
            let heard = raw.query(sql).await;
            assert!(heard.starts_with("E("), "{sql}: {heard}");
        }
    }
    for database in ["pgbouncer", "admin", "console", "partywall"] {
        let mut raw = Raw::dial(proxy.address()).await;
        raw.send(Wire::startup(&[("user", "admin"), ("database", database)])).await;
        raw.send(Wire::new().password(&proxy.token("acme", "admin", &["owner"])).query("SHUTDOWN")).await;
        let heard = brief(&raw.until_ready().await);
        assert!(!heard.contains("C(SHUTDOWN)"), "{database}: {heard}");
    }
    let client = reqwest::Client::new();
    for path in ["/api/v1/organizations/acme/metrics", "/api/v1/organizations/acme", "/api/v1/reload", "/api/"] {
        let url = format!("http://{}{path}", proxy.admin_address());
        for request in [client.get(&url), client.post(&url), client.delete(&url), client.put(&url)] {
            for request in [request.try_clone().expect("no body"), request.bearer_auth("guessed")] {
                let status = request.send().await.expect("an answer").status();
                assert!(status.is_client_error(), "{path}: {status}");
            }
        }
    }
    acme_reads(&proxy).await;
}

/// CVE-2024-27304: a message of more than 4 GB wrapped its length, and the rest of it was read as messages.
#[tokio::test]
async fn cve_2024_27304_a_length_that_wraps_hides_no_message() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let hidden = Wire::new().query("INSERT INTO ledger (body) VALUES ('wrapped')").0;
    for length in [0x4000_0001_u32, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_ffff, 3, 0] {
        for tag in *b"QPBd" {
            let mut raw = proxy.raw("acme").await;
            let prepared = Wire::new().parse("a statement with a rather long name", "SELECT $1::text");
            let body = [&b"\0a statement with a rather long name\0\0\0\0\x01"[..], &hidden, &hidden].concat();
            let lie = prepared.bytes(&[tag]).bytes(&length.to_be_bytes()).bytes(&body);
            raw.send(lie).await;
            raw.stream.shutdown().await.expect("says no more");
            let heard = brief(&raw.until_closed().await);
            assert!(!heard.contains("INSERT"), "{} of {length:#x}: {heard}", char::from(tag));
        }
    }
    let left = "SELECT count(*) FROM ledger WHERE body = 'wrapped'";
    let row = Shard::shared().admin().await.query_one(left, &[]).await.expect("counts");
    assert_eq!(row.get::<_, i64>(0), 0);
    acme_reads(&proxy).await;
}

/// Pgpool-II before 4.5 (believed CVE-2025-46801), CVE-2015-6817: any password was good on a connection that was open
/// already, and a user whom nobody knew was another.
#[tokio::test]
async fn cve_2025_46801_a_warm_pool_spares_nobody_the_login() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let good = proxy.token("acme", "ada", &["developer"]);
    acme_reads(&proxy).await;
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let mut other = signature.to_owned().into_bytes();
    other[0] = if other[0] == b'A' { b'B' } else { b'A' };
    let forged = format!("{head}.{}", String::from_utf8(other).expect("text"));
    for bad in
        [forged.as_str(), head, "", "x", "ada", &good[..good.len() - 1], &format!("{good}x"), &good.to_uppercase()]
    {
        assert_eq!(shows(&proxy, bad).await, "E(28P01)", "{bad}");
    }
    // Straight to a statement, without any login.
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).query(READ)).await;
    let heard = brief(&raw.until_closed().await);
    assert!(!heard.contains("canary"), "{heard}");
    assert_eq!(shows(&proxy, &good).await, "ZI");
}

/// PgDog #1505 and others: a cancel hit whoever had the server connection by then.
#[tokio::test]
async fn a_cancel_never_hits_anothers_query() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (mut acme, mut globex) = (proxy.raw("acme").await, proxy.raw("globex").await);
    assert_eq!(acme.query(READ).await, HEARD);
    let admin = Shard::shared().admin().await;
    globex.send(Wire::new().query("SELECT pg_sleep(1.5), 'globex is through'")).await;
    let mut pid = 0_i32;
    until("globex' statement runs", async || {
        let sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%globex is through%' AND state = 'active' AND usename = 'partywall_app'";
        let rows = admin.query(sql, &[]).await.expect("looks");
        pid = rows.first().map_or(0, |row| row.get(0));
        pid != 0
    })
    .await;
    // By the one who had the connection before, by the server's own process id, and by guesses of keys.
    acme.cancel(proxy.address()).await;
    let (own, key) = acme.cancel_key.clone();
    let (other, _) = globex.cancel_key.clone();
    for (pid, key) in [
        (u32::try_from(pid).unwrap_or(0), vec![0; 4]),
        (other, key.clone()),
        (own, vec![0; 4]),
        (other, vec![0; 4]),
        (other, Vec::new()),
        (0, key),
    ] {
        cancel(proxy.address(), pid, &key).await;
    }
    let heard = brief(&globex.until_ready().await);
    assert_eq!(heard, "T D(,globex is through) C(SELECT 1) ZI");
}

/// CVE-2026-12045: `COMMIT; write; SELECT 1` left the read-only transaction that was wrapped around it.
#[tokio::test]
async fn cve_2026_12045_a_commit_leads_out_of_no_read_only_session() {
    let texts = [
        "COMMIT; INSERT INTO ledger (body) VALUES ('written'); SELECT 1",
        "ROLLBACK; INSERT INTO ledger (body) VALUES ('written')",
        "COMMIT AND CHAIN; INSERT INTO ledger (body) VALUES ('written')",
        "BEGIN READ ONLY; COMMIT; INSERT INTO ledger (body) VALUES ('written')",
        "BEGIN; SAVEPOINT a; INSERT INTO ledger (body) VALUES ('written'); RELEASE a; COMMIT",
        "WITH w AS (INSERT INTO ledger (body) VALUES ('written') RETURNING 1) SELECT * FROM w",
        "COPY (INSERT INTO ledger (body) VALUES ('written') RETURNING 1) TO STDOUT",
        "PREPARE w AS INSERT INTO ledger (body) VALUES ('written'); EXECUTE w",
    ];
    let doors = [
        "BEGIN READ WRITE; INSERT INTO ledger (body) VALUES ('written'); COMMIT",
        "SET default_transaction_read_only = off; COMMIT; INSERT INTO ledger (body) VALUES ('written')",
        "SET TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "RESET default_transaction_read_only",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT set_config('default_transaction_read_only', $1, false)",
    ];
    // The guard says no; and where it fails, the database does, to what does not open the door by its own words.
    for broken in [false, true] {
        let plan = Proxy::before(Shard::shared()).pool_size(1);
        let proxy = if broken { plan.guard_broken() } else { plan }.start().await;
        let doors = doors.iter().filter(|_| !broken);
        for sql in texts.iter().chain(doors) {
            let mut raw = Raw::log_in(proxy.address(), &proxy.token("acme", "eve", &["analyst"])).await;
            let heard = raw.query(sql).await;
            // 25P01: there is no transaction to commit.
            let no = if broken { ["E(25006)", "E(25P01)"] } else { ["E(25006)", "E(42501)"] };
            assert!(no.iter().any(|no| heard.contains(no)), "{broken} {sql}: {heard}");
            raw.send(Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).sync()).await;
            assert!(brief(&raw.until_ready().await).contains("E("), "{broken} {sql}");
        }
    }
    let left = "SELECT count(*) FROM ledger WHERE body = 'written'";
    let row = Shard::shared().admin().await.query_one(left, &[]).await.expect("counts");
    assert_eq!(row.get::<_, i64>(0), 0);
}

/// CVE-2026-25949: eight bytes that ask for TLS, and then silence, held a socket for ever.
#[tokio::test]
async fn cve_2026_25949_a_deadline_holds_until_the_login_is_done() {
    let proxy = Proxy::before(Shard::shared()).tls().option("listen", "client_login_timeout_s = 1").start().await;
    let request = [&[0, 0, 0, 8][..], &80_877_103_u32.to_be_bytes()].concat();
    for bytes in [&request[..], &request[..5], &[], &Wire::startup(&[("user", "ada")]).0] {
        let mut raw = Raw::dial(proxy.address()).await;
        raw.stream.write_all(bytes).await.expect("is taken");
        let mut heard = Vec::new();
        let end = tokio::io::AsyncReadExt::read_to_end(&mut raw.stream, &mut heard);
        let ended = tokio::time::timeout(Duration::from_secs(30), end).await;
        assert!(ended.is_ok(), "still open after {} bytes", bytes.len());
    }
    acme_reads(&proxy).await;
}
