//! The SQL of policies/sql holds between two organizations, whatever a session says about itself.

use partywall::provision::{Cluster, policies};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const TABLES: &str = "
    CREATE TABLE notes (id int NOT NULL, org_id text NOT NULL, body text, PRIMARY KEY (org_id, id));
    CREATE TABLE events (org_id uuid, at date NOT NULL, what text) PARTITION BY RANGE (at);
    CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY RANGE (at);
    CREATE TABLE events_2026_h1 PARTITION OF events_2026 FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    INSERT INTO notes VALUES (1, 'acme', 'a'), (2, 'acme', 'b'), (1, 'globex', 'c');
    INSERT INTO events VALUES ('00000000-0000-0000-0000-00000000000a', '2026-02-01', 'a'),
                              ('00000000-0000-0000-0000-00000000000b', '2026-03-01', 'b');
    GRANT ALL ON notes, events, events_2026, events_2026_h1 TO partywall_app;
    SELECT partywall.protect('public.notes'), partywall.protect('public.events', 'org_id');
    ALTER ROLE partywall_app PASSWORD 'for-this-test'";

async fn apply(cluster: &Cluster) {
    for file in policies::PLAIN {
        cluster.run("postgres", file.sql).await.expect(file.name);
    }
}

async fn prepared_cluster() -> Cluster {
    let cluster = Cluster::start().expect("starts");
    apply(&cluster).await;
    cluster.run("postgres", TABLES).await.expect("tables are made and protected");
    cluster
}

async fn app(cluster: &Cluster) -> Client {
    cluster.connect_as("partywall_app", "for-this-test", "postgres").await.expect("the shared role logs in")
}

async fn within(client: &Client, org: &str) {
    client.query("SELECT set_config('app.current_org_id', $1, false)", &[&org]).await.expect("sets the context");
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("counts").get(0)
}

async fn refused(client: &Client, sql: &str) -> Option<SqlState> {
    let error = client.execute(sql, &[]).await.expect_err("must be refused");
    error.code().cloned()
}

#[tokio::test]
async fn an_organization_sees_and_changes_its_own_rows_only() {
    let cluster = prepared_cluster().await;
    let client = app(&cluster).await;
    within(&client, "acme").await;
    assert_eq!(count(&client, "SELECT count(*) FROM notes").await, 2);
    assert_eq!(count(&client, "SELECT count(*) FROM notes WHERE org_id = 'globex'").await, 0);
    assert_eq!(client.execute("UPDATE notes SET body = 'x'", &[]).await.expect("updates"), 2);
    assert_eq!(client.execute("DELETE FROM notes WHERE org_id <> 'acme'", &[]).await.expect("deletes"), 0);
    // The organization's name is filled in, so an application may leave it out.
    client.execute("INSERT INTO notes (id, body) VALUES (3, 'new')", &[]).await.expect("inserts");
    assert_eq!(count(&client, "SELECT count(*) FROM notes WHERE org_id = 'acme'").await, 3);
    // The same session, handed to the other organization, prepared plans and all.
    let prepared = client.prepare("SELECT count(*) FROM notes").await.expect("prepares");
    for (org, rows) in [("acme", 3), ("globex", 1), ("acme", 3), ("nobody", 0)] {
        within(&client, org).await;
        assert_eq!(client.query_one(&prepared, &[]).await.expect("counts").get::<_, i64>(0), rows, "{org}");
    }
}

#[tokio::test]
async fn new_and_changed_rows_are_checked_too() {
    let cluster = prepared_cluster().await;
    let client = app(&cluster).await;
    within(&client, "acme").await;
    for sql in [
        "INSERT INTO notes (id, org_id) VALUES (9, 'globex')",
        "UPDATE notes SET org_id = 'globex' WHERE id = 1",
        "INSERT INTO notes (id, org_id) VALUES (1, 'globex') ON CONFLICT (org_id, id) DO UPDATE SET body = 'stolen'",
        "TRUNCATE notes",
        "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
        "SET ROLE partywall_owner",
    ] {
        assert_eq!(refused(&client, sql).await, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
}

#[tokio::test]
async fn a_session_without_an_organization_has_no_rows() {
    let cluster = prepared_cluster().await;
    let client = app(&cluster).await;
    let sql =
        "SELECT (SELECT count(*) FROM notes) + (SELECT count(*) FROM events) + (SELECT count(*) FROM events_2026_h1)";
    assert_eq!(count(&client, sql).await, 0, "never set");
    within(&client, "").await;
    assert_eq!(count(&client, sql).await, 0, "set to nothing");
    within(&client, "00000000-0000-0000-0000-00000000000a").await;
    assert_eq!(count(&client, sql).await, 2, "the event, by the parent and by the partition");
    client.batch_execute("RESET ALL").await.expect("resets");
    assert_eq!(count(&client, sql).await, 0, "reset");
    assert!(refused(&client, "INSERT INTO notes (id) VALUES (5)").await.is_some());
}

#[tokio::test]
async fn partitions_are_behind_the_wall_when_named_directly() {
    let cluster = prepared_cluster().await;
    let client = app(&cluster).await;
    within(&client, "00000000-0000-0000-0000-00000000000b").await;
    for table in ["events", "events_2026", "events_2026_h1"] {
        let sql = format!("SELECT string_agg(what, ',') FROM {table}");
        assert_eq!(client.query_one(&sql, &[]).await.expect("reads").get::<_, String>(0), "b", "{table}");
    }
}

#[tokio::test]
async fn the_policies_can_be_applied_again_and_read_the_context_once_per_statement() {
    let cluster = prepared_cluster().await;
    apply(&cluster).await;
    cluster.run("postgres", "SELECT partywall.protect('public.notes', 'org_id')").await.expect("protects again");
    let admin = cluster.connect("postgres").await.expect("connects");
    let facts = admin
        .query_one(
            "SELECT relrowsecurity, relforcerowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),
                    (SELECT bool_and(coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), '') ~ '\\( *SELECT')
                       FROM pg_policy WHERE polrelid = c.oid)
               FROM pg_class c WHERE oid = 'notes'::regclass",
            &[],
        )
        .await
        .expect("reads the catalog");
    assert!(facts.get::<_, bool>(0) && facts.get::<_, bool>(1));
    assert_eq!(facts.get::<_, i64>(2), 4);
    assert!(facts.get::<_, bool>(3), "the context is an InitPlan");
    let index = "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = indrelid AND a.attnum = indkey[0]
                 WHERE indrelid = 'events'::regclass AND attname = 'org_id'";
    assert_eq!(count(&admin, index).await, 1, "an index that leads with the organization was added");
}

