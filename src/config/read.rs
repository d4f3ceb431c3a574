//! Reads all files of a configuration into what they mean, with every fault of every file.

use std::collections::BTreeSet;
use std::path::Path;

use super::fault::Faults;
use super::meant::Config;
use super::page::{Named, Notes, Page};
use super::places::{Around, Places, places};
use super::policies;
use super::policy::{GuardPolicy, Tiers};
use super::sections::{self, PolicyFiles};
use super::table::Table;
use super::trust;
use super::{Fault, Sources};

/// The tiers of a configuration that names no file of them.
const TIERS: &str = include_str!("../../policies/tiers.toml");
/// The rights of a configuration that names no file of them.
const GUARD: &str = include_str!("../../policies/guard.toml");

/// Everything there is to say about a configuration without looking at anything that it names.
#[derive(Debug)]
pub struct Survey {
    config: Config,
    /// The main file, as its faults name it.
    pub main: String,
    /// Every fault, in the order of the files and their lines.
    pub faults: Vec<Fault>,
    /// Every file and variable that the configuration names, faults or not.
    pub named: Vec<Named>,
    /// Every key that there is: of the main file, the tiers file and the guard's file, `[]` for the number of a table in
    /// a list and `*` for a name that the operator chooses.
    pub keys: [BTreeSet<String>; 3],
}

impl Survey {
    /// The configuration, if nothing is wrong with it.
    pub fn into_config(self) -> Result<Config, Faults> {
        if self.faults.is_empty() { Ok(self.config) } else { Err(Faults(self.faults)) }
    }
}

/// Says everything there is to say about `sources`.
pub fn survey(sources: &Sources) -> Survey {
    let (main_path, main_text) = &sources.main;
    let files = policy_files(main_path, main_text);
    let (tiers, tier_notes) = policy(&sources.tiers, ("policies/tiers.toml (built in)", TIERS), policies::tiers);
    let (guard, guard_notes) = policy(&sources.guard, ("policies/guard.toml (built in)", GUARD), policies::guard);
    let unread = (files.tiers.is_some() && sources.tiers.is_none(), files.guard.is_some() && sources.guard.is_none());
    let tiers_known = !unread.0 && tier_notes.faults.is_empty();

    let (page, tree) = Page::open(main_path, main_text);
    let config = {
        let root = Table::root(&page, &tree);
        let config = main_file(&page, &root, tiers, guard, tiers_known);
        root.close();
        unread_files(&root, unread);
        config
    };
    let main_notes = page.close();
    let mut survey = Survey {
        config,
        main: main_path.display().to_string(),
        faults: Vec::new(),
        named: Vec::new(),
        keys: Default::default(),
    };
    for (nth, notes) in [main_notes, tier_notes, guard_notes].into_iter().enumerate() {
        survey.faults.extend(notes.faults);
        survey.named.extend(notes.named);
        if let Some(keys) = survey.keys.get_mut(nth) {
            *keys = notes.keys;
        }
    }
    survey
}

/// Which policy files the main file names, whatever else may be wrong with it.
pub fn policy_files(path: &Path, text: &str) -> PolicyFiles {
    let (page, tree) = Page::open(path, text);
    sections::policies(&page, &Table::root(&page, &tree))
}

fn unread_files(root: &Table<'_>, (tiers, guard): (bool, bool)) {
    let table = root.table("policies");
    for key in [tiers.then_some("tiers"), guard.then_some("guard")].into_iter().flatten() {
        table.fault(key, "the file was not read");
    }
}

fn policy<T>(
    given: &Option<(std::path::PathBuf, String)>,
    built_in: (&str, &str),
    read: impl FnOnce(&Table<'_>) -> T,
) -> (T, Notes) {
    let (path, text) = match given {
        Some((path, text)) => (path.as_path(), text.as_str()),
        None => (Path::new(built_in.0), built_in.1),
    };
    let (page, tree) = Page::open(path, text);
    let policy = read(&Table::root(&page, &tree));
    (policy, page.close())
}

fn main_file(page: &Page, root: &Table<'_>, tiers: Tiers, mut guard: GuardPolicy, tiers_known: bool) -> Config {
    let listen = sections::listen(root);
    let pool = sections::pool(root);
    sections::policies(page, root);
    sections::guard(root, &mut guard);
    let auth = trust::auth(root);
    let organization_type = auth.organization_type;
    let around =
        Around { organization_type, pool: &pool, threads: listen.threads, tiers: tiers_known.then_some(&tiers) };
    let Places { shards, sharding, directory, organizations } = places(root, &around, page.torn());
    Config {
        admin: sections::admin(root, &listen),
        auth,
        context: sections::context(root),
        check: sections::check(root),
        audit: sections::audit(root),
        log: sections::log(root),
        listen,
        pool,
        tiers,
        guard,
        shards,
        sharding,
        directory,
        organizations,
    }
}
