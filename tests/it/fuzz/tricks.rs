//! Writes tokens down in one of the many ways that PostgreSQL reads alike, and breaks some of them.

use super::grammar::Token;
use crate::support::Random;

const SPACES: [&str; 14] =
    [" ", " ", " ", " ", " ", "\n", "\t", "\r\n", "\x0c", " /* a */ ", "/* /* b */ ' */", " -- '\n", "  ", "/**/"];
const SPLINTERS: [&str; 20] = [
    "'", "\"", "$$", "$x$", "/*", "*/", "--", ";", "(", ")", "E'", "U&'", "\\", "\u{a0}", "\u{feff}", "::", "$1",
    "\x01", ",", "﹔",
];

/// The text of a statement; about one in twelve is broken somewhere.
pub fn write(tokens: &[Token], random: &mut Random) -> String {
    let fancy = random.one_in(3);
    let mut text = String::new();
    for token in tokens {
        if !text.is_empty() {
            text.push_str(if fancy { random.pick(&SPACES) } else { " " });
        }
        match token {
            Token::Plain(word) => text.push_str(&plain(word, fancy, random)),
            Token::Name(name) => text.push_str(&named(name, fancy, random)),
            Token::Text(string) => text.push_str(&quoted(string, random)),
        }
    }
    if random.one_in(12) {
        text = broken(text, random);
    }
    text
}

fn plain(word: &str, fancy: bool, random: &mut Random) -> String {
    match random.below(3) {
        0 if fancy => word.chars().map(|c| if random.one_in(2) { c.to_ascii_lowercase() } else { c }).collect(),
        _ => word.to_owned(),
    }
}

fn named(name: &str, fancy: bool, random: &mut Random) -> String {
    let first = name.chars().next().map_or(0, |c| c as u32);
    let rest: String = name.chars().skip(1).collect();
    match random.below(8) {
        0 => format!("\"{name}\""),
        1 if fancy => name.to_ascii_uppercase(),
        2 if fancy && first > 0 => format!("U&\"\\{first:04x}{rest}\""),
        3 if fancy && first > 0 => format!("U&\"!+{first:06x}{rest}\" UESCAPE '!'"),
        _ => name.to_owned(),
    }
}

fn quoted(string: &str, random: &mut Random) -> String {
    let doubled = string.replace('\'', "''");
    match random.below(8) {
        0 => format!("$tag${string}$tag$"),
        1 => format!("E'{}'", doubled.replace('\\', "\\\\")),
        2 => format!("E'{}'", string.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>()),
        3 => {
            let (half, rest) = doubled.split_at(doubled.find(' ').unwrap_or(0));
            format!("'{half}'\n'{rest}'")
        }
        4 => format!("U&'{}'", doubled.replace('\\', "\\\\")),
        5 => format!("N'{doubled}'"),
        _ => format!("'{doubled}'"),
    }
}

/// Cuts, doubles or splinters the text at random places.
fn broken(mut text: String, random: &mut Random) -> String {
    for _ in 0..=random.below(2) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        if places.is_empty() {
            return text;
        }
        let (a, b) = (places[random.below(places.len())], places[random.below(places.len())]);
        let (from, to) = (a.min(b), a.max(b));
        match random.below(4) {
            0 => text.truncate(to),
            1 => text.replace_range(from..to, ""),
            2 => text = [&text[..to], &text[from..]].concat(),
            _ => text.insert_str(to, random.pick(&SPLINTERS)),
        }
        text.truncate(text.floor_char_boundary(20_000));
    }
    text
}
