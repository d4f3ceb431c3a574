//! A text without the values of its literals: what texts have in common that differ in nothing else.
//!
//! Texts with the same fold have the same tokens (PostgreSQL manual, "Lexical Structure", with
//! standard_conforming_strings on) but for the values of numbers and of strings in plain quotes, so the same tree but for
//! the values of its constants. Whether these matter to a verdict, the walk says. Whatever could be read in two ways is not
//! folded at all: the first doubt ends it.

/// Longer texts are not folded: they are mostly data, and few come twice with the same number of values.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// The greatest number that PostgreSQL's grammar takes for an integer; greater ones are other tokens.
const INTEGER_MAX: &[u8] = b"2147483647";

/// Stand for the values. No text that is folded has these bytes outside of a string.
pub(super) const INTEGER: u8 = 1;
pub(super) const NUMERIC: u8 = 2;
pub(super) const STRING: u8 = 3;

/// What a byte begins outside of strings and quoted names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing by itself: white space, brackets, operators.
    Plain,
    /// A keyword or a name.
    Word,
    Digit,
    /// A string.
    Quote,
    /// A quoted name.
    DoubleQuote,
    /// A parameter, or who knows.
    Dollar,
    /// Plain, where the next byte makes nothing of the two together.
    Dot,
    Minus,
    Slash,
    Ampersand,
    /// Not folded: control characters, backslash, what is not ASCII, what PostgreSQL has no use for.
    Doubtful,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Doubtful; 256];
    let plain = b" \t\n\r()[],;:*+<>=~!@#%^|";
    let mut at = 0;
    while at < plain.len() {
        classes[plain[at] as usize] = Class::Plain;
        at += 1;
    }
    let mut byte = b'a';
    while byte <= b'z' {
        classes[byte as usize] = Class::Word;
        classes[byte.to_ascii_uppercase() as usize] = Class::Word;
        byte += 1;
    }
    classes[b'_' as usize] = Class::Word;
    let mut byte = b'0';
    while byte <= b'9' {
        classes[byte as usize] = Class::Digit;
        byte += 1;
    }
    classes[b'\'' as usize] = Class::Quote;
    classes[b'"' as usize] = Class::DoubleQuote;
    classes[b'$' as usize] = Class::Dollar;
    classes[b'.' as usize] = Class::Dot;
    classes[b'-' as usize] = Class::Minus;
    classes[b'/' as usize] = Class::Slash;
    classes[b'&' as usize] = Class::Ampersand;
    classes
};

/// A folded text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fold {
    /// The text, with a byte in the place of each value.
    pub bytes: Vec<u8>,
    /// Whether any value was left out: else the fold is the text.
    pub values: bool,
}

/// The fold of a text; none where there is any doubt how PostgreSQL reads it, or where it is long.
pub(super) fn fold(sql: &str) -> Option<Fold> {
    let text = sql.as_bytes();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = text.get(at) {
        let start = at;
        match CLASSES[usize::from(byte)] {
            Class::Plain => at += 1,
            Class::Word => at = after_word(text, at)?,
            Class::DoubleQuote => at = after_name(text, at)?,
            Class::Dollar => at = after_parameter(text, at)?,
            Class::Dot => at = unless(class_at(text, at + 1) == Some(Class::Digit), at + 1)?,
            Class::Minus => at = unless(class_at(text, at + 1) == Some(Class::Minus), at + 1)?,
            Class::Slash => at = unless(text.get(at + 1) == Some(&b'*'), at + 1)?,
            Class::Ampersand => at = unless(is_quote(class_at(text, at + 1)), at + 1)?,
            Class::Digit => {
                let value;
                (at, value) = after_number(text, at)?;
                bytes.extend_from_slice(&text[copied..start]);
                bytes.push(value);
                copied = at;
            }
            Class::Quote => {
                at = after_string(text, at)?;
                bytes.extend_from_slice(&text[copied..start]);
                bytes.push(STRING);
                copied = at;
            }
            Class::Doubtful => return None,
        }
    }
    bytes.extend_from_slice(&text[copied..]);
    Some(Fold { bytes, values: copied > 0 })
}

fn unless(doubt: bool, at: usize) -> Option<usize> {
    (!doubt).then_some(at)
}

#[inline]
fn class_at(text: &[u8], at: usize) -> Option<Class> {
    text.get(at).map(|byte| CLASSES[usize::from(*byte)])
}

fn is_quote(class: Option<Class>) -> bool {
    matches!(class, Some(Class::Quote | Class::DoubleQuote))
}

/// `at`, if a token may end there for sure: what follows cannot belong to it, nor make it another one.
fn ended(text: &[u8], at: usize) -> Option<usize> {
    match class_at(text, at) {
        None | Some(Class::Plain | Class::Dot | Class::Minus | Class::Slash | Class::Ampersand) => Some(at),
        Some(Class::Word | Class::Digit | Class::Quote | Class::DoubleQuote | Class::Dollar | Class::Doubtful) => None,
    }
}

/// A quote right behind a word may make the word its prefix: `E'…'`, `U&"…"`.
fn after_word(text: &[u8], mut at: usize) -> Option<usize> {
    while matches!(class_at(text, at), Some(Class::Word | Class::Digit)) {
        at += 1;
    }
    ended(text, at)
}

