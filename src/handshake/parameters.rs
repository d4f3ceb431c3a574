//! Start-up parameters, sorted: who and where to, what the session wants set, and what nobody may set.
//!
//! PostgreSQL manual, StartupMessage: `user`, `database`, `options`, `replication`; every other name is a setting.

use crate::config::ContextNames;
use crate::refusal::{Kind, Refusal};

use super::options;

/// As Postgres cuts it (NAMEDATALEN - 1).
const APPLICATION_NAME_BYTES_MAX: usize = 63;
const SETTINGS_MAX: usize = 64;

/// Settings that no session has to itself. The guard judges every other one, and its value, once it knows who asks.
const NEVER: [&str; 11] = [
    "role",
    "session_authorization",
    "is_superuser",
    "session_replication_role",
    "local_preload_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
    "dynamic_library_path",
    "allow_system_table_mods",
    "backslash_quote",
    "exit_on_error",
];
/// Settings that are on, and stay on.
const ALWAYS_ON: [&str; 2] = ["row_security", "standard_conforming_strings"];
const OWN_PREFIXES: [&str; 2] = ["app.", "partywall."];

/// What a client asked for at start-up. Nothing of it is proven: `user` is a label until a token says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupParameters {
    /// The `user`: a label only.
    pub user: String,
    /// The `database`, if one was named.
    pub database: Option<String>,
    /// The `application_name`: printable ASCII, at most 63 bytes.
    pub application_name: Option<String>,
    /// The session's own settings: names in lower case, each once, in the order first asked for. `client_encoding` is
    /// not among them (it is UTF8 for everybody), nor is `application_name`.
    pub settings: Vec<(String, String)>,
}

/// The settings that no client may set: the wall's own, and all that stand beside the tenant's context.
#[derive(Debug, Clone)]
pub struct Reserved {
    prefixes: Vec<String>,
}

impl Reserved {
    /// The wall's own settings, and the prefixes under which the configuration has put the context.
    pub fn new(names: &ContextNames) -> Self {
        let ContextNames { organization, user, project, roles, permissions, form: _, seal_key: _ } = names;
        let prefix = |name: &str| format!("{}.", name.split('.').next().unwrap_or(name).to_ascii_lowercase());
        let mut prefixes: Vec<_> = [organization, user, project, roles, permissions].map(|name| prefix(name)).into();
        prefixes.extend(OWN_PREFIXES.map(str::to_owned));
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { prefixes }
    }

