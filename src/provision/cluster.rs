//! A throw-away cluster: its folder, its settings, its life, and connections to it.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::postmaster::{Guard, Owner, Postmaster, command, tail};
use super::{Binaries, ProvisionError, Stop, random_hex};

/// How often another port (or the same, after a crash) is tried.
const START_ATTEMPTS_MAX: u32 = 5;
/// The longest folder in which a Unix socket still fits into an address (107 bytes on Linux, 103 on macOS).
const SOCKET_FOLDER_BYTES_MAX: usize = 80;

/// Settings of every throw-away cluster: small, quick, and not durable.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("password_encryption", "scram-sha-256"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", "%m [%p] %u@%d "),
    ("max_prepared_transactions", "0"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// A certificate and its key, in PEM, with which the server offers TLS.
#[derive(Debug, Clone)]
pub struct ClusterTls {
    /// The certificate, and its chain if it has one.
    pub certificate_pem: String,
    /// The private key.
    pub private_key_pem: String,
}

/// What a throw-away cluster should be like.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// The folder in which the cluster makes its own; the system's temporary folder when absent. It must be reachable
    /// for the ordinary user that the server runs as.
    pub parent: Option<PathBuf>,
    /// Settings of `postgresql.conf` beyond ours; they win.
    pub settings: Vec<(String, String)>,
    /// TLS, when wanted.
    pub tls: Option<ClusterTls>,
    /// The server programs; those that [`Binaries::find`] finds when absent.
    pub binaries: Option<Binaries>,
}

impl ClusterOptions {
    /// Adds a setting of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A throw-away Postgres cluster that listens on a free port of 127.0.0.1 and on a Unix socket; SCRAM-SHA-256 for all.
///
/// Everything here but the connections blocks: call it from `spawn_blocking` where a runtime must not wait.
/// Dropping it stops the server at once and removes its folder. Should this process be killed, a small guard process
/// does the same.
pub struct Cluster {
    // The order is the order of dropping: the server, then the guard, then the folders.
    postmaster: Option<Postmaster>,
    _guard: Guard,
    socket_folder: Option<TempDir>,
    folder: TempDir,
    binaries: Binaries,
    owner: Option<Owner>,
    settings: Vec<(String, String)>,
    port: u16,
    superuser_password: String,
}

impl Cluster {
    /// The name of the superuser.
    pub const SUPERUSER: &'static str = "postgres";

    /// Makes a cluster with ordinary options and starts it; takes a second or two.
    ///
    /// # Errors
    /// As [`Cluster::start_with`].
    pub fn start() -> Result<Self, ProvisionError> {
        Self::start_with(&ClusterOptions::default())
    }

    /// Makes a cluster, starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// Says what failed, with the end of what `initdb` or the server wrote; nothing is left behind then.
    pub fn start_with(options: &ClusterOptions) -> Result<Self, ProvisionError> {
        let binaries = match &options.binaries {
            Some(binaries) => binaries.clone(),
            None => Binaries::find()?,
        };
        let owner = Owner::find()?;
        let parent = options.parent.clone().unwrap_or_else(std::env::temp_dir);
        let folder = own_folder(&parent, owner)?;
        let socket_folder = match folder.path().as_os_str().len() {
            ..=SOCKET_FOLDER_BYTES_MAX => None,
            _ => Some(own_folder(Path::new("/tmp"), owner)?),
        };
        let superuser_password = random_hex(16)?;
        initdb(&binaries, owner, folder.path(), &superuser_password)?;
        let mut settings = options.settings.clone();
        if let Some(tls) = &options.tls {
            settings.extend(write_tls(folder.path(), owner, tls)?);
        }
        let data = folder.path().join("data");
        let removed: Vec<&Path> =
            std::iter::once(folder.path()).chain(socket_folder.as_ref().map(TempDir::path)).collect();
        let guard = Guard::watch(&binaries, owner, &data, &removed)?;
        let mut cluster = Self {
            postmaster: None,
            _guard: guard,
            socket_folder,
            folder,
            binaries,
            owner,
            settings,
            port: 0,
            superuser_password,
        };
        cluster.start_on_a_free_port()?;
        Ok(cluster)
    }

