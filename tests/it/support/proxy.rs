//! A proxy in this process, on free ports, before a shard; made from a configuration file as an operator would write it.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use partywall::app;
use partywall::auth::TokenRules;
use partywall::auth::mint::{Grant, SigningKey};
use partywall::config::Auth;
use partywall::control::{self, load};
use partywall::provision::Binaries;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

use super::raw::Raw;
use super::shard::Shard;

/// The secret that signs every token of these tests.
const JWT_KEY: &str = "a secret of the tests, at least thirty-two bytes long";

/// How often other ports are tried, should somebody take ours between our look and the proxy's start.
const START_ATTEMPTS_MAX: usize = 5;

/// What tiers there are unless the test says otherwise: so wide that none is felt.
const TIERS: &str = r#"
default = "wide"

[tiers.wide]
max_concurrent_queries = "unlimited"
query_timeout_seconds = 3600
max_result_size_mb = "unlimited"
cpu_cores = "dedicated"
memory_gb = "dedicated"
storage_quota_gb = "unlimited"
max_client_connections = "unlimited"
max_queued_queries = 10000
priority = 1
"#;

/// What a proxy is to be; `start` makes it so.
#[derive(Debug, Clone)]
pub struct Plan {
    shards: Vec<ShardPlan>,
    pool_size: usize,
    tiers: String,
    /// Lines for sections that the fixture writes itself.
    lines: Vec<(String, String)>,
    /// Whole sections.
    more: String,
    files: Vec<(String, String)>,
    tls: bool,
    guard_broken: bool,
}

#[derive(Debug, Clone)]
struct ShardPlan {
    host: String,
    port: u16,
    database: String,
    password: String,
}

impl Plan {
    /// How many server connections to each shard (default 4).
    #[must_use]
    pub fn pool_size(mut self, size: usize) -> Self {
        self.pool_size = size;
        self
    }