#[tokio::test]
async fn a_login_role_with_too_many_powers_loses_them() {
    let cluster = Cluster::start().expect("starts");
    cluster
        .run("postgres", "CREATE ROLE boss; CREATE ROLE partywall_app SUPERUSER BYPASSRLS CREATEROLE CREATEDB; GRANT boss TO partywall_app")
        .await
        .expect("makes a role that is too strong");
    apply(&cluster).await;
    let client = cluster.connect("postgres").await.expect("connects");
    let sql = "SELECT (rolsuper::int + rolbypassrls::int + rolcreaterole::int + rolcreatedb::int + rolinherit::int)::int8
                    + (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = 'partywall_app'";
    assert_eq!(count(&client, sql).await, 0);
}

#[tokio::test]
async fn an_unprotected_table_shows_nothing_until_it_is_opened_on_purpose() {
    let cluster = prepared_cluster().await;
    cluster.run("postgres", "SELECT partywall.unprotect('public.notes')").await.expect("unprotects");
    let client = app(&cluster).await;
    within(&client, "acme").await;
    assert_eq!(count(&client, "SELECT count(*) FROM notes").await, 0);
}

async fn findings(client: &Client) -> Vec<(String, String, String)> {
    let rows = client.query("SELECT severity, object, finding FROM partywall.status()", &[]).await.expect("tells");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn status_finds_every_planted_hole_and_nothing_in_a_sound_database() {
    let cluster = prepared_cluster().await;
    let admin = cluster.connect("postgres").await.expect("connects");
    let sound = findings(&admin).await;
    assert!(sound.iter().all(|(severity, ..)| severity == "ok"), "{sound:?}");
    assert_eq!(sound.len(), 4, "each table and partition: {sound:?}");
    // Each hole by itself: what makes it, and what is said about it.
    let holes = [
        (
            "CREATE TABLE open (org_id text); GRANT SELECT (org_id) ON open TO partywall_app",
            "BREACH",
            "no row-level security",
        ),
        ("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY", "warn", "not forced"),
        ("ALTER TABLE notes OWNER TO partywall_app", "BREACH", "owns it"),
        ("CREATE POLICY all_of_it ON notes FOR SELECT USING (true)", "BREACH", "does not read the context"),
        ("CREATE POLICY half ON notes USING (org_id = partywall.org()) WITH CHECK (true)", "BREACH", "one way"),
        ("CREATE POLICY slow ON notes USING (org_id = partywall.org())", "warn", "for each row"),
        (
            "CREATE TABLE loose (id int PRIMARY KEY, org_id text); GRANT SELECT ON loose TO partywall_app; SELECT partywall.protect('loose')",
            "warn",
            "reaches across",
        ),
        (
            "CREATE TABLE cut (o varchar(20)); GRANT SELECT ON cut TO partywall_app; ALTER TABLE cut ENABLE ROW LEVEL SECURITY; CREATE POLICY x ON cut USING (o = (SELECT partywall.org()::varchar(20)))",
            "BREACH",
            "cuts it",
        ),
        ("CREATE VIEW v AS SELECT * FROM notes; GRANT SELECT ON v TO partywall_app", "BREACH", "view reads"),
        (
            "CREATE VIEW a AS SELECT * FROM notes; CREATE VIEW b AS SELECT * FROM a; GRANT SELECT ON b TO partywall_app",
            "BREACH",
            "view reads",
        ),
        (
            "CREATE MATERIALIZED VIEW m AS SELECT * FROM notes; GRANT SELECT ON m TO partywall_app",
            "BREACH",
            "holds rows",
        ),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM notes'",
            "warn",
            "SECURITY DEFINER",
        ),
        ("GRANT SELECT ON notes TO PUBLIC", "warn", "granted to PUBLIC"),
        ("GRANT CREATE ON SCHEMA public TO partywall_app", "warn", "may create"),
        ("ALTER ROLE partywall_app BYPASSRLS", "BREACH", "BYPASSRLS"),
        ("GRANT pg_monitor TO partywall_app", "BREACH", "member"),
        ("ALTER ROLE partywall_app SET search_path = evil", "warn", "poison"),
        ("SELECT partywall.unprotect('notes')", "warn", "without a policy"),
        ("DROP INDEX events_org_id_idx", "warn", "no index"),
    ];
    for (sql, severity, words) in holes {
        admin.batch_execute("BEGIN").await.expect("begins");
        admin.batch_execute(sql).await.expect(sql);
        let found = findings(&admin).await;
        admin.batch_execute("ROLLBACK").await.expect("rolls back");
        assert!(found.iter().any(|(one, _, finding)| one == severity && finding.contains(words)), "{sql}: {found:?}");
    }
}
