//! What a client says before it is logged in: opening packets and the password, read from bytes under small bounds.
//!
//! PostgreSQL manual, "Message Formats": these packets have no type byte. pgwire reads them too, but lets through what
//! Postgres refuses (a missing terminator, bytes behind the password, text that is not UTF-8), so the reading is ours.

use std::fmt;

/// The longest opening packet, its length word included, as in Postgres.
pub const STARTUP_BYTES_MAX: usize = 10_000;
/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The longest password message that is taken for a token that is too long, and not for garbage.
const PASSWORD_BYTES_MAX: usize = 1 << 20;
/// The most parameters in one StartupMessage.
pub const PARAMETERS_MAX: usize = 64;
/// The longest parameter name, in bytes: twice Postgres's longest identifier and a dot.
pub const NAME_BYTES_MAX: usize = 127;
/// The longest parameter value, in bytes.
pub const VALUE_BYTES_MAX: usize = 8192;
/// The first byte of a TLS record that holds a handshake: how direct TLS begins (RFC 8446, section 5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;

const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
const PROTOCOL_OPTION_PREFIX: &str = "_pq_.";
const MINOR_NEWEST: u16 = 2;

/// The protocol that a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// 3.0: cancel keys have 4 bytes.
    V3_0,
    /// 3.2 (PostgreSQL 18): cancel keys are longer.
    V3_2,
}

impl Protocol {
    /// The number on the wire: major version in the upper half, minor in the lower.
    pub const fn number(self) -> u32 {
        match self {
            Self::V3_0 => 3 << 16,
            Self::V3_2 => (3 << 16) | 2,
        }
    }

    /// How many bytes a cancel key has that we hand out.
    pub const fn cancel_key_bytes(self) -> usize {
        match self {
            Self::V3_0 => 4,
            Self::V3_2 => 32,
        }
    }
}

/// The first packet of a connection, or the next one after an answer of one byte.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// The client asks whether TLS may begin.
    TlsRequest,
    /// The client asks whether GSSAPI encryption may begin.
    GssRequest,
    /// The client asks that another connection's statement be cancelled.
    Cancel(CancelRequest),
    /// The client wants a session.
    Startup(Startup),
}

/// A CancelRequest.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// The process id from BackendKeyData.
    pub pid: u32,
    /// The key from BackendKeyData: 4 to 256 bytes.
    pub key: Vec<u8>,
}

impl fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelRequest {{ pid: {}, key: *** }}", self.pid)
    }
}

/// A StartupMessage of protocol 3.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup {
    /// What will be spoken: at most what was asked for.
    pub protocol: Protocol,
    /// Whether the client asked for a newer minor version than there is, and has to be told.
    pub newer_than_known: bool,
    /// Protocol options (`_pq_.…`): nobody here knows any, and the client has to be told.
    pub protocol_options: Vec<String>,
    /// Every other parameter, in the client's order.
    pub parameters: Vec<(String, String)>,
}

/// Why bytes are not what they should be. The words are Postgres's where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length that no opening packet has.
    #[error("invalid length of startup packet")]
    PacketLength,
    /// Name or value without an end, or something behind the end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Terminator,
    /// Bytes that are not UTF-8.
    #[error("start-up parameters must be valid UTF-8")]
    NotUtf8,
    /// More than [`PARAMETERS_MAX`].
    #[error("more than {PARAMETERS_MAX} start-up parameters")]
    TooManyParameters,
    /// A name or value beyond its bound.
    #[error("a start-up parameter is too long")]
    LongParameter,
    /// A cancel key of fewer than 4 or more than 256 bytes.
    #[error("invalid length of cancel request packet")]
    CancelKey,
    /// A request code that is none, or a major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// The upper half of the code.
        major: u16,
        /// The lower half of the code.
        minor: u16,
    },
    /// Another message where the password belongs.
    #[error("expected password response, got message type {0}")]
    NotAPassword(u8),
    /// A password message longer than a token may be.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TokenTooLong,
    /// A password message shorter than its own end, or of a length that no token has.
    #[error("invalid password packet size")]
    PasswordLength,
    /// A password that is not text.
    #[error("invalid password packet")]
    PasswordText,
}

