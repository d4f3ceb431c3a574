//! Advisory locks in a shared database are each organization's own, whatever the call looks like, and none is left behind.

use std::time::Duration;

use partywall::context::seal::Form;
use partywall::provision::policies;
use tokio_postgres::Client;

use super::KEYS;
use super::attest::sound_shard;
use super::proxied::{before, key_file};
use crate::support::{Plan, Shard, Wire, soon, until};

/// One shard for the tests of this file, hardened: PostgreSQL's own locks are closed to the shared role.
async fn own_plan() -> (&'static Shard, Plan) {
    static SHARD: tokio::sync::OnceCell<Shard> = tokio::sync::OnceCell::const_new();
    static KEY_FILE: std::sync::OnceLock<tempfile::NamedTempFile> = std::sync::OnceLock::new();
    let shard = SHARD.get_or_init(sound_shard).await;
    (shard, before(shard, "auto", Some(KEY_FILE.get_or_init(|| key_file(KEYS)))))
}

async fn takes(client: &Client, sql: &str) -> bool {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row == Some("t")
}

/// How many advisory locks the whole cluster holds.
async fn held(admin: &Client) -> i64 {
    super::count(admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await
}

async fn until_free(admin: &Client) {
    until("no lock is left", async || held(admin).await == 0).await;
}

/// The turn of a test that counts locks.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

#[tokio::test]
async fn the_same_key_is_taken_by_two_organizations_at_once_and_by_none_twice() {
    let (_turn, (shard, plan)) = (turn().await, own_plan().await);
    let proxy = plan.pool_size(6).start().await;
    let (acme, other, globex) =
        (proxy.connect("acme").await, proxy.connect("acme").await, proxy.connect("globex").await);
    // However a call is written, and whatever stands in the search_path, it is the organization's own lock.
    for sql in [
        "SELECT pg_try_advisory_lock(42)",
        "SELECT pg_catalog.pg_try_advisory_lock(42)",
        "SET search_path = pg_catalog, public; SELECT \"pg_try_advisory_lock\"(42)",
        "SELECT x FROM (SELECT pg_try_advisory_lock(42) AS x) AS y",
        "COPY (SELECT pg_try_advisory_lock(42)) TO STDOUT",
        "BEGIN; DECLARE c CURSOR FOR SELECT pg_try_advisory_lock(42); FETCH c; COMMIT",
        "PREPARE p AS SELECT pg_try_advisory_lock(42); EXECUTE p; DEALLOCATE p",
        "WITH w AS MATERIALIZED (SELECT pg_try_advisory_lock(-9223372036854775808)) SELECT * FROM w",
        "SELECT pg_try_advisory_lock(1, 2)",
    ] {
        for client in [&acme, &globex] {
            if !sql.starts_with("COPY") {
                assert!(takes(client, sql).await, "{sql}");
            } else {
                client.copy_out(sql).await.map(drop).expect(sql);
            }
        }
        let key = ["42", "-9223372036854775808", "1, 2"].into_iter().find(|key| sql.contains(&format!("({key})")));
        let again = format!("SELECT pg_try_advisory_lock({})", key.expect("a key"));
        assert!(!takes(&other, &again).await, "{sql}: another session of acme does not get it");
        for client in [&acme, &globex] {
            client.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("unlocks");
        }
        assert!(takes(&other, &again).await, "{sql}: free again");
        other.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("unlocks");
    }
    until_free(&shard.admin().await).await;
}

#[tokio::test]
async fn what_postgres_sees_are_numbers_that_nobody_can_reckon() {
    let (_turn, (shard, plan)) = (turn().await, own_plan().await);
    let (proxy, admin) = (plan.start().await, shard.admin().await);
    let (acme, globex) = (proxy.connect("acme").await, proxy.connect("globex").await);
    for client in [&acme, &globex] {
        for key in 0..100 {
            client.batch_execute(&format!("SELECT pg_advisory_lock({key})")).await.expect("locks");
            client.batch_execute(&format!("SELECT pg_advisory_lock_shared({key}, {key})")).await.expect("locks");
        }
    }
    let different = "SELECT count(DISTINCT (classid, objid, objsubid)) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(super::count(&admin, different).await, 400);
    let app = shard.cluster.connect_as(Shard::USER, &shard.password, Shard::DATABASE).await.expect("logs in");
    for sql in ["SELECT * FROM partywall_locks.secret", "SELECT partywall_locks.fold('1')", "SELECT * FROM pg_locks"] {
        assert!(app.batch_execute(sql).await.is_err(), "{sql}");
    }
    // Installed again, the locks that are held are still found.
    admin.batch_execute(policies::ADVISORY.sql).await.expect("installs again");
    assert!(takes(&acme, "SELECT pg_advisory_unlock(7)").await);
    drop((acme, globex));
    until_free(&admin).await;
}

#[tokio::test]
async fn a_lock_of_the_session_pins_it_and_one_of_the_transaction_does_not() {
    let (_turn, (shard, plan)) = (turn().await, own_plan().await);
    let admin = shard.admin().await;
    let proxy = plan.pool_size(2).start().await;
    let (acme, globex, probe) =
        (proxy.connect("acme").await, proxy.connect("globex").await, proxy.connect("hooli").await);
    acme.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1); COMMIT").await.expect("locks");
    assert!(!pinned(&probe).await);
    let got = acme.query_one("SELECT pg_try_advisory_lock($1)", &[&5i64]).await.expect("asks").get::<_, bool>(0);
    assert!(got && pinned(&probe).await);
    let home = one_pid(&acme).await;
    for _ in 0..20 {
        assert_ne!(one_pid(&globex).await, home, "nobody else gets the connection");
    }
    assert_eq!(one_pid(&acme).await, home);
    // Rolled back or not, the lock stays until it is given back, as often as it was taken.
    assert!(acme.batch_execute("BEGIN; SELECT pg_advisory_lock(5); SELECT 1/0").await.is_err());
    acme.batch_execute("ROLLBACK; SELECT pg_advisory_unlock(5)").await.expect("unlocks once");
    assert_eq!((pinned(&probe).await, held(&admin).await), (true, 1));
    acme.query_one("SELECT pg_advisory_unlock($1)", &[&5i64]).await.expect("unlocks twice");
    until_unpinned(&probe).await;
    assert_eq!(held(&admin).await, 0);
    // A lock that was not got pins nothing.
    let elsewhere = own_plan().await.1.start().await;
    let holder = elsewhere.connect("globex").await;
    holder.batch_execute("SELECT pg_advisory_lock(9)").await.expect("locks");
    assert!(!takes(&globex, "SELECT pg_try_advisory_lock(9)").await);
    until_unpinned(&probe).await;
    holder.batch_execute("SELECT pg_advisory_unlock(9)").await.expect("unlocks");
    // asyncpg's goodbye at each release, and DISCARD ALL.
    for goodbye in ["SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL", "DISCARD ALL"] {
        globex.batch_execute("SELECT pg_advisory_lock(9)").await.expect("locks");
        assert!(pinned(&probe).await);
        globex.batch_execute(goodbye).await.expect(goodbye);
        until_unpinned(&probe).await;
        until_free(&admin).await;
    }
    // A client that goes.
    globex.batch_execute("SELECT pg_advisory_lock(9)").await.expect("locks");
    drop(globex);
    until_free(&admin).await;
}

