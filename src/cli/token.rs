//! `partywall token`: a token for development and trials, signed with a key at hand; `inspect` looks at one.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use crate::auth::TokenRules;
use crate::auth::mint::{Grant, MintError, SigningKey};
use crate::config::{Config, Faults, KeySource};
use crate::control::keys::KeyFaults;
use crate::control::{self, SecretError};

use super::inspect::InspectArguments;

/// Make a token, or look at one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    pub(super) command: Option<TokenCommand>,
    #[command(flatten)]
    pub(super) mint: Option<MintArguments>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Say which session the token on standard input would give, or why it gives none.
    ///
    /// Prints the organization, the user, roles and rights, tier, shard and expiry, and never the token. Exits with 0 only
    /// when there would be a session. Keys behind URLs are fetched.
    Inspect(InspectArguments),
}

/// What the token is to say.
#[derive(Debug, Args)]
pub(super) struct MintArguments {
    /// The configuration file: its claims, issuer, audience and keys are used.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The organization.
    #[arg(long)]
    org: String,
    /// The user.
    #[arg(long)]
    user: String,
    /// The project.
    #[arg(long)]
    project: Option<String>,
    /// Roles, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ROLE,…")]
    roles: Vec<String>,
    /// Permissions, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "VERB:RELATION,…")]
    permissions: Vec<String>,
    /// The tier; used only for an organization that has none of its own.
    #[arg(long)]
    tier: Option<String>,
    /// For how long it is good, like 30m, 1h or 7d.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A private key (PEM) to sign with, where the configuration has none that can sign.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenCommandError {
    #[error("{0}")]
    Config(#[from] Faults),
    #[error("the configuration has no key that can sign (hs256): give a private key with --key")]
    NoKey,
    #[error("cannot read {0}: {1}")]
    Key(PathBuf, io::Error),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error(transparent)]
    Keys(#[from] KeyFaults),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the token.
pub(super) fn mint(arguments: &MintArguments) -> Result<String, TokenCommandError> {
    let config = control::load(&arguments.config)?;
    let key = signing_key(arguments, &config)?;
    let grant = Grant {
        org: arguments.org.clone(),
        user: Some(arguments.user.clone()),
        project: arguments.project.clone(),
        roles: arguments.roles.clone(),
        permissions: arguments.permissions.clone(),
        tier: arguments.tier.clone(),
        ttl_s: arguments.ttl.as_secs(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(key.mint(&grant, &TokenRules::from(&config.auth), now)?)
}

fn signing_key(arguments: &MintArguments, config: &Config) -> Result<SigningKey, TokenCommandError> {
    if let Some(file) = &arguments.key {
        let pem = std::fs::read(file).map_err(|error| TokenCommandError::Key(file.clone(), error))?;
        return Ok(SigningKey::from_pem(&pem)?);
    }
    for source in &config.auth.keys {
        if let KeySource::Hs256 { secret } = &source.from {
            return Ok(SigningKey::from_secret(control::read_secret(secret)?.expose())?);
        }
    }
    Err(TokenCommandError::NoKey)
}
