//! Whose token is it? Verified with the keys in force, once more with fresher ones, and slowly for those who guess.

use std::net::IpAddr;
use std::time::Duration;

use tracing::warn;

use crate::auth::{self, Identity, Throttle, TokenError, TokenFault};
use crate::event::Event;
use crate::ids::OrgId;
use crate::refusal::{Kind, Refusal};
use crate::wire::startup;

use super::greet::Token;
use super::keyring::KeyRing;

const _: () = assert!(startup::TOKEN_BYTES_MAX == auth::TOKEN_BYTES_MAX, "what is read is what is verified");

/// A login that leads nowhere: what the client hears, and what the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    /// For the client; one sentence for every token that is not accepted.
    pub refusal: Refusal,
    /// The organization, only where a good signature named it.
    pub org: Option<OrgId>,
    /// For the operator; nothing of the token in it.
    pub why: Box<str>,
    /// How long to hold back the refusal.
    pub hold: Duration,
}

impl NotAdmitted {
    /// What metrics and audit hear.
    pub fn event(self, address: IpAddr) -> Event {
        Event::LoginRefused { address: Some(address), org: self.org, kind: self.refusal.kind(), why: self.why.into() }
    }
}

impl From<TokenError> for NotAdmitted {
    fn from(error: TokenError) -> Self {
        Self { refusal: error.refusal(), org: error.org().cloned(), why: error.why().into(), hold: Duration::ZERO }
    }
}

/// Says for whom `token` speaks at `now` (Unix time, seconds).
///
/// `database` chooses among the organizations of a token that names several.
/// A token that names an unknown key waits a few seconds for fresher keys. Where very many tokens of an address are to be
/// verified, those that were not verified before wait for their turn. Whoever fails often, from an address or for an
/// organization, is to wait for the answer ([`NotAdmitted::hold`]); nobody else is.
pub(super) async fn identify(
    token: &Token,
    database: &str,
    address: IpAddr,
    keys: &KeyRing,
    throttle: &Throttle,
    now: u64,
) -> Result<Identity, NotAdmitted> {
    let mut verifier = keys.current();
    if let Some(identity) = verifier.remembered(token.expose(), database, now) {
        throttle.succeeded(address);
        return Ok(identity);
    }
    let wait = throttle.may_verify(address, Duration::from_secs(now)).ok_or_else(too_many)?;
    tokio::time::sleep(wait).await;
    let mut verified = verifier.verify_for(token.expose(), database, now);
    if verified.as_ref().is_err_and(TokenError::wants_refresh) {
        keys.refreshed().await;
        verifier = keys.current();
        verified = verifier.verify_for(token.expose(), database, now);
    }
    match verified {
        Ok(identity) => {
            throttle.succeeded(address);
            for left_out in verifier.untold(&identity) {
                warn!(org = %identity.org(), %left_out, "a token's claims were not wholly read; tokens like it are not told of again");
            }
            Ok(identity)
        }
        // Nobody has guessed: the signature is right.
        Err(error) if error.fault() == TokenFault::SeveralOrganizations => Err(error.into()),
        Err(error) => {
            let hold = throttle.failed(address, error.org(), now);
            Err(NotAdmitted { hold, ..error.into() })
        }
    }
}

