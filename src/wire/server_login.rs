//! The bytes of logging in to a server: what we send, and what may come back before the first statement.
//!
//! The server is not trusted with lengths: every message and the whole conversation are bounded, and what is malformed
//! is a [`LoginFault`]. The conversation itself is `server`'s.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::frontend;

/// The longest message, in bytes, that a server may send while we log in.
pub const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The most messages that a server may send while we log in.
pub const LOGIN_MESSAGES_MAX: usize = 256;
/// The most bytes, all messages together, that a server may send while we log in.
pub const LOGIN_BYTES_MAX: usize = 1024 * 1024;
/// The longest cancel key, in bytes (PostgreSQL manual, "Message Formats", BackendKeyData).
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// The longest text of a server's error that is kept, in characters.
const ERROR_TEXT_CHARS_MAX: usize = 400;
/// The code that asks a server to cancel a statement (PostgreSQL manual, "Message Formats", CancelRequest).
const CANCEL_REQUEST_CODE: i32 = 80_877_102;

/// How a server broke the protocol while we logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    /// A length that no message can have, or that we do not accept before login.
    #[error("a message of type {0:?} claims an impossible or too great length")]
    Length(char),
    /// More messages or bytes than a login needs.
    #[error("it sent more than a login can need")]
    TooMuch,
    /// A message that does not hold what its type says.
    #[error("a message of type {0:?} is malformed")]
    Malformed(char),
    /// A message that has no place in a login.
    #[error("a message of type {0:?} has no place here")]
    Unexpected(char),
}

/// How the server wants us to prove who we are (PostgreSQL manual, "Message Formats", Authentication*).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// It is satisfied.
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with MD5 and this salt.
    Md5Password([u8; 4]),
    /// SASL, by one of these mechanisms.
    Sasl(Vec<String>),
    /// The server's next SASL message.
    SaslContinue(Bytes),
    /// The server's last SASL message.
    SaslFinal(Bytes),
    /// Anything else: Kerberos, GSSAPI, SSPI.
    Other(i32),
}

/// What a server says in ErrorResponse; a missing field is an empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The five characters, or nothing.
    pub sqlstate: String,
    /// The sentence, without control characters and bounded.
    pub message: String,
}

/// One message of a server before it serves us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginReply {
    /// Authentication*.
    Authentication(Authentication),
    /// BackendKeyData: what a CancelRequest must carry.
    KeyData {
        /// The server process.
        pid: i32,
        /// 4 to [`CANCEL_KEY_BYTES_MAX`] bytes.
        secret_key: Vec<u8>,
    },
    /// ParameterStatus.
    Parameter {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
    },
    /// ErrorResponse.
    Error(ServerError),
    /// ReadyForQuery, with the transaction status byte.
    Ready(u8),
    /// DataRow in text format.
    Row(Vec<Option<String>>),
    /// NoticeResponse, RowDescription, CommandComplete: nothing that a login acts on.
    Other,
}

/// What a server answers to SSLRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsAnswer {
    /// `S`: the TLS handshake follows.
    Accepted,
    /// `N`: it has no TLS.
    Refused,
}

/// Reads the one byte that answers SSLRequest.
///
/// Anything but `S` and `N` is a fault: an ErrorResponse at this point comes unauthenticated and is not read (libpq,
/// CVE-2024-10977).
pub fn tls_answer(byte: u8) -> Result<TlsAnswer, LoginFault> {
    match byte {
        b'S' => Ok(TlsAnswer::Accepted),
        b'N' => Ok(TlsAnswer::Refused),
        other => Err(LoginFault::Unexpected(char::from(other))),
    }
}

/// Takes messages off the bytes that a server has sent, and counts what a login may cost.
#[derive(Debug, Default)]
pub struct LoginReader {
    messages: usize,
    bytes: usize,
}

impl LoginReader {
    /// The next whole message, or `None` if `buffer` does not hold one yet; its bytes are taken from `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<LoginReply>, LoginFault> {
        let Some((&kind, rest)) = buffer.split_first() else { return Ok(None) };
        let kind = char::from(kind);
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| LoginFault::Length(kind))?;
        if !(4..=LOGIN_MESSAGE_BYTES_MAX).contains(&length) {
            return Err(LoginFault::Length(kind));
        }
        if self.messages >= LOGIN_MESSAGES_MAX || self.bytes + length >= LOGIN_BYTES_MAX {
            return Err(LoginFault::TooMuch);
        }
        if buffer.len() <= length {
            return Ok(None);
        }
        self.messages += 1;
        self.bytes += length + 1;
        let mut message = buffer.split_to(length + 1).freeze();
        message.advance(5);
        decode(kind, message).map(Some)
    }
}

