//! The rules themselves: what each says to one file.

use std::collections::HashSet;

use partywall::refusal::Kind;

use super::source::{Source, Token};

/// Lines of code, without tests, comments and blank lines.
const CODE_LINES_MAX: usize = 500;

/// Crates that a pure room may not name: they are sockets, files, clocks or a runtime.
const WORLDLY_CRATES: [&str; 11] = [
    "tokio",
    "tokio_rustls",
    "tokio_postgres",
    "nix",
    "socket2",
    "reqwest",
    "axum",
    "tempfile",
    "rustls_native_certs",
    "tracing_subscriber",
    "libc",
];

/// Parts of the standard library that a pure room may not name; a path that begins so is meant too.
const WORLDLY_PATHS: [&str; 14] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::net::*",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::time::Instant::now",
    "std::time::*",
];

/// Crates that one room alone knows.
const OWNED_CRATES: [(&str, &str); 2] = [("pg_raw_parse", "guard"), ("toml", "config")];

/// The rooms in their order, and which of them are pure.
pub struct Ladder {
    rooms: Vec<String>,
    pure: HashSet<String>,
}

impl Ladder {
    /// Reads the library's root: modules in order, under comments that open their sections.
    pub fn read(root: &str) -> Self {
        let mut ladder = Self { rooms: Vec::new(), pure: HashSet::new() };
        let mut section = "";
        for line in root.lines() {
            if let Some(comment) = line.strip_prefix("// ") {
                section = comment.split([':', ' ']).next().unwrap_or_default();
            }
            let Some((_, name)) = line.trim_end_matches(';').split_once("mod ") else { continue };
            if line.starts_with("pub mod ") || line.starts_with("mod ") {
                ladder.rooms.push(name.to_owned());
                if ["words", "pure"].contains(&section) {
                    ladder.pure.insert(name.to_owned());
                }
            }
        }
        ladder
    }

    /// The rooms, from the top of the file down.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(String::as_str)
    }

    /// The room's place in the order.
    pub fn height(&self, room: &str) -> Option<usize> {
        self.rooms.iter().position(|name| name == room)
    }

    /// Whether the room may touch nothing of the world.
    pub fn is_pure(&self, room: &str) -> bool {
        self.pure.contains(room)
    }
}

/// Every rule that the file breaks, as a sentence with file and line.
pub fn violations(source: &Source, ladder: &Ladder) -> Vec<String> {
    let mut found = Vec::new();
    if !source.says_its_job {
        found.push(format!("{}: does not open with `//!` and its one job", source.name));
    }
    if source.code_lines > CODE_LINES_MAX {
        found.push(format!("{}: {} lines of code, of {CODE_LINES_MAX}", source.name, source.code_lines));
    }
    let paths = paths(source);
    let checks = paths.iter().flat_map(|path| {
        [ladder_rule(source, ladder, path), face_rule(source, ladder, path), purity_rule(source, ladder, path)]
            .into_iter()
            .chain([crate_rule(source, path)])
            .flatten()
            .map(|words| (path.line, words))
    });
    let tokens = source.tokens.iter().enumerate().filter_map(|(at, token)| {
        let words = panic_rule(&source.tokens[at..]).or_else(|| sqlstate_rule(source, token))?;
        Some((token.line, words))
    });
    let mut lines: Vec<_> = checks.chain(tokens).collect();
    lines.sort();
    lines.dedup();
    found.extend(lines.into_iter().map(|(line, words)| format!("{}:{line}: {words}", source.name)));
    found
}

/// A room uses only rooms above it.
fn ladder_rule(source: &Source, ladder: &Ladder, path: &Path) -> Option<String> {
    let own = ladder.height(&source.room)?;
    let used = ladder.height(path.room()?)?;
    (used > own)
        .then(|| format!("`{}` may not use `{}`, which stands below it", source.room, path.text(2)))
        .map(|words| words.replace("crate::", ""))
}

/// From outside, a room's face or one of its open modules is named, nothing deeper.
fn face_rule(source: &Source, ladder: &Ladder, path: &Path) -> Option<String> {
    let room = path.room()?;
    ladder.height(room)?;
    let modules = path.segments[..path.segments.len() - 1]
        .iter()
        .skip(1)
        .take_while(|segment| segment.starts_with(|first: char| first.is_ascii_lowercase()))
        .count();
    let is_deep = room != source.room && modules > 2;
    is_deep.then(|| format!("`{}` goes behind the face of `{room}`", path.text(usize::MAX)))
}

