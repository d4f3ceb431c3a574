//! What a verdict says: classes, relations, changes of the session, what is left behind.

use super::*;

#[test]
fn a_verdict_is_remembered_for_its_rights_alone() {
    let guard = guard();
    let (owner, analyst) = (rights(&guard, "owner"), rights(&guard, "analyst"));
    let first = guard.judge("INSERT INTO t VALUES (1)", &owner).unwrap();
    assert!(Arc::ptr_eq(&first, &guard.judge("INSERT INTO t VALUES (1)", &owner).unwrap()));
    assert_eq!(guard.judge("INSERT INTO t VALUES (1)", &analyst).unwrap_err().kind(), Kind::ReadOnly);
    assert!(guard.judge("SELECT pg_reload_conf()", &owner).is_err());
    assert!(guard.judge(&format!("SELECT '{}'", "x".repeat(17 << 10)), &owner).is_ok());
    assert_eq!(guard.cache.len(), 1);
}
