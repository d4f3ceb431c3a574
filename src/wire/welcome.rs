//! What the server's side says between start-up and the first statement, as bytes.
//!
//! PostgreSQL manual, "Message Formats" and "Start-up".

use super::flow::Status;
use super::frame::{self, backend};
use super::startup::Protocol;
use crate::ids::SessionId;

/// AuthenticationCleartextPassword: asks for the token.
pub fn authentication_cleartext_password(out: &mut Vec<u8>) {
    frame::put(out, b'R', |out| out.extend(3_u32.to_be_bytes()));
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    frame::put(out, b'R', |out| out.extend(0_u32.to_be_bytes()));
}

/// ParameterStatus: the value that a setting has in this session. NUL bytes are left out.
pub fn parameter_status(name: &str, value: &str, out: &mut Vec<u8>) {
    frame::put(out, b'S', |out| {
        text(name, out);
        text(value, out);
    });
}

/// BackendKeyData: what a CancelRequest must show. Keys are 4 bytes in protocol 3.0, up to 256 from 3.2 on.
pub fn backend_key_data(session: SessionId, key: &[u8], out: &mut Vec<u8>) {
    frame::put(out, b'K', |out| {
        out.extend(session.0.to_be_bytes());
        out.extend(key);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(status: Status, out: &mut Vec<u8>) {
    frame::put(out, backend::READY_FOR_QUERY, |out| out.push(status.byte()));
}

/// NegotiateProtocolVersion: the version that will be spoken, and the `_pq_.` options that nobody here knows.
///
/// The version is written whole (major and minor), as every released server does.
pub fn negotiate_protocol_version(protocol: Protocol, unknown_options: &[String], out: &mut Vec<u8>) {
    frame::put(out, b'v', |out| {
        out.extend(protocol.number().to_be_bytes());
        out.extend((unknown_options.len() as u32).to_be_bytes());
        for option in unknown_options {
            text(option, out);
        }
    });
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn every_message_is_what_the_manual_says() {
        assert_eq!(bytes(authentication_cleartext_password), b"R\0\0\0\x08\0\0\0\x03");
        assert_eq!(bytes(authentication_ok), b"R\0\0\0\x08\0\0\0\0");
        assert_eq!(bytes(|out| parameter_status("a", "b\0c", out)), b"S\0\0\0\x09a\0bc\0");
        assert_eq!(
            bytes(|out| backend_key_data(SessionId(258), &[9, 8, 7, 6], out)),
            b"K\0\0\0\x0c\0\0\x01\x02\x09\x08\x07\x06"
        );
        assert_eq!(bytes(|out| ready_for_query(Status::Idle, out)), b"Z\0\0\0\x05I");
        assert_eq!(bytes(|out| ready_for_query(Status::InTransaction, out)), b"Z\0\0\0\x05T");
        assert_eq!(bytes(|out| ready_for_query(Status::Failed, out)), b"Z\0\0\0\x05E");
        assert_eq!(
            bytes(|out| negotiate_protocol_version(Protocol::V3_2, &["_pq_.x".to_owned()], out)),
            b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
        );
    }
}
