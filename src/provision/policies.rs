//! The SQL of `policies/sql`, as it stands in the program, in the order in which it is run.

use crate::context::seal::Form;

/// One file of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name in `policies/sql`.
    pub name: &'static str,
    /// Its text: statements for one session, safe to repeat.
    pub sql: &'static str,
    /// What it does, in a few words.
    pub purpose: &'static str,
}

macro_rules! file {
    ($name:literal, $purpose:literal) => {
        PolicyFile { name: $name, sql: include_str!(concat!("../../policies/sql/", $name)), purpose: $purpose }
    };
}

const ROLES: PolicyFile = file!("roles.sql", "an owner for the schema, and a shared login role that owns nothing");
const SEAL_KEYS: PolicyFile = file!("seal_keys.sql", "a place for the keys under whose seal a context is believed");
const CONTEXT_PLAIN: PolicyFile = file!("context_plain.sql", "the context, read from ordinary settings");
const CONTEXT_GUARDED: PolicyFile =
    file!("context_guarded.sql", "the context, in a setting that the shared role cannot write");
const CONTEXT_SEALED: PolicyFile = file!("context_sealed.sql", "the context, believed only under the proxy's seal");
const PROTECT: PolicyFile = file!("protect.sql", "partywall.protect('schema.table', 'org_id')");
const STATUS: PolicyFile = file!("status.sql", "partywall.status(): what holds and what does not");

/// Advisory locks that are each organization's own.
pub const ADVISORY: PolicyFile = file!("advisory.sql", "advisory locks that are each organization's own");
/// A place into which COPY FROM may load rows for a protected table.
pub const STAGING: PolicyFile =
    file!("staging.sql", "a place into which COPY FROM may load rows for a protected table");
/// The audited path of people who may see every organization.
pub const ADMIN: PolicyFile = file!("admin.sql", "an audited path for people who may see every organization");
/// Takes from the shared role what it does not need.
pub const HARDENING: PolicyFile = file!("hardening.sql", "takes from the shared role what it does not need");
/// Gives back what [`HARDENING`] took from everybody, before a major upgrade.
pub const UNHARDEN: PolicyFile = file!("unharden.sql", "gives back what hardening took, before a major upgrade");

/// The plain form: roles, the context from ordinary settings, `partywall.protect(…)` and `partywall.status()`. For a superuser (or a role with
/// CREATEROLE that owns the database), in each database that holds organizations.
pub const PLAIN: [PolicyFile; 4] = [ROLES, CONTEXT_PLAIN, PROTECT, STATUS];

/// The guarded form, for a superuser; the keys have to be put in afterwards.
pub const GUARDED: [PolicyFile; 5] = [ROLES, SEAL_KEYS, CONTEXT_GUARDED, PROTECT, STATUS];

/// The sealed form; the keys have to be put in afterwards.
pub const SEALED: [PolicyFile; 5] = [ROLES, SEAL_KEYS, CONTEXT_SEALED, PROTECT, STATUS];

/// The files that install `form`, in their order.
pub fn of_form(form: Form) -> &'static [PolicyFile] {
    match form {
        Form::Plain => &PLAIN,
        Form::Guarded => &GUARDED,
        Form::Sealed => &SEALED,
    }
}

/// The statements that make `keys` the only ones that the database believes; not to be logged.
pub fn keys_sql(keys: &[crate::context::seal::ShardKey]) -> String {
    let mut sql = String::new();
    for key in keys {
        sql.push_str(&format!(
            "SELECT partywall.set_key({}::smallint, pg_catalog.decode('{}', 'hex'));",
            key.id(),
            key.expose_hex()
        ));
    }
    let kept: Vec<String> = keys.iter().map(|key| key.id().to_string()).collect();
    sql.push_str(&format!("SELECT partywall.retire_keys(ARRAY[{}]::smallint[]);", kept.join(",")));
    sql
}