/// Whether `bytes` begin with a message that a server may send at any time (PostgreSQL manual, "Asynchronous
/// Operations"); nothing at all counts as such.
pub fn may_come_unasked(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|kind| b"SNA".contains(kind))
}

fn decode(kind: char, body: Bytes) -> Result<LoginReply, LoginFault> {
    let malformed = LoginFault::Malformed(kind);
    match kind {
        'R' => authentication(body).map(LoginReply::Authentication).ok_or(malformed),
        'K' => key_data(&body).ok_or(malformed),
        'S' => parameter(&body).ok_or(malformed),
        'E' => Ok(LoginReply::Error(server_error(&body))),
        'Z' => match body.as_ref() {
            [status] => Ok(LoginReply::Ready(*status)),
            _ => Err(malformed),
        },
        'D' => row(&body).map(LoginReply::Row).ok_or(malformed),
        'N' | 'T' | 'C' => Ok(LoginReply::Other),
        other => Err(LoginFault::Unexpected(other)),
    }
}

fn authentication(mut body: Bytes) -> Option<Authentication> {
    let code = i32::from_be_bytes(*body.first_chunk::<4>()?);
    body.advance(4);
    Some(match code {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password(body.as_ref().try_into().ok()?),
        10 => Authentication::Sasl(sasl_mechanisms(&body)?),
        11 => Authentication::SaslContinue(body),
        12 => Authentication::SaslFinal(body),
        other => Authentication::Other(other),
    })
}

/// A list of C strings, ended by an empty one.
fn sasl_mechanisms(body: &[u8]) -> Option<Vec<String>> {
    let list = body.strip_suffix(b"\0\0")?;
    list.split(|&byte| byte == 0).map(text).collect()
}

fn key_data(body: &[u8]) -> Option<LoginReply> {
    let (pid, secret_key) = body.split_first_chunk::<4>()?;
    if !(4..=CANCEL_KEY_BYTES_MAX).contains(&secret_key.len()) {
        return None;
    }
    Some(LoginReply::KeyData { pid: i32::from_be_bytes(*pid), secret_key: secret_key.to_vec() })
}

fn parameter(body: &[u8]) -> Option<LoginReply> {
    let mut parts = body.strip_suffix(b"\0")?.split(|&byte| byte == 0);
    let (name, value) = (text(parts.next()?)?, text(parts.next()?)?);
    parts.next().is_none().then_some(LoginReply::Parameter { name, value })
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Never fails: what an error lacks is left empty, so that even a broken error is told to the operator.
fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'C', code)) => error.sqlstate = printable(code, 5),
            Some((b'M', message)) => error.message = printable(message, ERROR_TEXT_CHARS_MAX),
            _ => {}
        }
    }
    error
}

/// Foreign text made fit for a log line.
fn printable(bytes: &[u8], chars_max: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect()
}

fn row(mut body: &[u8]) -> Option<Vec<Option<String>>> {
    let columns = take::<2>(&mut body).map(u16::from_be_bytes)?;
    let mut row = Vec::new();
    for _ in 0..columns {
        let length = take::<4>(&mut body).map(i32::from_be_bytes)?;
        if length == -1 {
            row.push(None);
            continue;
        }
        let (value, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
        body = rest;
        row.push(Some(text(value)?));
    }
    body.is_empty().then_some(row)
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*head)
}

/// SSLRequest.
pub fn ssl_request() -> BytesMut {
    let mut bytes = BytesMut::new();
    frontend::ssl_request(&mut bytes);
    bytes
}

/// StartupMessage of protocol 3.0; an error if a text has a NUL in it.
pub fn startup<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    frontend::startup_message(parameters, &mut bytes)?;
    Ok(bytes)
}

/// PasswordMessage; an error if the password has a NUL in it.
pub fn password(password: &[u8]) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    frontend::password_message(password, &mut bytes)?;
    Ok(bytes)
}

/// SASLInitialResponse.
pub fn sasl_initial_response(mechanism: &str, data: &[u8]) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    frontend::sasl_initial_response(mechanism, data, &mut bytes)?;
    Ok(bytes)
}

