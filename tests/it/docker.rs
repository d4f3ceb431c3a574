//! What docker/ promises, as far as it can be kept without Docker: the seed runs, the configuration has no fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use partywall::config::{Config, Sources};
use partywall::provision::Cluster;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_seed_of_compose_fills_a_database_twice_without_harm() {
    let cluster = Cluster::start().expect("starts");
    cluster.run("postgres", "CREATE DATABASE app").await.expect("makes the database");
    let secrets = tempfile::tempdir().expect("a folder");
    fs::write(secrets.path().join("shard_1.password"), "it's secret").expect("writes");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(cluster.binaries().folder().to_owned()).chain(std::env::split_paths(&path));
    let paths = std::env::join_paths(paths).expect("a path");
    for _ in 0..2 {
        let output = Command::new("bash")
            .arg(root().join("docker/seed.sh"))
            .env("PATH", &paths)
            .env("POLICIES", root().join("policies/sql"))
            .env("DEMO", root().join("src/demo"))
            .env("SECRETS", secrets.path())
            .env("PGPASSWORD", cluster.superuser_password())
            .env("PGHOST", cluster.host())
            .env("PGPORT", cluster.port().to_string())
            .env("PGUSER", Cluster::SUPERUSER)
            .env("PGDATABASE", "app")
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let client = cluster.connect_as("partywall_app", "it's secret", "app").await.expect("the shared role logs in");
    for (org, expected) in [("acme", 480), ("globex", 1800), ("initech", 0), ("", 0)] {
        client.query("SELECT set_config('app.current_org_id', $1, false)", &[&org]).await.expect("has a context");
        let runs: i64 = client.query_one("SELECT count(*) FROM runs", &[]).await.expect("counts").get(0);
        assert_eq!(runs, expected, "{org:?}");
    }
}

#[test]
fn the_configuration_of_compose_has_no_fault() {
    let path = root().join("docker/partywall.toml");
    let text = fs::read_to_string(&path).expect("reads");
    let sources = Sources { main: (PathBuf::from("/etc/partywall/partywall.toml"), text), tiers: None, guard: None };
    let config = Config::check(&sources).expect("no fault");
    assert!(config.listen.tls.is_some());
}
