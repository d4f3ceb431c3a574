//! The demo's preparation: complete, closed to others, and gone afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use partywall::auth::{KeySet, TokenRules, Verifier};
use partywall::config::{Config, Sources};
use partywall::context::seal::{Bond, KeyFile, Who};
use partywall::control::attest::Depth;
use partywall::control::{self, attest_shard};
use partywall::demo::{DATABASE, DemoOptions, ORGANIZATIONS, PEOPLE, Prepared, prepare};
use tokio_postgres::{Client, NoTls};

/// The value of a key of a shard, from the configuration that was written.
fn shard_ports(prepared: &Prepared) -> Vec<u16> {
    let text = fs::read_to_string(prepared.config_path()).expect("reads");
    let config: toml::Table = text.parse().expect("is TOML");
    let shards = config["shards"].as_array().expect("shards");
    shards.iter().map(|shard| u16::try_from(shard["port"].as_integer().expect("a port")).expect("fits")).collect()
}

async fn log_in(prepared: &Prepared, shard: usize, user: &str, secret: &str) -> Client {
    let password = fs::read_to_string(prepared.folder().join("secrets").join(format!("shard_{}.{secret}", shard + 1)));
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(shard_ports(prepared)[shard]).user(user).dbname(DATABASE);
    let (client, connection) = config.password(password.expect("reads")).connect(NoTls).await.expect("logs in");
    tokio::spawn(connection);
    client
}

/// Enters the guarded context, as the proxy does.
async fn enter(prepared: &Prepared, app: &Client, shard: usize, organization: &str) {
    let keys = fs::read_to_string(prepared.folder().join("secrets/seal.key")).expect("reads");
    let key = KeyFile::parse(&keys).expect("keys").of_shard(&format!("shard_{}", shard + 1)).remove(0);
    let row = app.query_one("SELECT pid, nonce, now_s FROM partywall.hello()", &[]).await.expect("greets");
    let (nonce, now_s): (String, i64) = (row.get(1), row.get(2));
    let bond = Bond { pid: row.get(0), nonce: &nonce, generation: 1, expiry_s: now_s + 60 };
    let who = Who { organization, ..Who::default() };
    app.batch_execute(&key.entry(who, bond)).await.expect("enters");
}

async fn rows(client: &Client, table: &str, org: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table} WHERE org_id = $1");
    client.query_one(&sql, &[&org]).await.expect("counts").get(0)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

fn assert_files(prepared: &Prepared) {
    let folder = prepared.folder();
    for name in ["partywall.toml", "policies/tiers.toml", "policies/guard.toml", "tls/ca.crt", "tls/server.crt"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    for name in ["tls/server.key", "secrets/jwt.key", "secrets/admin.token", "tokens/acme-analyst.jwt"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name} is for its owner only");
    }
    for org in ORGANIZATIONS {
        for person in PEOPLE {
            let token = fs::read_to_string(folder.join(format!("tokens/{}-{}.jwt", org.id, person.role)));
            assert_eq!(prepared.token(org.id, person.name), token.ok().as_deref());
        }
    }
    let banner = prepared.banner();
    for wanted in ["sslmode=verify-full", "sslmode=require", "globex", "/metrics", "password ey"] {
        assert!(banner.contains(wanted), "{wanted}");
    }
    let ready = format!("ready: postgres://ana@127.0.0.1:{}/app?sslmode=require", prepared.port());
    assert_eq!(prepared.ready_line(), ready);
}

/// The configuration has no fault, and believes the tokens that lie beside it.
fn assert_configuration(prepared: &Prepared) {
    let read =
        |name: &str| (prepared.folder().join(name), fs::read_to_string(prepared.folder().join(name)).expect(name));
    let (tiers, guard) = (read("policies/tiers.toml"), read("policies/guard.toml"));
    let sources = Sources { main: read("partywall.toml"), tiers: Some(tiers), guard: Some(guard) };
    let config = Config::check(&sources).expect("no fault");
    assert_eq!(config.listen.address.port(), prepared.port());
    assert_eq!(config.organizations.len(), ORGANIZATIONS.len());
    let keys = KeySet::from_secret(read("secrets/jwt.key").1.as_bytes()).expect("a key");
    let verifier = Verifier::new(TokenRules::from(&config.auth), keys);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for org in ORGANIZATIONS {
        for person in PEOPLE {
            let token = prepared.token(org.id, person.name).expect("a token");
            let identity = verifier.verify(token, now).expect("is believed");
            assert_eq!(identity.org().as_str(), org.id);
            assert!(identity.expires_at() > now + 11 * 60 * 60);
        }
    }
}

