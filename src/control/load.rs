//! Reads the configuration's files, looks whether everything that they name is there, and tells every fault at once.
//!
//! Blocking: for start-up, and for a thread that may wait.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::auth::{Jwks, KEY_FILE_BYTES_MAX, Key, KeyError, KeySet};
use crate::config::{self, Config, Fault, Faults, Named, Need, Secret, SecretRef, Sources, Survey};
use crate::context::seal::{KeyFault, KeyFile};

/// The largest configuration or policy file, certificate or key, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Why a secret cannot be had. Never says anything of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// There is nothing in it.
    #[error("the {0} is empty")]
    Empty(SecretRef),
}

/// Why a file that a configuration names will not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    #[error("{} is not UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("{} is not a directory to write into", .0.display())]
    NoDirectory(PathBuf),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}: {1}")]
    Key(String, KeyError),
    #[error("{0}: {1}")]
    SealKey(SecretRef, KeyFault),
}

/// Reads the configuration at `path` and the policy files that it names (1 MiB each at most), and checks all of it,
/// including that certificates, keys and secrets can be read.
///
/// # Errors
/// Every fault of every file at once.
pub fn load(path: &Path) -> Result<Config, Faults> {
    load_with(path, |_| true)
}

/// As [`load`], for a proxy that serves already: it keeps the certificate it has where the files of a new one are gone.
///
/// # Errors
/// As [`load`], but for the certificate's files.
pub fn load_again(path: &Path) -> Result<Config, Faults> {
    load_with(path, |key| !key.starts_with("listen.tls_"))
}

fn load_with(path: &Path, needed: impl Fn(&str) -> bool) -> Result<Config, Faults> {
    let main = text_of(path).map_err(|unfit| {
        let file = path.display().to_string();
        Faults(vec![Fault { file, line: None, key: String::new(), message: unfit.to_string() }])
    })?;
    let files = config::policy_files(path, &main);
    let (tiers, no_tiers) = policy(files.tiers);
    let (guard, no_guard) = policy(files.guard);
    let survey = config::survey(&Sources { main: (path.to_path_buf(), main), tiers, guard });
    let reasons = [("policies.tiers", no_tiers), ("policies.guard", no_guard)];
    finish(survey, &reasons, needed)
}

type Source = (PathBuf, String);

/// A policy file with its text, or why there is none although one is named.
fn policy(path: Option<PathBuf>) -> (Option<Source>, Option<Unfit>) {
    match path.map(|path| (text_of(&path), path)) {
        None => (None, None),
        Some((Ok(text), path)) => (Some((path, text)), None),
        Some((Err(unfit), _)) => (None, Some(unfit)),
    }
}

/// Adds to the faults of the text what is wrong with what it names, in the order of the lines.
fn finish(
    mut survey: Survey,
    reasons: &[(&str, Option<Unfit>)],
    needed: impl Fn(&str) -> bool,
) -> Result<Config, Faults> {
    for (key, reason) in reasons {
        let fault = survey.faults.iter_mut().find(|fault| fault.key == *key);
        if let (Some(fault), Some(reason)) = (fault, reason) {
            fault.message = reason.to_string();
        }
    }
    let unfit = survey
        .named
        .iter()
        .filter(|named| needed(&named.key))
        .filter_map(|named| fit(&named.need).err().map(|unfit| fault(named, &unfit)));
    let unfit: Vec<_> = unfit.collect();
    // Only the main file names others, and its faults come first.
    survey.faults.extend(unfit);
    let main = survey.main.clone();
    survey.faults.sort_by_key(|fault| if fault.file == main { (0, fault.line) } else { (1, None) });
    survey.into_config()
}

fn fault(named: &Named, unfit: &Unfit) -> Fault {
    Fault { file: named.file.clone(), line: named.line, key: named.key.clone(), message: unfit.to_string() }
}