/// Reads the length word that opens every packet before login, and returns how many bytes follow it.
pub fn packet_bytes(length: [u8; 4]) -> Result<usize, Malformed> {
    let bytes = u32::from_be_bytes(length) as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&bytes) {
        return Err(Malformed::PacketLength);
    }
    Ok(bytes - 4)
}

/// Reads an opening packet without its length word.
pub fn opening(packet: &[u8]) -> Result<Opening, Malformed> {
    let (code, rest) = packet.split_first_chunk().ok_or(Malformed::PacketLength)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST if rest.is_empty() => Ok(Opening::TlsRequest),
        GSSENC_REQUEST if rest.is_empty() => Ok(Opening::GssRequest),
        SSL_REQUEST | GSSENC_REQUEST => Err(Malformed::PacketLength),
        CANCEL_REQUEST => cancel(rest).map(Opening::Cancel),
        version => startup(version, rest).map(Opening::Startup),
    }
}

/// Reads the type and length of the password message, and returns how many bytes follow.
pub fn password_bytes(header: [u8; 5]) -> Result<usize, Malformed> {
    let [type_byte, length @ ..] = header;
    if type_byte != b'p' {
        return Err(Malformed::NotAPassword(type_byte));
    }
    let bytes = u32::from_be_bytes(length) as usize;
    match bytes {
        ..5 => Err(Malformed::PasswordLength),
        _ if bytes <= TOKEN_BYTES_MAX + 5 => Ok(bytes - 4),
        _ if bytes <= PASSWORD_BYTES_MAX => Err(Malformed::TokenTooLong),
        _ => Err(Malformed::PasswordLength),
    }
}

/// Reads the body of the password message: text, one NUL, nothing behind it.
pub fn password(body: &[u8]) -> Result<&str, Malformed> {
    let Some((0, text)) = body.split_last() else { return Err(Malformed::PasswordLength) };
    if text.contains(&0) {
        return Err(Malformed::PasswordLength);
    }
    std::str::from_utf8(text).map_err(|_| Malformed::PasswordText)
}

fn cancel(body: &[u8]) -> Result<CancelRequest, Malformed> {
    let (pid, key) = body.split_first_chunk().ok_or(Malformed::CancelKey)?;
    if !(4..=256).contains(&key.len()) {
        return Err(Malformed::CancelKey);
    }
    Ok(CancelRequest { pid: u32::from_be_bytes(*pid), key: key.to_vec() })
}

fn startup(version: u32, body: &[u8]) -> Result<Startup, Malformed> {
    let (major, minor) = ((version >> 16) as u16, version as u16);
    if major != 3 {
        return Err(Malformed::Version { major, minor });
    }
    let (protocol_options, parameters): (Vec<_>, Vec<_>) =
        parameters(body)?.into_iter().partition(|(name, _)| name.starts_with(PROTOCOL_OPTION_PREFIX));
    Ok(Startup {
        // 3.1 was never released: Postgres 18 speaks it as 3.0 and says nothing.
        protocol: if minor < MINOR_NEWEST { Protocol::V3_0 } else { Protocol::V3_2 },
        newer_than_known: minor > MINOR_NEWEST,
        protocol_options: protocol_options.into_iter().map(|(name, _)| name).collect(),
        parameters,
    })
}

fn parameters(mut body: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut found = Vec::new();
    loop {
        let name = text(&mut body, NAME_BYTES_MAX)?;
        if name.is_empty() {
            return if body.is_empty() { Ok(found) } else { Err(Malformed::Terminator) };
        }
        if found.len() == PARAMETERS_MAX {
            return Err(Malformed::TooManyParameters);
        }
        found.push((name, text(&mut body, VALUE_BYTES_MAX)?));
    }
}

