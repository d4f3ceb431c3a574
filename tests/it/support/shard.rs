//! A shard: a real cluster with the policies applied, and rows that tell whose they are.

use std::sync::OnceLock;

use partywall::provision::{Cluster, ClusterOptions, policies};

/// The organizations that have rows; any other has none.
pub const ORGANIZATIONS: [&str; 4] = ["acme", "globex", "initech", "hooli"];

/// Each organization has rows 1 to 100 in `canary`, whose body names it, and none in `ledger`, which is for writing.
const TABLES: &str = "
    CREATE TABLE canary (org_id text NOT NULL, id int NOT NULL, body text NOT NULL, PRIMARY KEY (org_id, id));
    CREATE TABLE ledger (org_id text NOT NULL, id bigserial, body text, PRIMARY KEY (org_id, id));
    CREATE SEQUENCE ticket;
    INSERT INTO canary SELECT org, id, 'canary of ' || org
      FROM unnest(array['acme', 'globex', 'initech', 'hooli']) org, generate_series(1, 100) id;
    GRANT SELECT, INSERT, UPDATE, DELETE ON canary, ledger TO partywall_app;
    GRANT USAGE, SELECT ON SEQUENCE ticket, ledger_id_seq TO partywall_app;
    SELECT partywall.protect('public.canary'), partywall.protect('public.ledger');
    ANALYZE canary";

/// The tables of the demo, and as many rows of globex as it has there.
const SAMPLE_TABLES: [&str; 3] = [
    include_str!("../../../src/demo/schema.sql"),
    "SET demo.org = 'globex'; SET demo.pipelines = '30'; SET demo.runs_per_pipeline = '60'",
    include_str!("../../../src/demo/seed.sql"),
];

/// A database that holds organizations, as the proxy is meant to find it.
pub struct Shard {
    /// The cluster: stop it, restart it, look at it as its superuser.
    pub cluster: Cluster,
    /// The password of `partywall_app`.
    pub password: String,
}

impl Shard {
    /// The database.
    pub const DATABASE: &str = "postgres";
    /// The role that the proxy logs in as.
    pub const USER: &str = "partywall_app";

    /// One shard for all tests that do nothing to it but read `canary` and write to `ledger`: starting one takes seconds.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Shard> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A shard of one's own with the demo's tables, and rows of globex in them. Blocks.
    pub fn start_sample() -> Self {
        Self::filled_with(&ClusterOptions::default(), &SAMPLE_TABLES)
    }

    /// A shard of one's own. Blocks.
    pub fn start() -> Self {
        Self::start_with(&ClusterOptions::default())
    }

    /// A shard of one's own with these options. Blocks.
    pub fn start_with(options: &ClusterOptions) -> Self {
        Self::filled_with(options, &[TABLES])
    }

    fn filled_with(options: &ClusterOptions, scripts: &'static [&'static str]) -> Self {
        let options = options.clone();
        let work = move || {
            let cluster = Cluster::start_with(&options).expect("a cluster");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let shard = Self { cluster, password: "for-these-tests".to_owned() };
            runtime.block_on(shard.fill(scripts));
            shard
        };
        // A thread of its own, as a runtime cannot be entered from within another.
        std::thread::spawn(work).join().expect("the shard was made")
    }

    async fn fill(&self, scripts: &[&str]) {
        let admin = self.cluster.connect(Self::DATABASE).await.expect("connects");
        for file in policies::PLAIN.into_iter().chain([policies::ADVISORY]) {
            admin.batch_execute(file.sql).await.expect(file.name);
        }
        for script in scripts {
            admin.batch_execute(script).await.expect("tables are made and protected");
        }
        let password = format!("ALTER ROLE {} PASSWORD '{}'", Self::USER, self.password);
        admin.batch_execute(&password).await.expect("the shared role has a password");
    }

    /// The superuser, past the proxy.
    pub async fn admin(&self) -> tokio_postgres::Client {
        self.cluster.connect(Self::DATABASE).await.expect("the superuser connects")
    }

    /// The process ids of the proxy's connections to this shard, as the server sees them.
    pub async fn server_pids(&self, application: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE $2 ORDER BY pid";
        let rows = self.admin().await.query(sql, &[&Self::USER, &application]).await.expect("looks");
        rows.iter().map(|row| row.get(0)).collect()
    }
}
