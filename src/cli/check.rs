//! `partywall check`: the configuration, and each shard as the proxy would reach it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use crate::config::{Config, Faults};
use crate::control;
use crate::server;

/// What was found of one shard.
struct Finding {
    shard: String,
    outcome: Result<Reached, String>,
}

struct Reached {
    server_version: String,
    tls: bool,
    login_ms: u64,
}

/// Checks, and prints what it found; the exit code is success only when nothing is wrong.
pub(super) async fn check(path: &Path, as_json: bool) -> io::Result<ExitCode> {
    let file = path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || control::load(&file)).await.map_err(io::Error::other)?;
    match loaded {
        Err(faults) => {
            print_faults(&faults, as_json)?;
            Ok(ExitCode::FAILURE)
        }
        Ok(config) => {
            let findings = reach_shards(config).await?;
            print_findings(&findings, as_json)?;
            let good = findings.iter().all(|finding| finding.outcome.is_ok());
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn reach_shards(config: Config) -> io::Result<Vec<Finding>> {
    let names: Vec<String> = config.shards.iter().map(|shard| shard.name.to_string()).collect();
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
        let begun = Instant::now();
        let outcome = match server::connect(&plan.spec).await {
            Ok(connection) => Ok(Reached {
                server_version: version(connection.server_version_num),
                tls: connection.stream.is_tls(),
                login_ms: begun.elapsed().as_millis() as u64,
            }),
            Err(error) => Err(error.to_string()),
        };
        findings.push(Finding { shard: plan.shard.name.to_string(), outcome });
    }
    Ok(findings)
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
        let ok = findings.iter().all(|finding| finding.outcome.is_ok());
        let shards: Vec<Value> = findings.iter().map(finding_json).collect();
        return writeln!(out, "{:#}", json!({"ok": ok, "faults": [], "shards": shards}));
    }
    writeln!(out, "configuration: ok")?;
    for Finding { shard, outcome } in findings {
        match outcome {
            Ok(reached) => writeln!(
                out,
                "shard {shard}: ok, PostgreSQL {}, {}, login in {} ms",
                reached.server_version,
                if reached.tls { "TLS" } else { "no TLS" },
                reached.login_ms
            )?,
            Err(why) => writeln!(out, "FAULT: {why}")?,
        }
    }
    Ok(())
}

fn finding_json(finding: &Finding) -> Value {
    match &finding.outcome {
        Ok(reached) => json!({
            "shard": finding.shard,
            "ok": true,
            "server_version": reached.server_version,
            "tls": reached.tls,
            "login_ms": reached.login_ms,
        }),
        Err(why) => json!({"shard": finding.shard, "ok": false, "fault": why}),
    }
}