/// The token was not looked at: so many of this address wait for that already.
fn too_many() -> NotAdmitted {
    NotAdmitted {
        refusal: Refusal::new(Kind::TooManyConnections, "too many logins from this address"),
        org: None,
        why: "too many tokens of this address are to be verified".into(),
        hold: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use serde_json::json;

    use crate::auth::mint::SigningKey;
    use crate::auth::{KeySet, ThrottleRules, TokenRules, Verifier};
    use crate::handshake::keyring::KeyRingControl;

    const SECRET: &[u8] = b"a secret that is long enough for HS256";
    const NOW: u64 = 1_700_000_000;

    fn verifier(secret: &[u8]) -> Verifier {
        let rules = TokenRules::default();
        Verifier::new(rules, KeySet::from_secret(secret).unwrap())
    }

    fn token(secret: &[u8], exp: u64) -> Token {
        let claims = json!({ "org": "org_1", "exp": exp });
        Token::new(SigningKey::from_secret(secret).unwrap().sign(&claims).unwrap())
    }

    fn address() -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }

    fn impatient() -> Throttle {
        Throttle::new(ThrottleRules { free_failures: 0, ..ThrottleRules::default() })
    }

    fn ring() -> (Arc<KeyRing>, KeyRingControl) {
        KeyRing::new(verifier(SECRET))
    }

    #[tokio::test]
    async fn a_good_token_says_who_it_is() {
        let (keys, _control) = ring();
        let who = identify(&token(SECRET, NOW + 60), "", address(), &keys, &impatient(), NOW).await.unwrap();
        assert_eq!(who.org().as_str(), "org_1");
    }

    #[tokio::test]
    async fn every_bad_token_hears_one_sentence_and_only_the_operator_hears_why() {
        let (keys, _control) = ring();
        let mut whys = std::collections::HashSet::new();
        for (bad, org) in [
            (token(b"another secret, which nobody has told", NOW + 60), None),
            (token(SECRET, NOW), Some("org_1")),
            (Token::new("my password".to_owned()), None),
            (Token::new(String::new()), None),
        ] {
            let throttle = impatient();
            let no = identify(&bad, "", address(), &keys, &throttle, NOW).await.unwrap_err();
            assert_eq!(no.refusal, TokenError::unexplained());
            assert_eq!(no.org.as_ref().map(OrgId::as_str), org);
            assert!(bad.expose().is_empty() || !no.why.contains(bad.expose()));
            assert_eq!(no.hold, Duration::from_secs(1), "a failure counts");
            whys.insert(no.why);
        }
        assert_eq!(whys.len(), 3, "{whys:?}");
    }

    #[tokio::test]
    async fn a_good_token_is_taken_at_once_however_often_others_of_its_address_fail() {
        let (keys, _control) = ring();
        let throttle = impatient();
        for seconds in [1, 2, 4, 4, 4] {
            let no = identify(&Token::new("guess".to_owned()), "", address(), &keys, &throttle, NOW).await.unwrap_err();
            assert_eq!((no.refusal, no.hold), (TokenError::unexplained(), Duration::from_secs(seconds)));
        }
        assert!(identify(&token(SECRET, NOW + 60), "", address(), &keys, &throttle, NOW).await.is_ok());
    }

    #[tokio::test]
    async fn a_flood_of_tokens_is_not_verified_and_one_that_is_known_does_not_wait_for_it() {
        let (keys, _control) = ring();
        let throttle = impatient();
        let (known, unknown) = (token(SECRET, NOW + 60), token(SECRET, NOW + 61));
        identify(&known, "", address(), &keys, &throttle, NOW).await.unwrap();
        while throttle.may_verify(address(), Duration::from_secs(NOW)).is_some() {}
        let no = identify(&unknown, "", address(), &keys, &throttle, NOW).await.unwrap_err();
        assert_eq!(no.refusal.kind(), Kind::TooManyConnections);
        assert!(identify(&known, "", address(), &keys, &throttle, NOW).await.is_ok());
        assert!(identify(&unknown, "", IpAddr::from([10, 0, 0, 2]), &keys, &throttle, NOW).await.is_ok());
    }

    #[tokio::test]
    async fn a_success_forgives_the_address() {
        let (keys, _control) = ring();
        let throttle = Throttle::new(ThrottleRules { free_failures: 1, ..ThrottleRules::default() });
        for _ in 0..3 {
            let no = identify(&Token::new("guess".to_owned()), "", address(), &keys, &throttle, NOW).await.unwrap_err();
            assert_eq!(no.hold, Duration::ZERO);
            identify(&token(SECRET, NOW + 60), "", address(), &keys, &throttle, NOW).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_token_of_an_unknown_key_waits_for_fresher_keys() {
        let claims = json!({ "org": "org_1", "exp": NOW + 60 });
        let signing = SigningKey::from_secret(SECRET).unwrap().named("rotated");
        let fresh = Token::new(signing.sign(&claims).unwrap());
        let old = b"the secret before it was rotated away";
        for (after, good) in [(SECRET, true), (&old[..], false)] {
            let (keys, mut control) = KeyRing::new(verifier(old));
            let throttle = impatient();
            let controlling = async {
                control.asked().await;
                let question = control.question().unwrap();
                control.replace(verifier(after));
                control.answer(question);
            };
            let (who, ()) = tokio::join!(identify(&fresh, "", address(), &keys, &throttle, NOW), controlling);
            assert_eq!(who.is_ok(), good);
            assert_eq!(who.map_err(|no| no.hold.is_zero()).err(), (!good).then_some(false));
        }
    }
}
