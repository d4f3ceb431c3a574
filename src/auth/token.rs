//! The compact form of a token (RFC 7515, section 3.1) taken apart, strictly; nothing in it is believed yet.
//!
//! JSON with a member twice is refused at any depth: two readers could understand two things (RFC 8725, section 2.4).

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::TOKEN_BYTES_MAX;
use super::algorithm::Algorithm;
use super::error::TokenFault;

/// base64url as tokens are written (RFC 7515, section 2), or with the padding that some issuers add and sign.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token in its three parts, with the header read.
pub(super) struct Compact<'t> {
    /// What the signature is over.
    pub(super) signed: &'t str,
    /// The signature, still in base64url.
    pub(super) signature: &'t str,
    /// The algorithm that the token claims; only ever used to choose among the algorithms of a key.
    pub(super) algorithm: Algorithm,
    /// The key that the token claims.
    pub(super) key_id: Option<String>,
    payload: &'t str,
}

impl<'t> Compact<'t> {
    /// Takes `token` apart and reads its header.
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        if payload.contains('.') {
            return Err(TokenFault::Malformed);
        }
        let mut header = object(header)?;
        if header.contains_key("crit") {
            return Err(TokenFault::CriticalExtension);
        }
        let algorithm =
            header.get("alg").and_then(Value::as_str).and_then(Algorithm::named).ok_or(TokenFault::Algorithm)?;
        let key_id = match header.remove("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id),
            Some(_) => return Err(TokenFault::Malformed),
        };
        Ok(Self { signed, signature, algorithm, key_id, payload })
    }

    /// Reads the claims. Call it only once the signature is verified.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, TokenFault> {
        object(self.payload)
    }
}

/// What a token says of itself, believed by nobody: for people who want to know why it was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The algorithm (`alg`).
    pub algorithm: Option<String>,
    /// The key (`kid`).
    pub key_id: Option<String>,
    /// The issuer (`iss`).
    pub issuer: Option<String>,
    /// The audience (`aud`, else `client_id` or `azp`), as JSON where it is no text.
    pub audience: Option<String>,
}

impl Outline {
    /// The outline of a token that has the form of one.
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (header, rest) = token.split_once('.')?;
        let (header, claims) = (object(header).ok()?, object(rest.split_once('.')?.0).ok()?);
        let text = |members: &Map<String, Value>, name: &str| match members.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        let audience = ["aud", "client_id", "azp"].iter().find_map(|name| text(&claims, name));
        let (algorithm, key_id) = (text(&header, "alg"), text(&header, "kid"));
        Some(Self { algorithm, key_id, issuer: text(&claims, "iss"), audience })
    }
}

/// Reads one base64url part as a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, TokenFault> {
    let json = BASE64URL.decode(part).map_err(|_| TokenFault::Malformed)?;
    match strict_json(&json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(TokenFault::Malformed),
    }
}

/// Reads JSON in which no object has a member twice; nested at most as deep as serde_json goes (128).
pub(super) fn strict_json(json: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(json).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let Strict(value) = access.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}
