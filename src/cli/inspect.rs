//! `partywall token inspect`: which session a token would give, or why it gives none. The token itself is never printed.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use crate::auth::{Identity, LeftOut, Outline, TOKEN_BYTES_MAX};
use crate::config::Config;
use crate::control::keys::{KeyKeeper, Timing};
use crate::control::{self, guard};
use crate::guard::{Relations, Rights};
use crate::refusal::Refusal;
use crate::tenant::{Directory, Tenant};

use super::token::TokenCommandError;

/// How a token is looked at.
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// The configuration file: its keys, rules, organizations and policies are used.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The database that the client would ask for; it chooses among the organizations of a token that names several.
    #[arg(long, value_name = "NAME", default_value = "")]
    database: String,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// What would become of a login with the token.
struct Inspected {
    outline: Option<Outline>,
    outcome: Result<Session, Box<No>>,
}

/// The session that it would give.
struct Session {
    identity: Identity,
    tenant: Tenant,
    rights: Rights,
}

/// The no that it would hear.
struct No {
    why: String,
    refusal: Refusal,
    /// The organization, where the signature is right.
    org: Option<String>,
}

/// Reads a token from standard input and prints the session that it would give; success only when there is one.
pub(super) async fn inspect(arguments: InspectArguments) -> Result<ExitCode, TokenCommandError> {
    let InspectArguments { config: path, database, json } = arguments;
    let read = tokio::task::spawn_blocking(move || Ok::<_, TokenCommandError>((control::load(&path)?, read_token()?)));
    let (config, token) = read.await.map_err(io::Error::other)??;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Keys behind URLs are fetched once, as at a start.
    let (keys, _keeper) = KeyKeeper::open(&config.auth, Timing::default()).await?;
    let outcome = match keys.current().verify_for(&token, &database, now) {
        Err(error) => {
            let org = error.org().map(|org| org.to_string());
            Err(Box::new(No { why: error.why(), refusal: error.refusal(), org }))
        }
        Ok(identity) => session(&config, identity, &database),
    };
    let inspected = Inspected { outline: Outline::of(&token), outcome };
    let text = if json { format!("{:#}\n", as_json(&inspected, now)) } else { as_text(&inspected, now) };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if inspected.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn session(config: &Config, identity: Identity, database: &str) -> Result<Session, Box<No>> {
    match Directory::new(config).admit(&identity, database) {
        Ok(tenant) => {
            let guard = guard(config);
            let rights = guard.session_rights(identity.roles(), identity.permissions(), identity.is_bare());
            Ok(Session { identity, tenant, rights })
        }
        Err(refusal) => {
            let why = refusal.message().to_owned();
            Err(Box::new(No { why, refusal, org: Some(identity.org().to_string()) }))
        }
    }
}

/// The token on standard input, without the white space around it.
fn read_token() -> io::Result<String> {
    let mut text = Vec::new();
    // One that is too long is judged as one that is too long.
    io::stdin().lock().take(4 * TOKEN_BYTES_MAX as u64).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

fn as_json(inspected: &Inspected, now: u64) -> Value {
    let token = inspected.outline.as_ref().map(|outline| {
        json!({
            "alg": outline.algorithm, "kid": outline.key_id, "iss": outline.issuer, "aud": outline.audience,
        })
    });
    match &inspected.outcome {
        Err(no) => json!({
            "ok": false, "why": no.why, "sqlstate": no.refusal.sqlstate(), "message": no.refusal.message(),
            "organization": no.org, "token": token,
        }),
        Ok(Session { identity, tenant, rights }) => json!({
            "ok": true,
            "organization": tenant.org().as_str(),
            "user": identity.user().map(|user| user.as_str()),
            "project": identity.project(),
            "roles": identity.roles(),
            "permissions": identity.permissions(),
            "left_out": identity.left_out().iter().map(LeftOut::to_string).collect::<Vec<_>>(),
            "rights": {
                "read": relations(rights.read()), "write": relations(rights.write()), "ddl": relations(rights.ddl()),
            },
            "tier": tenant.tier().name.as_str(),
            "shard": tenant.shard().as_str(),
            "expires_at": identity.expires_at(),
            "expires_in_s": identity.expires_at().saturating_sub(now),
            "token": token,
        }),
    }
}

fn relations(relations: &Relations) -> Value {
    match relations {
        Relations::None => json!([]),
        Relations::All => json!(["*"]),
        Relations::Some(names) => json!(names),
    }
}

fn as_text(inspected: &Inspected, now: u64) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<14}{}", shown(value)));
    match &inspected.outcome {
        Ok(Session { identity, tenant, rights }) => {
            line("organization", tenant.org().as_str());
            line("user", identity.user().map_or("-", |user| user.as_str()));
            line("project", identity.project().unwrap_or("-"));
            line("roles", &listed(identity.roles()));
            line("permissions", &listed(identity.permissions()));
            for left in identity.left_out() {
                line("left out", &left.to_string());
            }
            for (verb, relations) in
                [("may read", rights.read()), ("may write", rights.write()), ("may define", rights.ddl())]
            {
                match relations {
                    Relations::None => line(verb, "nothing"),
                    Relations::All => line(verb, "every relation"),
                    Relations::Some(names) => {
                        line(verb, &names.iter().map(|name| &**name).collect::<Vec<_>>().join(", "))
                    }
                }
            }
            line("tier", tenant.tier().name.as_str());
            line("shard", tenant.shard().as_str());
            let left = Duration::from_secs(identity.expires_at().saturating_sub(now));
            let at = UNIX_EPOCH + Duration::from_secs(identity.expires_at());
            line(
                "expires",
                &format!("{}, in {}", humantime::format_rfc3339_seconds(at), humantime::format_duration(left)),
            );
        }
        Err(no) => {
            line("refused", &no.why);
            line("client hears", &format!("{} {}", no.refusal.sqlstate(), no.refusal.message()));
            line("organization", no.org.as_deref().unwrap_or("-"));
        }
    }
    if let Some(outline) = &inspected.outline {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let (alg, kid) = (text(&outline.algorithm), text(&outline.key_id));
        line("token", &format!("alg {alg}, kid {kid}, iss {}, aud {}", text(&outline.issuer), text(&outline.audience)));
    }
    lines.join("\n") + "\n"
}

fn listed(names: &[Box<str>]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }
}

/// What came from a token, without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().map(|part| if part.is_control() { '\u{fffd}' } else { part }).collect()
}
