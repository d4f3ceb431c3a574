//! Holds `docs/configuration.md` against the code: the same keys, and the defaults that it promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::*;
use crate::ids::TierName;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// One of every kind of table, so that the reader asks for every key.
const EVERYTHING: &str = r#"
[[auth.keys]]
type = "hs256"
[[auth.keys]]
type = "pem"
[[auth.keys]]
type = "jwks_file"
[[auth.keys]]
type = "jwks_url"
[[shards]]
[[sharding.ranges]]
[organizations.org_1]
"#;

/// The rows of the page's tables, as key and default, for each of the three files.
fn rows() -> [Vec<(String, String)>; 3] {
    let mut rows: [Vec<_>; 3] = Default::default();
    let mut file = 0;
    for line in PAGE.lines() {
        match line {
            "## The main file" => file = 0,
            "## The tiers file" => file = 1,
            "## The guard's file" => file = 2,
            _ => {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                if let [_, key, default, meaning, ..] = cells[..]
                    && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
                {
                    assert!(!meaning.is_empty(), "{key} has no meaning");
                    rows[file].push((key.to_owned(), default.to_owned()));
                }
            }
        }
    }
    rows
}

/// A row's default as TOML, where it is a value and not a word about one.
fn value(default: &str) -> Option<&str> {
    default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'))
}

#[test]
fn the_page_and_the_code_know_the_same_keys() {
    let sources = Sources {
        main: (PathBuf::from("p.toml"), EVERYTHING.to_owned()),
        tiers: Some((PathBuf::from("t.toml"), "[tiers.a]".to_owned())),
        guard: None,
    };
    for (known, rows) in survey(&sources).keys.iter().zip(rows()) {
        let is_section = |key: &str| {
            let within = |other: &String| other.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
            known.iter().any(within) || key == "organizations"
        };
        let known: BTreeSet<_> = known.iter().filter(|key| !is_section(key)).cloned().collect();
        let count = rows.len();
        let told: BTreeSet<_> = rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(told.len(), count, "a key stands twice on the page");
        let untold: Vec<_> = known.difference(&told).collect();
        let unknown: Vec<_> = told.difference(&known).collect();
        assert!(untold.is_empty() && unknown.is_empty(), "not on the page: {untold:?}; not in the code: {unknown:?}");
    }
}

#[test]
fn the_defaults_on_the_page_are_the_defaults_of_the_code() {
    let [main, tiers, _] = rows();
    let mut sections: BTreeMap<&str, String> = BTreeMap::new();
    let mut least = |section, text: &str| sections.entry(section).or_default().push_str(text);
    least("auth.keys[]", "type = \"hs256\"\nenv = \"KEY\"\n");
    least("shards[]", "name = \"a\"\nhost = \"h\"\ndatabase = \"d\"\nuser = \"u\"\n");
    let bare = render(&sections);
    for (key, default) in &main {
        if let (Some((section, key)), Some(value)) = (key.rsplit_once('.'), value(default)) {
            sections.entry(section).or_default().push_str(&format!("{key} = {value}\n"));
        }
    }
    sections.remove("organizations.*");
    let check = |text: String| {
        let sources = Sources { main: (PathBuf::from("p.toml"), text), tiers: None, guard: None };
        Config::check(&sources).unwrap_or_else(|faults| panic!("{faults}"))
    };
    assert_eq!(check(render(&sections)), check(bare));

    let mut text = "default = \"a\"\n[tiers.a]\n".to_owned();
    for (key, default) in &tiers {
        if let (Some((_, key)), Some(value)) = (key.rsplit_once('.'), value(default)) {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    let tiers = Some((PathBuf::from("t.toml"), text));
    let sources = Sources { main: (PathBuf::from("p.toml"), render(&sections)), tiers, guard: None };
    let config = Config::check(&sources).unwrap_or_else(|faults| panic!("{faults}"));
    let tier = config.tiers.tiers.get(&TierName::new("a")).map(|tier| tier.as_ref().clone());
    assert_eq!(tier, Some(Tier { name: TierName::new("a"), ..Tier::default() }));
}

fn render(sections: &BTreeMap<&str, String>) -> String {
    let header = |section: &str| match section.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{section}]"),
    };
    // A list comes after the table that holds it.
    sections.iter().map(|(section, keys)| format!("{}\n{keys}", header(section))).collect()
}
