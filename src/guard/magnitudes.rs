//! What a value of a setting amounts to, read as PostgreSQL reads it (guc.c, `parse_int` and `convert_to_base_unit`).
//!
//! The reading is the server's to the last rounding: `0.005min` is no time at all, since a fraction is rounded to whole
//! units of the next smaller kind. What is not plainly one whole number is written anew as the number that was reckoned,
//! so that no second reader can make another one of it.

/// What a bare number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Kilobytes,
    Blocks,
    Count,
}

/// A value in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Magnitude {
    /// The number; `u64::MAX` for "no limit", which is what zero means to a time-out.
    pub number: u64,
    /// Nobody can read another number there: digits, with no unit or with one that is a multiple of the base unit.
    pub plain: bool,
}

impl Magnitude {
    /// The number to be written in place of the value, where that must not be sent as it is: it is above `limit`, or
    /// could be read in two ways.
    pub fn anew(self, limit: Option<u64>) -> Option<u64> {
        match limit {
            Some(limit) if self.number > limit => Some(limit),
            _ if self.plain => None,
            _ if self.number == u64::MAX => Some(0),
            _ => Some(self.number),
        }
    }
}

/// A value as a number of base units; none where it is not plainly a number that PostgreSQL takes. A leading zero (octal),
/// signs, exponents and hexadecimal digits are not plain.
pub(super) fn magnitude(text: &str, unit: Unit, zero_is_none: bool) -> Option<Magnitude> {
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let value = text.trim_matches(is_space);
    let digits_end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (digits, suffix) = value.split_at(digits_end);
    if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") {
        return None;
    }
    let given: f64 = digits.parse().ok()?;
    let suffix = suffix.trim_start_matches(is_space);
    let scaled = if suffix.is_empty() { given } else { converted(given, unit, suffix)? };
    if scaled > 9e15 {
        return None;
    }
    let number = scaled.round_ties_even() as u64;
    let finer = matches!((unit, suffix), (_, "us" | "B") | (Unit::Blocks, "kB"));
    let plain = value.len() == text.len() && !digits.contains('.') && !finer;
    Some(Magnitude { number: if zero_is_none && number == 0 { u64::MAX } else { number }, plain })
}

/// A time-out's value in milliseconds, as `SHOW` or a client writes it; `None` where it is not plainly one. 0 is "no limit".
pub fn milliseconds(text: &str) -> Option<u64> {
    magnitude(text, Unit::Milliseconds, false).map(|magnitude| magnitude.number)
}

/// `given` of the unit called `suffix` in base units: a multiple of the next smaller unit, where there is one.
fn converted(given: f64, unit: Unit, suffix: &str) -> Option<f64> {
    const TIME: [(&str, f64); 6] =
        [("d", 86_400_000.0), ("h", 3_600_000.0), ("min", 60_000.0), ("s", 1_000.0), ("ms", 1.0), ("us", 0.001)];
    const KB: f64 = 1024.0;
    const MEMORY: [(&str, f64); 5] = [("TB", KB * KB * KB), ("GB", KB * KB), ("MB", KB), ("kB", 1.0), ("B", 1.0 / KB)];
    const BLOCK_KB: f64 = 8.0;
    let (table, base) = match unit {
        Unit::Milliseconds => (&TIME[..], 1.0),
        Unit::Kilobytes => (&MEMORY[..], 1.0),
        Unit::Blocks => (&MEMORY[..], BLOCK_KB),
        Unit::Count => return None,
    };
    let at = table.iter().position(|(name, _)| *name == suffix)?;
    let value = given * (table[at].1 / base);
    Some(match table.get(at + 1) {
        Some((_, smaller)) => (value / (smaller / base)).round_ties_even() * (smaller / base),
        None => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_postgres_reads_them_or_not_at_all() {
        let ms = |text: &str| magnitude(text, Unit::Milliseconds, true).map(|read| (read.number, read.plain));
        const NONE: u64 = u64::MAX;
        for (text, number, plain) in [
            ("1500", 1500, true),
            ("2 min", 120_000, true),
            ("3s", 3_000, true),
            ("0", NONE, true),
            (" 2 min ", 120_000, false),
            ("1.5s", 1500, false),
            ("0.15s", 150, false),
            // Rounded to whole seconds, minutes, hours before anything else.
            ("0.005min", NONE, false),
            ("0.0083min", NONE, false),
            ("0.009min", 1_000, false),
            ("0.008h", NONE, false),
            ("0.02d", NONE, false),
            ("0.03d", 3_600_000, false),
            ("1.5ms", 2, false),
            ("2.5", 2, false),
            ("0.5ms", NONE, false),
            (".5", NONE, false),
            ("600us", 1, false),
            ("400us", NONE, false),
        ] {
            assert_eq!(ms(text), Some((number, plain)), "{text}");
        }
        for odd in [
            "",
            "-1",
            "+1",
            "1e9",
            "0x10",
            "010",
            "00",
            "5S",
            "1 fortnight",
            "NaN",
            "inf",
            "1s;",
            "1.2.3",
            ".",
            "1\u{a0}s",
            "99999999999999999999",
            "5MB",
        ] {
            assert_eq!(ms(odd), None, "{odd}");
        }
        let kb = |text: &str| magnitude(text, Unit::Kilobytes, false).map(|read| read.number);
        assert_eq!(kb("1GB"), Some(1 << 20));
        assert_eq!(kb("0.0001GB"), Some(0), "rounded to whole megabytes");
        assert_eq!(kb("1536B"), Some(2), "half to even");
        assert_eq!(magnitude("8MB", Unit::Blocks, false), Some(Magnitude { number: 1024, plain: true }));
        assert_eq!(magnitude("12kB", Unit::Blocks, false), Some(Magnitude { number: 2, plain: false }));
        assert_eq!(magnitude("5s", Unit::Count, false), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_written_anew() {
        let anew = |text: &str, limit| magnitude(text, Unit::Milliseconds, true).unwrap().anew(limit);
        assert_eq!(anew("5s", Some(10_000)), None);
        assert_eq!(anew("0.15s", Some(10_000)), Some(150));
        assert_eq!(anew("0.005min", Some(10_000)), Some(10_000));
        assert_eq!(anew("0.005min", None), Some(0));
        assert_eq!(anew("1h", Some(10_000)), Some(10_000));
    }
}
