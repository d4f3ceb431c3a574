//! The guarded context: nothing that a tenant can say changes it, and a seal works once, on its connection, in its time.

use partywall::context::seal::{Bond, Form, ShardKey, Who};
use partywall::provision::policies;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Walled, acme, count, keys, refused, text};

const FOREIGN: &str = "SELECT count(*) FROM notes WHERE org_id IS DISTINCT FROM 'acme'";
const OWN: &str = "SELECT count(*) FROM notes";

/// A server connection as the proxy holds it.
struct Door {
    client: Client,
    pid: i32,
    nonce: String,
    now_s: i64,
    generation: u64,
}

impl Door {
    async fn open(walled: &Walled) -> Self {
        let mut door = Self { client: walled.app().await, pid: 0, nonce: String::new(), now_s: 0, generation: 0 };
        door.hello().await;
        door
    }

    async fn hello(&mut self) {
        let row = self.client.query_one("SELECT pid, nonce, now_s FROM partywall.hello()", &[]).await.expect("greets");
        (self.pid, self.nonce, self.now_s, self.generation) = (row.get(0), row.get(1), row.get(2), 0);
    }

    fn bond(&self) -> Bond<'_> {
        Bond { pid: self.pid, nonce: &self.nonce, generation: self.generation, expiry_s: self.now_s + 60 }
    }

    fn entry(&mut self, key: &ShardKey, who: Who<'_>) -> String {
        self.generation += 1;
        key.entry(who, self.bond())
    }

    async fn enter(&mut self, who: Who<'_>) -> String {
        let sql = self.entry(&keys()[0], who);
        self.client.batch_execute(&sql).await.expect("enters");
        sql
    }
}

fn org(organization: &str) -> Who<'_> {
    Who { organization, ..Who::default() }
}

#[tokio::test]
async fn an_entry_shows_an_organization_its_rows_and_nobody_elses() {
    let walled = Walled::new(Form::Guarded).await;
    let mut door = Door::open(&walled).await;
    assert_eq!(count(&door.client, OWN).await, 0, "greeted, and nobody yet");
    let prepared = door.client.prepare(OWN).await.expect("prepares");
    door.client.batch_execute("SET plan_cache_mode = force_generic_plan").await.expect("sets");
    for (name, rows) in [("acme", 2), ("globex", 1), ("acme", 2), ("", 0), ("o'hara \u{e4}", 0)] {
        door.enter(org(name)).await;
        let seen: i64 = door.client.query_one(&prepared, &[]).await.expect("counts").get(0);
        assert_eq!(seen, rows, "{name}");
        let expected = Some(name.to_owned()).filter(|name| !name.is_empty());
        assert_eq!(text(&door.client, "SELECT partywall.org()").await, expected);
    }
    door.enter(acme()).await;
    let all = "SELECT partywall.org() || '/' || partywall.user_id() || '/' || partywall.project_id() || '/' || partywall.roles() || '/' || partywall.permissions()";
    assert_eq!(text(&door.client, all).await.as_deref(), Some("acme/ann/p/reader,writer/read:*"));
    door.client.batch_execute("INSERT INTO notes (id) VALUES (9)").await.expect("the default is the organization");
    assert_eq!(
        refused(&door.client, "INSERT INTO notes VALUES (9, 'globex')").await,
        Some(SqlState::INSUFFICIENT_PRIVILEGE)
    );
}

