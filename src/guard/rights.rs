//! What a session may do: one set of relations for each verb, made from the roles and permissions of its token.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use super::settings::{TIER_LIMITS, TierLimits};
use crate::config::{GuardPolicy, Isolation, Right};

/// The relations that one verb reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Relations {
    /// None at all.
    #[default]
    None,
    /// Only these, named as permissions name them: `datasets` is `datasets` or `public.datasets`, `s.t` is `s.t`.
    Some(BTreeSet<Box<str>>),
    /// Every relation.
    All,
}

impl Relations {
    /// Whether a relation is among them, by the schema that the statement names (if it does) and its name.
    pub fn contains(&self, schema: Option<&str>, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => match schema {
                None => names.contains(name),
                Some(schema) => {
                    (schema == "public" && names.contains(name)) || names.contains(format!("{schema}.{name}").as_str())
                }
            },
        }
    }

    /// Whether no relation is among them.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn add(&mut self, relation: &str) {
        if relation == "*" {
            *self = Self::All;
            return;
        }
        match self {
            Self::All => {}
            Self::Some(names) => {
                names.insert(relation.into());
            }
            Self::None => *self = Self::Some(BTreeSet::from([relation.into()])),
        }
    }
}

/// What a session may do; the guard's second argument. The default is nothing at all, in tables shared with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    read: Relations,
    write: Relations,
    ddl: Relations,
    isolation: Isolation,
    limits: TierLimits,
    fingerprint: u64,
}

impl Rights {
    /// The union of what `roles` and `permissions` give by `policy`; its defaults where there are neither.
    ///
    /// A permission is `verb:relation`. The policy's entry of that very text gives its rights on that relation, and
    /// the entry `verb:*` gives its rights on the relation that the token names. One without a colon is for every
    /// relation.
    pub fn new<R: AsRef<str>, P: AsRef<str>>(policy: &GuardPolicy, roles: &[R], permissions: &[P]) -> Self {
        if roles.is_empty() && permissions.is_empty() {
            let mut rights = Self::default();
            rights.give(&policy.default_rights, "*");
            return rights.sealed();
        }
        Self::named(policy, roles, permissions)
    }

    /// The union of what `roles` and `permissions` give by `policy`; nothing where there are neither.
    pub(super) fn named<R: AsRef<str>, P: AsRef<str>>(policy: &GuardPolicy, roles: &[R], permissions: &[P]) -> Self {
        let mut rights = Self::default();
        for role in roles {
            if let Some(given) = policy.roles.get(role.as_ref()) {
                rights.give(given, "*");
            }
        }
        for permission in permissions {
            let permission = permission.as_ref();
            let (verb, relation) = permission.split_once(':').unwrap_or((permission, "*"));
            if relation.is_empty() {
                continue;
            }
            let whole = policy.permissions.get(permission);
            let any = policy.permissions.get(format!("{verb}:*").as_str());
            for given in whole.into_iter().chain(any) {
                rights.give(given, relation);
            }
        }
        rights.sealed()
    }