fn text(body: &mut &[u8], bytes_max: usize) -> Result<String, Malformed> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(Malformed::Terminator)?;
    let (text, rest) = body.split_at(end);
    *body = &rest[1..];
    if text.len() > bytes_max {
        return Err(Malformed::LongParameter);
    }
    String::from_utf8(text.to_vec()).map_err(|_| Malformed::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(version: u32, body: &[u8]) -> Vec<u8> {
        [&version.to_be_bytes(), body].concat()
    }

    fn owned(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_startup_message_gives_its_parameters_in_order() {
        let read = opening(&packet(3 << 16, b"user\0u\0database\0\0user\0v\0\0"));
        let wanted = Startup {
            protocol: Protocol::V3_0,
            newer_than_known: false,
            protocol_options: vec![],
            parameters: owned(&[("user", "u"), ("database", ""), ("user", "v")]),
        };
        assert_eq!(read, Ok(Opening::Startup(wanted)));
    }

    #[test]
    fn a_newer_minor_version_is_brought_down_and_a_protocol_option_is_set_apart() {
        for (minor, protocol, newer) in [
            (0, Protocol::V3_0, false),
            (1, Protocol::V3_0, false),
            (2, Protocol::V3_2, false),
            (3, Protocol::V3_2, true),
            (9999, Protocol::V3_2, true),
        ] {
            let Ok(Opening::Startup(startup)) = opening(&packet((3 << 16) | minor, b"_pq_.x\0y\0user\0u\0\0")) else {
                panic!("3.{minor} is a start-up");
            };
            assert_eq!((startup.protocol, startup.newer_than_known), (protocol, newer), "3.{minor}");
            assert_eq!(startup.protocol_options, ["_pq_.x"]);
            assert_eq!(startup.parameters, owned(&[("user", "u")]));
        }
    }

    #[test]
    fn another_major_version_is_refused_in_postgres_words() {
        for version in [2 << 16, 4 << 16, 0, (1234 << 16) | 5677, u32::from_be_bytes(*b"T / ")] {
            let Err(fault @ Malformed::Version { .. }) = opening(&packet(version, b"\0")) else {
                panic!("{version:x}")
            };
            assert!(fault.to_string().starts_with("unsupported frontend protocol "));
        }
    }

    #[test]
    fn a_startup_message_must_end_where_its_terminator_is() {
        for body in [&b""[..], b"user", b"user\0", b"user\0u", b"user\0u\0", b"user\0u\0\0x", b"\0\0", b"user\0u\0\0\0"]
        {
            assert_eq!(opening(&packet(3 << 16, body)), Err(Malformed::Terminator), "{body:?}");
        }
    }

    #[test]
    fn startup_parameters_are_bounded_in_number_and_length_and_are_text() {
        let many = |count: usize| [b"a\0b\0".repeat(count), vec![0]].concat();
        assert!(opening(&packet(3 << 16, &many(PARAMETERS_MAX))).is_ok());
        assert_eq!(opening(&packet(3 << 16, &many(PARAMETERS_MAX + 1))), Err(Malformed::TooManyParameters));
        let long = |name: usize, value: usize| [vec![b'n'; name], vec![0], vec![b'v'; value], vec![0, 0]].concat();
        assert!(opening(&packet(3 << 16, &long(NAME_BYTES_MAX, VALUE_BYTES_MAX))).is_ok());
        assert_eq!(opening(&packet(3 << 16, &long(NAME_BYTES_MAX + 1, 1))), Err(Malformed::LongParameter));
        assert_eq!(opening(&packet(3 << 16, &long(1, VALUE_BYTES_MAX + 1))), Err(Malformed::LongParameter));
        assert_eq!(opening(&packet(3 << 16, b"user\0\xff\xfe\0\0")), Err(Malformed::NotUtf8));
    }

    #[test]
    fn requests_for_encryption_have_nothing_behind_them() {
        assert_eq!(opening(&packet(SSL_REQUEST, b"")), Ok(Opening::TlsRequest));
        assert_eq!(opening(&packet(GSSENC_REQUEST, b"")), Ok(Opening::GssRequest));
        assert_eq!(opening(&packet(SSL_REQUEST, b"x")), Err(Malformed::PacketLength));
        assert_eq!(opening(&packet(GSSENC_REQUEST, b"x")), Err(Malformed::PacketLength));
    }

    #[test]
    fn cancel_keys_have_4_to_256_bytes() {
        for (bytes, good) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = [7_u32.to_be_bytes().to_vec(), vec![1; bytes]].concat();
            let wanted = if good {
                Ok(Opening::Cancel(CancelRequest { pid: 7, key: vec![1; bytes] }))
            } else {
                Err(Malformed::CancelKey)
            };
            assert_eq!(opening(&packet(CANCEL_REQUEST, &body)), wanted, "{bytes}");
        }
        assert_eq!(opening(&packet(CANCEL_REQUEST, b"ab")), Err(Malformed::CancelKey));
        let shown = format!("{:?}", CancelRequest { pid: 7, key: vec![201; 4] });
        assert!(!shown.contains("201"), "{shown}");
    }

    #[test]
    fn lengths_outside_the_bounds_are_refused_before_anything_is_read() {
        for length in [0, 1, 7, STARTUP_BYTES_MAX as u32 + 1, i32::MAX as u32, u32::MAX, u32::from_be_bytes(*b"GET ")] {
            assert_eq!(packet_bytes(length.to_be_bytes()), Err(Malformed::PacketLength), "{length}");
        }
        assert_eq!(packet_bytes(8_u32.to_be_bytes()), Ok(4));
        assert_eq!(packet_bytes((STARTUP_BYTES_MAX as u32).to_be_bytes()), Ok(STARTUP_BYTES_MAX - 4));
    }

    #[test]
    fn a_password_is_one_bounded_text() {
        let header = |type_byte, length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            password_bytes([type_byte, a, b, c, d])
        };
        assert_eq!(header(b'p', TOKEN_BYTES_MAX as u32 + 5), Ok(TOKEN_BYTES_MAX + 1));
        assert_eq!(header(b'p', TOKEN_BYTES_MAX as u32 + 6), Err(Malformed::TokenTooLong));
        assert_eq!(header(b'p', PASSWORD_BYTES_MAX as u32), Err(Malformed::TokenTooLong));
        assert_eq!(header(b'p', PASSWORD_BYTES_MAX as u32 + 1), Err(Malformed::PasswordLength));
        assert_eq!(header(b'p', 4), Err(Malformed::PasswordLength));
        assert_eq!(header(b'p', u32::MAX), Err(Malformed::PasswordLength));
        assert_eq!(header(b'Q', 9), Err(Malformed::NotAPassword(b'Q')));
        assert_eq!(password(b"token\0"), Ok("token"));
        assert_eq!(password(b"\0"), Ok(""));
        for bad in [&b""[..], b"token", b"to\0ken\0"] {
            assert_eq!(password(bad), Err(Malformed::PasswordLength), "{bad:?}");
        }
        assert_eq!(password(b"\xff\0"), Err(Malformed::PasswordText));
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_refused_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            code in prop_oneof![Just(None), (0_u32..4).prop_map(|low| Some((3 << 16) | low)), (5676_u32..5682).prop_map(|low| Some((1234 << 16) | low))],
        ) {
            let bytes = code.map_or(bytes.clone(), |code| packet(code, &bytes));
            let _ = opening(&bytes);
            let _ = password(&bytes);
            if let Some(header) = bytes.first_chunk() {
                let _ = password_bytes(*header);
            }
            if let Some(length) = bytes.first_chunk() {
                prop_assert!(packet_bytes(*length).is_ok_and(|bytes| bytes <= STARTUP_BYTES_MAX - 4) || packet_bytes(*length).is_err());
            }
        }

        #[test]
        fn what_a_client_writes_is_what_is_read(
            wanted in proptest::collection::vec(("[a-z_.]{1,20}", "[^\0]{0,40}"), 0..20),
        ) {
            let mut body = Vec::new();
            for (name, value) in &wanted {
                body.extend([name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
            }
            body.push(0);
            let Ok(Opening::Startup(read)) = opening(&packet(3 << 16, &body)) else { panic!("{body:?}") };
            let wanted: Vec<_> = wanted.into_iter().filter(|(name, _)| !name.starts_with("_pq_.")).collect();
            prop_assert_eq!(read.parameters, wanted);
        }
    }
}
