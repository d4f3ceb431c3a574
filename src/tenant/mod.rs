//! Which organization is this, and where does it live? A snapshot of the directory, judged without looking anywhere.
//!
//! What this room does not do: verify the token (`auth`), count connections (`limits`), connect (`pool`).

mod placement;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::auth::Identity;
use crate::config::{Config, Isolation, Organization, PoolMode, Status, Tier, Tiers, UnknownOrganizations};
use crate::ids::{OrgId, OrgIdType, ShardName, TierName};
use crate::refusal::{Kind, Refusal};

use placement::Placement;

/// The organizations, tiers and shards of one configuration; replaced whole when it changes.
#[derive(Debug)]
pub struct Directory {
    organizations: BTreeMap<OrgId, Organization>,
    organization_type: OrgIdType,
    /// The named organizations, by what all spellings of theirs have in common.
    spellings: HashMap<String, OrgId>,
    unknown: UnknownOrganizations,
    pool_mode: PoolMode,
    tiers: Tiers,
    placement: Placement,
    databases: HashMap<ShardName, String>,
}

/// An admitted organization: what it may use, and where it lives. Only a [`Directory`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    org: OrgId,
    tier: Arc<Tier>,
    shard: ShardName,
    isolation: Isolation,
    pool_mode: PoolMode,
}

impl Tenant {
    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// What it may use.
    pub fn tier(&self) -> &Arc<Tier> {
        &self.tier
    }

    /// Where it lives.
    pub fn shard(&self) -> &ShardName {
        &self.shard
    }

    /// How it is kept apart there.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// When its server connections return to the pool.
    pub fn pool_mode(&self) -> PoolMode {
        self.pool_mode
    }
}

impl Directory {
    /// The directory that `config` describes.
    pub fn new(config: &Config) -> Self {
        let organization_type = config.auth.organization_type;
        let spelling = |org: &OrgId| (org.spelling_key(organization_type), org.clone());
        Self {
            organization_type,
            spellings: config.organizations.keys().map(spelling).collect(),
            organizations: config.organizations.clone(),
            unknown: config.directory.unknown_organizations,
            pool_mode: config.pool.mode,
            tiers: config.tiers.clone(),
            placement: Placement::new(&config.shards, &config.sharding),
            databases: config.shards.iter().map(|shard| (shard.name.clone(), shard.database.clone())).collect(),
        }
    }

    /// Admits the organization of `identity` to `database`, the start-up packet's word: empty, the organization's own
    /// name, or the name of its shard's database.
    ///
    /// # Errors
    /// The organization is suspended, or unknown where that is refused; the database is not one of its own. The words
    /// are the same whether or not somebody else has a database of that name.
    pub fn admit(&self, identity: &Identity, database: &str) -> Result<Tenant, Refusal> {
        let org = identity.org();
        let own = self.known(org)?;
        let shard = self.place(org, own)?;
        self.may_use(org, &shard, database)?;
        Ok(Tenant {
            org: org.clone(),
            tier: self.tier(own, identity.tier())?,
            shard,
            isolation: own.map(|own| own.isolation).unwrap_or_default(),
            pool_mode: own.and_then(|own| own.pool_mode).unwrap_or(self.pool_mode),
        })
    }

    /// Where `org` lives, whoever asks; `None` where there is no place for it.
    pub fn shard_of(&self, org: &OrgId) -> Option<&ShardName> {
        let own = self.organizations.get(org).and_then(|own| own.shard.as_ref());
        own.or_else(|| self.placement.shard_of(org))
    }

    /// Every organization that the configuration names, for those who report on all of them.
    pub fn organizations(&self) -> impl Iterator<Item = (&OrgId, &Organization)> {
        self.organizations.iter()
    }

    /// Whether `org` may have sessions: a live one ends where this fails.
    ///
    /// # Errors
    /// It is suspended, or unknown where the file names all, or cannot be told from another by its spelling.
    pub fn admits(&self, org: &OrgId) -> Result<(), Refusal> {
        self.known(org).map(|_| ())
    }

    /// The organization itself where the file names it; else nothing may stand in the way of taking it as unknown.
    ///
    /// Where nobody has said how the databases compare organizations, a name that a column of some type would take for
    /// another one is refused: served, it would have that one's rows under limits and a state of its own.
    fn known(&self, org: &OrgId) -> Result<Option<&Organization>, Refusal> {
        if !self.organizations.contains_key(org) {
            let kind = self.organization_type;
            let other = self.spellings.get(&org.spelling_key(kind));
            if let Some(Err(refusal)) = other.map(|other| self.known_exactly(other)) {
                return Err(refusal);
            }
            if other.is_some() || org.is_odd_spelling(kind) {
                return Err(Refusal::new(
                    Kind::OrganizationSuspended,
                    "this organization is not known here by this spelling of its name",
                )
                .with_hint("The operator can say how the databases compare organizations: auth.organization_type."));
            }
        }
        self.known_exactly(org)
    }

    fn known_exactly(&self, org: &OrgId) -> Result<Option<&Organization>, Refusal> {
        match (self.organizations.get(org), self.unknown) {
            (Some(own), _) if own.status == Status::Suspended => {
                Err(Refusal::new(Kind::OrganizationSuspended, "this organization is suspended"))
            }
            (None, UnknownOrganizations::Refuse) => {
                Err(Refusal::new(Kind::OrganizationSuspended, "this organization is not known here"))
            }
            (own, _) => Ok(own),
        }
    }

    fn place(&self, org: &OrgId, own: Option<&Organization>) -> Result<ShardName, Refusal> {
        let shard = own.and_then(|own| own.shard.as_ref()).or_else(|| self.placement.shard_of(org));
        shard
            .cloned()
            .ok_or_else(|| Refusal::new(Kind::ShardUnavailable, "there is no place for this organization").fatal())
    }

    fn may_use(&self, org: &OrgId, shard: &ShardName, database: &str) -> Result<(), Refusal> {
        let of_shard = self.databases.get(shard).is_some_and(|name| name == database);
        let own = || OrgId::of_type(database, self.organization_type).is_ok_and(|named| named == *org);
        if database.is_empty() || of_shard || own() {
            return Ok(());
        }
        Err(Refusal::new(Kind::UnknownDatabase, "this organization has no database of that name")
            .with_hint(format!("Connect to the database \"{org}\": the organization's own name is always one.")))
    }

    /// The organization's own tier, else the token's if there is one of that name, else the default.
    fn tier(&self, own: Option<&Organization>, claimed: Option<&TierName>) -> Result<Arc<Tier>, Refusal> {
        let named = |name: &TierName| self.tiers.tiers.get(name);
        let own = own.and_then(|own| own.tier.as_ref()).and_then(named);
        let tier = own.or_else(|| claimed.and_then(named)).or_else(|| named(&self.tiers.default));
        tier.cloned().ok_or_else(|| Refusal::new(Kind::Internal, "there is no tier for this organization"))
    }
}

#[cfg(test)]
mod tests;
