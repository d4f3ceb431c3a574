//! COPY FROM into protected tables, by way of a staging table: as if PostgreSQL allowed it, and under the policies.

mod alike;
mod endings;
mod neighbours;

use std::sync::OnceLock;

use partywall::provision::policies;

use crate::support::raw::brief;
use crate::support::{Message, Plan, Proxy, Raw, Shard, Wire};

/// One table twice: `public.loaded` protected, `plain.loaded` not. And others that are special in some way.
const TABLES: &str = r#"
    CREATE SCHEMA kinds;
    CREATE TYPE kinds.mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN kinds.positive AS int CHECK (VALUE > 0);
    CREATE FUNCTION kinds.nothing() RETURNS text LANGUAGE sql AS 'SELECT ''nothing''::text';
    CREATE SCHEMA plain;
    GRANT USAGE ON SCHEMA kinds, plain TO partywall_app;
    CREATE TABLE plain.loaded (
        org_id text NOT NULL DEFAULT 'acme', id int NOT NULL, body text DEFAULT kinds.nothing(), mood kinds.mood, tags int[],
        amount numeric(6,2), gone int, positive kinds.positive, short varchar(5) COLLATE "C", "Odd ""Name" text DEFAULT 'odd',
        number int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (id * 2) STORED,
        PRIMARY KEY (org_id, id), CONSTRAINT small CHECK (id < 1000000),
        CONSTRAINT one_body UNIQUE (org_id, body, id) DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT one_short UNIQUE (org_id, short) DEFERRABLE INITIALLY DEFERRED);
    ALTER TABLE plain.loaded DROP COLUMN gone;
    CREATE TABLE public.loaded (LIKE plain.loaded INCLUDING ALL);
    ALTER TABLE public.loaded RENAME CONSTRAINT loaded_org_id_short_key TO one_short;
    CREATE FUNCTION kinds.notes() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF NEW.id < 0 THEN RETURN NULL; END IF; IF NEW.id = 0 THEN RAISE NOTICE 'zero'; END IF; RETURN NEW; END$$;
    CREATE TRIGGER notes BEFORE INSERT ON plain.loaded FOR EACH ROW EXECUTE FUNCTION kinds.notes();
    CREATE TRIGGER notes BEFORE INSERT ON public.loaded FOR EACH ROW EXECUTE FUNCTION kinds.notes();
    CREATE TABLE partly (org_id text NOT NULL, id int, body text);
    CREATE TABLE parted (org_id text NOT NULL, id int NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
    CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
    GRANT SELECT, INSERT, DELETE ON plain.loaded, public.loaded, parted TO partywall_app;
    GRANT SELECT, INSERT (org_id, id) ON partly TO partywall_app;
    SELECT partywall.protect('public.loaded'), partywall.protect('public.partly'), partywall.protect('public.parted');
"#;

/// A hardened shard: the shared role may make no temporary tables.
fn shard() -> &'static Shard {
    static SHARD: OnceLock<Shard> = OnceLock::new();
    SHARD.get_or_init(|| {
        let shard = Shard::start();
        let fill = async || {
            let admin = shard.admin().await;
            admin.batch_execute(TABLES).await.expect("tables are made and protected");
            for file in [policies::ADVISORY, policies::STAGING, policies::HARDENING, policies::STAGING] {
                admin.batch_execute(file.sql).await.expect(file.name);
            }
        };
        // A thread of its own, as a runtime cannot be entered from within another.
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(fill());
        };
        std::thread::scope(|scope| scope.spawn(work).join().expect("the shard was filled"));
        shard
    })
}

fn staged() -> Plan {
    Proxy::before(shard()).sections("[guard]\ncopy_from = \"staged\"")
}

/// One COPY: its data is sent when the server asks for it. All that was heard, up to the last ReadyForQuery.
async fn copy(raw: &mut Raw, sql: &str, data: &[&[u8]]) -> Vec<Message> {
    raw.send(Wire::new().query(sql)).await;
    let mut heard = Vec::new();
    while let Some(message) = raw.message().await {
        let tag = message.tag;
        heard.push(message);
        match tag {
            b'G' => raw.send(data.iter().fold(Wire::new(), |wire, data| wire.copy_data(data)).copy_done()).await,
            b'Z' => break,
            _ => {}
        }
    }
    heard
}

/// The same, in short.
async fn copied(raw: &mut Raw, sql: &str, data: &[u8]) -> String {
    brief(&copy(raw, sql, &[data]).await)
}

/// How many rows an organization has in `loaded`, as the superuser sees it.
async fn rows_of(org: &str) -> i64 {
    let sql = "SELECT count(*) FROM public.loaded WHERE org_id = $1";
    shard().admin().await.query_one(sql, &[&org]).await.expect("counts").get(0)
}

/// No staging table is left in the database.
async fn is_clean() -> bool {
    let sql = "SELECT count(*) FROM pg_class WHERE relname LIKE 'partywall\\_copy\\_%'";
    shard().admin().await.query_one(sql, &[]).await.expect("counts").get::<_, i64>(0) == 0
}

/// Tests that fill `loaded` take turns; each begins with empty tables.
async fn turn() -> tokio::sync::OwnedMutexGuard<()> {
    static TURN: OnceLock<std::sync::Arc<tokio::sync::Mutex<()>>> = OnceLock::new();
    let turn = TURN.get_or_init(Default::default).clone().lock_owned().await;
    empty().await;
    turn
}

async fn empty() {
    let sql = "DELETE FROM public.loaded; DELETE FROM plain.loaded; DELETE FROM parted";
    shard().admin().await.batch_execute(sql).await.expect("empties");
}
