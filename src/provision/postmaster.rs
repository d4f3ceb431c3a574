//! The processes of a throw-away cluster: the postmaster, and a guard that ends it should we be killed.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use super::{Binaries, ProvisionError};

/// How long a server may take until it is ready, in seconds; generous, since test machines are busy.
const READY_TIMEOUT_S: u64 = 90;
/// How long a server may take to stop, in seconds.
const STOP_TIMEOUT_S: u64 = 60;
/// How often a condition is looked at while we wait for it.
const POLL: Duration = Duration::from_millis(10);
/// How much of a log an error carries, in bytes.
const LOG_TAIL_BYTES: usize = 2000;

/// The line of `postmaster.pid` that holds the server's status (PostgreSQL's `utils/pidfile.h`), counted from zero.
const STATUS_LINE: usize = 7;

/// Waits for its input to end, which happens when the process that holds the other end is gone, however it went;
/// then stops the server and removes the folders. `$1` is pg_ctl, `$2` the data folder, the rest is removed.
const GUARD: &str = r#"trap '' INT TERM HUP
read -r line
pg_ctl=$1 data=$2
shift 2
"$pg_ctl" -D "$data" -m immediate -t 30 stop
rm -rf "$@""#;

/// How a server is asked to stop (PostgreSQL manual, "Shutting Down the Server").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, the data is written: SIGINT.
    Fast,
    /// Everything ends at once, the next start recovers: SIGQUIT.
    Immediate,
}

/// The ordinary user that the server runs as when we are root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// `None` when we are not root: the server runs as ourselves.
    pub(super) fn find() -> Result<Option<Self>, ProvisionError> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or(ProvisionError::NoOrdinaryUser)?;
        Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    /// Gives `path` to the user that runs the server.
    pub(super) fn give(owner: Option<Self>, path: &Path) -> Result<(), ProvisionError> {
        let Some(Self { uid, gid }) = owner else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(ProvisionError::file("giving away", path))
    }
}

/// A command of PostgreSQL's, run as the ordinary user, in a process group of its own (so that Ctrl-C in a terminal
/// reaches only us, and we stop things in order) and without the environment that could steer it elsewhere.
pub(super) fn command(program: &Path, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").process_group(0).stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
    for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE", "PGOPTIONS"] {
        command.env_remove(name);
    }
    if let Some(Owner { uid, gid }) = owner {
        command.gid(gid).uid(uid);
    }
    command
}

/// The end of a log file, for an error.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&text[from..]).trim().to_owned()
}

/// A running postmaster. Dropping it stops it at once.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
}

impl Postmaster {
    /// Starts the server of `data` and waits until it is ready to take connections at `port`.
    pub(super) fn start(
        binaries: &Binaries,
        owner: Option<Owner>,
        data: &Path,
        log: &Path,
        port: u16,
    ) -> Result<Self, ProvisionError> {
        let file = File::create(log).map_err(ProvisionError::file("creating", log))?;
        let program = binaries.program("postgres");
        let child = command(&program, owner)
            .arg("-D")
            .arg(data)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|source| ProvisionError::Spawn { program, source })?;
        let mut postmaster = Self { child };
        postmaster.wait_until_ready(data, log, port)?;
        Ok(postmaster)
    }

    /// The postmaster's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&mut self, data: &Path, log: &Path, port: u16) -> Result<(), ProvisionError> {
        let deadline = Instant::now() + Duration::from_secs(READY_TIMEOUT_S);
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(ProvisionError::Signal)?.is_some() {
                break;
            }
            if says_ready(data, self.pid()) && answers(port) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(ProvisionError::NotReady { said: tail(log) })
    }

    /// Stops the server and waits until it is gone; one that is gone already is stopped.
    pub(super) fn stop(&mut self, how: Stop) -> Result<(), ProvisionError> {
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        self.signal(signal)?;
        self.wait_until_gone()
    }

    /// Kills the postmaster without a chance to clean up (SIGKILL), and waits for it. Its children end by themselves
    /// when they notice, a moment later.
    pub(super) fn kill(&mut self) -> Result<(), ProvisionError> {
        self.signal(Signal::SIGKILL)?;
        self.wait_until_gone()
    }

    fn signal(&mut self, signal: Signal) -> Result<(), ProvisionError> {
        if self.child.try_wait().map_err(ProvisionError::Signal)?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid()).map_err(|_| ProvisionError::Signal(io::ErrorKind::InvalidInput.into()))?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| ProvisionError::Signal(errno.into()))
    }

    fn wait_until_gone(&mut self) -> Result<(), ProvisionError> {
        let deadline = Instant::now() + Duration::from_secs(STOP_TIMEOUT_S);
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(ProvisionError::Signal)?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(ProvisionError::NotStopped { timeout_s: STOP_TIMEOUT_S })
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if self.stop(Stop::Immediate).is_err() {
            // Nothing better is left, and a drop cannot report.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether `postmaster.pid` is this postmaster's and says "ready"; what `pg_ctl start` waits for.
fn says_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(pid.to_string().as_str()) && lines.nth(STATUS_LINE - 1).map(str::trim) == Some("ready")
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

/// A shell that outlives us by a moment: when we are gone, even by SIGKILL, it stops the server and removes the folders.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    /// Its end is the signal.
    input: Option<ChildStdin>,
}

impl Guard {
    /// Begins to watch over the server of `data`; `remove` goes with it.
    pub(super) fn watch(
        binaries: &Binaries,
        owner: Option<Owner>,
        data: &Path,
        remove: &[&Path],
    ) -> Result<Self, ProvisionError> {
        let program = PathBuf::from("/bin/sh");
        let mut child = command(&program, owner)
            .args(["-c", GUARD, "partywall-guard"])
            .arg(binaries.program("pg_ctl"))
            .arg(data)
            .args(remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ProvisionError::Spawn { program, source })?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