/// A pure room names nothing of the world.
fn purity_rule(source: &Source, ladder: &Ladder, path: &Path) -> Option<String> {
    if !ladder.is_pure(&source.room) {
        return None;
    }
    let text = path.text(usize::MAX);
    let is_worldly = WORLDLY_CRATES.contains(&path.segments[0].as_str())
        || WORLDLY_PATHS.iter().any(|worldly| text == *worldly || text.starts_with(&format!("{worldly}::")))
        || ["Instant::now", "SystemTime::now"].iter().any(|clock| text.ends_with(clock));
    is_worldly.then(|| format!("`{}` is pure and may not use `{text}`", source.room))
}

/// Some crates are one room's own.
fn crate_rule(source: &Source, path: &Path) -> Option<String> {
    let (name, room) = OWNED_CRATES.iter().find(|(name, _)| path.segments[0] == *name)?;
    (source.room != *room).then(|| format!("`{name}` is for `{room}` alone"))
}

/// Nothing panics on purpose.
fn panic_rule(tokens: &[Token]) -> Option<String> {
    let [one, two, three, ..] = tokens else { return None };
    let calls = |name: &str| one.text == "." && two.text == name && three.text == "(";
    let name = if calls("unwrap") {
        "unwrap"
    } else if calls("expect") {
        "expect"
    } else if one.text == "panic" && two.text == "!" {
        "panic!"
    } else {
        return None;
    };
    Some(format!("`{name}` outside tests"))
}

/// SQLSTATEs stand in one file.
fn sqlstate_rule(source: &Source, token: &Token) -> Option<String> {
    let (start, end) = token.text.find('"').zip(token.text.rfind('"'))?;
    let inner = token.text.get(start + 1..end)?;
    let is_sqlstate = Kind::ALL.iter().any(|kind| kind.row().sqlstate == inner);
    (is_sqlstate && source.room != "refusal").then(|| format!("SQLSTATE {inner} outside of `refusal`"))
}

/// A path as written out: `crate::a::B` for each leaf of a `use`.
#[derive(Debug)]
struct Path {
    segments: Vec<String>,
    line: usize,
}

impl Path {
    fn text(&self, segments_max: usize) -> String {
        self.segments[..self.segments.len().min(segments_max)].join("::")
    }

    /// The room it leads to, when it starts at the crate's root.
    fn room(&self) -> Option<&str> {
        (self.segments[0] == "crate").then(|| self.segments.get(1))?.map(String::as_str)
    }
}

/// Every path of the file with at least two segments, and `super` as far as it leads to the root.
fn paths(source: &Source) -> Vec<Path> {
    let mut found = Vec::new();
    let tokens = &source.tokens;
    let mut at = 0;
    while at < tokens.len() {
        let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        let is_middle = at > 1 && tokens[at - 1].text == "::" && is_name(&tokens[at - 2].text);
        // `use tokio;` and `use tokio as t;` are paths of one segment.
        let is_used = at > 0 && tokens[at - 1].text == "use";
        if is_name(&tokens[at].text) && !is_middle && (goes_on || is_used) {
            let end = leaves(tokens, at, &[], &mut found);
            at = end.max(at + 1);
        } else if tokens[at].text == "use" && tokens.get(at + 1).is_some_and(|next| next.text == "{") {
            at = leaves(tokens, at + 1, &[], &mut found).max(at + 1);
        } else {
            at += 1;
        }
    }
    for path in &mut found {
        resolve(path, source.depth);
    }
    found.retain(|path| !path.segments.is_empty());
    found
}

/// Adds the leaves of the tree that starts at `at`; says where it ends.
fn leaves(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            return group(tokens, at, &segments, found);
        }
        if !is_word(&token.text) && token.text != "*" {
            break;
        }
        if token.text != "self" || segments.is_empty() {
            segments.push(token.text.clone());
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(Path { segments, line });
    at
}

/// Adds the leaves of each tree of a `{…}` that starts at `at`; says where it ends.
fn group(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    at += 1;
    while let Some(token) = tokens.get(at) {
        if token.text == "}" {
            return at + 1;
        }
        at = if is_word(&token.text) || token.text == "*" || token.text == "{" {
            skip_alias(tokens, leaves(tokens, at, prefix, found))
        } else {
            at + 1
        };
    }
    at
}

/// Passes over `as name`.
fn skip_alias(tokens: &[Token], at: usize) -> usize {
    if tokens.get(at).is_some_and(|token| token.text == "as") { at + 2 } else { at }
}

/// Makes `super::…` that leads out of the room a `crate::…`.
fn resolve(path: &mut Path, depth: usize) {
    let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
    if supers >= depth && supers > 0 {
        path.segments.splice(..supers, ["crate".to_owned()]);
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// Whether a `::` after it goes on with it, as in `a::b`, and does not start anew, as in `use ::b`.
fn is_name(text: &str) -> bool {
    is_word(text) && !["use", "return", "in", "dyn", "impl", "for", "mut", "if", "match", "else", "let"].contains(&text)
}