    /// The address it listens on; TCP is on 127.0.0.1 only.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port, of TCP and of the Unix socket; the same for the cluster's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.socket_folder.as_ref().unwrap_or(&self.folder).path()
    }

    /// The folder that holds everything of this cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The end of the server's log, for a failing test's message.
    pub fn log_tail(&self) -> String {
        tail(&self.log_file())
    }

    /// The folder of `psql`, `pgbench` and their like that fits this server.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The superuser's password.
    pub fn superuser_password(&self) -> &str {
        &self.superuser_password
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Postmaster::pid)
    }

    /// Changes a setting of `postgresql.conf`; in force after a reload or a restart, as the setting demands.
    ///
    /// # Errors
    /// When the file cannot be written, or the value not be put into one.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ProvisionError> {
        self.settings.push((name.to_owned(), value.to_owned()));
        self.write_settings()
    }

    /// Stops the server and waits until it is gone. A stopped cluster keeps its data; [`Cluster::restart`] starts it.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(&mut self, how: Stop) -> Result<(), ProvisionError> {
        match self.postmaster.take() {
            Some(mut postmaster) => postmaster.stop(how),
            None => Ok(()),
        }
    }

    /// Kills the postmaster with SIGKILL, as the kernel does when memory runs out; sessions end a moment later.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> Result<(), ProvisionError> {
        match self.postmaster.take() {
            Some(mut postmaster) => postmaster.kill(),
            None => Ok(()),
        }
    }

    /// Stops the server fast if it runs, and starts it again on the same port; also after [`Cluster::kill`].
    ///
    /// # Errors
    /// As [`Cluster::start_with`].
    pub fn restart(&mut self) -> Result<(), ProvisionError> {
        self.stop(Stop::Fast)?;
        self.write_settings()?;
        let mut attempt = 1;
        loop {
            match self.start_here() {
                // Children of a killed postmaster may still hold its memory or its port for a moment.
                Err(ProvisionError::NotReady { .. }) if attempt < START_ATTEMPTS_MAX => {
                    attempt += 1;
                    thread::sleep(Duration::from_millis(200));
                }
                other => return other,
            }
        }
    }

    /// How the superuser connects to `database`, by TCP and without TLS.
    pub fn superuser(&self, database: &str) -> tokio_postgres::Config {
        self.login(Self::SUPERUSER, &self.superuser_password, database)
    }

    /// How `user` connects to `database`, by TCP and without TLS.
    pub fn login(&self, user: &str, password: &str, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host(self.host()).port(self.port).user(user).password(password).dbname(database);
        config.ssl_mode(tokio_postgres::config::SslMode::Disable).connect_timeout(Duration::from_secs(30));
        config
    }

    /// Connects the superuser to `database`. Needs a tokio runtime, whose task carries the connection.
    ///
    /// # Errors
    /// When the server refuses or is not there.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client, ProvisionError> {
        connect(&self.superuser(database)).await
    }

    /// Connects `user` to `database`; otherwise as [`Cluster::connect`].
    ///
    /// # Errors
    /// When the server refuses or is not there.
    pub async fn connect_as(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<tokio_postgres::Client, ProvisionError> {
        connect(&self.login(user, password, database)).await
    }

    /// Runs statements as the superuser in `database`, on a connection of their own.
    ///
    /// # Errors
    /// When the server refuses one of them; those before it stay done unless the text has its own transaction.
    pub async fn run(&self, database: &str, sql: &str) -> Result<(), ProvisionError> {
        Ok(self.connect(database).await?.batch_execute(sql).await?)
    }

    fn start_on_a_free_port(&mut self) -> Result<(), ProvisionError> {
        let mut attempt = 1;
        loop {
            self.port = free_port()?;
            self.write_settings()?;
            match self.start_here() {
                // Somebody else may have taken the port between our look and the server's start.
                Err(ProvisionError::NotReady { said }) if attempt < START_ATTEMPTS_MAX && said.contains("in use") => {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn start_here(&mut self) -> Result<(), ProvisionError> {
        let data = self.folder.path().join("data");
        let postmaster = Postmaster::start(&self.binaries, self.owner, &data, &self.log_file(), self.port)?;
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// Writes the included settings file anew; the last of several lines for one setting wins.
    fn write_settings(&self) -> Result<(), ProvisionError> {
        let mut text = String::from("# Written by partywall at each start.\n");
        let port = self.port.to_string();
        let sockets = self.socket_folder().to_string_lossy();
        let fixed = [("port", port.as_str()), ("unix_socket_directories", sockets.as_ref())];
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in SETTINGS.iter().copied().chain(fixed).chain(own) {
            text.push_str(&setting_line(name, value)?);
        }
        write_for(self.owner, &self.folder.path().join("data/partywall.conf"), &text)
    }
}

/// Connects by `config` without TLS, and leaves the connection to a task of the current runtime.
async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, ProvisionError> {
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    // It ends when the client is dropped or the server goes; the client's next call tells of an error.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

fn own_folder(parent: &Path, owner: Option<Owner>) -> Result<TempDir, ProvisionError> {
    let folder = tempfile::Builder::new().prefix("partywall-pg-").tempdir_in(parent);
    let folder = folder.map_err(ProvisionError::file("making a folder in", parent))?;
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(folder.path(), closed).map_err(ProvisionError::file("closing", folder.path()))?;
    Owner::give(owner, folder.path())?;
    Ok(folder)
}

fn initdb(binaries: &Binaries, owner: Option<Owner>, folder: &Path, password: &str) -> Result<(), ProvisionError> {
    let password_file = folder.join("superuser.password");
    write_for(owner, &password_file, password)?;
    let program = binaries.program("initdb");
    let output = command(&program, owner)
        .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
        .args(["--username", Cluster::SUPERUSER])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("--pgdata")
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .output()
        .map_err(|source| ProvisionError::Spawn { program, source })?;
    if !output.status.success() {
        return Err(ProvisionError::Initdb { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    fs::remove_file(&password_file).map_err(ProvisionError::file("removing", password_file))?;
    let conf = folder.join("data/postgresql.conf");
    let text = fs::read_to_string(&conf).map_err(ProvisionError::file("reading", &conf))?;
    write_for(owner, &conf, &format!("{text}\ninclude = 'partywall.conf'\n"))
}

/// Puts the certificate and key where the server may read them; returns the settings that name them.
fn write_tls(folder: &Path, owner: Option<Owner>, tls: &ClusterTls) -> Result<Vec<(String, String)>, ProvisionError> {
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    write_for(owner, &certificate, &tls.certificate_pem)?;
    write_for(owner, &key, &tls.private_key_pem)?;
    let named = [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", certificate.to_string_lossy().into_owned()),
        ("ssl_key_file", key.to_string_lossy().into_owned()),
    ];
    Ok(named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Writes a file that only the server's user may read.
fn write_for(owner: Option<Owner>, path: &Path, text: &str) -> Result<(), ProvisionError> {
    fs::write(path, text).map_err(ProvisionError::file("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(ProvisionError::file("closing", path))?;
    Owner::give(owner, path)
}

fn setting_line(name: &str, value: &str) -> Result<String, ProvisionError> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    if !plain || value.contains(['\n', '\r', '\0']) {
        return Err(ProvisionError::BadSetting(name.to_owned()));
    }
    Ok(format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
}

fn free_port() -> Result<u16, ProvisionError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(ProvisionError::file("finding a free port on", "127.0.0.1"))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("folder", &self.folder()).field("port", &self.port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_line_breaks_refused() {
        assert_eq!(setting_line("a.b_1", "it's \\").expect("plain"), "a.b_1 = 'it''s \\\\'\n");
        for (name, value) in [("a b", "1"), ("", "1"), ("a", "1\nb = 2"), ("a='", "1")] {
            assert!(matches!(setting_line(name, value), Err(ProvisionError::BadSetting(_))), "{name:?} {value:?}");
        }
    }
}
