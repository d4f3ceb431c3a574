//! The sections of the main file that stand for themselves: key names, ranges and words, each into its type.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::meant::ProxyProtocol;
use super::meant::{
    Admin, Audit, Breach, Check, ContextForm, ContextNames, Listen, Log, LogFormat, LogLevel, PlaintextPasswords, Pool,
    PoolMode, StatementAudit, TlsFiles,
};
use super::page::{Need, Page};
use super::policy::{CopyFrom, GuardPolicy};
use super::table::Table;

/// An hour, the longest of the short waits, in seconds.
pub(super) const HOUR_S: u64 = 3600;
/// A year, the longest of the long waits, in seconds.
const YEAR_S: u64 = 365 * 24 * HOUR_S;
/// PostgreSQL cuts names at this length (manual, "Identifiers and Key Words").
pub(super) const NAME_BYTES_MAX: usize = 63;

pub(super) fn listen(root: &Table<'_>) -> Listen {
    let table = root.table("listen");
    let default = Listen::default();
    let places = [
        ("never", PlaintextPasswords::Never),
        ("loopback", PlaintextPasswords::Loopback),
        ("always", PlaintextPasswords::Always),
    ];
    let max_client_conn = table.count("max_client_conn", 1..=1_000_000).unwrap_or(default.max_client_conn);
    let listen = Listen {
        address: table.address("address").unwrap_or(default.address),
        tls: tls_files(&table),
        plaintext_passwords: table.word("plaintext_passwords", &places).unwrap_or(default.plaintext_passwords),
        max_client_conn,
        max_client_conn_per_address: table
            .count("max_client_conn_per_address", 1..=1_000_000)
            .unwrap_or(max_client_conn),
        client_login_timeout: table
            .seconds("client_login_timeout_s", 1..=HOUR_S)
            .unwrap_or(default.client_login_timeout),
        threads: table.count("threads", 1..=256).or(default.threads),
        proxy_protocol: proxy_protocol(&table).unwrap_or(default.proxy_protocol),
        trusted_proxies: trusted_proxies(&table).unwrap_or(default.trusted_proxies),
        drain_delay: table.seconds("drain_delay_s", 0..=HOUR_S).unwrap_or(default.drain_delay),
        drain_timeout: table.seconds("drain_timeout_s", 0..=24 * HOUR_S).unwrap_or(default.drain_timeout),
    };
    let nobody = listen.trusted_proxies.is_empty() && table.sound(&["trusted_proxies"]);
    if listen.proxy_protocol != ProxyProtocol::Off && nobody {
        table.fault("proxy_protocol", "nobody may speak it: name the balancers in trusted_proxies");
    }
    let no_tls = !table.has("tls_certificate") && !table.has("tls_private_key");
    if no_tls && listen.plaintext_passwords == PlaintextPasswords::Never {
        table.fault("plaintext_passwords", "nobody could log in: never without TLS, and no TLS (give tls_certificate and tls_private_key, or say loopback)");
    }
    table.close();
    listen
}

fn proxy_protocol(table: &Table<'_>) -> Option<ProxyProtocol> {
    let words = [("off", ProxyProtocol::Off), ("v2", ProxyProtocol::V2), ("required", ProxyProtocol::Required)];
    table.word("proxy_protocol", &words)
}

/// Networks, or single addresses.
fn trusted_proxies(table: &Table<'_>) -> Option<Vec<IpNet>> {
    let texts = table.texts("trusted_proxies")?;
    let network = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match texts.iter().map(network).collect::<Result<_, _>>() {
        Ok(networks) => Some(networks),
        Err(_) => {
            table.fault("trusted_proxies", "holds something else than networks and addresses ([\"10.0.0.0/8\", …])");
            None
        }
    }
}

fn tls_files(table: &Table<'_>) -> Option<TlsFiles> {
    let (certificate, private_key) = (table.file("tls_certificate"), table.file("tls_private_key"));
    match (table.has("tls_certificate"), table.has("tls_private_key")) {
        (true, false) => table.fault("tls_certificate", "a certificate without tls_private_key (both or neither)"),
        (false, true) => table.fault("tls_private_key", "a private key without tls_certificate (both or neither)"),
        (true, true) | (false, false) => (),
    }
    Some(TlsFiles { certificate: certificate?, private_key: private_key? })
}

pub(super) fn admin(root: &Table<'_>, listen: &Listen) -> Admin {
    let table = root.table("admin");
    let default = Admin::default();
    table.refuse_inline("token", "token_file");
    let admin = Admin {
        address: table.address("address").unwrap_or(default.address),
        token_file: table.file("token_file").or(default.token_file),
    };
    if admin.address == listen.address && admin.address.port() != 0 && table.sound(&["address"]) {
        table.fault("address", "the same as listen.address (an address of its own)");
    }
    table.close();
    admin
}

pub(super) fn context(root: &Table<'_>) -> ContextNames {
    let table = root.table("context");
    let default = ContextNames::default();
    let setting = |key, default| table.checked(key, setting_name).unwrap_or(default);
    let forms = [
        ("auto", ContextForm::Auto),
        ("plain", ContextForm::Plain),
        ("guarded", ContextForm::Guarded),
        ("sealed", ContextForm::Sealed),
    ];
    let names = ContextNames {
        organization: setting("organization", default.organization),
        user: setting("user", default.user),
        project: setting("project", default.project),
        roles: setting("roles", default.roles),
        permissions: setting("permissions", default.permissions),
        form: table.word("form", &forms).unwrap_or(default.form),
        seal_key: table.secret("seal_key_file", "seal_key_env", Need::SealKeys),
    };
    table.refuse_inline("seal_key", "seal_key_file or seal_key_env");
    let sealing = matches!(names.form, ContextForm::Guarded | ContextForm::Sealed);
    if sealing && !table.has("seal_key_file") && !table.has("seal_key_env") {
        table.fault("form", "nothing to seal with (give seal_key_file or seal_key_env)");
    }
    let all = [
        ("organization", &names.organization),
        ("user", &names.user),
        ("project", &names.project),
        ("roles", &names.roles),
        ("permissions", &names.permissions),
    ];
    for (nth, (key, name)) in all.iter().enumerate() {
        let earlier = all.iter().take(nth).find(|(_, other)| other == name);
        if let Some((other, _)) = earlier.filter(|(other, _)| table.sound(&[key, other])) {
            // The key that the file has is the one to change.
            let (at, with) = if table.has(key) { (*key, *other) } else { (*other, *key) };
            table.fault(at, format!("the same setting as {with} (all distinct)"));
        }
    }
    table.close();
    names
}

