//! `partywall policies`: puts the SQL of policies/sql into each shard's database, prints it, or tells how it stands.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use postgres_protocol::escape::escape_literal;

use crate::config::{Config, ContextForm, Faults, Secret, SecretRef};
use crate::context::seal::{Form, ShardKey};
use crate::control::{self, SecretError, ShardPlan, Unusable};
use crate::pool::{Answer, AskError, Connection, Telling};
use crate::provision::policies::{self, PolicyFile};
use crate::server::{Address, ConnectError};

/// How long one file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(300);
/// The variable that names the administrator's URL.
const URL_VARIABLE: &str = "PARTYWALL_ADMIN_URL";

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum PoliciesCommand {
    /// Install or renew everything, one line a step; safe to repeat. It fails when a step fails; what could not be done wholly
    /// is a WARNING in its lines, and no failure.
    ///
    /// In each shard's database: roles, the context, protect() and status(), private advisory locks, the admin path,
    /// hardening, and the keys that seal. Needs an administrator: a superuser for all of it; as the owner of the database
    /// with CREATEROLE (managed services) it does what it may, and says of each step what was not done and what stands in
    /// for it. Tables are protected by you: SELECT partywall.protect('schema.table', 'org_id').
    Apply {
        #[command(flatten)]
        target: Target,
        /// The form of the context [default: context.form; where that is auto, guarded where it can be, else sealed, else
        /// plain].
        #[arg(long, value_enum)]
        form: Option<FormWord>,
        /// How much is taken from the shared role.
        #[arg(long, value_enum, default_value_t = Profile::Default)]
        profile: Profile,
        /// Leave TEMPORARY to the shared role, for sessions that make temporary tables.
        #[arg(long)]
        keep_temporary: bool,
    },
    /// Tell how each shard's database stands: SELECT * FROM partywall.status().
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Print the SQL that apply would run, for people who run it themselves; without keys.
    Print {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The form of the context.
        #[arg(long, value_enum, default_value_t = FormWord::Guarded)]
        form: FormWord,
        /// Print only what gives hardening's grants back, for before pg_upgrade.
        #[arg(long)]
        unharden: bool,
    },
}

/// Which databases, and as whom.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only this shard.
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// The administrator, as postgres://user:password@host:port/database; also from PARTYWALL_ADMIN_URL, which keeps the
    /// password out of the process list. Host, port and database that it leaves out are the shard's.
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// The administrator's name, in place of a URL: on each shard's own host, port and database.
    #[arg(long, value_name = "ROLE", conflicts_with = "admin_url")]
    admin_user: Option<String>,
    /// The file with that role's password; {shard} in it stands for the shard's name.
    #[arg(long, value_name = "FILE", requires = "admin_user")]
    admin_password_file: Option<String>,
}

/// `--form`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormWord {
    /// Ordinary settings.
    Plain,
    /// A setting that the shared role cannot write.
    Guarded,
    /// Ordinary settings under a seal.
    Sealed,
}

impl From<FormWord> for Form {
    fn from(word: FormWord) -> Self {
        match word {
            FormWord::Plain => Self::Plain,
            FormWord::Guarded => Self::Guarded,
            FormWord::Sealed => Self::Sealed,
        }
    }
}

/// `--profile`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    #[default]
    /// Breaks none of the client tools that were tried.
    Default,
    /// Also sizes, WAL positions, transaction ids; some tools fail.
    Strict,
}

/// Why the policies are not in place.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoliciesError {
    #[error("{0}")]
    Config(#[from] Faults),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("no administrator: give --admin-url, {URL_VARIABLE} or --admin-user")]
    NoAdministrator,
    #[error("the administrator's URL cannot be read: {0}")]
    Url(String),
    #[error("the URL names a host, so one shard only can be meant: give --shard")]
    ManyShards,
    #[error("there is no shard {0}")]
    NoShard(String),
    #[error("{0}: it needs keys to seal with: give context.seal_key_file")]
    NoKeys(Form),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("shard {shard}: {source}")]
    Ask { shard: String, source: AskError },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Does it; the exit code is success when no step failed, whatever weaknesses were named on the way.
