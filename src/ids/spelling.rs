//! How many texts PostgreSQL reads as one value: numbers and UUIDs (PostgreSQL manual, "Numeric Constants", "UUID Type").

/// The UUID that `text` is in any spelling that PostgreSQL takes and a name may have, as PostgreSQL writes it.
///
/// It takes 32 hexadecimal digits in either case, and a hyphen after any group of four.
pub(super) fn uuid(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut after_hyphen = true;
    for byte in text.bytes() {
        if byte == b'-' {
            if after_hyphen || count % 4 != 0 {
                return None;
            }
            after_hyphen = true;
            continue;
        }
        if !byte.is_ascii_hexdigit() || count == 32 {
            return None;
        }
        if matches!(count, 8 | 12 | 16 | 20) {
            digits.push('-');
        }
        digits.push(byte.to_ascii_lowercase() as char);
        count += 1;
        after_hyphen = false;
    }
    (count == 32 && !after_hyphen).then_some(digits)
}

/// Whether `text` is a UUID in the form in which PostgreSQL writes one, but for the case.
pub(super) fn is_hyphenated_uuid(text: &str) -> bool {
    text.len() == 36 && uuid(text).is_some_and(|canonical| canonical.eq_ignore_ascii_case(text))
}

/// The decimal number that `text` is, without leading zeros; digits with an optional minus.
pub(super) fn plain_integer(text: &str) -> Option<String> {
    let (minus, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { format!("{minus}{digits}") })
}

/// How PostgreSQL would write `text` if it is a UUID, or a number in any of its spellings; none for all else.
pub(super) fn canonical(text: &str) -> Option<String> {
    plain_integer(text).or_else(|| uuid(text)).or_else(|| number(text))
}

/// What all texts have in common that some type could take for one value.
pub(super) fn widest(text: &str) -> String {
    canonical(text).unwrap_or_else(|| text.to_ascii_lowercase())
}

/// A number in the spellings of PostgreSQL 16 and later that a name may have: underscores between digits, hexadecimal,
/// octal and binary, a fraction, an exponent.
fn number(text: &str) -> Option<String> {
    let (minus, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let lower = rest.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            // An underscore may also stand behind the prefix.
            let digits = without_underscores(digits.strip_prefix('_').unwrap_or(digits), radix)?;
            let number = u128::from_str_radix(&digits, radix);
            // Beyond 128 bits the text itself is as good a name for the number as any.
            return Some(
                number.map_or(format!("{minus}{prefix}{digits}"), |number| signed(minus, &number.to_string())),
            );
        }
    }
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or((1, exponent), |digits| (-1, digits));
            (mantissa, sign * without_underscores(digits, 10)?.parse::<i64>().ok()?)
        }
        None => (&*lower, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let part = |digits: &str| if digits.is_empty() { Some(String::new()) } else { without_underscores(digits, 10) };
    let (whole, fraction) = (part(whole)?, part(fraction)?);
    Some(signed(minus, &decimal(&whole, &fraction, exponent)))
}

/// The digits of a number as they come from its parts: without zeros that say nothing.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> String {
    let digits = format!("{whole}{fraction}");
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let digits = digits.trim_matches('0');
    let point = point.saturating_sub(i64::try_from(leading).unwrap_or(i64::MAX));
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if digits.is_empty() {
        return "0".to_owned();
    }
    // A whole number that is short enough is written out, so that it meets its usual spelling.
    if point >= count && point <= 64 {
        let zeros = usize::try_from(point - count).unwrap_or(0);
        return format!("{digits}{}", "0".repeat(zeros));
    }
    format!("{digits}e{}", point - count)
}

fn signed(minus: &str, digits: &str) -> String {
    if digits == "0" { digits.to_owned() } else { format!("{minus}{digits}") }
}

