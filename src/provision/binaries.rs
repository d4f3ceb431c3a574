//! Finding PostgreSQL's server programs on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ProvisionError;

/// The environment variable that names the folder of `initdb` and `postgres`, before any search.
const OVERRIDE: &str = "PARTYWALL_PG_BIN";

/// Folders under which packages put one folder per major version, and what follows the version.
const PACKAGED: &[(&str, &str)] = &[("/usr/lib/postgresql", "bin"), ("/usr/local/lib/postgresql", "bin")];

/// The folder that holds `initdb`, `postgres` and `pg_ctl`.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Looks at `PARTYWALL_PG_BIN`, then `pg_config --bindir`, then the newest packaged version, then `PATH`.
    ///
    /// # Errors
    /// [`ProvisionError::NoBinaries`] when none of them holds both `initdb` and `postgres`; when the variable is set,
    /// nothing else is looked at.
    pub fn find() -> Result<Self, ProvisionError> {
        if let Some(folder) = env::var_os(OVERRIDE) {
            let looked_at = format!("{OVERRIDE}={}", folder.to_string_lossy());
            return Self::at(PathBuf::from(folder)).ok_or(ProvisionError::NoBinaries { looked_at });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let candidates = pg_config_bindir().into_iter().chain(packaged()).chain(env::split_paths(&path));
        candidates
            .into_iter()
            .find_map(Self::at)
            .ok_or_else(|| ProvisionError::NoBinaries { looked_at: "pg_config, /usr/lib/postgresql, PATH".to_owned() })
    }

    /// The programs in `folder`, when they are there.
    pub fn at(folder: PathBuf) -> Option<Self> {
        let whole = ["initdb", "postgres", "pg_ctl"].iter().all(|name| folder.join(name).is_file());
        whole.then_some(Self { folder })
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// Packaged versions, newest first.
fn packaged() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (root, bin) in PACKAGED {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if let Some(major) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
                found.push((major, entry.path().join(bin)));
            }
        }
    }
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_programs_is_not_taken() {
        assert!(Binaries::at(PathBuf::from("/")).is_none());
    }

    #[test]
    fn the_programs_of_this_machine_are_found() {
        let binaries = Binaries::find().expect("PostgreSQL is needed for the tests");
        assert!(binaries.program("initdb").is_file());
        assert!(binaries.folder().is_dir());
    }
}
