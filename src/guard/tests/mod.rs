//! The guard, tried through its face: as an attacker, as honest clients, and for what a verdict says.

mod attacks;
mod bounds;
mod effects;
mod fold;
mod honest;
mod permissions;
mod tree;

use std::sync::Arc;

use super::{Guard, Rights, Verdict};
use crate::config::{GuardPolicy, Isolation, Right};
use crate::refusal::{Kind, Refusal};

pub(super) const CONTEXT: [&str; 5] = [
    "app.current_org_id",
    "app.current_user_id",
    "app.current_project_id",
    "app.current_roles",
    "app.current_permissions",
];

pub(super) fn guard() -> Guard {
    guard_of(1 << 20)
}

/// A guard that reads texts of so many bytes.
pub(super) fn guard_of(statement_bytes_max: usize) -> Guard {
    let role = |name: &str, rights: &[Right]| (name.to_owned(), rights.to_vec());
    let policy = GuardPolicy {
        roles: [
            role("analyst", &[Right::Read]),
            role("developer", &[Right::Read, Right::Write]),
            role("owner", &[Right::Read, Right::Write, Right::Ddl]),
        ]
        .into(),
        permissions: [role("read:*", &[Right::Read]), role("write:*", &[Right::Read, Right::Write])].into(),
        default_rights: vec![Right::Read],
        ..GuardPolicy::default()
    };
    Guard::new(&policy, &CONTEXT.map(str::to_owned), statement_bytes_max)
}

pub(super) fn rights(guard: &Guard, role: &str) -> Rights {
    guard.rights(&[role], &[] as &[&str])
}

/// What the owner of shared tables hears.
pub(super) fn judge(sql: &str) -> Result<Arc<Verdict>, Refusal> {
    let guard = guard();
    guard.judge(sql, &rights(&guard, "owner"))
}

/// What the owner of a database of its own hears.
pub(super) fn judge_alone(sql: &str) -> Result<Arc<Verdict>, Refusal> {
    let guard = guard();
    guard.judge(sql, &rights(&guard, "owner").with_isolation(Isolation::Database))
}

/// What a session hears whose permissions name relations.
pub(super) fn judge_permitted(permissions: &[&str], sql: &str) -> Result<Arc<Verdict>, Refusal> {
    let guard = guard();
    guard.judge(sql, &guard.rights(&[] as &[&str], permissions))
}

pub(super) fn allowed(sql: &str) -> Arc<Verdict> {
    judge(sql).unwrap_or_else(|refusal| panic!("{sql}\n{refusal}"))
}

pub(super) fn kind(answer: Result<Arc<Verdict>, Refusal>, sql: &str) -> Kind {
    match answer {
        Ok(_) => panic!("was allowed: {sql}"),
        Err(refusal) => refusal.kind(),
    }
}
