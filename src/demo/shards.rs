//! The demo's databases: started, protected and filled.

use std::fmt;
use std::sync::Arc;

use tokio_postgres::Client;

use super::files::ShardFacts;
use super::organizations::shard_name;
use super::place::Place;
use super::{DATABASE, DemoError, ORGANIZATIONS, SampleOrganization, blocking};
use crate::context::seal::KeyFile;
use crate::provision::{Cluster, ClusterOptions, ProvisionError, policies, random_hex};

const SCHEMA: &str = include_str!("schema.sql");
const SEED: &str = include_str!("seed.sql");

/// How many rows an organization has, in all its tables.
const ROWS: &str =
    "SELECT (SELECT count(*) FROM pipelines WHERE org_id = $1) + (SELECT count(*) FROM datasets WHERE org_id = $1)
    + (SELECT count(*) FROM runs WHERE org_id = $1) + (SELECT count(*) FROM quality_results WHERE org_id = $1)";

/// A shard that has started, and the folder that it lives in.
pub(super) struct Started {
    // Dropped in this order: whoever is last out of the folder removes it.
    cluster: Cluster,
    place: Arc<Place>,
}

/// A shard with its rows.
pub(super) struct Filled {
    // Dropped in this order, as above.
    pub(super) cluster: Cluster,
    _place: Arc<Place>,
    pub(super) name: String,
    pub(super) app_password: String,
    pub(super) organizations: Vec<FilledOrganization>,
}

/// An organization that has its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilledOrganization {
    pub(super) sample: SampleOrganization,
    pub(super) rows: i64,
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled").field("name", &self.name).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Filled {
    /// What the configuration has to know.
    pub(super) fn facts(&self) -> ShardFacts {
        ShardFacts {
            name: self.name.clone(),
            port: self.cluster.port(),
            app_password: self.app_password.clone(),
            superuser_password: self.cluster.superuser_password().to_owned(),
        }
    }
}

/// Starts the cluster of a shard.
///
/// Starting cannot be broken off: where the future is dropped, the folder stays until the cluster has come and gone.
pub(super) async fn start(place: &Arc<Place>, number: usize) -> Result<Started, DemoError> {
    let place = Arc::clone(place);
    let options = ClusterOptions { parent: Some(place.path().to_owned()), ..ClusterOptions::default() }
        .setting("cluster_name", &shard_name(number));
    let failed = |source| DemoError::Shard { doing: "starting a throw-away cluster", source };
    blocking(move || Ok(Started { cluster: Cluster::start_with(&options).map_err(failed)?, place })).await
}

/// A key file of the demo's own, as its text.
pub(super) fn seal_keys() -> Result<String, DemoError> {
    let key = random_hex(32).map_err(|source| DemoError::Shard { doing: "making a key", source })?;
    Ok(format!("1 {key}\n"))
}

/// What the databases believe of it.
fn keys_sql(seal_keys: &str, shard: &str) -> Result<String, DemoError> {
    let keys = KeyFile::parse(seal_keys).map_err(|_| DemoError::Lost)?;
    Ok(policies::keys_sql(&keys.of_shard(shard)))
}

/// Gives a shard its roles, tables, policies and rows.
pub(super) async fn fill(started: Started, number: usize, seal_keys: &str) -> Result<Filled, DemoError> {
    // The folder first, so that it is dropped last.
    let Started { place, cluster } = started;
    let failed = |doing| move |source: ProvisionError| DemoError::Shard { doing, source };
    let making = "making the database";
    cluster.run("postgres", &format!("CREATE DATABASE {DATABASE}")).await.map_err(failed(making))?;
    let client = cluster.connect(DATABASE).await.map_err(failed(making))?;
    for file in policies::GUARDED.into_iter().chain([policies::ADVISORY, policies::STAGING]) {
        client.batch_execute(file.sql).await.map_err(sql_error(file.name))?;
    }
    let keys = keys_sql(seal_keys, &shard_name(number))?;
    client.batch_execute(&keys).await.map_err(sql_error("putting the keys in"))?;
    client.batch_execute(SCHEMA).await.map_err(sql_error("making the tables"))?;
    client.batch_execute("SET partywall.keep_temporary = on").await.map_err(sql_error(policies::HARDENING.name))?;
    client.batch_execute(policies::HARDENING.sql).await.map_err(sql_error(policies::HARDENING.name))?;
    let app_password = random_hex(24).map_err(failed(making))?;
    // The verifier instead of the password, so that no log of the server can hold it.
    let verifier = postgres_protocol::password::scram_sha_256(app_password.as_bytes());
    let statement = format!("ALTER ROLE partywall_app PASSWORD '{verifier}'");
    client.batch_execute(&statement).await.map_err(sql_error("setting the shared role's password"))?;
    let mut organizations = Vec::new();
    for sample in ORGANIZATIONS.into_iter().filter(|org| org.shard == number) {
        organizations.push(seed(&client, sample).await?);
    }
    Ok(Filled { cluster, _place: place, name: shard_name(number), app_password, organizations })
}

async fn seed(client: &Client, sample: SampleOrganization) -> Result<FilledOrganization, DemoError> {
    let SampleOrganization { id, pipelines, runs_per_pipeline, .. } = sample;
    let chosen = format!(
        "SET demo.org = '{id}'; SET demo.pipelines = '{pipelines}'; SET demo.runs_per_pipeline = '{runs_per_pipeline}'"
    );
    client.batch_execute(&chosen).await.map_err(sql_error("choosing an organization"))?;
    client.batch_execute(SEED).await.map_err(sql_error("making rows"))?;
    let rows = client.query_one(ROWS, &[&id]).await.map_err(sql_error("counting rows"))?.get(0);
    Ok(FilledOrganization { sample, rows })
}

fn sql_error(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> DemoError {
    move |source| DemoError::Sql { doing, source }
}