async fn until_unpinned(probe: &Client) {
    until("nobody is pinned", async || !pinned(probe).await).await;
}

async fn one_pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("asks").get(0)
}

/// Whether a session keeps a server connection; of a pool of two only one may, which the probe tries to.
async fn pinned(probe: &Client) -> bool {
    match probe.batch_execute("DECLARE probe CURSOR WITH HOLD FOR SELECT 1").await {
        Ok(()) => {
            probe.batch_execute("CLOSE probe").await.expect("closes");
            // Answered only when its own pin has gone.
            probe.batch_execute("SELECT 1").await.map(|()| false).expect("goes on")
        }
        Err(error) => {
            assert_eq!(error.code().map(|code| code.code()), Some("53400"), "{error:?}");
            true
        }
    }
}

#[tokio::test]
async fn a_lock_that_waits_gets_its_turn_and_a_pin_that_is_idle_gives_way() {
    let (_turn, (shard, plan)) = (turn().await, own_plan().await);
    let proxy = plan.option("pool", "idle_pin_timeout_s = 1").start().await;
    let (first, second) = (proxy.connect("acme").await, proxy.connect("acme").await);
    first.batch_execute("SELECT pg_advisory_lock(1)").await.expect("locks");
    let waiting = second.batch_execute("SELECT pg_advisory_lock(1)");
    let mut waiting = Box::pin(waiting);
    let admin = shard.admin().await;
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    tokio::select! {
        done = &mut waiting => panic!("it was not free: {done:?}"),
        () = until("the second waits", async || super::count(&admin, waits).await == 1) => {}
    }
    // The first does nothing more: its session ends, and with it the lock.
    soon("the second has it", waiting).await.expect("locks");
    drop(second);
    until_free(&admin).await;
}

