//! Holds `docs/limits.md`: every key that it names is documented, and every test that it names exists.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/limits.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// The cells of each row of the page's tables, without heads and rules.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| what is bounded");
    page.lines().filter(is_row).map(|line| line.trim().trim_matches('|').split('|').map(str::trim).collect())
}

/// What stands between backticks in `cell`.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn all_sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all_sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).expect("a source can be read"));
        }
    }
}

#[test]
fn every_row_of_the_page_of_limits_names_a_documented_key_and_a_test() {
    let mut sources = String::new();
    for folder in ["src", "tests/it"] {
        all_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    let mut faults = Vec::new();
    for row in rows(PAGE) {
        let [what, key, default, beyond, tests] = row[..] else {
            faults.push(format!("not five columns: {row:?}"));
            continue;
        };
        if key != "fixed" && !quoted(key).all(|key| CONFIGURATION.contains(&format!("`{key}`"))) {
            faults.push(format!("{what}: {key} is not in docs/configuration.md"));
        }
        if key != "fixed" && quoted(key).next().is_none() || default.is_empty() || beyond.is_empty() {
            faults.push(format!("{what}: a column is empty"));
        }
        let missing: Vec<_> = quoted(tests)
            .filter(|test| !sources.contains(&format!("fn {}(", test.rsplit("::").next().unwrap_or(test))))
            .collect();
        if !missing.is_empty() || quoted(tests).next().is_none() {
            faults.push(format!("{what}: no test {missing:?}"));
        }
    }
    assert!(faults.is_empty(), "docs/limits.md:\n{}", faults.join("\n"));
}
