//! Whether a server that let us in may be served: the login role has to be one that the database's walls hold.

use crate::wire::server_login::{self, LoginReply};

use super::error::{ConnectFault, Unfit};
use super::login::{Conversation, IDLE, out_of_turn};
use super::settings::UNSENDABLE_SETTINGS;

/// The oldest server that is served.
const SERVER_VERSION_NUM_MIN: u32 = 130_000;

/// Settings with the one value that the walls need. The first five are sent at start-up and looked at again, in case
/// something between us and the server dropped them; the last two only a superuser can set.
const WANTED: [(&str, &str); 7] = [
    ("row_security", "on"),
    ("standard_conforming_strings", "on"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("search_path", "\"$user\", public"),
    // `replica`, and triggers and foreign keys are not looked at.
    ("session_replication_role", "origin"),
    // On, and large objects have no owner.
    ("lo_compat_privileges", "off"),
];

/// What the judge found worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) server_version_num: u32,
    pub(super) in_recovery: bool,
    pub(super) private_locks: bool,
}

/// Whether the advisory locks that are each organization's own are there (policies/sql/advisory.sql).
const PRIVATE_LOCKS: &str = "EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n \
     ON n.oid = p.pronamespace WHERE n.nspname = 'partywall_locks' AND p.proname = 'held' \
     AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))";

/// A row of the answer.
pub(super) type Answer = Vec<Option<String>>;

/// One simple query; everything in it is named with its schema, as the database is not trusted yet.
fn question() -> String {
    let settings = WANTED.map(|(name, _)| format!(", pg_catalog.current_setting('{name}')")).concat();
    let unsendable = UNSENDABLE_SETTINGS.map(|name| format!("'{name}'")).join(", ");
    format!(
        "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
         session_user = current_user, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication, \
         (SELECT g.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid \
          WHERE m.member = r.oid LIMIT 1), \
         (SELECT s.name FROM pg_catalog.pg_settings s WHERE s.name IN ({unsendable}) \
          AND s.source IN ('database', 'user', 'database user') LIMIT 1){settings}, {PRIVATE_LOCKS} \
         FROM pg_catalog.pg_roles r WHERE r.rolname = session_user"
    )
}

/// Asks, and reads the answer up to ReadyForQuery.
pub(super) async fn ask(mut conversation: Conversation) -> Result<(Conversation, Answer), ConnectFault> {
    let query = server_login::query(&question()).map_err(|error| ConnectFault::Internal(error.to_string()))?;
    conversation.send(&query).await?;
    let mut answer = None;
    loop {
        match conversation.receive().await? {
            LoginReply::Row(row) if answer.is_none() => answer = Some(row),
            LoginReply::Ready(IDLE) => break,
            _ => return Err(out_of_turn()),
        }
    }
    Ok((conversation, answer.ok_or(ConnectFault::Unfit(Unfit::Unreadable))?))
}

/// Judges the answer; whatever cannot be read is not fit.
pub(super) fn judge(answer: &Answer) -> Result<Facts, ConnectFault> {
    read(answer).unwrap_or(Err(Unfit::Unreadable)).map_err(ConnectFault::Unfit)
}

/// What there is to know where the role need not be fit.
pub(super) fn facts_only(answer: &Answer) -> Result<Facts, ConnectFault> {
    let column = |at: usize| answer.get(at).and_then(Option::as_deref);
    let version = column(0).and_then(|version| version.parse().ok());
    let (Some(server_version_num), Some(in_recovery)) = (version, truth(column(1))) else {
        return Err(ConnectFault::Unfit(Unfit::Unreadable));
    };
    Ok(Facts { server_version_num, in_recovery, private_locks: false })
}

