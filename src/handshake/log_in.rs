//! The decision about a client that has shown a token: whose it is, and whether that organization is admitted.

use std::time::Duration;

use tokio::time::timeout_at;

use crate::auth::{Identity, Throttle};
use crate::refusal::{Kind, Refusal};
use crate::tenant::{Directory, Tenant};

use super::greet::Login;
use super::identify::{NotAdmitted, identify};
use super::keyring::KeyRing;
use super::parameters::StartupParameters;

/// What logins are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Desk<'a> {
    /// The keys in force.
    pub keys: &'a KeyRing,
    /// Who has failed lately.
    pub throttle: &'a Throttle,
    /// The organizations.
    pub directory: &'a Directory,
}

/// Judges a login at `now` (Unix time, seconds): who it is, and what that organization is here.
///
/// Says nothing to the client: tell it the refusal with [`super::refuse`], and everybody else with
/// [`NotAdmitted::event`]. Comes back before the login's deadline; may be dropped at any time.
///
/// # Errors
/// The token is not accepted, the organization is not admitted, or the deadline is over.
pub async fn log_in(login: &Login, desk: Desk<'_>, now: u64) -> Result<(Identity, Tenant), NotAdmitted> {
    let database = login.parameters.database.as_deref().unwrap_or_default();
    let identifying = identify(&login.token, database, login.peer.ip(), desk.keys, desk.throttle, now);
    let Ok(identified) = timeout_at(login.deadline, identifying).await else { return Err(too_late()) };
    let identity = identified?;
    match admit(&identity, &login.parameters, desk.directory) {
        Ok(tenant) => Ok((identity, tenant)),
        Err(refusal) => {
            let why = refusal.message().into();
            Err(NotAdmitted { refusal, org: Some(identity.org().clone()), why, hold: Duration::ZERO })
        }
    }
}

/// libpq puts the user's name where no database was named, so that name counts as none.
fn admit(identity: &Identity, parameters: &StartupParameters, directory: &Directory) -> Result<Tenant, Refusal> {
    let database = parameters.database.as_deref().unwrap_or_default();
    match directory.admit(identity, database) {
        Err(refusal) if refusal.kind() == Kind::UnknownDatabase && database == parameters.user => {
            directory.admit(identity, "")
        }
        admitted => admitted,
    }
}

fn too_late() -> NotAdmitted {
    NotAdmitted {
        refusal: Refusal::new(Kind::LoginTimeout, "the login took too long"),
        org: None,
        why: "the token was not verified in time".into(),
        hold: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use serde_json::json;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use crate::auth::mint::SigningKey;
    use crate::auth::{KeySet, ThrottleRules, TokenRules, Verifier};
    use crate::config::{Config, Sources};
    use crate::handshake::Token;
    use crate::net::ClientStream;
    use crate::wire::startup::Protocol;

    const SECRET: &[u8] = b"a secret that is long enough for HS256";
    const NOW: u64 = 1_700_000_000;

    fn directory() -> Directory {
        let text = "[[auth.keys]]\ntype = \"hs256\"\nenv = \"KEY\"\n\
                    [[shards]]\nname = \"a\"\nhost = \"h\"\ndatabase = \"shop\"\nuser = \"u\"\n\
                    [organizations.org_2]\nstatus = \"suspended\"\n";
        let main = (PathBuf::from("partywall.toml"), text.to_owned());
        let config = Config::check(&Sources { main, tiers: None, guard: None });
        Directory::new(&config.unwrap_or_else(|faults| panic!("{faults}")))
    }

    fn keys(secret: &[u8]) -> (std::sync::Arc<KeyRing>, super::super::KeyRingControl) {
        let rules = TokenRules::default();
        KeyRing::new(Verifier::new(rules, KeySet::from_secret(secret).unwrap()))
    }

    async fn login(org: &str, database: Option<&str>) -> Login {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let claims = json!({ "org": org, "exp": NOW + 60 });
        let signing = SigningKey::from_secret(SECRET).unwrap().named("k1");
        Login {
            peer: stream.local_addr().unwrap(),
            stream: ClientStream::Tcp(stream),
            protocol: Protocol::V3_2,
            parameters: StartupParameters {
                user: "ada".to_owned(),
                database: database.map(str::to_owned),
                application_name: None,
                settings: vec![],
            },
            token: Token::new(signing.sign(&claims).unwrap()),
            deadline: Instant::now() + Duration::from_secs(30),
        }
    }

    async fn judged(login: &Login) -> Result<(Identity, Tenant), NotAdmitted> {
        let (keys, _control) = keys(SECRET);
        let throttle = Throttle::new(ThrottleRules::default());
        log_in(login, Desk { keys: &keys, throttle: &throttle, directory: &directory() }, NOW).await
    }

    #[tokio::test]
    async fn a_client_logs_in_to_its_own_organization_by_every_name_of_its_database() {
        // psql without a database asks for the user's name.
        for database in [None, Some("org_1"), Some("shop"), Some("ada")] {
            let (identity, tenant) = judged(&login("org_1", database).await).await.unwrap();
            assert_eq!((identity.org(), tenant.shard().as_str()), (tenant.org(), "a"));
        }
    }

    #[tokio::test]
    async fn a_database_of_somebody_else_is_refused_and_the_operator_learns_whose_client_it_was() {
        let no = judged(&login("org_1", Some("org_3")).await).await.unwrap_err();
        assert_eq!(no.refusal.kind(), Kind::UnknownDatabase);
        assert_eq!(no.org.unwrap().as_str(), "org_1");
    }

    #[tokio::test]
    async fn a_suspended_organization_is_refused_whatever_its_token_says() {
        let no = judged(&login("org_2", None).await).await.unwrap_err();
        assert_eq!(no.refusal.kind(), Kind::OrganizationSuspended);
        let event = no.event([10, 0, 0, 1].into());
        let crate::event::Event::LoginRefused { org, kind, .. } = event else { panic!("{event:?}") };
        assert_eq!((org.unwrap().as_str(), kind), ("org_2", Kind::OrganizationSuspended));
    }

    #[tokio::test]
    async fn waiting_for_keys_ends_with_the_login_deadline() {
        // Nobody answers the question for fresher keys, but the handle that could is there.
        let (keys, _control) = keys(b"a secret that signs for nobody in here");
        let mut login = login("org_1", None).await;
        login.deadline = Instant::now() + Duration::from_millis(20);
        let throttle = Throttle::new(ThrottleRules::default());
        let desk = Desk { keys: &keys, throttle: &throttle, directory: &directory() };
        assert_eq!(log_in(&login, desk, NOW).await.unwrap_err().refusal.kind(), Kind::LoginTimeout);
    }
}