#[tokio::test]
async fn the_demo_is_complete_and_leaves_nothing() {
    let told = Mutex::new(Vec::new());
    let options = DemoOptions { port: 0, admin_port: 0, data: None };
    let progress = |line: &str| told.lock().expect("not poisoned").push(line.to_owned());
    let prepared = prepare(&options, &progress).await.expect("prepares");
    assert!(told.lock().expect("not poisoned").len() >= 4, "a line for each step");
    assert_files(&prepared);
    assert_configuration(&prepared);

    for (number, _) in shard_ports(&prepared).iter().enumerate() {
        let operator = log_in(&prepared, number, "postgres", "superuser").await;
        let app = log_in(&prepared, number, "partywall_app", "password").await;
        for org in ORGANIZATIONS {
            app.batch_execute("RESET ALL").await.expect("has no context");
            for table in ["pipelines", "datasets", "runs", "quality_results"] {
                let there = rows(&operator, table, org.id).await;
                assert_eq!(there > 0, org.shard == number, "{table} of {} on shard {number}", org.id);
                assert_eq!(rows(&app, table, org.id).await, 0, "{table} of {} without a context", org.id);
            }
            app.query("SELECT set_config('app.current_org_id', $1, false)", &[&org.id]).await.expect("says so itself");
            assert_eq!(rows(&app, "runs", org.id).await, 0, "what a session says of itself is no context");
            enter(&prepared, &app, number, org.id).await;
            let own = rows(&app, "runs", org.id).await;
            let expected = if org.shard == number { i64::from(org.pipelines * org.runs_per_pipeline) } else { 0 };
            assert_eq!(own, expected, "runs of {}", org.id);
            let others: i64 = app.query_one("SELECT count(*) FROM runs", &[]).await.expect("counts").get(0);
            assert_eq!(others, own, "{} sees only itself", org.id);
        }
    }
    let config = control::load(&prepared.config_path()).expect("a configuration");
    let allow = config.check.allow.clone();
    for plan in control::plan_shards(&config, &[]).expect("plans") {
        let findings = attest_shard(&plan, Depth::Writing, &allow).await.expect("is attested");
        assert!(findings.iter().all(|finding| finding.allowed), "{findings:#?}");
    }
    let folder = prepared.folder().to_owned();
    prepared.close().await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn of_a_folder_of_ones_own_everything_goes_that_the_demo_put_there_and_nothing_else() {
    let parent = tempfile::tempdir().expect("a folder");
    // As root, Postgres runs as another user, who has to get through.
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).expect("opens it");
    fs::write(parent.path().join("notes.txt"), "mine").expect("writes");
    let options = DemoOptions { port: 0, admin_port: 0, data: Some(parent.path().to_owned()) };
    let prepared = prepare(&options, &|_| {}).await.expect("prepares");
    let clusters = |path: &Path| {
        let entries = fs::read_dir(path).expect("lists").map(|entry| entry.expect("is there").file_name());
        entries.filter(|name| name.to_string_lossy().starts_with("partywall-pg-")).count()
    };
    assert_eq!(clusters(parent.path()), 2);
    drop(prepared);
    assert_eq!(clusters(parent.path()), 0);
    let left = fs::read_dir(parent.path()).expect("lists").map(|entry| entry.expect("is there").file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["notes.txt"]);
    // What a demo left that was killed is a demo's own.
    fs::write(parent.path().join("partywall.toml"), "# Written by `partywall demo`.\n").expect("writes");
    prepare(&options, &|_| {}).await.expect("prepares again");
}