    /// The whole text of the tiers file.
    #[must_use]
    pub fn tiers(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.tiers);
        self
    }

    /// One line for a section that the fixture writes: `listen`, `auth`, `pool`, `directory`.
    #[must_use]
    pub fn option(mut self, section: &str, line: &str) -> Self {
        self.lines.push((section.to_owned(), line.to_owned()));
        self
    }

    /// One more file beside the configuration.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Whole sections behind those of the fixture, such as `[organizations.acme]`.
    #[must_use]
    pub fn sections(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self.more.push('\n');
        self
    }

    /// Offer TLS, with a certificate for `localhost` and 127.0.0.1 that [`Proxy::ca_file`] verifies.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With a guard that lets through what it would refuse.
    #[must_use]
    pub fn guard_broken(mut self) -> Self {
        self.guard_broken = true;
        self
    }

    /// One more shard: `shard_2`, and so on.
    #[must_use]
    pub fn and(self, shard: &Shard) -> Self {
        self.and_port(shard.cluster.port(), &shard.password)
    }

    /// One more shard, of which only the port is known: for a peer that plays a server.
    #[must_use]
    pub fn and_port(mut self, port: u16, password: &str) -> Self {
        self.shards.push(ShardPlan {
            host: "127.0.0.1".to_owned(),
            port,
            database: Shard::DATABASE.to_owned(),
            password: password.to_owned(),
        });
        self
    }

    /// Writes the configuration and starts the proxy; its shards have been reached (or tried) when this returns.
    pub async fn start(self) -> Proxy {
        for _ in 0..START_ATTEMPTS_MAX {
            let files = self.write();
            match run(&files.path(), self.guard_broken).await {
                Ok((stop, thread)) => return Proxy { files, stop: Some(stop), thread: Some(thread) },
                Err(why) if why.contains("cannot listen") => {}
                Err(why) => panic!("the proxy does not start: {why}"),
            }
        }
        panic!("no free port in {START_ATTEMPTS_MAX} attempts");
    }

    /// Writes the configuration only, for whoever runs the program itself.
    pub fn write(&self) -> Files {
        let folder = tempfile::tempdir().expect("a folder");
        let [port, admin_port] = free_ports();
        let files = Files { folder, port, admin_port };
        files.put("jwt.key", JWT_KEY);
        files.put("tiers.toml", &self.tiers);
        if self.tls {
            write_certificate(&files);
        }
        for (at, shard) in self.shards.iter().enumerate() {
            files.put(&format!("shard_{}.password", at + 1), &shard.password);
        }
        for (name, text) in &self.files {
            files.put(name, text);
        }
        files.put("partywall.toml", &self.text(port, admin_port));
        files
    }

    fn text(&self, port: u16, admin_port: u16) -> String {
        let mut text = String::new();
        let tls = if self.tls { "tls_certificate = \"server.crt\"\ntls_private_key = \"server.key\"\n" } else { "" };
        let sections = [
            ("listen", format!("address = \"127.0.0.1:{port}\"\n{tls}")),
            ("admin", format!("address = \"127.0.0.1:{admin_port}\"\n")),
            ("policies", "tiers = \"tiers.toml\"\n".to_owned()),
            ("pool", String::new()),
            ("directory", String::new()),
            ("check", String::new()),
            ("audit", String::new()),
            ("auth", String::new()),
        ];
        for (name, own) in sections {
            let lines = self.lines.iter().filter(|(section, _)| section == name).map(|(_, line)| line.as_str());
            let mut lines: Vec<&str> = lines.collect();
            // These tests look at the proxy: whether their databases are fit to be served is the business of `walls`.
            if name == "check" && !lines.iter().any(|line| line.starts_with("on_breach")) {
                lines.push("on_breach = \"warn\"");
            }
            if !own.is_empty() || !lines.is_empty() {
                writeln!(text, "[{name}]\n{own}{}\n", lines.join("\n")).expect("a String takes everything");
            }
        }
        text.push_str("[[auth.keys]]\ntype = \"hs256\"\nfile = \"jwt.key\"\n");
        for (at, shard) in self.shards.iter().enumerate() {
            let number = at + 1;
            let ShardPlan { host, port, database, .. } = shard;
            write!(
                text,
                "\n[[shards]]\nname = \"shard_{number}\"\nhost = \"{host}\"\nport = {port}\ndatabase = \"{database}\"\n\
                 user = \"{}\"\npassword_file = \"shard_{number}.password\"\ntls = \"disable\"\npool_size = {}\n",
                Shard::USER,
                self.pool_size
            )
            .expect("a String takes everything");
        }
        text + "\n" + &self.more
    }
}

/// The folder of a configuration, and the ports that it names.
#[derive(Debug)]
pub struct Files {
    folder: TempDir,
    /// For clients.
    pub port: u16,
    /// For operators.
    pub admin_port: u16,
}

impl Files {
    /// The configuration file.
    pub fn path(&self) -> PathBuf {
        self.folder().join("partywall.toml")
    }

    /// The folder of all files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file beside the configuration.
    pub fn put(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).expect(name);
    }

    /// Replaces `from` by `to` in a file beside the configuration.
    pub fn change(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.folder().join(name)).expect(name);
        assert!(text.contains(from), "{name} says {from:?}");
        self.put(name, &text.replace(from, to));
    }
}

/// A proxy that runs until it is dropped.
pub struct Proxy {
    files: Files,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Begins a sentence: a proxy before this shard, which is called `shard_1`.
    pub fn before(shard: &Shard) -> Plan {
        Self::before_port(shard.cluster.port(), &shard.password)
    }