/// `None` if the answer does not have the form of the question.
fn read(answer: &Answer) -> Option<Result<Facts, Unfit>> {
    let columns: Vec<Option<&str>> = answer.iter().map(Option::as_deref).collect();
    let (head, settings) = columns.split_first_chunk::<10>()?;
    let (private_locks, settings) = settings.split_last()?;
    if settings.len() != WANTED.len() {
        return None;
    }
    let [version, recovery, same_user, flags @ .., member, role_setting] = *head;
    let server_version_num = version?.parse().ok()?;
    if server_version_num < SERVER_VERSION_NUM_MIN {
        return Some(Err(Unfit::Version(server_version_num / 10_000)));
    }
    if !truth(same_user)? {
        return Some(Err(Unfit::OtherUser));
    }
    let faults = [Unfit::Superuser, Unfit::BypassRls, Unfit::CreateRole, Unfit::CreateDb, Unfit::Replication];
    for (flag, fault) in flags.into_iter().zip(faults) {
        if truth(flag)? {
            return Some(Err(fault));
        }
    }
    if let Some(role) = member {
        return Some(Err(Unfit::Member(role.to_owned())));
    }
    if let Some(name) = role_setting {
        return Some(Err(Unfit::RoleSetting(name.to_owned())));
    }
    for ((name, wanted), value) in WANTED.into_iter().zip(settings) {
        let value = (*value)?;
        if value != wanted {
            return Some(Err(Unfit::Setting { name, value: value.to_owned(), wanted }));
        }
    }
    let private_locks = truth(*private_locks)?;
    Some(Ok(Facts { server_version_num, in_recovery: truth(recovery)?, private_locks }))
}

/// A boolean as text.
fn truth(value: Option<&str>) -> Option<bool> {
    match value? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Answer {
        let head = ["150013", "f", "t", "f", "f", "f", "f", "f"].map(|text| Some(text.to_owned()));
        let settings = WANTED.map(|(_, wanted)| Some(wanted.to_owned()));
        head.into_iter().chain([None, None]).chain(settings).chain([Some("t".to_owned())]).collect()
    }

    fn with(column: usize, value: Option<&str>) -> Option<Result<Facts, Unfit>> {
        let mut answer = good();
        answer[column] = value.map(str::to_owned);
        read(&answer)
    }

    #[test]
    fn every_fact_about_the_login_role_counts() {
        let facts = Facts { server_version_num: 150_013, in_recovery: false, private_locks: true };
        assert_eq!(read(&good()), Some(Ok(facts)));
        assert_eq!(with(10 + WANTED.len(), Some("f")), Some(Ok(Facts { private_locks: false, ..facts })));
        assert_eq!(with(0, Some("120022")), Some(Err(Unfit::Version(12))));
        assert_eq!(with(1, Some("t")), Some(Ok(Facts { in_recovery: true, ..facts })));
        assert_eq!(with(2, Some("f")), Some(Err(Unfit::OtherUser)));
        assert_eq!(with(3, Some("t")), Some(Err(Unfit::Superuser)));
        assert_eq!(with(4, Some("t")), Some(Err(Unfit::BypassRls)));
        assert_eq!(with(5, Some("t")), Some(Err(Unfit::CreateRole)));
        assert_eq!(with(6, Some("t")), Some(Err(Unfit::CreateDb)));
        assert_eq!(with(7, Some("t")), Some(Err(Unfit::Replication)));
        assert_eq!(with(8, Some("boss")), Some(Err(Unfit::Member("boss".to_owned()))));
        let timeout = "idle_session_timeout";
        assert_eq!(with(9, Some(timeout)), Some(Err(Unfit::RoleSetting(timeout.to_owned()))));
        for (number, (name, wanted)) in WANTED.into_iter().enumerate() {
            let value = "poison".to_owned();
            assert_eq!(with(10 + number, Some("poison")), Some(Err(Unfit::Setting { name, value, wanted })));
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_fit() {
        for column in (0..8).chain(10..=10 + WANTED.len()) {
            assert_eq!(with(column, None), None, "column {column}");
        }
        for column in 0..8 {
            assert_eq!(with(column, Some("perhaps")), None, "column {column}");
        }
        let mut short = good();
        short.pop();
        assert_eq!(read(&short), None);
        assert_eq!(read(&Vec::new()), None);
        assert!(matches!(judge(&short), Err(ConnectFault::Unfit(Unfit::Unreadable))));
    }
}
