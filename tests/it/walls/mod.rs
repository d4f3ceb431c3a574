//! The database's own walls hold with no guard in front of them: guarded and sealed context, hardening, admin path.

mod attest;
mod comparisons;
mod evidence;
mod guarded;
mod hardening;
mod locks;
pub mod proxied;
mod sealed;
mod session_code;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use partywall::context::seal::{Form, KeyFile, ShardKey, Who};
use partywall::provision::{Cluster, policies};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Two keys of a file, the first of which seals.
pub const KEYS: &str = "2 1111111111111111111111111111111111111111111111111111111111111111
1 2222222222222222222222222222222222222222222222222222222222222222";

/// Two organizations with a row that only they may see.
const TABLES: &str = "
    CREATE TABLE notes (id int NOT NULL, org_id text NOT NULL, body text, PRIMARY KEY (org_id, id));
    INSERT INTO notes VALUES (1, 'acme', 'a'), (2, 'acme', 'b'), (1, 'globex', 'canary');
    CREATE TABLE events (org_id uuid NOT NULL, what text);
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes, events TO partywall_app;
    GRANT USAGE ON SCHEMA public TO partywall_app;
    SELECT partywall.protect('public.notes'), partywall.protect('public.events')";

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start().expect("starts"))
}

/// Roles are the cluster's, so only one test at a time may make or alter them.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// A database of its own, with one form of the context.
struct Walled {
    name: String,
    admin: Client,
}

impl Walled {
    async fn new(form: Form) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("walled_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let turn = turn().await;
        cluster().run("postgres", &format!("CREATE DATABASE {name}")).await.expect("makes a database");
        let admin = cluster().connect(&name).await.expect("connects");
        for file in policies::of_form(form) {
            admin.batch_execute(file.sql).await.expect(file.name);
        }
        if form != Form::Plain {
            admin.batch_execute(&policies::keys_sql(&keys())).await.expect("takes keys");
        }
        admin.batch_execute(TABLES).await.expect("makes tables");
        admin.batch_execute("ALTER ROLE partywall_app PASSWORD 'for-this-test'").await.expect("sets a password");
        drop(turn);
        Self { name, admin }
    }

    async fn app(&self) -> Client {
        cluster().connect_as("partywall_app", "for-this-test", &self.name).await.expect("the shared role logs in")
    }
}

fn keys() -> Vec<ShardKey> {
    KeyFile::parse(KEYS).expect("keys").of_shard("shard_1")
}

fn acme() -> Who<'static> {
    Who { organization: "acme", user: "ann", project: "p", roles: "reader,writer", permissions: "read:*" }
}

async fn text(client: &Client, sql: &str) -> Option<String> {
    client.query_one(sql, &[]).await.expect(sql).get(0)
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect(sql).get(0)
}

async fn refused(client: &Client, sql: &str) -> Option<SqlState> {
    client.batch_execute(sql).await.expect_err(sql).code().cloned()
}

async fn version(client: &Client) -> i64 {
    count(client, "SELECT current_setting('server_version_num')::bigint").await
}