/// What a tenant may try without any guard in front; none may show a foreign row, now or to who comes next.
const TRICKS: &[&str] = &[
    "SET backtrace_functions = 'o676c6f626578_u_p_r_m_g1_n00000000000000000000000000000000'",
    "SET LOCAL backtrace_functions = 'o676c6f626578_'",
    "SET SESSION backtrace_functions TO DEFAULT",
    "SELECT set_config('backtrace_functions', 'o676c6f626578_u_p_r_m_g1_n0', false)",
    "SELECT set_config('BackTrace_Functions', 'o676c6f626578_', true)",
    "WITH a AS MATERIALIZED (SELECT set_config('backtrace_functions', 'o676c6f626578_', false)) SELECT * FROM a, notes",
    "UPDATE pg_settings SET setting = 'o676c6f626578_' WHERE name = 'backtrace_functions'",
    "ALTER ROLE partywall_app SET backtrace_functions = 'o676c6f626578_'",
    "ALTER ROLE current_user IN DATABASE postgres SET backtrace_functions = 'o676c6f626578_'",
    "DO $$ BEGIN PERFORM set_config('backtrace_functions', 'o676c6f626578_', false); END $$",
    "DO $$ BEGIN SET backtrace_functions = 'o676c6f626578_'; END $$",
    "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql SET backtrace_functions = 'o676c6f626578_' AS 'SELECT partywall.org()'; SELECT pg_temp.f()",
    "SET app.current_org_id = 'globex'",
    "SET partywall.org = 'globex'",
    "SELECT query_to_xml('SELECT set_config(''backtrace_functions'', ''o676c6f626578_'', false)', true, true, '')",
    "SELECT partywall.hello()",
    "SELECT partywall.enter(ARRAY['globex','','','',''], 99, '')",
    "SELECT partywall.enter(ARRAY['globex','','','',''], 99, '2.99999999999.00')",
    "SELECT partywall.enter(ARRAY['globex','','','',''], NULL, NULL)",
    "SELECT partywall.enter(NULL, NULL, NULL)",
    "SELECT partywall.enter(ARRAY[]::text[], 99, '2.99999999999.')",
    "SELECT partywall.enter('[0:4]={globex,a,b,c,d}'::text[], 99, '2.99999999999.00')",
    "SELECT * FROM partywall.seal_key",
    "COPY partywall.seal_key TO STDOUT",
    "SELECT partywall.set_key(1::smallint, '\\x00'::bytea)",
    "SELECT partywall.retire_keys('{}'::smallint[])",
    "CREATE OR REPLACE FUNCTION partywall.org() RETURNS text LANGUAGE sql AS $$ SELECT 'globex' $$",
    "ALTER FUNCTION partywall.org() RENAME TO org2",
    "DROP FUNCTION partywall.enter(text[], bigint, text)",
    "CREATE TABLE pg_temp.seal_key (kid smallint, ipad bytea, opad bytea, not_after timestamptz); SET search_path = pg_temp, public",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text; SET search_path = pg_temp, pg_catalog, public",
    "CREATE FUNCTION pg_temp.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'o676c6f626578_'::text $$; SET search_path = pg_temp, public, pg_catalog",
    "CREATE FUNCTION public.convert_from(bytea, name) RETURNS text LANGUAGE sql AS $$ SELECT 'globex'::text $$; SET search_path = public, pg_catalog",
    "SET ROLE partywall_owner",
    "SET SESSION AUTHORIZATION partywall_owner",
    "GRANT partywall_owner TO partywall_app",
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON notes USING (true)",
    "SET row_security = off",
    "SET force_parallel_mode = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
    "SET debug_parallel_query = on",
    "BEGIN; SAVEPOINT a; ROLLBACK TO a; ROLLBACK",
    "RESET backtrace_functions",
    "RESET ALL",
    "DISCARD ALL",
];

#[tokio::test]
async fn no_trick_of_a_tenant_changes_the_context() {
    let walled = Walled::new(Form::Guarded).await;
    for trick in TRICKS {
        let mut door = Door::open(&walled).await;
        door.enter(acme()).await;
        // Alone, in a transaction that holds, and in one that is rolled back.
        for sql in [trick.to_string(), format!("BEGIN; {trick}; COMMIT"), format!("BEGIN; {trick}; ROLLBACK")] {
            let _ = door.client.simple_query(&sql).await;
            let _ = door.client.batch_execute("ROLLBACK").await;
            let seen = door.client.query_one(FOREIGN, &[]).await.map_or(0, |row| row.get::<_, i64>(0));
            assert_eq!(seen, 0, "{sql}");
            let now = door.client.query_one("SELECT partywall.org()", &[]).await;
            let now: Option<String> = now.map_or(None, |row| row.get(0));
            assert!(now.as_deref().is_none_or(|org| org == "acme"), "{sql}: {now:?}");
        }
    }
    // Nobody has left anything that the next connection would fall over.
    let mut door = Door::open(&walled).await;
    door.enter(acme()).await;
    assert_eq!((count(&door.client, OWN).await, count(&door.client, FOREIGN).await), (2, 0));
}

