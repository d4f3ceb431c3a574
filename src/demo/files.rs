//! The demo's folder as `serve`, `check` and `token` read it: configuration, policies, certificate, secrets, tokens.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::organizations::shard_name;
use super::{DATABASE, DemoError, ORGANIZATIONS, PEOPLE, Person, SampleOrganization, file_error};
use crate::auth::TokenRules;
use crate::auth::mint::{Grant, SigningKey};
use crate::config::Auth;
use crate::provision::random_hex;

/// The configuration's name in the folder.
pub(super) const CONFIG: &str = "partywall.toml";
/// All that the demo and its proxy put into the folder, besides the clusters, which remove themselves.
pub(super) const ENTRIES: [&str; 6] = [CONFIG, "policies", "tls", "secrets", "tokens", "audit.jsonl"];
/// How a configuration begins that the demo wrote, and may write again.
pub(super) const MARK: &str = "# Written by `partywall demo`.";

/// How long the demo's tokens are good, in seconds.
const TOKEN_TTL_S: u64 = 12 * 60 * 60;
/// How long the demo's certificate is good.
const CERTIFICATE_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Who says that the tokens are good, and for whom.
const ISSUER: &str = "https://demo.partywall.example/";
const AUDIENCE: &str = "partywall";

/// What of a shard goes into the configuration.
#[derive(Clone)]
pub(super) struct ShardFacts {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) app_password: String,
    pub(super) superuser_password: String,
}

/// What was written that is needed later.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) tokens: Vec<Token>,
}

/// One person's token.
pub(super) struct Token {
    pub(super) org: &'static str,
    pub(super) person: &'static str,
    pub(super) text: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} of {}, ***)", self.person, self.org)
    }
}

/// The file of a person's token, in the demo's folder.
pub(super) fn token_file(org: &str, role: &str) -> String {
    format!("tokens/{org}-{role}.jwt")
}

/// Writes everything into `folder`, over what an earlier demo left there.
pub(super) fn write(
    folder: &Path,
    port: u16,
    admin_port: u16,
    shards: &[ShardFacts],
    seal_keys: &str,
) -> Result<Written, DemoError> {
    for (name, mode) in [("policies", 0o755), ("tls", 0o755), ("secrets", 0o700), ("tokens", 0o700)] {
        let path = folder.join(name);
        fs::create_dir_all(&path).map_err(file_error("making", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(file_error("setting the mode of", &path))?;
    }
    put(folder, "policies/tiers.toml", include_str!("../../policies/tiers.toml"))?;
    put(folder, "policies/guard.toml", include_str!("../../policies/guard.toml"))?;
    write_certificate(folder)?;
    let secret = |bytes| random_hex(bytes).map_err(|source| DemoError::Shard { doing: "making a secret", source });
    let jwt_key = secret(32)?;
    put_secret(folder, "secrets/jwt.key", &jwt_key)?;
    put_secret(folder, "secrets/seal.key", seal_keys)?;
    put_secret(folder, "secrets/admin.token", &secret(24)?)?;
    for shard in shards {
        put_secret(folder, &format!("secrets/{}.password", shard.name), &shard.app_password)?;
        put_secret(folder, &format!("secrets/{}.superuser", shard.name), &shard.superuser_password)?;
    }
    let tokens = write_tokens(folder, &jwt_key)?;
    put(folder, CONFIG, &config(port, admin_port, shards))?;
    Ok(Written { tokens })
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), DemoError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(file_error("writing", &path))
}

/// Writes a file that nobody else may read at any moment.
fn put_secret(folder: &Path, name: &str, text: &str) -> Result<(), DemoError> {
    let path = folder.join(name);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let mut file = open.map_err(file_error("writing", &path))?;
    // The mode above is for a new file; one that an earlier demo left has its own.
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file_error("closing", &path))?;
    file.write_all(text.as_bytes()).map_err(file_error("writing", &path))
}

/// A certificate authority of the demo's own, and a server certificate of it for this machine.
fn write_certificate(folder: &Path) -> Result<(), DemoError> {
    let now = SystemTime::now();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Partywall demo CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    for params in [&mut authority, &mut server] {
        // A clock that is a little behind must not refuse it.
        params.not_before = (now - Duration::from_secs(60 * 60)).into();
        params.not_after = (now + CERTIFICATE_TTL).into();
    }
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    put(folder, "tls/ca.crt", &authority.pem())?;
    put(folder, "tls/server.crt", &certificate.pem())?;
    put_secret(folder, "tls/server.key", &key.serialize_pem())
}

fn write_tokens(folder: &Path, jwt_key: &str) -> Result<Vec<Token>, DemoError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let key = SigningKey::from_secret(jwt_key.as_bytes())?;
    let auth = Auth { issuer: Some(ISSUER.to_owned()), audience: vec![AUDIENCE.to_owned()], ..Auth::default() };
    let rules = TokenRules::from(&auth);
    let mut tokens = Vec::new();
    for org in ORGANIZATIONS {
        for person in PEOPLE {
            let text = key.mint(&grant(org, person), &rules, now)?;
            put_secret(folder, &token_file(org.id, person.role), &text)?;
            tokens.push(Token { org: org.id, person: person.name, text });
        }
    }
    Ok(tokens)
}

fn grant(org: SampleOrganization, person: Person) -> Grant {
    Grant {
        org: org.id.to_owned(),
        user: Some(person.name.to_owned()),
        project: Some("warehouse".to_owned()),
        roles: vec![person.role.to_owned()],
        ttl_s: TOKEN_TTL_S,
        ..Grant::default()
    }
}

fn config(port: u16, admin_port: u16, shards: &[ShardFacts]) -> String {
    let mut text = format!(
        r#"{MARK} A complete configuration: try `partywall check --config` and `partywall token --config` with it.

[listen]
address = "127.0.0.1:{port}"
tls_certificate = "tls/server.crt"
tls_private_key = "tls/server.key"

[admin]
address = "127.0.0.1:{admin_port}"
token_file = "secrets/admin.token"

[auth]
issuer = "{ISSUER}"
audience = ["{AUDIENCE}"]

[[auth.keys]]
type = "hs256"
file = "secrets/jwt.key"

[policies]
tiers = "policies/tiers.toml"
guard = "policies/guard.toml"

[guard]
copy_from = "staged"

[directory]
unknown_organizations = "refuse"

[context]
form = "guarded"
seal_key_file = "secrets/seal.key"

[check]
allow = ["open_temporary:{DATABASE}"]      # sessions may make temporary tables, which pin them

[audit]
file = "audit.jsonl"
statements = "all"
"#
    );
    for ShardFacts { name, port, .. } in shards {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"
[[shards]]
name = "{name}"
host = "127.0.0.1"
port = {port}
database = "{DATABASE}"
user = "partywall_app"
password_file = "secrets/{name}.password"
tls = "disable"
pool_size = 20
"#
        );
    }
    for SampleOrganization { id, tier, shard, .. } in ORGANIZATIONS {
        let _ = write!(text, "\n[organizations.{id}]\ntier = \"{tier}\"\nshard = \"{}\"\n", shard_name(shard));
    }
    text
}