fn after_name(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match text.get(at)? {
            b'"' if text.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => return ended(text, at + 1),
            // Nothing in a quoted name is special, but the bytes that stand for values must not be in the fold.
            b' '..=b'~' => {}
            _ => return None,
        }
    }
}

fn after_parameter(text: &[u8], mut at: usize) -> Option<usize> {
    at += 1;
    let digits = at;
    while class_at(text, at) == Some(Class::Digit) {
        at += 1;
    }
    unless(at == digits, at).and_then(|at| ended(text, at))
}

fn after_number(text: &[u8], mut at: usize) -> Option<(usize, u8)> {
    let start = at;
    while class_at(text, at) == Some(Class::Digit) {
        at += 1;
    }
    let digits = &text[start..at];
    // A leading zero may begin a number of another base.
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    let is_integer = digits.len() < INTEGER_MAX.len() || digits.len() == INTEGER_MAX.len() && digits <= INTEGER_MAX;
    let mut value = if is_integer { INTEGER } else { NUMERIC };
    if class_at(text, at) == Some(Class::Dot) {
        at += 1;
        let digits = at;
        while class_at(text, at) == Some(Class::Digit) {
            at += 1;
        }
        if at == digits || class_at(text, at) == Some(Class::Dot) {
            return None;
        }
        value = NUMERIC;
    }
    ended(text, at).map(|at| (at, value))
}

fn after_string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match text.get(at)? {
            b'\'' if text.get(at + 1) == Some(&b'\'') => at += 1,
            b'\'' => return ended(text, at + 1),
            // The one ends a text, the other is special where standard_conforming_strings is off.
            0 | b'\\' => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(sql: &str) -> Option<String> {
        let shown = |byte| match byte {
            INTEGER => 'i',
            NUMERIC => 'n',
            STRING => 's',
            other => char::from(other),
        };
        fold(sql).map(|fold| fold.bytes.into_iter().map(shown).collect())
    }

    #[test]
    fn values_are_left_out_and_nothing_else() {
        let cases = [
            ("SELECT a1 FROM t WHERE b = 17 AND c='x''y'", "SELECT a1 FROM t WHERE b = i AND c=s"),
            ("VALUES (1,-2,3.5,'',2147483647,2147483648)", "VALUES (i,-i,n,s,i,n)"),
            (
                "SELECT \"a 1\".\"b\"\"'2\" FROM s.\"t\" WHERE x=$12",
                "SELECT \"a 1\".\"b\"\"'2\" FROM s.\"t\" WHERE x=$12",
            ),
            ("SELECT x[1:2], y::int, 'ä--/*'::text;", "SELECT x[i:i], y::int, s::text;"),
            ("SELECT 'a'\n'b'", "SELECT s\ns"),
            ("SELECT 0, 1 LIMIT 5", "SELECT i, i LIMIT i"),
        ];
        for (sql, expected) in cases {
            assert_eq!(folded(sql).as_deref(), Some(expected), "{sql}");
        }
        assert!(!fold("SELECT a FROM b").expect("folds").values);
        assert!(fold("SELECT 1").expect("folds").values);
    }

    const DOUBTFUL: [&str; 53] = [
        "SELECT E'a'",
        "SELECT e'\\''",
        "SELECT B'1'",
        "SELECT x'1f'",
        "SELECT N'a'",
        "SELECT U&'a'",
        "SELECT U&\"a\"",
        "SELECT a&'b'",
        "SELECT 'a\\'",
        "SELECT $$a$$",
        "SELECT $a$b$a$",
        "SELECT a$1",
        "SELECT $1a",
        "SELECT $",
        "SELECT 1 -- x",
        "SELECT 1 /* x */",
        "SELECT 1/*x*/",
        "SELECT +--1",
        "SELECT 1a",
        "SELECT 1e5",
        "SELECT 0x1f",
        "SELECT 1_000",
        "SELECT 012",
        "SELECT .5",
        "SELECT a.5",
        "SELECT 1.",
        "SELECT 1..2",
        "SELECT 1.2.3",
        "SELECT 1.5e3",
        "SELECT 'a",
        "SELECT \"a",
        "SELECT 'a''",
        "SELECT 'a'b",
        "SELECT 'a'1",
        "SELECT \"a\"'b'",
        "SELECT \"a\"b",
        "SELECT 'a'\"b\"",
        "SELECT 1'a'",
        "SELECT $1'a'",
        "SELECT ä",
        "SELECT \u{1}",
        "SELECT '\u{1}' \u{1}",
        "SELECT \"\u{3}\"",
        "SELECT \u{b}1",
        "SELECT \u{c}1",
        "SELECT a ? 1",
        "SELECT `a`",
        "SELECT {1}",
        "SELECT a\\",
        "SELECT \u{a0}1",
        "SELECT 1\u{2003}",
        "SELECT '\0'",
        "SELECT 1\0",
    ];

    #[test]
    fn what_could_be_read_in_two_ways_is_not_folded() {
        for sql in DOUBTFUL {
            assert_eq!(folded(sql), None, "{sql}");
        }
        assert!(fold(&format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX))).is_none());
    }
}