/// Digits with single underscores between them.
fn without_underscores(text: &str, radix: u32) -> Option<String> {
    let good = !text.is_empty() && text.split('_').all(|run| !run.is_empty() && run.chars().all(|c| c.is_digit(radix)));
    good.then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::super::{BadOrgId, OrgId, OrgIdType};
    use super::*;

    #[test]
    fn numbers_have_one_canonical_spelling() {
        for (text, expected) in [
            ("7", "7"),
            ("07", "7"),
            ("-07", "-7"),
            ("-0", "0"),
            ("000", "0"),
            ("0x7", "7"),
            ("0X_07", "7"),
            ("0o17", "15"),
            ("0b111", "7"),
            ("1_000", "1000"),
            ("7.0", "7"),
            ("7.", "7"),
            (".5", "5e-1"),
            ("7e0", "7"),
            ("70e-1", "7"),
            ("0.7e1", "7"),
            ("1e3", "1000"),
            ("1e999999999", "1e999999999"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "-", "a", "1__0", "1_", "_1", "0x", "0xg", "1e", "1e-", ".", "7-", "1.2.3", "org_7", "e7", "7f"]
        {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn uuids_have_one_canonical_spelling() {
        let canonical = "3f0c9a52-0000-4000-8000-0000000000ab";
        for text in [
            canonical,
            "3F0C9A52-0000-4000-8000-0000000000AB",
            "3f0c9a52000040008000-0000000000ab",
            "3f0c9a520000400080000000000000AB",
            "3f0c-9a52-0000-4000-8000-0000-0000-00ab",
        ] {
            assert_eq!(uuid(text).as_deref(), Some(canonical), "{text}");
        }
        let wrong = ["3f0c9a52--0000-4000-8000-0000000000ab", "3f0c9a5-20000-4000-8000-0000000000ab", "3f0c9a52", "-"];
        for text in wrong {
            assert_eq!(uuid(text), None, "{text}");
        }
        assert_eq!(uuid(&format!("{canonical}0")), None);
        assert_eq!(uuid(&canonical.replace('f', "g")), None);
        assert_eq!(uuid(&format!("{}-", &canonical[..36])), None);
    }

    #[test]
    fn a_name_is_written_as_its_column_writes_it() {
        use OrgIdType::{Auto, Bigint, Citext, Text, Uuid};
        let upper = "3F0C9A52-0000-4000-8000-0000000000AB";
        let lower = upper.to_ascii_lowercase();
        let plain = upper.replace('-', "");
        for (text, kind, expected) in [
            ("07", Bigint, Ok("7")),
            ("-007", Bigint, Ok("-7")),
            ("9223372036854775807", Bigint, Ok("9223372036854775807")),
            ("9223372036854775808", Bigint, Err(BadOrgId::NotBigint)),
            ("0x7", Bigint, Err(BadOrgId::NotBigint)),
            ("acme", Bigint, Err(BadOrgId::NotBigint)),
            (upper, Uuid, Ok(&*lower)),
            (&*plain, Uuid, Ok(&*lower)),
            ("acme", Uuid, Err(BadOrgId::NotUuid)),
            ("Acme", Citext, Ok("acme")),
            ("Acme", Text, Ok("Acme")),
            (upper, Text, Ok(upper)),
            ("07", Text, Ok("07")),
            (upper, Auto, Ok(&*lower)),
            (&*plain, Auto, Ok(&*plain)),
            ("07", Auto, Ok("07")),
            ("Acme", Auto, Ok("Acme")),
            ("a b", Bigint, Err(BadOrgId::Alphabet)),
        ] {
            assert_eq!(
                OrgId::of_type(text, kind).map(|org| org.to_string()),
                expected.map(str::to_owned),
                "{text} {kind:?}"
            );
        }
        let odd = |text: &str, kind| OrgId::of_type(text, kind).is_ok_and(|org| org.is_odd_spelling(kind));
        for text in ["07", "0x7", "1_0", "7.0", &*plain] {
            assert!(odd(text, Auto) && !odd(text, Text), "{text}");
        }
        for text in ["7", "0", "-7", upper, "acme", "org_07", "Acme"] {
            assert!(!odd(text, Auto), "{text}");
        }
    }
}