/// The name of a customized option: lower-case identifiers joined by a dot (PostgreSQL manual, "Customized Options").
fn setting_name(text: &str) -> Result<String, String> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let tail = |byte: u8| first(byte) || byte.is_ascii_digit();
    let part = |part: &str| part.bytes().next().is_some_and(first) && part.bytes().all(tail);
    let parts = text.split_once('.');
    if text.len() <= NAME_BYTES_MAX && parts.is_some_and(|(prefix, name)| part(prefix) && part(name)) {
        Ok(text.to_owned())
    } else {
        Err("not the name of a setting (prefix.name: lower-case letters, digits and _, at most 63 bytes)".to_owned())
    }
}

/// The words of `pool_mode`, PgBouncer's.
pub(super) const POOL_MODES: [(&str, PoolMode); 2] =
    [("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];

pub(super) fn pool(root: &Table<'_>) -> Pool {
    let table = root.table("pool");
    let default = Pool::default();
    let idle_transaction = table.seconds("idle_transaction_timeout_s", 0..=YEAR_S);
    let pool = Pool {
        mode: table.word("pool_mode", &POOL_MODES).unwrap_or(default.mode),
        query_wait_timeout: table.seconds("query_wait_timeout_s", 1..=HOUR_S).unwrap_or(default.query_wait_timeout),
        server_lifetime: table.seconds("server_lifetime_s", 1..=YEAR_S).unwrap_or(default.server_lifetime),
        server_idle_timeout: table.seconds("server_idle_timeout_s", 1..=YEAR_S).unwrap_or(default.server_idle_timeout),
        server_connect_timeout: table
            .seconds("server_connect_timeout_s", 1..=HOUR_S)
            .unwrap_or(default.server_connect_timeout),
        idle_transaction_timeout: match idle_transaction {
            Some(seconds) => Some(seconds).filter(|seconds| !seconds.is_zero()),
            None => default.idle_transaction_timeout,
        },
        idle_pin_timeout: table.seconds("idle_pin_timeout_s", 1..=YEAR_S).unwrap_or(default.idle_pin_timeout),
        max_prepared_statements: table
            .count("max_prepared_statements", 1..=100_000)
            .unwrap_or(default.max_prepared_statements),
        min_pool_size: table.count("min_pool_size", 0..=10_000).unwrap_or(default.min_pool_size),
    };
    table.close();
    pool
}

/// `[guard]` of the main file; the rest of the policy is a file of its own.
pub(super) fn guard(root: &Table<'_>, policy: &mut GuardPolicy) {
    let table = root.table("guard");
    if let Some(bytes) = table.count("statement_bytes_max", 1024..=(64 << 20)) {
        policy.statement_bytes_max = bytes;
    }
    if let Some(way) = table.word("copy_from", &[("direct", CopyFrom::Direct), ("staged", CopyFrom::Staged)]) {
        policy.copy_from = way;
    }
    table.close();
}

pub(super) fn check(root: &Table<'_>) -> Check {
    let table = root.table("check");
    let default = Check::default();
    let check = Check {
        on_breach: table
            .word("on_breach", &[("refuse", Breach::Refuse), ("warn", Breach::Warn)])
            .unwrap_or(default.on_breach),
        allow: table.texts("allow").unwrap_or(default.allow),
        interval: table.seconds("interval_s", 1..=YEAR_S).unwrap_or(default.interval),
    };
    let finding = |text: &String| text.split_once(':').is_some_and(|(kind, on)| !kind.is_empty() && !on.is_empty());
    if !check.allow.iter().all(finding) {
        table.fault("allow", "holds something else than findings (kind:object, as check prints them)");
    }
    table.close();
    check
}

pub(super) fn audit(root: &Table<'_>) -> Audit {
    let table = root.table("audit");
    let default = Audit::default();
    let which = [("all", StatementAudit::All), ("writes", StatementAudit::Writes), ("none", StatementAudit::None)];
    let audit = Audit {
        file: table.path("file", Need::DirectoryOf).or(default.file),
        statements: table.word("statements", &which).unwrap_or(default.statements),
    };
    table.close();
    audit
}

pub(super) fn log(root: &Table<'_>) -> Log {
    let table = root.table("log");
    let default = Log::default();
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let log = Log {
        format: table.word("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or(default.format),
        level: table.word("level", &levels.map(|level| (level.as_str(), level))).unwrap_or(default.level),
    };
    table.close();
    log
}

/// The policy files that the main file names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyFiles {
    /// `policies.tiers`.
    pub tiers: Option<PathBuf>,
    /// `policies.guard`.
    pub guard: Option<PathBuf>,
}

pub(super) fn policies(page: &Page, root: &Table<'_>) -> PolicyFiles {
    let table = root.table("policies");
    let path = |key| table.text(key).map(|text| page.resolve(&text));
    let files = PolicyFiles { tiers: path("tiers"), guard: path("guard") };
    table.close();
    files
}
