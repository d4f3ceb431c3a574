//! The SQL of `policies/sql`, as it stands in the program, in the order in which it is run.

/// One file of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name in `policies/sql`.
    pub name: &'static str,
    /// Its text: statements for one session, safe to repeat.
    pub sql: &'static str,
}

/// The plain form: roles, the context from ordinary settings, `partywall.protect(…)` and `partywall.status()`. For a superuser (or a role with
/// CREATEROLE that owns the database), in each database that holds organizations.
pub const PLAIN: [PolicyFile; 4] = [
    PolicyFile { name: "roles.sql", sql: include_str!("../../policies/sql/roles.sql") },
    PolicyFile { name: "context_plain.sql", sql: include_str!("../../policies/sql/context_plain.sql") },
    PolicyFile { name: "protect.sql", sql: include_str!("../../policies/sql/protect.sql") },
    PolicyFile { name: "status.sql", sql: include_str!("../../policies/sql/status.sql") },
];
