//! The command line: demo, serve, check, policies, token.

mod check;
mod inspect;
mod policies;
mod token;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::app::{self, Proxy, ServeError, ShutdownSignals};
use crate::config::{Faults, Log, LogLevel};
use crate::control::{self, logging};
use crate::demo::{self, DemoOptions};
use crate::guard;

/// What `--version` says: the release, the commit, and the grammar that statements are read by.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!("{} (commit {}, PostgreSQL {} grammar)", env!("CARGO_PKG_VERSION"), app::COMMIT, guard::GRAMMAR)
});

/// How long the demo waits for its sessions: whoever presses Ctrl-C wants it to end.
const DEMO_DRAIN: Duration = Duration::from_secs(1);

/// How long the demo waits for its shards before it says that clients can connect.
const DEMO_SETTLES: Duration = Duration::from_secs(10);

/// A tenant-isolating proxy for PostgreSQL: clients log in with a JWT as their password, and work as if the database
/// were their own.
#[derive(Debug, Parser)]
#[command(name = "partywall", version = VERSION.as_str(), max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: two throw-away Postgres clusters, three organizations, and lines to paste into a terminal.
    ///
    /// Needs PostgreSQL's server programs on this machine. Ctrl-C stops everything and removes it.
    Demo {
        /// The port for clients; 0 takes a free one.
        #[arg(long, default_value_t = 6432)]
        port: u16,
        /// The port for operators: /healthz, /readyz, /metrics; 0 takes a free one.
        #[arg(long, default_value_t = 9432)]
        admin_port: u16,
        /// Where everything lives [default: a temporary directory].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Serve clients, as the configuration says.
    ///
    /// SIGHUP and changed files reload. SIGTERM and Ctrl-C drain: no new clients, and each session ends at its next
    /// safe point, for at most listen.drain_timeout_s; a second one ends everything at once, as SIGQUIT does. SIGUSR1
    /// pauses: what runs goes on to its safe point, what comes waits, and server connections are closed; SIGUSR2 resumes.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check the configuration, and whether each shard can be reached and keeps organizations apart by itself.
    ///
    /// Prints every fault of the configuration at once, and of each shard what its database would let a tenant do, how
    /// bad it is, and what mends it. Two organizations that do not exist try to see and to write, in transactions that
    /// are rolled back. Exits with 0 only when every shard may be served: no breach but those of `check.allow`.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Check the configuration and the files that it names only; connect to no database.
        #[arg(long)]
        offline: bool,
    },
    /// Put the database's own walls in place: roles, context, row-level security, hardening.
    #[command(subcommand)]
    Policies(policies::PoliciesCommand),
    /// Make a development token with the first key of the configuration that can sign; `token inspect` looks at one.
    Token(token::TokenArguments),
}

/// Why a command fails; what the operator reads on stderr.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{0}")]
    Config(#[from] Faults),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error(transparent)]
    Policies(#[from] policies::PoliciesError),
    #[error(transparent)]
    Token(#[from] token::TokenCommandError),
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the program by the process's arguments; returns its exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text.push_str(": ");
                    text.push_str(&cause_text);
                }
                source = cause.source();
            }
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Demo { port, admin_port, data } => {
            start_log(&Log { level: LogLevel::Warn, ..Log::default() })?;
            control_runtime()?.block_on(run_demo(DemoOptions { port, admin_port, data }))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve { config: path } => {
            let config = control::load(&path)?;
            start_log(&config.log)?;
            control_runtime()?.block_on(async {
                let signals = ShutdownSignals::listen()?;
                let proxy = Proxy::start(config, Some(path)).await?;
                proxy.announce();
                proxy.run(None, signals).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config, json, offline } => {
            Ok(control_runtime()?.block_on(check::check(&config, json, offline))?)
        }
        Command::Policies(command) => Ok(control_runtime()?.block_on(policies::run(command))?),
        Command::Token(token::TokenArguments { command: Some(token::TokenCommand::Inspect(arguments)), .. }) => {
            Ok(control_runtime()?.block_on(inspect::inspect(arguments))?)
        }
        Command::Token(token::TokenArguments { command: None, mint }) => {
            // clap asks for the rest wherever there is no subcommand.
            if let Some(arguments) = mint {
                writeln!(io::stdout(), "{}", token::mint(&arguments)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log(log: &Log) -> Result<(), CommandError> {
    let rust_log = std::env::var("RUST_LOG").ok();
    Ok(logging::start(log, rust_log.as_deref())?)
}

fn control_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build()
}

async fn run_demo(options: DemoOptions) -> Result<(), CommandError> {
    let mut signals = ShutdownSignals::listen()?;
    let progress = |line: &str| {
        let _ = writeln!(io::stderr(), "{line}");
    };
    let serve = async {
        let prepared = demo::prepare(&options, &progress).await?;
        let path = prepared.config_path();
        let config = control::load(&path)?;
        let proxy = Proxy::start(config, Some(path)).await?;
        proxy.settled(DEMO_SETTLES).await;
        writeln!(io::stdout(), "{}\n{}", prepared.banner(), prepared.ready_line())?;
        io::stdout().flush()?;
        Ok::<_, CommandError>((prepared, proxy))
    };
    let (prepared, proxy) = tokio::select! {
        served = serve => served?,
        () = signals.stop() => return Ok(()),
    };
    proxy.run(Some(DEMO_DRAIN), signals).await?;
    prepared.close().await;
    Ok(())
}