/// SASLResponse.
pub fn sasl_response(data: &[u8]) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    frontend::sasl_response(data, &mut bytes)?;
    Ok(bytes)
}

/// Query; an error if the text has a NUL in it.
pub fn query(sql: &str) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    frontend::query(sql, &mut bytes)?;
    Ok(bytes)
}

/// CancelRequest, with a key of 4 bytes (protocol 3.0) or more (3.2).
pub fn cancel_request(pid: i32, secret_key: &[u8]) -> io::Result<BytesMut> {
    let key_fits = (4..=CANCEL_KEY_BYTES_MAX).contains(&secret_key.len());
    let length = i32::try_from(12 + secret_key.len()).ok().filter(|_| key_fits);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a cancel key of impossible length"))?;
    let mut bytes = BytesMut::with_capacity(12 + secret_key.len());
    bytes.put_i32(length);
    bytes.put_i32(CANCEL_REQUEST_CODE);
    bytes.put_i32(pid);
    bytes.put_slice(secret_key);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], length.as_slice(), body].concat()
    }

    fn first(bytes: &[u8]) -> Result<Option<LoginReply>, LoginFault> {
        LoginReader::default().next(&mut BytesMut::from(bytes))
    }

    fn authentication(code: i32, rest: &[u8]) -> Result<Option<LoginReply>, LoginFault> {
        first(&message(b'R', &[code.to_be_bytes().as_slice(), rest].concat()))
    }

    #[test]
    fn the_messages_of_a_login_are_understood() {
        let auth = |authentication| Ok(Some(LoginReply::Authentication(authentication)));
        assert_eq!(authentication(0, b""), auth(Authentication::Ok));
        assert_eq!(authentication(3, b""), auth(Authentication::CleartextPassword));
        assert_eq!(authentication(5, b"salt"), auth(Authentication::Md5Password(*b"salt")));
        let mechanisms = vec!["SCRAM-SHA-256-PLUS".to_owned(), "SCRAM-SHA-256".to_owned()];
        assert_eq!(
            authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
            auth(Authentication::Sasl(mechanisms))
        );
        assert_eq!(authentication(11, b"r=1"), auth(Authentication::SaslContinue(Bytes::from_static(b"r=1"))));
        assert_eq!(authentication(12, b"v=1"), auth(Authentication::SaslFinal(Bytes::from_static(b"v=1"))));
        assert_eq!(authentication(7, b""), auth(Authentication::Other(7)));
        let row = vec![Some("on".to_owned()), None];
        assert_eq!(first(b"D\0\0\0\x10\0\x02\0\0\0\x02on\xff\xff\xff\xff"), Ok(Some(LoginReply::Row(row))));
        let key = |secret_key: &[u8]| Ok(Some(LoginReply::KeyData { pid: 7, secret_key: secret_key.to_vec() }));
        assert_eq!(first(&message(b'K', b"\0\0\0\x07abcd")), key(b"abcd"));
        assert_eq!(first(&message(b'K', &[b"\0\0\0\x07".as_slice(), &[9; 32]].concat())), key(&[9; 32]));
        assert_eq!(first(&message(b'Z', b"I")), Ok(Some(LoginReply::Ready(b'I'))));
    }

    #[test]
    fn malformed_messages_are_faults() {
        let bad: [(u8, &[u8]); 17] = [
            (b'R', b""),
            (b'R', b"\0\0\0"),
            (b'R', b"\0\0\0\x05abc"),
            (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0"),
            (b'R', b"\0\0\0\x0a\xff\0\0"),
            (b'K', b"\0\0\0\x07"),
            (b'K', b"\0\0\0\x07abc"),
            (b'K', &[0; 4 + CANCEL_KEY_BYTES_MAX + 1]),
            (b'S', b""),
            (b'S', b"name"),
            (b'S', b"name\0value"),
            (b'S', b"name\0value\0more\0"),
            (b'S', b"name\0\xff\0"),
            (b'Z', b""),
            (b'Z', b"II"),
            (b'D', b"\0\x01\0\0\0\x09x"),
            (b'D', b"\0\x01\xff\xff\xff\xfe"),
        ];
        for (kind, body) in bad {
            assert_eq!(first(&message(kind, body)), Err(LoginFault::Malformed(char::from(kind))), "{body:?}");
        }
        for kind in [b'v', b'G', b'A', 0, 255] {
            assert_eq!(first(&message(kind, b"")), Err(LoginFault::Unexpected(char::from(kind))));
        }
    }

    #[test]
    fn impossible_lengths_are_faults_before_the_body_comes() {
        for length in [-1, i32::MIN, 0, 3, 65_537, i32::MAX] {
            let bytes = [b"S".as_slice(), &length.to_be_bytes()].concat();
            assert_eq!(first(&bytes), Err(LoginFault::Length('S')), "{length}");
        }
        assert_eq!(first(b"S\0\x01\0\0"), Ok(None));
    }

    #[test]
    fn a_login_has_a_bounded_number_of_messages_and_bytes() {
        let mut reader = LoginReader::default();
        let notice = message(b'N', b"");
        for _ in 0..LOGIN_MESSAGES_MAX {
            assert_eq!(reader.next(&mut BytesMut::from(&notice[..])), Ok(Some(LoginReply::Other)));
        }
        assert_eq!(reader.next(&mut BytesMut::from(&notice[..])), Err(LoginFault::TooMuch));
        let mut reader = LoginReader::default();
        let notice = message(b'N', &[0; LOGIN_MESSAGE_BYTES_MAX - 4]);
        let fault = (0..LOGIN_MESSAGES_MAX).find_map(|_| reader.next(&mut BytesMut::from(&notice[..])).err());
        assert_eq!(fault, Some(LoginFault::TooMuch));
        assert!(reader.bytes <= LOGIN_BYTES_MAX);
    }

    #[test]
    fn an_error_is_told_whatever_it_lacks() {
        let error = |sqlstate: &str, message: &str| {
            Ok(Some(LoginReply::Error(ServerError { sqlstate: sqlstate.to_owned(), message: message.to_owned() })))
        };
        assert_eq!(first(&message(b'E', b"")), error("", ""));
        assert_eq!(first(&message(b'E', b"\0")), error("", ""));
        assert_eq!(first(&message(b'E', b"SFATAL\0Mno\x1b[0m\xff way\n\0")), error("", "no [0m\u{fffd} way "));
        assert_eq!(first(&message(b'E', b"CABCDEFGH\0Mx\0\0")), error("ABCDE", "x"));
        let Ok(Some(LoginReply::Error(long))) = first(&message(b'E', &[b'M'; 60_000])) else { unreachable!() };
        assert_eq!(long.message.len(), ERROR_TEXT_CHARS_MAX);
    }

    #[test]
    fn a_cancel_request_carries_keys_of_any_length_that_the_protocol_has() {
        let request = cancel_request(7, b"abcd").unwrap();
        assert_eq!(request.as_ref(), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd");
        assert_eq!(cancel_request(7, &[1; 256]).unwrap().len(), 268);
        assert!(cancel_request(7, b"abc").is_err() && cancel_request(7, &[1; 257]).is_err());
    }

    #[test]
    fn only_yes_and_no_answer_the_request_for_tls() {
        assert_eq!(tls_answer(b'S'), Ok(TlsAnswer::Accepted));
        assert_eq!(tls_answer(b'N'), Ok(TlsAnswer::Refused));
        assert_eq!(tls_answer(b'E'), Err(LoginFault::Unexpected('E')));
    }

    #[test]
    fn what_a_server_may_send_unasked_is_known_by_its_first_byte() {
        assert!([&b""[..], b"S", b"N", b"A"].into_iter().all(may_come_unasked));
        assert!(![&b"Z"[..], b"D", b"E"].into_iter().any(may_come_unasked));
    }

    fn read_all(chunks: &[&[u8]]) -> (Vec<LoginReply>, Option<LoginFault>) {
        let (mut reader, mut buffer, mut replies) = (LoginReader::default(), BytesMut::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            loop {
                match reader.next(&mut buffer) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(fault) => return (replies, Some(fault)),
                }
            }
        }
        (replies, None)
    }

    proptest! {
        #[test]
        fn any_messages_read_the_same_whole_and_one_byte_at_a_time(
            messages in prop::collection::vec((prop::sample::select(b"RKSEZDNTCv".to_vec()),
                prop::collection::vec(prop_oneof![Just(0u8), any::<u8>(), Just(10), Just(1)], 0..40)), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            bytes.truncate(cut.index(bytes.len() + 1));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read_all(&[&bytes]), read_all(&single));
        }
    }
}
