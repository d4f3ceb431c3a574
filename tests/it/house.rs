//! The house rules, held by reading the sources: the ladder, purity, faces, lengths, and who alone knows what.
//!
//! Rules that clippy holds (length of functions, arguments, `unsafe`) are not repeated here.

mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{Ladder, violations};
use source::Source;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn ladder() -> Ladder {
    Ladder::read(&fs::read_to_string(root().join("src/lib.rs")).expect("the library has a root"))
}

/// Every file under `src/`, without those that hold only tests.
fn sources() -> Vec<Source> {
    let base = root().join("src");
    let mut paths = Vec::new();
    collect(&base, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&base).expect("it lies below").to_string_lossy().into_owned();
        Source::read(&name, &fs::read_to_string(path).expect("a source can be read"))
    };
    let sources: Vec<_> = paths.iter().map(read).collect();
    let tests: Vec<_> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    sources.into_iter().filter(|source| !tests.iter().any(|test| source.is_within(test))).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
}

#[test]
fn the_sources_keep_the_house_rules() {
    let ladder = ladder();
    let found: Vec<_> = sources().iter().flat_map(|source| violations(source, &ladder)).collect();
    assert!(found.is_empty(), "{} house rules broken:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_room_stands_on_the_ladder() {
    let ladder = ladder();
    for source in sources() {
        let is_root = ["lib", "main"].contains(&source.room.as_str());
        assert!(is_root || ladder.height(&source.room).is_some(), "{} is in no room", source.name);
    }
    assert!(ladder.is_pure("wire") && !ladder.is_pure("net"), "the sections of the ladder are read");
}

#[test]
fn the_architecture_names_every_room() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let ladder = ladder();
    let missing: Vec<_> = ladder.rooms().filter(|room| !text.contains(&format!("`{room}`"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

/// What the rules say to `text` as a file of the house.
fn judge(name: &str, text: &str) -> Vec<String> {
    let text = if text.starts_with("//!") { text.to_owned() } else { format!("//! Planted.\n{text}") };
    violations(&Source::read(name, &text), &ladder())
}

#[track_caller]
fn finds(name: &str, text: &str, words: &str) {
    let found = judge(name, text);
    assert!(found.iter().any(|one| one.contains(words)), "{text} in {name} gives {found:?}");
}

#[track_caller]
fn accepts(name: &str, text: &str) {
    assert_eq!(judge(name, text), Vec::<String>::new(), "{text} in {name}");
}

#[test]
fn a_room_that_reaches_up_the_ladder_is_found_in_every_spelling() {
    for text in [
        "use crate::session::Session;",
        "use crate::{ids::OrgId, session::Session};",
        "use crate::{ids::{OrgId, UserId}, session};",
        "pub(crate) use crate::session as below;",
        "fn f() -> crate::session::Session { todo() }",
        "fn f() { log!(\"{}\", crate::session::count()); }",
        "use super::session::Session;",
        "fn f() { let x = if true { crate :: session :: count() } else { 0 }; }",
    ] {
        finds("limits.rs", text, "`limits` may not use `session`");
    }
    finds("metrics/deep/deeper.rs", "use super::super::super::cli::Arguments;", "`metrics` may not use `cli`");
    finds("guard/mod.rs", "use super::pool::Lease;", "`guard` may not use `pool`");
}

#[test]
fn a_room_may_use_what_stands_above_it_and_itself() {
    accepts("session/mod.rs", "use crate::{guard::Verdict, pool::{self, Lease}, session::relay};");
    accepts("session/relay.rs", "use super::State; use crate::session::Session;");
}

#[test]
fn words_tests_and_comments_are_no_uses() {
    accepts(
        "limits.rs",
        "// use crate::session::Session;\n/* crate::cli::run() */ fn f() -> &'static str { \"crate::cli\" }",
    );
    accepts("limits.rs", "/// See [`crate::session`].\nfn f() {}");
    accepts("limits.rs", "#[cfg(test)]\nmod tests { use crate::session::Session; #[test] fn f() { None.unwrap() } }");
    accepts("limits.rs", "#[cfg(test)]\npub fn helper() { panic!(\"28P01\") }\nfn f() {}");
    finds("limits.rs", "#[cfg(not(test))]\nmod real { use crate::session::Session; }", "may not use");
    finds("limits.rs", "#[cfg(test)]\nmod tests {}\nuse crate::session::Session;", "may not use");
}

#[test]
fn a_pure_room_that_touches_the_world_is_found() {
    for text in [
        "use std::net::TcpStream;",
        "use std::{fmt, fs};",
        "use std::fs::read;",
        "use std::time::SystemTime;",
        "use std::time::{Duration, UNIX_EPOCH};",
        "use std::net::*;",
        "fn f() { let now = std::time::Instant::now(); }",
        "use std::time::Instant; fn f() { let now = Instant::now(); }",
        "use tokio::sync::mpsc;",
        "async fn f() { tokio::spawn(g()); }",
        "fn f() { nix::unistd::getpid(); }",
        "fn f() { std::env::var(\"X\"); }",
        "use ::tokio::net::TcpStream;",
    ] {
        finds("auth/mod.rs", text, "is pure");
    }
    accepts(
        "auth/mod.rs",
        "use std::net::{IpAddr, SocketAddr}; use std::time::{Duration, Instant}; use std::path::Path;",
    );
    accepts("net/mod.rs", "use tokio::net::TcpStream; use std::time::Instant; fn f() { Instant::now(); }");
}

#[test]
fn only_a_face_is_named_from_outside() {
    finds("session/mod.rs", "use crate::guard::rules::inner::Rule;", "face");
    finds("session/mod.rs", "use crate::guard::{Verdict, rules::{inner::Rule}};", "face");
    accepts("session/mod.rs", "use crate::wire::flow::Flow; fn f() { crate::wire::flow::new(); }");
    accepts("guard/mod.rs", "use crate::guard::rules::inner::Rule;");
}

#[test]
fn knowledge_outside_its_room_is_found() {
    finds("session/mod.rs", "const X: &str = \"28P01\";", "SQLSTATE");
    finds("session/mod.rs", "const X: &[u8] = b\"57P03\";", "SQLSTATE");
    finds("session/mod.rs", "const X: &str = r\"57P03\";", "SQLSTATE");
    accepts("refusal.rs", "const X: &str = \"28P01\";");
    accepts("session/mod.rs", "const X: &str = \"abcde\";");
    finds("session/mod.rs", "use pg_raw_parse::parse;", "`pg_raw_parse` is for `guard`");
    finds("admin.rs", "fn f() { toml::from_str(text); }", "`toml` is for `config`");
    accepts("guard/mod.rs", "use pg_raw_parse::parse;");
}

#[test]
fn a_panic_outside_tests_is_found() {
    finds("session/mod.rs", "fn f() { Some(1).unwrap(); }", "`unwrap`");
    finds("session/mod.rs", "fn f() { Some(1)\n.expect(\"one\"); }", "`expect`");
    finds("session/mod.rs", "fn f() { panic!(\"no\"); }", "`panic!`");
    accepts("session/mod.rs", "#[expect(dead_code, reason = \"x\")]\nfn f() { Some(1).unwrap_or(2); }");
}

#[test]
fn a_file_without_its_job_or_too_long_is_found() {
    let silent = violations(&Source::read("cli.rs", "fn f() {}"), &ladder());
    assert!(silent.iter().any(|one| one.contains("`//!`")), "{silent:?}");
    let line = "const A: u8 = 1;\n";
    finds("cli.rs", &line.repeat(501), "501 lines");
    accepts("cli.rs", &line.repeat(500));
    accepts(
        "cli.rs",
        &format!("{}/// Words.\n// Words.\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(499), line),
    );
}
