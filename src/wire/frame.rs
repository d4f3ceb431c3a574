//! Frames: a type byte, a length, a body (PostgreSQL manual, "Messaging Overview"), read without copying.

use std::borrow::Cow;

use crate::refusal::Kind;

/// Type byte and length word: what must be there before a frame can be judged.
pub const HEADER_BYTES: usize = 5;

/// The largest frame that Postgres accepts or sends: a gigabyte of body, as its own `PQ_LARGE_MESSAGE_LIMIT`.
pub const FRAME_BYTES_MAX: usize = 0x3fff_ffff + 1;

/// The largest frame of a kind that carries no values, as Postgres's own `PQ_SMALL_MESSAGE_LIMIT`, rounded up.
pub const SMALL_FRAME_BYTES_MAX: usize = 10_240;

/// A length word that no Postgres sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message type {tag:#04x} with an impossible length of {length}")]
pub struct BadLength {
    /// The frame's type byte.
    pub tag: u8,
    /// The length word as read.
    pub length: u32,
}

/// A frame's first five bytes, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// The whole frame's size in bytes, type byte included.
    pub size: usize,
}

/// Reads the header at the start of `bytes`; `None` when fewer than five are there.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, BadLength> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    // The length word counts itself, not the type byte.
    let size = length as usize + 1;
    if length < 4 || size > FRAME_BYTES_MAX {
        return Err(BadLength { tag, length });
    }
    Ok(Some(Header { tag, size }))
}

/// The type bytes of what a client sends.
pub mod frontend {
    #![allow(missing_docs, reason = "each constant is named by the manual's word for it")]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// The type bytes of what a server sends.
pub mod backend {
    #![allow(missing_docs, reason = "each constant is named by the manual's word for it")]
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Splits a NUL-terminated text off the front of `bytes`; `None` when no NUL is there.
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// One field of an ErrorResponse or NoticeResponse, by its type byte; no field is guaranteed to be there.
pub fn error_field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let Some((&kind, tail)) = rest.split_first() {
        let (value, tail) = split_cstr(tail)?;
        if kind == field {
            return Some(value);
        }
        rest = tail;
    }
    None
}

/// An ErrorResponse's code and sentence, for an operator.
pub fn error_text(body: &[u8]) -> String {
    let text = |field| String::from_utf8_lossy(error_field(body, field).unwrap_or_default()).into_owned();
    format!("{} ({})", text(b'M'), text(b'C'))
}

/// Whether an ErrorResponse says that the server ends the connection.
pub fn error_is_fatal(body: &[u8]) -> bool {
    matches!(error_field(body, b'V').or_else(|| error_field(body, b'S')), Some(b"FATAL" | b"PANIC"))
}

/// Whether an ErrorResponse says that a prepared statement no longer gives the columns that it once promised
/// (plancache.c): drivers know it by the routine too, since the code says only that something is not supported.
pub fn error_is_stale_plan(body: &[u8]) -> bool {
    error_field(body, b'R') == Some(b"RevalidateCachedQuery")
}

/// Whether an ErrorResponse says that the transaction has failed before, and that nothing but its end is taken (25P02).
pub fn error_is_failed_transaction(body: &[u8]) -> bool {
    error_field(body, b'C') == Some(Kind::FailedTransaction.row().sqlstate.as_bytes())
}

/// Whether an ErrorResponse says that policies stand against COPY FROM (copy.c): of all that its routine says, this alone
/// comes with advice.
pub fn error_is_copy_from_protected(body: &[u8]) -> bool {
    error_field(body, b'R') == Some(b"DoCopy") && error_field(body, b'H').is_some()
}

/// Appends an ErrorResponse like `body`, but of severity ERROR: the server's session ended, the client's did not.
pub fn put_error_softened(out: &mut Vec<u8>, body: &[u8]) {
    put_edited(out, backend::ERROR_RESPONSE, body, |kind, value| {
        Some(Cow::Borrowed(if matches!(kind, b'S' | b'V') { b"ERROR" } else { value }))
    });
}

/// Appends an ErrorResponse or NoticeResponse like `body`, each field as `edit` answers it; none leaves it out.
pub fn put_edited<'a>(
    out: &mut Vec<u8>,
    tag: u8,
    body: &'a [u8],
    edit: impl Fn(u8, &'a [u8]) -> Option<Cow<'a, [u8]>>,
) {
    put(out, tag, |out| {
        let mut rest = body;
        while let Some((&kind, tail)) = rest.split_first() {
            let Some((value, tail)) = split_cstr(tail) else { break };
            if let Some(value) = edit(kind, value) {
                out.push(kind);
                put_cstr(out, &value);
            }
            rest = tail;
        }
        out.push(0);
    });
}

/// The values of a DataRow in text format, given its body; `None` inside for NULL, outside when the body is malformed.
pub fn row_values(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            values.push(None);
            rest = tail;
        } else {
            let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
            values.push(Some(String::from_utf8_lossy(value).into_owned()));
            rest = tail;
        }
    }
    Some(values)
}

/// Appends a frame to `out`; `body` writes what stands behind the length word.
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a NUL-terminated text.
pub fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// Appends a simple Query of `sql`, which must hold no NUL.
pub fn put_query(out: &mut Vec<u8>, sql: &str) {
    put(out, frontend::QUERY, |body| put_cstr(body, sql.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(header(b"Z\0\0\0"), Ok(None));
        assert_eq!(header(b"Z\0\0\0\x05I"), Ok(Some(Header { tag: b'Z', size: 6 })));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_any_arithmetic_on_them() {
        for length in [0u32, 1, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'D'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(header(&bytes), Err(BadLength { tag: b'D', length }));
        }
    }

    #[test]
    fn an_error_that_lacks_fields_is_read_all_the_same() {
        assert_eq!(error_text(b"\0"), " ()");
        assert_eq!(error_text(b"SFATAL\0Mgone"), " ()");
        assert!(error_is_fatal(b"SFATAL\0\0") && !error_is_fatal(b"SERROR\0\0") && !error_is_fatal(b""));
        let mut out = Vec::new();
        put_error_softened(&mut out, b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0");
        assert_eq!(&out[5..], b"SERROR\0VERROR\0C57P01\0Mgone\0\0");
    }

    #[test]
    fn a_row_is_read_and_a_malformed_one_is_not() {
        let row = b"\0\x02\0\0\0\x02hi\xff\xff\xff\xff";
        assert_eq!(row_values(row), Some(vec![Some("hi".to_owned()), None]));
        for cut in 0..row.len() {
            assert_eq!(row_values(&row[..cut]), None);
        }
        assert_eq!(row_values(b"\0\x01\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn a_frame_put_is_a_frame_read() {
        let mut out = Vec::new();
        put_query(&mut out, "select 1");
        assert_eq!(header(&out), Ok(Some(Header { tag: b'Q', size: out.len() })));
        assert_eq!(split_cstr(&out[5..]), Some((&b"select 1"[..], &b""[..])));
    }
}
