//! `partywall check`: the configuration, and each shard as the proxy would reach it: is it fit to be served?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use crate::config::{Config, Faults};
use crate::context::seal::Form;
use crate::control::attest::{self, Depth};
use crate::control::{self, ShardPlan};
use crate::pool::Connection;

/// What was found of one shard.
struct Finding {
    shard: String,
    outcome: Result<Reached, String>,
}

struct Reached {
    server_version: String,
    tls: bool,
    login_ms: u64,
    form: Form,
    findings: Vec<attest::Finding>,
}

impl Finding {
    /// Whether the shard may be served.
    fn is_good(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|reached| !reached.findings.iter().any(attest::Finding::is_breach))
    }
}

/// Checks, and prints what it found; the exit code is success only when nothing is wrong. `offline` looks at the
/// configuration and the files that it names, and at no database.
pub(super) async fn check(path: &Path, as_json: bool, offline: bool) -> io::Result<ExitCode> {
    let file = path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || control::load(&file)).await.map_err(io::Error::other)?;
    match loaded {
        Err(faults) => {
            print_faults(&faults, as_json)?;
            Ok(ExitCode::FAILURE)
        }
        Ok(_) if offline => {
            print_findings(&[], as_json)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(config) => {
            let findings = reach_shards(config).await?;
            print_findings(&findings, as_json)?;
            let good = findings.iter().all(Finding::is_good);
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn reach_shards(config: Config) -> io::Result<Vec<Finding>> {
    let names: Vec<String> = config.shards.iter().map(|shard| shard.name.to_string()).collect();
    let allow = config.check.allow.clone();
    let plans = tokio::task::spawn_blocking(move || control::plan_shards(&config, &[]));
    let plans = match plans.await.map_err(io::Error::other)? {
        Ok(plans) => plans,
        Err(error) => {
            let fail = |shard| Finding { shard, outcome: Err(error.to_string()) };
            return Ok(names.into_iter().map(fail).collect());
        }
    };
    let mut findings = Vec::new();
    for plan in plans {
        let outcome = look_at(&plan, &allow).await;
        findings.push(Finding { shard: plan.shard.name.to_string(), outcome });
    }
    Ok(findings)
}

/// Reaches a shard, and looks at its walls.
async fn look_at(plan: &ShardPlan, allow: &[String]) -> Result<Reached, String> {
    let begun = Instant::now();
    let mut connection = Connection::open(&plan.spec, &plan.telling).await.map_err(|error| error.to_string())?;
    let login_ms = begun.elapsed().as_millis() as u64;
    let depth = if connection.server.in_recovery { Depth::Reading } else { Depth::Writing };
    let findings = attest::attest(&mut connection, &plan.telling, depth, allow).await;
    let findings = findings.map_err(|error| format!("shard {}: attesting it failed: {error}", plan.shard.name))?;
    let reached = Reached {
        server_version: version(connection.server.server_version_num),
        tls: connection.server.stream.is_tls(),
        login_ms,
        form: connection.form(),
        findings,
    };
    connection.close().await;
    Ok(reached)
}

/// 150013 is 15.13 (PostgreSQL manual, `PQserverVersion`).
fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

fn print_faults(faults: &Faults, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let faults: Vec<Value> = faults
            .0
            .iter()
            .map(|fault| json!({"file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message}))
            .collect();
        return writeln!(out, "{:#}", json!({"ok": false, "faults": faults, "shards": []}));
    }
    writeln!(out, "{faults}")
}

fn print_findings(findings: &[Finding], as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let ok = findings.iter().all(Finding::is_good);
        let shards: Vec<Value> = findings.iter().map(finding_json).collect();
        return writeln!(out, "{:#}", json!({"ok": ok, "faults": [], "shards": shards}));
    }
    writeln!(out, "configuration: ok")?;
    for finding in findings {
        let Finding { shard, outcome } = finding;
        match outcome {
            Ok(reached) => {
                writeln!(
                    out,
                    "shard {shard}: {}, PostgreSQL {}, {}, {} context, login in {} ms",
                    if finding.is_good() { "ok" } else { "NOT FIT TO BE SERVED" },
                    reached.server_version,
                    if reached.tls { "TLS" } else { "no TLS" },
                    reached.form,
                    reached.login_ms
                )?;
                for found in &reached.findings {
                    writeln!(out, "  {found}\n    mend: {}", found.mend)?;
                }
            }
            Err(why) => writeln!(out, "FAULT: {why}")?,
        }
    }
    Ok(())
}

fn finding_json(finding: &Finding) -> Value {
    match &finding.outcome {
        Ok(reached) => json!({
            "shard": finding.shard,
            "ok": finding.is_good(),
            "context": reached.form.as_str(),
            "findings": reached.findings.iter().map(found_json).collect::<Vec<_>>(),
            "server_version": reached.server_version,
            "tls": reached.tls,
            "login_ms": reached.login_ms,
        }),
        Err(why) => json!({"shard": finding.shard, "ok": false, "fault": why}),
    }
}

fn found_json(found: &attest::Finding) -> Value {
    json!({
        "severity": found.severity.as_str(),
        "name": found.name,
        "object": found.object,
        "consequence": found.consequence,
        "mend": found.mend,
        "allowed": found.allowed,
    })
}