pub(super) async fn run(command: PoliciesCommand) -> Result<ExitCode, PoliciesError> {
    let done = match command {
        PoliciesCommand::Apply { target, form, profile, keep_temporary } => {
            let (config, plans) = plans(&target)?;
            let mut all = true;
            for plan in plans {
                let wish =
                    Wish { form: form.map(Form::from), configured: config.context.form, profile, keep_temporary };
                all &= Applying::begin(&target, &plan).await?.apply(wish).await?;
            }
            all
        }
        PoliciesCommand::Status { target } => {
            let mut good = true;
            for plan in plans(&target)?.1 {
                good &= Applying::begin(&target, &plan).await?.status().await?;
            }
            good
        }
        PoliciesCommand::Print { config, form, unharden } => {
            let config = control::load(&config)?;
            print(&config, form.into(), unharden)?;
            true
        }
    };
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plans(target: &Target) -> Result<(Config, Vec<ShardPlan>), PoliciesError> {
    let config = control::load(&target.config)?;
    let mut plans = control::plan_shards(&config, &[])?;
    if let Some(name) = &target.shard {
        plans.retain(|plan| plan.shard.name.as_str() == name);
        if plans.is_empty() {
            return Err(PoliciesError::NoShard(name.clone()));
        }
    }
    Ok((config, plans))
}

fn print(config: &Config, form: Form, unharden: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if unharden {
        return writeln!(out, "{}", policies::UNHARDEN.sql);
    }
    let role = config.shards.first().map_or("partywall_app", |shard| shard.user.as_str());
    writeln!(out, "{}\n", told(&config.context, role, Wish::default()).replace(';', ";\n"))?;
    for file in steps(form) {
        writeln!(out, "-- {}: {}\n{}", file.name, file.purpose, file.sql)?;
    }
    Ok(())
}

/// The files in their order.
fn steps(form: Form) -> Vec<PolicyFile> {
    let mut files = policies::of_form(form).to_vec();
    files.extend([policies::ADVISORY, policies::STAGING, policies::ADMIN, policies::HARDENING]);
    files
}

/// What the administrator wishes.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    form: Option<Form>,
    configured: ContextForm,
    profile: Profile,
    keep_temporary: bool,
}

/// One shard's database, with an administrator's connection to it.
struct Applying<'a> {
    plan: &'a ShardPlan,
    connection: Box<Connection>,
}

impl<'a> Applying<'a> {
    async fn begin(target: &Target, plan: &'a ShardPlan) -> Result<Self, PoliciesError> {
        let spec = administrator(target, plan)?;
        // Whatever form the database has: an administrator needs no context.
        let names = crate::config::ContextNames { form: ContextForm::Plain, ..plan.telling.names.clone() };
        let connection = Connection::open(&spec, &Telling { names, keys: Vec::new() }).await?;
        Ok(Self { plan, connection })
    }

    async fn ask(&mut self, sql: &str) -> Result<Answer, PoliciesError> {
        let answer = self.connection.inquire(sql, FILE_TIMEOUT).await;
        answer.map_err(|source| PoliciesError::Ask { shard: self.plan.shard.name.to_string(), source })
    }

    fn say(&self, words: &str) -> io::Result<()> {
        writeln!(io::stdout(), "shard {}: {words}", self.plan.shard.name)
    }

    /// Runs every file, each in a transaction of its own; whether none failed.
    async fn apply(mut self, wish: Wish) -> Result<bool, PoliciesError> {
        let form = self.form(wish).await?;
        if form != Form::Plain && self.plan.telling.keys.is_empty() {
            return Err(PoliciesError::NoKeys(form));
        }
        let names = &self.plan.telling.names;
        let told = told(names, &self.plan.shard.user, wish);
        let mut all = self.step("settings", "names and profile", &told).await?;
        for file in steps(form) {
            all &= self.step(file.name, file.purpose, file.sql).await?;
            if file.name.starts_with("context_") && form != Form::Plain {
                let keys: &[ShardKey] = &self.plan.telling.keys;
                all &= self.step("keys", "the keys of the key file, and no others", &policies::keys_sql(keys)).await?;
            }
        }
        self.connection.close().await;
        Ok(all)
    }

    /// The form that is wished for, else the strongest that this administrator can install.
    async fn form(&mut self, wish: Wish) -> Result<Form, PoliciesError> {
        let configured = match wish.configured {
            ContextForm::Auto => None,
            ContextForm::Plain => Some(Form::Plain),
            ContextForm::Guarded => Some(Form::Guarded),
            ContextForm::Sealed => Some(Form::Sealed),
        };
        if let Some(form) = wish.form.or(configured) {
            return Ok(form);
        }
        if self.plan.telling.keys.is_empty() {
            self.say("context: plain, as no keys are configured (context.seal_key_file)")?;
            return Ok(Form::Plain);
        }
        let able = if self.connection.server.server_version_num >= 150_000 {
            "SELECT pg_catalog.has_parameter_privilege('backtrace_functions', 'SET WITH GRANT OPTION')"
        } else {
            "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user"
        };
        let answer = self.ask(able).await?;
        let may = answer.rows.first().and_then(|row| row.first()) == Some(&Some("t".to_owned()));
        if !may {
            self.say("context: sealed, as this administrator may not install the guarded form (only a superuser may)")?;
        }
        Ok(if may { Form::Guarded } else { Form::Sealed })
    }

