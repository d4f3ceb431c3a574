//! A refusal as bytes: ErrorResponse, and NoticeResponse for the no that is only a warning.
//!
//! PostgreSQL manual, "Error and Notice Message Fields". Which SQLSTATE stands for what is `crate::refusal`'s to know.

use crate::refusal::Refusal;

/// The longest text of one field, in bytes; what is longer is cut at a character.
pub const FIELD_BYTES_MAX: usize = 2048;

/// Appends `refusal` to `out` as an ErrorResponse.
pub fn encode(refusal: &Refusal, out: &mut Vec<u8>) {
    message(b'E', refusal.severity().as_str(), refusal, out);
}

/// Appends `refusal` to `out` as a NoticeResponse of severity WARNING: the statement goes on.
pub fn encode_notice(refusal: &Refusal, out: &mut Vec<u8>) {
    message(b'N', "WARNING", refusal, out);
}

fn message(type_byte: u8, severity: &str, refusal: &Refusal, out: &mut Vec<u8>) {
    super::frame::put(out, type_byte, |out| {
        field(b'S', severity, out);
        field(b'V', severity, out);
        field(b'C', refusal.sqlstate(), out);
        field(b'M', refusal.message(), out);
        if let Some(detail) = refusal.detail() {
            field(b'D', detail, out);
        }
        if let Some(hint) = refusal.hint() {
            field(b'H', hint, out);
        }
        if let Some(position) = refusal.position() {
            field(b'P', &position.to_string(), out);
        }
        if let Some(routine) = refusal.kind().routine() {
            field(b'R', routine, out);
        }
        out.push(0);
    });
}

/// One field: its type, its text without NUL bytes (a NUL would end it early and make the rest a field of its own), NUL.
fn field(type_byte: u8, text: &str, out: &mut Vec<u8>) {
    out.push(type_byte);
    let cut = &text[..text.floor_char_boundary(FIELD_BYTES_MAX)];
    out.extend(cut.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Kind;

    fn fields(bytes: &[u8]) -> Vec<(char, String)> {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(length + 1, bytes.len(), "the length says where the message ends");
        let mut rest = &bytes[5..];
        let mut found = Vec::new();
        while rest[0] != 0 {
            let end = rest.iter().position(|byte| *byte == 0).unwrap();
            found.push((rest[0] as char, String::from_utf8(rest[1..end].to_vec()).unwrap()));
            rest = &rest[end + 1..];
        }
        assert_eq!(rest, [0]);
        found
    }

    #[test]
    fn a_refusal_carries_every_field_that_it_has() {
        let refusal =
            Refusal::new(Kind::Syntax, "no such word").with_detail("d").with_hint("h").with_position(7).fatal();
        let mut out = Vec::new();
        encode(&refusal, &mut out);
        assert_eq!(out[0], b'E');
        let wanted = [
            ('S', "FATAL"),
            ('V', "FATAL"),
            ('C', refusal.sqlstate()),
            ('M', "no such word"),
            ('D', "d"),
            ('H', "h"),
            ('P', "7"),
        ];
        assert_eq!(fields(&out), wanted.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn a_missing_statement_names_the_routine_by_which_drivers_know_that_preparing_again_helps() {
        let mut out = Vec::new();
        encode(&Refusal::new(Kind::UnknownStatement, "x"), &mut out);
        assert_eq!(fields(&out).last(), Some(&('R', "FetchPreparedStatement".to_owned())));
    }

    #[test]
    fn a_notice_is_a_warning() {
        let mut out = Vec::new();
        encode_notice(&Refusal::new(Kind::ResultTooLarge, "soon"), &mut out);
        assert_eq!(out[0], b'N');
        assert_eq!(fields(&out)[0], ('S', "WARNING".to_owned()));
    }

    #[test]
    fn text_is_cut_at_a_character_and_cannot_forge_a_field() {
        let long = "ä".repeat(FIELD_BYTES_MAX);
        let mut out = Vec::new();
        encode(&Refusal::new(Kind::Syntax, long).with_detail("a\0Cforged"), &mut out);
        let found = fields(&out);
        assert_eq!(found[3].1.len(), FIELD_BYTES_MAX);
        assert_eq!(found[4], ('D', "aCforged".to_owned()));
    }
}