#[tokio::test]
async fn the_habits_of_migration_tools_work() {
    let (_turn, (shard, plan)) = (turn().await, own_plan().await);
    let proxy = plan.pool_size(2).start().await;
    let client = proxy.connect("acme").await;
    // Rails (db:migrate), Flyway, Prisma, GoodJob, Django (django-pglocks), Alembic recipes, golang-migrate.
    for sql in [
        "SELECT pg_try_advisory_lock(2905532164687905280)",
        "SELECT pg_advisory_unlock(2905532164687905280)",
        "SELECT pg_try_advisory_xact_lock(77431708279161)",
        "SELECT pg_advisory_lock(72707369)",
        "SELECT pg_advisory_unlock(72707369)",
        "SELECT pg_try_advisory_lock(('x' || substr(md5('good_jobs-1'), 1, 16))::bit(64)::bigint) AS locked",
        "SELECT pg_advisory_unlock(('x'||substr(md5('good_jobs-1'), 1, 16))::bit(64)::bigint)",
        "SELECT pg_try_advisory_lock_shared(1, -2)",
        "SELECT pg_advisory_unlock_shared(1, -2)",
        "BEGIN; SELECT pg_advisory_xact_lock(hashtext('alembic')); COMMIT",
        "SELECT pg_advisory_xact_lock(hashtext('k')::bigint), count(*) FROM canary",
    ] {
        client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        if !sql.contains(';') {
            client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}, extended: {error:?}"));
        }
    }
    // Prepared once, used from many connections.
    let statement = client.prepare("SELECT pg_try_advisory_xact_lock($1)").await.expect("prepares");
    assert_eq!(statement.columns()[0].name(), "pg_try_advisory_xact_lock");
    for key in 0..20i64 {
        assert!(client.query_one(&statement, &[&key]).await.expect("locks").get::<_, bool>(0));
    }
    client.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("unlocks");
    until_free(&shard.admin().await).await;
}

#[tokio::test]
async fn where_they_are_not_installed_they_are_refused_by_any_way() {
    let shard = super::proxied::shard(Form::Guarded).await;
    shard.admin().await.batch_execute("DROP SCHEMA partywall_locks CASCADE").await.expect("takes them away");
    let keys = key_file(KEYS);
    let proxy = before(&shard, "auto", Some(&keys)).start().await;
    let client = proxy.connect("acme").await;
    for sql in ["SELECT pg_advisory_lock(1)", "SELECT pg_catalog.pg_try_advisory_xact_lock(1)"] {
        for error in [client.batch_execute(sql).await.expect_err(sql), client.query(sql, &[]).await.expect_err(sql)] {
            let error = error.as_db_error().expect("an answer");
            assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("policies apply")), "{error:?}");
        }
    }
    let mut raw = proxy.raw("acme").await;
    let wire = Wire::new().parse("", "SELECT pg_advisory_lock(1)").bind("", "", &[]).execute("", 0).sync();
    let answer = soon("an answer", raw.converse(wire, 1)).await;
    assert!(answer.contains("42501"), "{answer}");
    client.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("is PostgreSQL's own, and harmless");
    tokio::time::timeout(Duration::from_secs(10), client.simple_query("SELECT 1"))
        .await
        .expect("in time")
        .expect("goes on");
}