    /// The same rights where data is kept apart in this way. With shared tables (`Row`, the default) more is refused.
    pub fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self.sealed()
    }

    /// The same rights under a tier with these limits. Without them, no value is too great.
    pub fn with_limits(mut self, limits: TierLimits) -> Self {
        self.limits = limits;
        self.sealed()
    }

    /// The most that a setting may be, if its tier bounds it.
    pub(super) fn limit(&self, setting: &str) -> Option<u64> {
        let at = TIER_LIMITS.iter().position(|name| *name == setting)?;
        self.limits[at]
    }

    /// What may be read.
    pub fn read(&self) -> &Relations {
        &self.read
    }

    /// What may be written.
    pub fn write(&self) -> &Relations {
        &self.write
    }

    /// What may be defined anew.
    pub fn ddl(&self) -> &Relations {
        &self.ddl
    }

    /// Whether nothing may be written: such a session runs with `default_transaction_read_only` too.
    pub fn is_read_only(&self) -> bool {
        self.write.is_none()
    }

    /// Whether some verb reaches some relations but not all, so that names must mean what they say.
    pub fn is_restricted(&self) -> bool {
        [&self.read, &self.write, &self.ddl].into_iter().any(|verb| matches!(verb, Relations::Some(_)))
    }

    /// How data is kept apart.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether tables are shared with other organizations.
    pub fn shares_tables(&self) -> bool {
        match self.isolation {
            Isolation::Row => true,
            Isolation::Schema | Isolation::Database => false,
        }
    }

    /// Whether the database (its channels, its advisory locks) is shared with other organizations.
    pub fn shares_database(&self) -> bool {
        match self.isolation {
            Isolation::Row | Isolation::Schema => true,
            Isolation::Database => false,
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn give(&mut self, given: &[Right], relation: &str) {
        for right in given {
            match right {
                Right::Read => self.read.add(relation),
                Right::Write => self.write.add(relation),
                Right::Ddl => self.ddl.add(relation),
            }
        }
    }

    /// Takes the fingerprint that stands for these rights in the cache's key.
    fn sealed(mut self) -> Self {
        let mut hasher = ahash::AHasher::default();
        let shared = (self.shares_tables(), self.shares_database());
        (&self.read, &self.write, &self.ddl, shared, self.limits).hash(&mut hasher);
        self.fingerprint = hasher.finish();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn policy() -> GuardPolicy {
        let entry = |name: &str, rights: &[Right]| (name.to_owned(), rights.to_vec());
        GuardPolicy {
            roles: BTreeMap::from([
                entry("analyst", &[Right::Read]),
                entry("owner", &[Right::Read, Right::Write, Right::Ddl]),
            ]),
            permissions: BTreeMap::from([
                entry("read:*", &[Right::Read]),
                entry("write:*", &[Right::Read, Right::Write]),
                entry("load:events", &[Right::Write]),
            ]),
            default_rights: vec![Right::Read],
            ..GuardPolicy::default()
        }
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn roles_and_permissions_add_up() {
        let rights = Rights::new(&policy(), &["analyst"], &["write:datasets"]);
        assert_eq!(rights.read(), &Relations::All);
        assert!(rights.write().contains(None, "datasets"));
        assert!(rights.write().contains(Some("public"), "datasets"));
        assert!(!rights.write().contains(Some("other"), "datasets"));
        assert!(!rights.write().contains(None, "secrets"));
        assert!(rights.ddl().is_none());
    }

    #[test]
    fn a_token_without_roles_and_permissions_gets_the_defaults_and_only_then() {
        assert_eq!(Rights::new(&policy(), &NONE, &NONE).read(), &Relations::All);
        assert!(Rights::new(&policy(), &["nobody"], &NONE).read().is_none());
        assert!(Rights::new(&policy(), &NONE, &["fly:moon"]).read().is_none());
    }

    #[test]
    fn a_permission_of_its_own_text_reaches_its_relation_alone() {
        let rights = Rights::new(&policy(), &NONE, &["load:events"]);
        assert!(rights.write().contains(None, "events"));
        assert!(!rights.write().contains(None, "datasets"));
        assert!(Rights::new(&policy(), &NONE, &["load:datasets"]).write().is_none());
        assert!(Rights::new(&policy(), &NONE, &["read:"]).read().is_none());
        assert_eq!(Rights::new(&policy(), &NONE, &["read:*"]).read(), &Relations::All);
    }

    #[test]
    fn different_rights_have_different_fingerprints() {
        let read = Rights::new(&policy(), &["analyst"], &NONE);
        let own = Rights::new(&policy(), &["owner"], &NONE);
        assert_ne!(read.fingerprint(), own.fingerprint());
        assert_ne!(own.fingerprint(), own.clone().with_isolation(Isolation::Database).fingerprint());
        assert_ne!(own.fingerprint(), own.clone().with_limits([Some(1), None, None, None, None]).fingerprint());
        assert_eq!(read.fingerprint(), Rights::new(&policy(), &["analyst"], &["x"]).fingerprint());
    }
}
