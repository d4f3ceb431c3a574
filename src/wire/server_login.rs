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