#[tokio::test]
async fn a_seal_works_once_here_and_now() {
    let walled = Walled::new(Form::Guarded).await;
    let (mut door, mut other) = (Door::open(&walled).await, Door::open(&walled).await);
    let no = Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    let for_globex = door.entry(&keys()[0], org("globex"));
    assert_eq!(refused(&other.client, &for_globex).await, no, "on another connection");
    door.client.batch_execute(&for_globex).await.expect("enters");
    door.enter(acme()).await;
    assert_eq!(refused(&door.client, &for_globex).await, no, "again");
    for (words, altered) in [
        ("for another organization", for_globex.replace("'globex'", "'initech'")),
        ("with another generation", for_globex.replace(",1,'", ",7,'")),
        ("under another key", for_globex.replace(",'2.", ",'1.")),
        ("under no key", for_globex.replace(",'2.", ",'9.")),
    ] {
        assert_ne!(altered, for_globex);
        assert_eq!(refused(&door.client, &altered).await, no, "{words}");
    }
    door.generation += 1;
    let late = keys()[0].entry(org("globex"), Bond { expiry_s: door.now_s - 1, ..door.bond() });
    assert_eq!(refused(&door.client, &late).await, no, "after its time");
    assert_eq!(count(&door.client, FOREIGN).await, 0);
    assert_eq!(count(&door.client, OWN).await, 2, "the context in force is still acme's");
    // A reset takes the context and the nonce with it.
    let unused = door.entry(&keys()[0], org("globex"));
    door.client.batch_execute("RESET ALL").await.expect("resets");
    assert_eq!(count(&door.client, OWN).await, 0);
    assert_eq!(refused(&door.client, &unused).await, no, "after RESET ALL");
    door.hello().await;
    assert_eq!(refused(&door.client, &unused).await, no, "after another greeting");
    other.enter(acme()).await;
    assert_eq!(refused(&other.client, "SELECT partywall.hello()").await, no, "a greeting takes no context away");
    assert_eq!(count(&other.client, OWN).await, 2);
}

#[tokio::test]
async fn two_keys_are_valid_until_one_is_retired() {
    let walled = Walled::new(Form::Guarded).await;
    let mut door = Door::open(&walled).await;
    let (first, second) = (keys().remove(0), keys().remove(1));
    for key in [&first, &second] {
        let sql = door.entry(key, acme());
        door.client.batch_execute(&sql).await.expect("enters");
    }
    walled.admin.batch_execute(&policies::keys_sql(std::slice::from_ref(&first))).await.expect("retires");
    let sql = door.entry(&second, acme());
    assert_eq!(refused(&door.client, &sql).await, Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
    let sql = door.entry(&first, acme());
    door.client.batch_execute(&sql).await.expect("enters");
}

#[tokio::test]
async fn the_context_survives_rollbacks_and_reaches_parallel_workers() {
    let walled = Walled::new(Form::Guarded).await;
    let mut door = Door::open(&walled).await;
    door.enter(acme()).await;
    door.client.batch_execute("BEGIN; SAVEPOINT s; SELECT 1; ROLLBACK TO s; ROLLBACK").await.expect("rolls back");
    assert_eq!(count(&door.client, OWN).await, 2);
    walled.admin.batch_execute("INSERT INTO notes SELECT g, CASE g % 2 WHEN 0 THEN 'acme' ELSE 'globex' END, repeat('x', 200) FROM generate_series(100, 20000) g; ANALYZE notes").await.expect("fills");
    door.client
        .batch_execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off")
        .await
        .expect("asks for workers");
    let plan = door
        .client
        .query("EXPLAIN SELECT count(*) FROM notes WHERE partywall.org() = 'acme' AND body LIKE 'x%'", &[])
        .await
        .expect("plans");
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Gather")), "{plan:?}");
    assert_eq!(
        count(&door.client, "SELECT count(*) FROM notes WHERE partywall.org() = 'acme' AND body LIKE 'x%'").await,
        9951
    );
}