    fn holds(&self, name: &str) -> bool {
        NEVER.contains(&name) || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

impl StartupParameters {
    /// Sorts the parameters of a StartupMessage. Where a name stands twice, the last one counts, as in Postgres.
    pub(super) fn sort(parameters: Vec<(String, String)>, reserved: &Reserved) -> Result<Self, Refusal> {
        let mut sorted = Self { user: String::new(), database: None, application_name: None, settings: Vec::new() };
        let mut settings = Vec::new();
        let mut from_options = Vec::new();
        for (name, value) in parameters {
            match name.as_str() {
                "user" => sorted.user = value,
                "database" => sorted.database = Some(value).filter(|name| !name.is_empty()),
                "options" => from_options = options::settings(&value)?,
                "replication" => refuse_replication(&value)?,
                _ => settings.push((name, value)),
            }
        }
        if sorted.user.is_empty() {
            return Err(Refusal::new(Kind::UserMissing, "no PostgreSQL user name specified in startup packet"));
        }
        // Postgres takes the switches first, then the parameters.
        for (name, value) in from_options.into_iter().chain(settings) {
            sorted.set(&name, value, reserved)?;
        }
        Ok(sorted)
    }

    fn set(&mut self, name: &str, value: String, reserved: &Reserved) -> Result<(), Refusal> {
        let name = name.to_ascii_lowercase();
        if !is_setting_name(&name) {
            return Err(Refusal::new(
                Kind::InvalidParameter,
                "a start-up parameter has a name that no setting can have",
            ));
        }
        let always_on = ALWAYS_ON.contains(&name.as_str());
        if always_on && value.eq_ignore_ascii_case("on") {
            return Ok(());
        }
        if always_on || reserved.holds(&name) {
            let words = format!("permission denied to set parameter \"{name}\"");
            return Err(Refusal::new(Kind::Forbidden, words).fatal());
        }
        match name.as_str() {
            "client_encoding" => return accept_encoding(&value),
            "application_name" => self.application_name = Some(printable(&value)),
            _ => match self.settings.iter().position(|(known, _)| *known == name) {
                Some(known) => self.settings[known].1 = value,
                None if self.settings.len() == SETTINGS_MAX => {
                    return Err(Refusal::new(Kind::InvalidParameter, "too many settings at start-up"));
                }
                None => self.settings.push((name, value)),
            },
        }
        Ok(())
    }
}

/// Postgres takes a boolean here, or `database`; all that asks for replication is refused.
fn refuse_replication(value: &str) -> Result<(), Refusal> {
    if ["false", "off", "no", "0", "f", "n"].contains(&value.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let words = "replication connections are not supported through the proxy";
    Err(Refusal::new(Kind::NotSupported, words).fatal())
}

/// The guard and the server must read a statement alike, so text is UTF-8 on both sides.
///
/// Names are compared as Postgres does: letters and digits only, so asyncpg's `'utf-8'` with its quotes is one. SQL_ASCII
/// means bytes as they are, which is what UTF-8 text is on its way through; psql asks for it in the locale C.
fn accept_encoding(value: &str) -> Result<(), Refusal> {
    let plain: String =
        value.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    if ["utf8", "unicode", "sqlascii"].contains(&plain.as_str()) {
        return Ok(());
    }
    Err(Refusal::new(Kind::NotSupported, "client encodings other than UTF8 are not supported through the proxy")
        .with_hint("Set client_encoding to UTF8 (for libpq programs: PGCLIENTENCODING=UTF8).")
        .fatal())
}

/// What the grammar takes as a name after SET: identifiers joined by dots.
fn is_setting_name(name: &str) -> bool {
    name.split('.').all(|part| {
        let starts = part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        starts && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '$')
    })
}

fn printable(name: &str) -> String {
    let plain = name.chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '?' });
    plain.take(APPLICATION_NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(parameters: &[(&str, &str)]) -> Result<StartupParameters, Refusal> {
        let mut all = vec![("user".to_owned(), "ada".to_owned())];
        all.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        StartupParameters::sort(all, &reserved())
    }

    fn reserved() -> Reserved {
        Reserved::new(&ContextNames { organization: "acme.Current_Org".to_owned(), ..ContextNames::default() })
    }

    fn settings(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        sort(parameters).unwrap().settings
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn parameters_are_sorted_by_what_they_mean() {
        let sorted = sort(&[
            ("database", "shop"),
            ("application_name", "tills"),
            ("DateStyle", "ISO"),
            ("options", "-c statement_timeout=5s --search-path=a,b"),
            ("client_encoding", "UTF8"),
        ]);
        let wanted = StartupParameters {
            user: "ada".to_owned(),
            database: Some("shop".to_owned()),
            application_name: Some("tills".to_owned()),
            settings: vec![pair("statement_timeout", "5s"), pair("search_path", "a,b"), pair("datestyle", "ISO")],
        };
        assert_eq!(sorted, Ok(wanted));
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_counts_and_parameters_beat_options() {
        assert_eq!(settings(&[("jit", "on"), ("JIT", "off"), ("options", "-c jit=x")]), [pair("jit", "off")]);
        assert_eq!(sort(&[("user", "bob")]).unwrap().user, "bob");
    }

    #[test]
    fn a_client_without_a_user_is_refused() {
        for parameters in [vec![], vec![pair("user", "")], vec![pair("database", "x")]] {
            let refusal = StartupParameters::sort(parameters, &reserved()).unwrap_err();
            assert_eq!(refusal.kind(), Kind::UserMissing);
        }
    }

    #[test]
    fn an_empty_database_is_none() {
        assert_eq!(sort(&[("database", "")]).unwrap().database, None);
    }

    #[test]
    fn replication_is_refused_and_its_absence_is_not() {
        for asks in ["true", "on", "database", "1", "yes", "", "x"] {
            let refusal = sort(&[("replication", asks)]).unwrap_err();
            assert_eq!((refusal.kind(), refusal.is_fatal()), (Kind::NotSupported, true), "{asks}");
        }
        for declines in ["false", "off", "0", "NO"] {
            assert_eq!(settings(&[("replication", declines)]), []);
        }
    }

    #[test]
    fn what_belongs_to_the_wall_cannot_be_set_however_it_is_spelled() {
        let names = ["app.current_org_id", "app.x", "partywall.seal", "acme.current_org", "acme.other"];
        for name in NEVER.into_iter().chain(ALWAYS_ON).chain(names) {
            for parameters in [
                [(name, "x"), ("jit", "on")],
                [(&*name.to_ascii_uppercase(), "x"), ("jit", "on")],
                [("options", &*format!("-c {name}=x")), ("jit", "on")],
                [("options", &*format!(r"-c {}", name.replace('_', r"\-") + "=x")), ("jit", "on")],
            ] {
                let refusal = sort(&parameters).unwrap_err();
                assert_eq!((refusal.kind(), refusal.is_fatal()), (Kind::Forbidden, true), "{parameters:?}");
            }
        }
    }

    #[test]
    fn a_setting_that_stays_on_may_be_set_to_on() {
        for name in ALWAYS_ON {
            assert_eq!(settings(&[(name, "ON")]), []);
            assert_eq!(sort(&[(name, "off")]).unwrap_err().kind(), Kind::Forbidden);
        }
    }

    #[test]
    fn a_name_that_is_no_setting_is_refused() {
        for name in ["a b", "a'", "a;b", "1a", "a.", ".a", "ä", "a\"b\"", "a-b"] {
            assert_eq!(sort(&[(name, "x")]).unwrap_err().kind(), Kind::InvalidParameter, "{name}");
        }
        assert_eq!(settings(&[("my_ext.some$thing", "x")]), [pair("my_ext.some$thing", "x")]);
    }

    #[test]
    fn text_is_utf8_by_whatever_name() {
        for name in ["UTF8", "utf-8", "'utf-8'", "Unicode", "SQL_ASCII", "\"UTF8\""] {
            assert_eq!(settings(&[("client_encoding", name)]), [], "{name}");
        }
        for name in ["LATIN1", "SJIS", "", "utf16"] {
            let refusal = sort(&[("client_encoding", name)]).unwrap_err();
            assert_eq!((refusal.kind(), refusal.is_fatal()), (Kind::NotSupported, true), "{name}");
        }
        assert!(sort(&[("options", "-c client_encoding=LATIN1")]).is_err());
    }

    #[test]
    fn an_application_name_is_printable_and_short() {
        let name = |given: &str| sort(&[("application_name", given)]).unwrap().application_name.unwrap();
        assert_eq!(name("ti\nlls ä"), "ti?lls ?");
        assert_eq!(name(&"x".repeat(100)).len(), APPLICATION_NAME_BYTES_MAX);
    }

    #[test]
    fn settings_are_bounded_in_number() {
        let options: String = (0..=SETTINGS_MAX).map(|number| format!("-c x.a{number}=1 ")).collect();
        assert_eq!(sort(&[("options", &options)]).unwrap_err().kind(), Kind::InvalidParameter);
    }
}