/// Whether what must be there is there, and is what it should be.
fn fit(need: &Need) -> Result<(), Unfit> {
    let key_fault = |what: String| move |error| Unfit::Key(what, error);
    match need {
        Need::File(path) => bytes_of(path, FILE_BYTES_MAX).map(|_| ()),
        Need::Secret(secret) => Ok(read_secret(secret).map(|_| ())?),
        Need::SigningSecret(secret) => {
            let content = read_secret(secret)?;
            Key::from_secret(content.expose()).map(|_| ()).map_err(key_fault(secret.to_string()))
        }
        Need::SealKeys(secret) => read_seal_keys(secret).map(|_| ()),
        Need::PublicKeys(path) => {
            let content = bytes_of(path, KEY_FILE_BYTES_MAX)?;
            KeySet::from_pem(&content).map(|_| ()).map_err(key_fault(path.display().to_string()))
        }
        Need::KeySet(path) => {
            let content = bytes_of(path, KEY_FILE_BYTES_MAX)?;
            KeySet::from_jwks(&content).map(|_: Jwks| ()).map_err(key_fault(path.display().to_string()))
        }
        Need::DirectoryOf(path) => match path.parent().unwrap_or(Path::new("")) {
            here if here.as_os_str().is_empty() || here.is_dir() => Ok(()),
            nowhere => Err(Unfit::NoDirectory(nowhere.to_path_buf())),
        },
    }
}

/// Reads a secret; one newline at its end does not belong to it.
///
/// # Errors
/// The file or variable is missing, unreadable, too large or empty.
pub fn read_secret(from: &SecretRef) -> Result<Secret, SecretError> {
    let mut content = match from {
        SecretRef::File(path) => read_bounded(path, SECRET_BYTES_MAX)
            .map_err(|source| SecretError::Unreadable { path: path.clone(), source })?,
        SecretRef::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(name.clone()))?;
            std::os::unix::ffi::OsStringExt::into_vec(value)
        }
    };
    for end in [b'\n', b'\r'] {
        content.pop_if(|last| *last == end);
    }
    if content.is_empty() {
        return Err(SecretError::Empty(from.clone()));
    }
    Ok(Secret::new(content))
}

/// Reads the keys that seal contexts.
pub(super) fn read_seal_keys(from: &SecretRef) -> Result<KeyFile, Unfit> {
    let content = read_secret(from)?;
    KeyFile::parse(content.expose_text().unwrap_or_default()).map_err(|fault| Unfit::SealKey(from.clone(), fault))
}

fn text_of(path: &Path) -> Result<String, Unfit> {
    String::from_utf8(bytes_of(path, FILE_BYTES_MAX)?).map_err(|_| Unfit::NotText(path.to_path_buf()))
}

