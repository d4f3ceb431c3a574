//! The folder in which the demo lives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::files::{CONFIG, ENTRIES, MARK};
use super::{DemoError, file_error};

/// The demo's folder. Dropping it removes what the demo made: the folder, or in one that was there its entries.
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
    /// These entries of a named folder that was there.
    Entries(Vec<&'static str>),
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
                let ours = if path.exists() { Ours::Entries(entries(path)?) } else { Ours::Made };
                fs::create_dir_all(path).map_err(file_error("making", path))?;
                let path = fs::canonicalize(path).map_err(file_error("finding", path))?;
                Self { path, ours }
            }
        };
        // As root, Postgres runs as another user, who must be able to walk through; what is secret is closed by itself.
        let passable = fs::Permissions::from_mode(0o711);
        if !matches!(place.ours, Ours::Entries(_)) {
            fs::set_permissions(&place.path, passable).map_err(file_error("opening", &place.path))?;
        }
        if nix::unistd::Uid::effective().is_root() {
            place.refuse_if_closed()?;
        }
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a folder that the ordinary user, as whom the database servers run, cannot reach.
    fn refuse_if_closed(&self) -> Result<(), DemoError> {
        for folder in self.path.ancestors() {
            let mode = fs::metadata(folder).map_err(file_error("looking at", folder))?.permissions().mode();
            if mode & 0o001 == 0 {
                return Err(DemoError::Closed { folder: folder.to_owned(), wanted: self.path.clone() });
            }
        }
        Ok(())
    }
}

/// What of the demo's entries may be made, and removed again, in a folder that is there: none that is somebody's own.
fn entries(folder: &Path) -> Result<Vec<&'static str>, DemoError> {
    let config = folder.join(CONFIG);
    match fs::read_to_string(&config) {
        // An earlier demo was killed here: all of this is its.
        Ok(text) if text.starts_with(MARK) => Ok(ENTRIES.to_vec()),
        Ok(_) => Err(DemoError::Taken(config)),
        Err(_) => Ok(ENTRIES.into_iter().filter(|entry| !folder.join(entry).exists()).collect()),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A drop cannot report, and there is nothing else to do about what does not go.
        match &self.ours {
            Ours::Made => drop(fs::remove_dir_all(&self.path)),
            Ours::Entries(entries) => {
                for path in entries.iter().map(|entry| self.path.join(entry)) {
                    drop(if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
                }
            }
            Ours::Temporary { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_folder_that_was_there_only_the_demos_entries_go_and_one_that_we_made_goes_whole() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).expect("opens");
        let new = parent.path().join("a/b");
        let place = Place::make(Some(&new)).expect("is made");
        assert!(place.path().is_dir());
        drop(place);
        assert!(!new.exists());

        fs::create_dir(parent.path().join("secrets")).expect("makes");
        fs::write(parent.path().join("notes.txt"), "mine").expect("writes");
        let place = Place::make(Some(parent.path())).expect("is taken");
        fs::create_dir(parent.path().join("tokens")).expect("makes");
        fs::write(parent.path().join("tokens/acme.jwt"), "x").expect("writes");
        fs::write(parent.path().join(CONFIG), format!("{MARK}\n")).expect("writes");
        drop(place);
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).expect("reads").map(|entry| entry.expect("is").file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "notes.txt", "secrets"], "what was there before stays");
    }

    #[test]
    fn somebodys_own_configuration_is_not_written_over() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).expect("opens");
        fs::write(parent.path().join(CONFIG), "[listen]\n").expect("writes");
        assert!(matches!(Place::make(Some(parent.path())), Err(DemoError::Taken(_))));
        fs::write(parent.path().join(CONFIG), format!("{MARK}\n")).expect("writes");
        assert!(Place::make(Some(parent.path())).is_ok());
    }

    #[test]
    fn a_folder_that_only_root_may_enter_is_refused_by_name() {
        let parent = tempfile::tempdir().expect("a folder");
        let place = Place { path: parent.path().to_owned(), ours: Ours::Entries(Vec::new()) };
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).expect("shuts");
        let refused = place.refuse_if_closed().expect_err("is shut");
        assert!(refused.to_string().contains(&parent.path().display().to_string()), "{refused}");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o711)).expect("opens");
        place.refuse_if_closed().expect("is open");
    }
}
