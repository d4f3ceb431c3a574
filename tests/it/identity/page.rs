//! Holds `docs/identity.md`: each recipe's token, signed with a key of ours, gives the session that the page shows.

use std::path::PathBuf;

use partywall::auth::mint::SigningKey;
use partywall::auth::{Identity, KeySet, TokenError, TokenFault, TokenRules, Verifier};
use partywall::config::{Config, KeySource, Sources};
use partywall::tenant::Directory;
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/identity.md");
const SECRET: &[u8] = b"the key that stands in for each provider's own";
const SHARD: &str = "\n[[shards]]\nname = \"a\"\nhost = \"h\"\ndatabase = \"app\"\nuser = \"u\"\n";

/// The providers that the page must have.
const PROVIDERS: [&str; 14] = [
    "Auth0",
    "Keycloak",
    "Entra ID",
    "Cognito",
    "Google",
    "Okta",
    "Zitadel",
    "Supabase",
    "Clerk",
    "WorkOS",
    "Firebase",
    "Casdoor",
    "Kubernetes service accounts",
    "GitHub Actions",
];

struct Recipe {
    provider: &'static str,
    config: Config,
    claims: Value,
    session: Vec<&'static str>,
}

/// The text of the first block of that language.
fn block(section: &'static str, language: &str) -> &'static str {
    let (_, rest) =
        section.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language}: {section}"));
    rest.split_once("```").expect("an end").0
}

fn recipes() -> Vec<Recipe> {
    let sections = PAGE.split("\n## ").skip(1);
    let recipe = |section: &'static str| {
        let provider = section.lines().next().expect("a title");
        let main = (PathBuf::from("partywall.toml"), format!("{}{SHARD}", block(section, "toml")));
        let config = Config::check(&Sources { main, tiers: None, guard: None });
        Recipe {
            provider,
            config: config.unwrap_or_else(|faults| panic!("{provider}: {faults}")),
            claims: serde_json::from_str(block(section, "json")).unwrap_or_else(|error| panic!("{provider}: {error}")),
            session: block(section, "text").lines().collect(),
        }
    };
    sections.map(recipe).collect()
}

impl Recipe {
    /// Judges these claims as the configuration says, with our key in the place of the provider's.
    fn judge(&self, claims: &Value) -> Result<Identity, TokenError> {
        let token = SigningKey::from_secret(SECRET).expect("a key").sign(claims).expect("a token");
        let keys = KeySet::from_secret(SECRET).expect("a key");
        let keys = KeySet::join_bound(self.config.auth.keys.iter().map(|source| (&keys, &source.bounds)));
        let now = self.claims["iat"].as_u64().expect("iat") + 10;
        Verifier::new(TokenRules::from(&self.config.auth), keys).verify(&token, now)
    }

    fn fault_with(&self, name: &str, value: Value) -> Option<TokenFault> {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.judge(&claims).err().map(|error| error.fault())
    }
}

/// The session, in the words of `partywall token inspect`.
fn session(identity: &Identity, org: &str) -> Vec<String> {
    let mut lines = vec![format!("organization  {org}")];
    let mut line = |name: &str, value: Option<String>| lines.extend(value.map(|value| format!("{name:<14}{value}")));
    let listed = |names: &[Box<str>]| {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    line("user", identity.user().map(ToString::to_string));
    line("project", identity.project().map(str::to_owned));
    line("roles", listed(identity.roles()));
    line("permissions", listed(identity.permissions()));
    line("tier", identity.tier().map(ToString::to_string));
    line("left out", identity.left_out().first().map(ToString::to_string));
    lines
}

#[test]
fn every_recipe_of_the_page_gives_the_session_that_it_shows() {
    let recipes = recipes();
    assert_eq!(recipes.iter().map(|recipe| recipe.provider).collect::<Vec<_>>(), PROVIDERS);
    for recipe in recipes {
        let identity = recipe.judge(&recipe.claims).unwrap_or_else(|error| panic!("{}: {error}", recipe.provider));
        let tenant = Directory::new(&recipe.config).admit(&identity, "");
        let tenant = tenant.unwrap_or_else(|refusal| panic!("{}: {}", recipe.provider, refusal.message()));
        assert_eq!(session(&identity, tenant.org().as_str()), recipe.session, "{}", recipe.provider);
    }
}

#[test]
fn every_recipe_refuses_another_issuer_and_another_audience() {
    for recipe in recipes() {
        let provider = recipe.provider;
        let other = recipe.fault_with("iss", "https://evil.example".into());
        assert_eq!(other, Some(TokenFault::Issuer), "{provider}");
        // WorkOS has none; where a token has no `aud`, the client that it was issued to is asked for.
        if provider != "WorkOS" {
            assert_eq!(recipe.fault_with("aud", "another".into()), Some(TokenFault::Audience), "{provider}");
            for name in ["client_id", "azp"]
                .into_iter()
                .filter(|name| recipe.claims.get("aud").is_none() && recipe.claims.get(*name).is_some())
            {
                assert_eq!(recipe.fault_with(name, "another".into()), Some(TokenFault::Audience), "{provider}");
            }
        }
    }
}

#[test]
fn recipes_of_issuers_that_anybody_can_use_are_bound_to_organizations() {
    for recipe in recipes() {
        let claim = match recipe.provider {
            "Entra ID" => "tid",
            "Google" => "hd",
            "GitHub Actions" => "repository_owner",
            _ => continue,
        };
        let other = if claim == "tid" { "00000000-0000-4000-8000-000000000000" } else { "somebody-else" };
        assert_eq!(
            recipe.fault_with(claim, other.into()),
            Some(TokenFault::ForeignOrganization),
            "{}",
            recipe.provider
        );
    }
}

#[test]
fn keys_are_found_by_the_issuer_wherever_the_recipe_names_no_place() {
    let places = ["Supabase", "WorkOS", "Kubernetes service accounts"];
    for recipe in recipes() {
        let found = recipe.config.auth.keys.iter().all(|keys| matches!(keys.from, KeySource::Issuer { .. }));
        assert_eq!(found, !places.contains(&recipe.provider), "{}", recipe.provider);
    }
}