fn bytes_of(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Unfit> {
    read_bounded(path, bytes_max).map_err(|error| Unfit::Unreadable(path.to_path_buf(), error))
}

fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;
    use std::fs;

    const SAMPLE: &str = include_str!("../../tests/data/partywall.toml");
    const SECRET: &str = "a secret of at least thirty-two bytes\n";

    /// A directory with everything that the sample names.
    fn house() -> tempfile::TempDir {
        let house = tempfile::tempdir().unwrap();
        for folder in ["tls", "secrets", "policies"] {
            fs::create_dir(house.path().join(folder)).unwrap();
        }
        for (name, text) in [
            ("partywall.toml", SAMPLE),
            ("policies/tiers.toml", include_str!("../../policies/tiers.toml")),
            ("policies/guard.toml", include_str!("../../policies/guard.toml")),
            ("secrets/jwt.key", SECRET),
            ("secrets/shard_1.password", "pass\n\n"),
            ("secrets/admin.token", "token"),
            ("tls/server.crt", "-"),
            ("tls/server.key", "-"),
            ("tls/ca.crt", "-"),
        ] {
            fs::write(house.path().join(name), text).unwrap();
        }
        house
    }

    fn faults(house: &tempfile::TempDir) -> Vec<String> {
        match load(&house.path().join("partywall.toml")) {
            Ok(_) => Vec::new(),
            Err(faults) => {
                let prefix = format!("{}/", house.path().display());
                faults.to_string().lines().map(|line| line.replace(&prefix, "")).collect()
            }
        }
    }

    #[test]
    fn the_sample_is_loaded_with_everything_it_names() {
        let house = house();
        let config = load(&house.path().join("partywall.toml")).unwrap_or_else(|faults| panic!("{faults}"));
        let at = |name: &str| house.path().join(name);
        let tls = TlsFiles { certificate: at("tls/server.crt"), private_key: at("tls/server.key") };
        assert_eq!(config.listen.tls, Some(tls));
        assert_eq!(config.audit.file, Some(at("audit.jsonl")));
    }

    #[test]
    fn missing_files_are_faults_among_the_others() {
        let house = house();
        for name in
            ["tls/server.key", "secrets/jwt.key", "secrets/shard_1.password", "tls/ca.crt", "policies/guard.toml"]
        {
            fs::remove_file(house.path().join(name)).unwrap();
        }
        fs::write(house.path().join("policies/tiers.toml"), "default = \"a\"\n[tiers.a]\nb = 1\n").unwrap();
        let text = SAMPLE.replace("max_client_conn = 10000", "max_client_conn = 0");
        fs::write(house.path().join("partywall.toml"), text).unwrap();
        let lines = faults(&house);
        let starts = [
            "partywall.toml:9: listen.tls_private_key: cannot read tls/server.key: No such file",
            "partywall.toml:11: listen.max_client_conn: out of range",
            "partywall.toml:26: auth.keys[1].file: cannot read secrets/jwt.key: No such file",
            "partywall.toml:54: policies.guard: cannot read policies/guard.toml: No such file",
            "partywall.toml:62: shards[1].password_file: cannot read secrets/shard_1.password: No such file",
            "partywall.toml:64: shards[1].tls_ca_file: cannot read tls/ca.crt: No such file",
            "policies/tiers.toml:3: tiers.a.b: unknown key",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_a_fault() {
        for (name, content, words) in [
            (
                "secrets/jwt.key",
                "short\n".to_owned(),
                "auth.keys[1].file: file secrets/jwt.key: the secret has 5 bytes",
            ),
            ("secrets/jwt.key", "\n".to_owned(), "auth.keys[1].file: the file secrets/jwt.key is empty"),
            (
                "tls/ca.crt",
                "x".repeat(FILE_BYTES_MAX + 1),
                "tls_ca_file: cannot read tls/ca.crt: more than 1048576 bytes",
            ),
            (
                "partywall.toml",
                SAMPLE.replace("\"audit.jsonl\"", "\"nowhere/a\""),
                "audit.file: nowhere is not a directory",
            ),
            (
                "partywall.toml",
                SAMPLE.replace("\"hs256\"", "\"pem\""),
                "keys[1].file: secrets/jwt.key: there is no PEM",
            ),
            (
                "partywall.toml",
                SAMPLE.replace("\"hs256\"", "\"jwks_file\""),
                "keys[1].file: secrets/jwt.key: it is not a JWKS",
            ),
            (
                "policies/guard.toml",
                "x".repeat(FILE_BYTES_MAX + 1),
                "policies.guard: cannot read policies/guard.toml: more",
            ),
        ] {
            let house = house();
            fs::write(house.path().join(name), content).unwrap();
            let lines = faults(&house);
            assert!(lines.len() == 1 && lines[0].contains(words), "{lines:#?}");
        }
    }

    #[test]
    fn a_main_file_that_cannot_be_read_is_one_fault() {
        let house = house();
        fs::remove_file(house.path().join("partywall.toml")).unwrap();
        let lines = faults(&house);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("partywall.toml: cannot read partywall.toml: No such file"), "{lines:?}");
        fs::write(house.path().join("partywall.toml"), b"\xff").unwrap();
        assert_eq!(faults(&house), ["partywall.toml: partywall.toml is not UTF-8"]);
    }

    #[test]
    fn a_secret_loses_one_newline_and_no_more() {
        let house = house();
        let secret = read_secret(&SecretRef::File(house.path().join("secrets/shard_1.password"))).unwrap();
        assert_eq!(secret.expose(), b"pass\n");
        assert_eq!(format!("{secret:?}"), "***");
        let home = std::env::var("PATH").unwrap();
        let secret = read_secret(&SecretRef::Env("PATH".to_owned())).unwrap();
        assert_eq!(secret.expose(), home.as_bytes());
        let unset = read_secret(&SecretRef::Env("PARTYWALL_NO_SUCH_VARIABLE".to_owned()));
        assert!(matches!(unset, Err(SecretError::Unset(_))));
    }
}