    /// Begins a sentence: a proxy before whatever listens on `port` of 127.0.0.1.
    pub fn before_port(port: u16, password: &str) -> Plan {
        let plan = Plan {
            shards: Vec::new(),
            pool_size: 4,
            tiers: TIERS.to_owned(),
            lines: Vec::new(),
            more: String::new(),
            files: Vec::new(),
            tls: false,
            guard_broken: false,
        };
        plan.and_port(port, password)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.files.port).into()
    }

    /// Where operators look.
    pub fn admin_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.files.admin_port).into()
    }

    /// The configuration and what lies beside it; what is changed there is reloaded by itself.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The certificate of a proxy that offers TLS, for `sslrootcert`.
    pub fn ca_file(&self) -> PathBuf {
        self.files.folder().join("server.crt")
    }

    /// A token of an organization's user with these roles.
    pub fn token(&self, org: &str, user: &str, roles: &[&str]) -> String {
        token(&Grant {
            org: org.to_owned(),
            user: Some(user.to_owned()),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            ttl_s: 3600,
            ..Grant::default()
        })
    }

    /// How a developer of `org` connects with tokio-postgres: change it, then hand it to [`Proxy::connect_with`].
    pub fn client_config(&self, org: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.files.port).user("ada").dbname(Shard::DATABASE);
        config.password(self.token(org, "ada", &["developer"])).connect_timeout(super::PATIENCE);
        config
    }

    /// A developer of `org` who has logged in. The connection lives as long as the client.
    pub async fn connect(&self, org: &str) -> Client {
        self.connect_with(&self.client_config(org)).await.expect("logs in")
    }

    /// A client who has logged in so, or the proxy's no.
    pub async fn connect_with(&self, config: &tokio_postgres::Config) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// A developer of `org` who has logged in and speaks the protocol byte by byte.
    pub async fn raw(&self, org: &str) -> Raw {
        Raw::log_in(self.address(), &self.token(org, "ada", &["developer"])).await
    }

    /// Runs psql as a developer of `org`, without TLS; says whether it was content, what it printed, and what it complained.
    pub async fn psql(&self, org: &str, arguments: &[&str]) -> (bool, String, String) {
        let token = self.token(org, "ada", &["developer"]);
        let connection =
            format!("host=127.0.0.1 port={} user=ada dbname={} sslmode=disable", self.files.port, Shard::DATABASE);
        psql(&connection, &token, arguments).await
    }

    /// What `/metrics` says now.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.admin_address());
        let answer = reqwest::get(url).await.expect("the admin door is open");
        answer.text().await.expect("text")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Signs a token with the key that every fixture believes.
pub fn token(grant: &Grant) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = SigningKey::from_secret(JWT_KEY.as_bytes()).expect("a key");
    key.mint(grant, &TokenRules::from(&Auth::default()), now).expect("a token")
}

/// Runs psql with a connection string; says whether it was content, what it printed, and what it complained.
pub async fn psql(connection: &str, password: &str, arguments: &[&str]) -> (bool, String, String) {
    let program = Binaries::find().expect("the PostgreSQL programs").program("psql");
    let mut command = tokio::process::Command::new(program);
    command.args(["-X", "-d", connection]).args(arguments).stdin(Stdio::null());
    command.env("PGPASSWORD", password).env("LC_ALL", "C").kill_on_drop(true);
    let output = super::soon("psql ends", command.output()).await.expect("psql runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Starts a proxy on a control runtime of its own, in a thread of its own.
async fn run(path: &Path, guard_broken: bool) -> Result<(oneshot::Sender<()>, JoinHandle<()>), String> {
    let config = load(path).map_err(|faults| faults.to_string())?;
    let (path, (started, is_started), (stop, stopped)) = (path.to_owned(), oneshot::channel(), oneshot::channel());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let broken = |config: &_| control::guard(config).broken();
            let make_guard = if guard_broken { broken } else { control::guard };
            let proxy = match app::Proxy::start_judged_by(make_guard, config, Some(path)).await {
                Ok(proxy) => proxy,
                Err(error) => return drop(started.send(Err(error.to_string()))),
            };
            proxy.settled(Duration::from_secs(5)).await;
            drop(started.send(Ok(())));
            drop(stopped.await);
            drop(proxy.drain(Duration::ZERO, std::future::ready(())).await);
        });
    });
    is_started.await.map_err(|_| "it panicked".to_owned())??;
    Ok((stop, thread))
}

/// Ports that nobody listens on just now.
fn free_ports() -> [u16; 2] {
    // Both are held until both are known, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

fn write_certificate(files: &Files) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let parameters = rcgen::CertificateParams::new(names).expect("names");
    files.put("server.crt", &parameters.self_signed(&key).expect("a certificate").pem());
    files.put("server.key", &key.serialize_pem());
}
