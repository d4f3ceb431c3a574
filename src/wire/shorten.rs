//! An ErrorResponse or NoticeResponse that is too long to be kept: its fields are shortened while its bytes come.

/// The most of one field that is kept, in bytes.
const FIELD_BYTES_MAX: usize = 8 * 1024;
/// The most of all fields together, in bytes.
const FIELDS_BYTES_MAX: usize = 32 * 1024;
/// The most fields; PostgreSQL sends at most 18 (protocol manual, "Error and Notice Message Fields").
const FIELDS_MAX: usize = 32;
/// What a shortened field ends with; ASCII, whatever the client's encoding is.
const MARK: &[u8] = b"... (shortened)";

/// Takes the body of such a message in pieces and keeps a shorter one: every field, each cut at a character.
#[derive(Debug)]
pub struct Shortener {
    tag: u8,
    /// Bytes of the body that are still to come.
    rest: usize,
    kept: Vec<u8>,
    place: Place,
    fields: usize,
}

/// Where in the body it stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before a field's type, or before the end.
    Type,
    /// In a field's value, which is kept from there on.
    Value {
        start: usize,
        /// Not all of it is kept.
        cut: bool,
    },
    /// In the value of a field too many.
    Dropped,
    /// Behind the last field.
    End,
}

impl Shortener {
    /// For a message of that type whose body is so long.
    pub fn new(tag: u8, body_bytes: usize) -> Self {
        Self { tag, rest: body_bytes, kept: Vec::new(), place: Place::Type, fields: 0 }
    }

    /// Takes what it needs of `bytes`; returns how many.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.rest);
        let mut left = &bytes[..count];
        while !left.is_empty() {
            left = self.step(left);
        }
        self.rest -= count;
        count
    }

    /// Whether the message has come to its end.
    pub fn is_whole(&self) -> bool {
        self.rest == 0
    }

    /// The shortened message, with its header.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_value();
        let mut message = Vec::with_capacity(self.kept.len() + super::frame::HEADER_BYTES + 1);
        super::frame::put(&mut message, self.tag, |body| {
            body.extend_from_slice(&self.kept);
            body.push(0);
        });
        message
    }

    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match self.place {
            Place::End => &[],
            Place::Type => {
                self.place = match bytes[0] {
                    0 => Place::End,
                    _ if self.fields == FIELDS_MAX => Place::Dropped,
                    kind => {
                        self.fields += 1;
                        self.kept.push(kind);
                        Place::Value { start: self.kept.len(), cut: false }
                    }
                };
                &bytes[1..]
            }
            Place::Value { .. } | Place::Dropped => {
                let end = bytes.iter().position(|&byte| byte == 0);
                self.keep(&bytes[..end.unwrap_or(bytes.len())]);
                let Some(end) = end else { return &[] };
                self.end_value();
                &bytes[end + 1..]
            }
        }
    }

    fn keep(&mut self, value: &[u8]) {
        let Place::Value { start, cut } = &mut self.place else { return };
        let field = FIELD_BYTES_MAX.saturating_sub(self.kept.len() - *start);
        let room = field.min(FIELDS_BYTES_MAX.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(&value[..value.len().min(room)]);
        *cut |= value.len() > room;
    }

    fn end_value(&mut self) {
        match std::mem::replace(&mut self.place, Place::Type) {
            Place::Value { start, cut } => {
                if cut {
                    let whole = whole_characters(&self.kept[start..]);
                    self.kept.truncate(start + whole);
                    self.kept.extend_from_slice(MARK);
                }
                self.kept.push(0);
            }
            Place::End => self.place = Place::End,
            Place::Type | Place::Dropped => {}
        }
    }
}

/// How many bytes of a text that was cut are whole characters of UTF-8; all of another encoding's.
fn whole_characters(text: &[u8]) -> usize {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Ok(_) | Err(_) => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{error_field, header};
    use super::*;

    fn shortened(body: &[u8], piece: usize) -> Vec<u8> {
        let mut shortener = Shortener::new(b'E', body.len());
        for bytes in body.chunks(piece) {
            assert!(!shortener.is_whole());
            assert_eq!(shortener.take(bytes), bytes.len());
        }
        assert!(shortener.is_whole());
        assert_eq!(shortener.take(b"of the next message"), 0);
        let message = shortener.finish();
        assert_eq!(header(&message).unwrap().unwrap().size, message.len());
        message[5..].to_vec()
    }

    fn body(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in fields {
            body.push(*kind);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }

    #[test]
    fn long_fields_are_cut_at_a_character_and_all_others_are_kept() {
        let long = "ä€".repeat(20_000);
        let body = body(&[(b'S', "ERROR"), (b'C', "22P02"), (b'M', &long), (b'D', &long), (b'P', "7"), (b'R', "f")]);
        for piece in [1, 7, 4096, body.len()] {
            let short = shortened(&body, piece);
            assert!(short.len() < 17 * 1024);
            for (kind, value) in [(b'S', "ERROR"), (b'C', "22P02"), (b'P', "7"), (b'R', "f")] {
                assert_eq!(error_field(&short, kind), Some(value.as_bytes()));
            }
            for kind in *b"MD" {
                let words = std::str::from_utf8(error_field(&short, kind).unwrap()).unwrap();
                let kept = words.strip_suffix("... (shortened)").unwrap();
                assert!(long.starts_with(kept) && kept.len() > FIELD_BYTES_MAX - 4);
            }
        }
    }

    #[test]
    fn what_is_short_is_kept_as_it_is_whatever_pieces_it_comes_in() {
        let body = body(&[(b'S', "ERROR"), (b'M', ""), (b'H', "h")]);
        for piece in 1..body.len() {
            assert_eq!(shortened(&body, piece), body);
        }
    }

    #[test]
    fn the_whole_is_bounded_whatever_its_fields_are() {
        let long = "x".repeat(FIELD_BYTES_MAX);
        let many: Vec<(u8, &str)> = (0..1000).map(|_| (b'M', long.as_str())).collect();
        assert!(shortened(&body(&many), 8192).len() < FIELDS_BYTES_MAX + FIELDS_MAX * (MARK.len() + 2) + 1);
        assert_eq!(shortened(b"Mno end", 3), b"Mno end\0\0");
        assert_eq!(shortened(b"\0Mbehind the end\0", 3), b"\0");
        assert_eq!(shortened(&[b"M", &b"\xff".repeat(9000)[..], b"\0\0"].concat(), 100).len(), 1 + 8192 + 15 + 2);
    }
}
