//! JWKS documents (RFC 7517, section 5): their signature keys, and why the others were left out.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::key::{KEY_FILE_BYTES_MAX, KEYS_MAX, Key, KeyError, KeySet};
use super::token::{BASE64URL, strict_json};

/// The longest `kid`, in bytes.
const KEY_ID_BYTES_MAX: usize = 256;

/// What a JWKS document held.
#[derive(Debug)]
pub struct Jwks {
    /// Its usable keys; at least one.
    pub keys: KeySet,
    /// Why others were left out, one sentence each, for the log.
    pub left_out: Vec<String>,
}

impl KeySet {
    /// The signature keys of a JWKS document; keys of unknown kinds and uses are left out, as RFC 7517 asks.
    ///
    /// Symmetric keys (`oct`) are left out too: a secret does not belong into a document of public keys.
    pub fn from_jwks(json: &[u8]) -> Result<Jwks, KeyError> {
        if json.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyError::TooLarge);
        }
        let document = strict_json(json).map_err(|_| KeyError::NotJwks)?;
        let members = document.get("keys").and_then(Value::as_array).ok_or(KeyError::NotJwks)?;
        if members.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for (place, member) in members.iter().enumerate() {
            match member.as_object().ok_or("it is not an object".to_owned()).and_then(key) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(format!("key {} of {}: {why}", place + 1, members.len())),
            }
        }
        if keys.is_empty() {
            return Err(KeyError::NoUsableKey(left_out));
        }
        Ok(Jwks { keys: Self::from_keys(keys), left_out })
    }
}

/// One member as a key, or why not.
fn key(member: &Map<String, Value>) -> Result<Key, String> {
    for_signatures(member)?;
    let id = match member.get("kid") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id.len() <= KEY_ID_BYTES_MAX => Some(id.as_str()),
        Some(_) => return Err("its kid is not a short text".to_owned()),
    };
    let key = match text(member, "kty")? {
        "RSA" => Key::from_rsa(&bytes(member, "n")?, &bytes(member, "e")?),
        "EC" => match text(member, "crv")? {
            "P-256" => Key::from_p256(&point(member, 32)?),
            "P-384" => Key::from_p384(&point(member, 48)?),
            "P-521" => Key::from_p521(&point(member, 66)?),
            _ => Err(KeyError::Unsupported),
        },
        "OKP" if text(member, "crv")? == "Ed25519" => Key::from_ed25519(&bytes(member, "x")?),
        _ => Err(KeyError::Unsupported),
    };
    let key = key.map_err(|error| error.to_string())?.named(id);
    match member.get("alg") {
        None => Ok(key),
        Some(name) => name
            .as_str()
            .and_then(Algorithm::named)
            .and_then(|algorithm| key.only_for(algorithm))
            .ok_or_else(|| "its alg does not suit it".to_owned()),
    }
}

/// Whether the key is meant for signatures (RFC 7517, sections 4.2 and 4.3).
fn for_signatures(member: &Map<String, Value>) -> Result<(), String> {
    if member.get("use").is_some_and(|intended| intended != "sig") {
        return Err("it is not for signatures".to_owned());
    }
    let verifies = |operations: &Value| operations.as_array().is_some_and(|list| list.iter().any(|op| op == "verify"));
    if member.get("key_ops").is_some_and(|operations| !verifies(operations)) {
        return Err("it is not for verifying".to_owned());
    }
    Ok(())
}

/// The coordinates as an uncompressed point; each must have the curve's full width (RFC 7518, section 6.2.1).
fn point(member: &Map<String, Value>, width: usize) -> Result<Vec<u8>, String> {
    let (x, y) = (bytes(member, "x")?, bytes(member, "y")?);
    if x.len() != width || y.len() != width {
        return Err(KeyError::Damaged.to_string());
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

fn text<'m>(member: &'m Map<String, Value>, name: &str) -> Result<&'m str, String> {
    member.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no {name}"))
}

fn bytes(member: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    BASE64URL.decode(text(member, name)?).map_err(|_| format!("its {name} is not base64url"))
}
