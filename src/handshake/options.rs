//! The start-up parameter `options`: command-line switches for the server process, of which settings are allowed.
//!
//! PostgreSQL manual, "libpq: options" and "postgres: Options": words are separated by white space, a backslash takes
//! the next character as it is, `-c name=value` and `--name=value` set a setting.

use crate::refusal::{Kind, Refusal};

/// The settings that `options` asks for, in order.
pub(super) fn settings(options: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut words = words(options).into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let assignment = if let Some(assignment) = word.strip_prefix("--") {
            assignment.to_owned()
        } else if word == "-c" {
            words.next().ok_or_else(|| valueless("-c"))?
        } else if let Some(assignment) = word.strip_prefix("-c") {
            assignment.to_owned()
        } else {
            return Err(Refusal::new(
                Kind::NotSupported,
                "of the start-up options only -c name=value and --name=value are supported",
            )
            .fatal());
        };
        let (name, value) = assignment.split_once('=').ok_or_else(|| valueless(&assignment))?;
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

fn valueless(name: &str) -> Refusal {
    Refusal::new(Kind::InvalidParameter, format!("start-up option {name:?} requires a value"))
}

fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() || character == '\x0b' {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match character {
            '\\' => word.extend(characters.next()),
            other => word.push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> Vec<(String, String)> {
        settings(options).unwrap()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_spellings_of_a_setting_are_read() {
        assert_eq!(
            read(" -c geqo=off  --work-mem=4MB\t-cjit=on --search_path= "),
            owned(&[("geqo", "off"), ("work_mem", "4MB"), ("jit", "on"), ("search_path", "")])
        );
        assert_eq!(read(""), []);
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        assert_eq!(
            read(r"-c application_name=a\ b\\c -c x=\-\-y=1\"),
            owned(&[("application_name", r"a b\c"), ("x", "--y=1")])
        );
        assert_eq!(read(r"\-c a=1"), owned(&[("a", "1")]), "an escaped dash is a dash, as in Postgres");
    }

    #[test]
    fn other_switches_are_refused() {
        for switch in ["-d 5", "-e", "-S 100", "x", "-", "-C a=1", "-ftext"] {
            let refusal = settings(switch).unwrap_err();
            assert_eq!((refusal.kind(), refusal.is_fatal()), (Kind::NotSupported, true), "{switch}");
        }
    }

    #[test]
    fn a_setting_without_a_value_is_refused() {
        for switch in ["-c", "-c a", "--a", "--"] {
            assert_eq!(settings(switch).unwrap_err().kind(), Kind::InvalidParameter, "{switch}");
        }
    }
}
