//! What the server's side says between start-up and the first statement, as bytes.
//!
//! PostgreSQL manual, "Message Formats" and "Start-up".

use super::startup::Protocol;
use crate::ids::SessionId;

/// The transaction status in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that has failed.
    Failed,
}

/// AuthenticationCleartextPassword: asks for the token.
pub fn authentication_cleartext_password(out: &mut Vec<u8>) {
    framed(b'R', out, |out| out.extend(3_u32.to_be_bytes()));
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    framed(b'R', out, |out| out.extend(0_u32.to_be_bytes()));
}

/// ParameterStatus: the value that a setting has in this session. NUL bytes are left out.
pub fn parameter_status(name: &str, value: &str, out: &mut Vec<u8>) {
    framed(b'S', out, |out| {
        text(name, out);
        text(value, out);
    });
}

/// BackendKeyData: what a CancelRequest must show. Keys are 4 bytes in protocol 3.0, up to 256 from 3.2 on.
pub fn backend_key_data(session: SessionId, key: &[u8], out: &mut Vec<u8>) {
    framed(b'K', out, |out| {
        out.extend(session.0.to_be_bytes());
        out.extend(key);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(status: TransactionStatus, out: &mut Vec<u8>) {
    framed(b'Z', out, |out| {
        out.push(match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        });
    });
}

/// NegotiateProtocolVersion: the version that will be spoken, and the `_pq_.` options that nobody here knows.
///
/// The version is written whole (major and minor), as every released server does.
pub fn negotiate_protocol_version(protocol: Protocol, unknown_options: &[String], out: &mut Vec<u8>) {
    framed(b'v', out, |out| {
        out.extend(protocol.number().to_be_bytes());
        out.extend((unknown_options.len() as u32).to_be_bytes());
        for option in unknown_options {
            text(option, out);
        }
    });
}

/// A message: its type, the length that `body` turns out to have, and the body.
pub(super) fn framed(type_byte: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(type_byte);
    let start = out.len();
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
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
        assert_eq!(bytes(|out| ready_for_query(TransactionStatus::Idle, out)), b"Z\0\0\0\x05I");
        assert_eq!(bytes(|out| ready_for_query(TransactionStatus::InTransaction, out)), b"Z\0\0\0\x05T");
        assert_eq!(bytes(|out| ready_for_query(TransactionStatus::Failed, out)), b"Z\0\0\0\x05E");
        assert_eq!(
            bytes(|out| negotiate_protocol_version(Protocol::V3_2, &["_pq_.x".to_owned()], out)),
            b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
        );
    }
}
