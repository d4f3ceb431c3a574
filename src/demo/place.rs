//! The folder in which the demo lives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::files::{CONFIG, MARK};
use super::{DemoError, file_error};

/// The demo's folder. Dropping it removes it, when we made it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    ours: Ours,
}

#[derive(Debug)]
enum Ours {
    /// A temporary folder, which removes itself.
    Temporary { _folder: TempDir },
    /// A named folder that was not there before.
    Made,
    /// A named folder that was there: it stays.
    Found,
}

impl Place {
    /// Makes the folder, or takes the one that is there unless it holds somebody's own configuration.
    pub(super) fn make(named: Option<&Path>) -> Result<Self, DemoError> {
        let place = match named {
            None => {
                let folder = tempfile::Builder::new().prefix("partywall-demo-").tempdir();
                let folder = folder.map_err(file_error("making a folder in", &std::env::temp_dir()))?;
                Self { path: folder.path().to_owned(), ours: Ours::Temporary { _folder: folder } }
            }
            Some(path) => {
                let ours = if path.exists() { Ours::Found } else { Ours::Made };
                fs::create_dir_all(path).map_err(file_error("making", path))?;
                let path = fs::canonicalize(path).map_err(file_error("finding", path))?;
                Self { path, ours }
            }
        };
        place.refuse_if_taken()?;
        // As root, Postgres runs as another user, who must be able to walk through; what is secret is closed by itself.
        let passable = fs::Permissions::from_mode(0o711);
        if !matches!(place.ours, Ours::Found) {
            fs::set_permissions(&place.path, passable).map_err(file_error("opening", &place.path))?;
        }
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn refuse_if_taken(&self) -> Result<(), DemoError> {
        let config = self.path.join(CONFIG);
        match fs::read_to_string(&config) {
            Ok(text) if text.starts_with(MARK) => Ok(()),
            Ok(_) => Err(DemoError::Taken(config)),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.ours {
            // A drop cannot report, and there is nothing else to do about a folder that does not go.
            Ours::Made => drop(fs::remove_dir_all(&self.path)),
            Ours::Temporary { .. } | Ours::Found => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_there_stays_and_one_that_we_made_goes() {
        let parent = tempfile::tempdir().expect("a folder");
        let new = parent.path().join("a/b");
        let place = Place::make(Some(&new)).expect("is made");
        assert!(place.path().is_dir());
        drop(place);
        assert!(!new.exists());
        drop(Place::make(Some(parent.path())).expect("is taken"));
        assert!(parent.path().is_dir());
    }

    #[test]
    fn somebodys_own_configuration_is_not_written_over() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::write(parent.path().join(CONFIG), "[listen]\n").expect("writes");
        assert!(matches!(Place::make(Some(parent.path())), Err(DemoError::Taken(_))));
        fs::write(parent.path().join(CONFIG), format!("{MARK}\n")).expect("writes");
        assert!(Place::make(Some(parent.path())).is_ok());
    }
}
