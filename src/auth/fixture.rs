//! Tests of other rooms: identities, made the only way there is, by signing and verifying a token.

use serde_json::Value;

use super::mint::SigningKey;
use super::{Identity, KeySet, TokenRules, Verifier};
use crate::ids::OrgIdType;

/// An identity with these claims (under the default names); it expires in the year 9999.
pub(crate) fn identity(claims: Value) -> Identity {
    identity_of_type(claims, OrgIdType::Auto)
}

/// As [`identity`], where organizations are of this type.
pub(crate) fn identity_of_type(mut claims: Value, organization_type: OrgIdType) -> Identity {
    let secret = b"the secret of all the unit tests";
    claims["exp"] = 253_402_300_799_u64.into();
    let rules = TokenRules { organization_type, ..TokenRules::default() };
    let token = SigningKey::from_secret(secret).and_then(|key| key.sign(&claims)).expect("a signed token");
    let verifier = Verifier::new(rules, KeySet::from_secret(secret).expect("a secret that is long enough"));
    verifier.verify(&token, 0).expect("claims within bounds")
}

#[test]
fn the_fixture_makes_identities() {
    assert_eq!(identity(serde_json::json!({ "org": "org_1" })).org().as_str(), "org_1");
}