    async fn step(&mut self, name: &str, purpose: &str, sql: &str) -> Result<bool, PoliciesError> {
        let answer = self.ask(&format!("BEGIN;\n{sql}\n;COMMIT")).await?;
        if let Some(no) = answer.no {
            self.ask("ROLLBACK").await?;
            self.say(&format!("NOT DONE {name} ({purpose}): {no}"))?;
            return Ok(false);
        }
        for (severity, words) in &answer.notices {
            let warning = if severity == "WARNING" { "WARNING: " } else { "" };
            self.say(&format!("  {name}: {warning}{words}"))?;
        }
        self.say(&format!("done {name} ({purpose})"))?;
        Ok(true)
    }

    /// Prints `partywall.status()`; whether nothing is broken.
    async fn status(mut self) -> Result<bool, PoliciesError> {
        let role = escape_literal(&self.plan.shard.user);
        let answer = self.ask(&format!("SELECT severity, object, finding FROM partywall.status({role})")).await?;
        if let Some(no) = &answer.no {
            self.say(&format!("not installed: {no}"))?;
            return Ok(false);
        }
        let mut good = true;
        for row in &answer.rows {
            let words: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
            good &= words.first() != Some(&"BREACH");
            self.say(&words.join("  "))?;
        }
        self.connection.close().await;
        Ok(good)
    }
}

/// What the files are to know, as settings of the session.
fn told(names: &crate::config::ContextNames, role: &str, wish: Wish) -> String {
    let profile = match wish.profile {
        Profile::Default => "default",
        Profile::Strict => "strict",
    };
    let keep = if wish.keep_temporary { "on" } else { "" };
    let all = [
        ("app_role", role),
        ("profile", profile),
        ("keep_temporary", keep),
        ("organization_setting", &names.organization),
        ("user_setting", &names.user),
        ("project_setting", &names.project),
        ("roles_setting", &names.roles),
        ("permissions_setting", &names.permissions),
    ];
    all.map(|(name, value)| format!("SET partywall.{name} = {};", escape_literal(value))).concat()
}

/// How the administrator reaches a shard's database.
fn administrator(target: &Target, plan: &ShardPlan) -> Result<crate::server::ConnectSpec, PoliciesError> {
    let spec = plan.spec.clone();
    if let Some(user) = &target.admin_user {
        let file = target.admin_password_file.as_ref();
        let file = file.map(|path| SecretRef::File(path.replace("{shard}", plan.shard.name.as_str()).into()));
        let password = file.as_ref().map(control::read_secret).transpose()?;
        return Ok(spec.for_administrator(user.clone(), password));
    }
    let url = target.admin_url.clone().or_else(|| std::env::var(URL_VARIABLE).ok());
    let url = url.ok_or(PoliciesError::NoAdministrator)?;
    let parsed: tokio_postgres::Config =
        url.parse().map_err(|_| PoliciesError::Url("not a postgres:// URL".to_owned()))?;
    let user = parsed.get_user().ok_or_else(|| PoliciesError::Url("it names no user".to_owned()))?;
    let password = parsed.get_password().map(|password| Secret::new(password.to_vec()));
    let mut spec = spec.for_administrator(user.to_owned(), password);
    if let Some(host) = parsed.get_hosts().first() {
        if target.shard.is_none() && plan_is_one_of_many(target)? {
            return Err(PoliciesError::ManyShards);
        }
        let port = parsed.get_ports().first().copied().unwrap_or(5432);
        spec.address = match host {
            tokio_postgres::config::Host::Tcp(host) => Address::Tcp { host: host.clone(), port },
            tokio_postgres::config::Host::Unix(dir) => Address::Unix { dir: dir.clone(), port },
        };
    }
    if let Some(database) = parsed.get_dbname() {
        database.clone_into(&mut spec.database);
    }
    Ok(spec)
}

fn plan_is_one_of_many(target: &Target) -> Result<bool, PoliciesError> {
    Ok(control::load(&target.config)?.shards.len() > 1)
}
