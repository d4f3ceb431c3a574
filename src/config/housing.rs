//! Who lives where: dedicated organizations alone, and everybody somewhere.

use std::collections::BTreeMap;

use super::meant::{Organization, Range, Shard, UnknownOrganizations};
use super::places::Placed;
use super::policy::Tiers;
use crate::ids::{OrgId, ShardName, TierName};

/// Who lives where, so that dedicated organizations live alone and everybody lives somewhere.
pub(super) struct Housing<'a, 't> {
    pub(super) ranges: &'a [Placed<'t, Range>],
    pub(super) organizations: &'a BTreeMap<OrgId, Placed<'t, Organization>>,
    pub(super) unknown: UnknownOrganizations,
    pub(super) tiers: Option<&'a Tiers>,
}

impl Housing<'_, '_> {
    /// Takes the shards of dedicated organizations out of the hash, and notes where that cannot be.
    pub(super) fn settle(&self, shards: &mut [Placed<'_, Shard>]) {
        let mut owners: BTreeMap<&ShardName, &OrgId> = BTreeMap::new();
        for (id, Placed { table, is }) in self.organizations {
            if !is.tier.as_ref().is_some_and(|tier| self.dedicated(tier)) || !table.sound(&["shard"]) {
                continue;
            }
            let Some(name) = &is.shard else {
                table.fault("tier", "dedicated, but the organization shares a shard (give it a `shard` of its own)");
                continue;
            };
            if owners.insert(name, id).is_some() {
                // Told already, at the first organization that the shard should belong to.
                continue;
            }
            if let Some(others) = self.shared_with(id, name, shards) {
                table.fault("shard", format!("the tier is dedicated, but shard `{name}` is shared with {others}"));
            } else if let Some(shard) = shards.iter_mut().find(|shard| shard.is.name == *name) {
                shard.is.weight = 0;
            }
        }
        self.everybody_lives_somewhere(shards, &owners);
    }

    fn dedicated(&self, tier: &TierName) -> bool {
        self.tiers.and_then(|tiers| tiers.tiers.get(tier)).is_some_and(|tier| tier.dedicated)
    }

    /// Who else lives on `shard`.
    fn shared_with(&self, org: &OrgId, shard: &ShardName, shards: &[Placed<'_, Shard>]) -> Option<String> {
        let named =
            |(id, other): &(&OrgId, &Placed<'_, Organization>)| *id != org && other.is.shard.as_ref() == Some(shard);
        if let Some((other, _)) = self.organizations.iter().find(named) {
            return Some(format!("`{other}`"));
        }
        if let Some(range) = self.ranges.iter().find(|range| range.is.shard == *shard) {
            return Some(format!("the range from `{}` to `{}`", range.is.from, range.is.to));
        }
        let hashed = |at: &&Placed<'_, Shard>| at.is.name == *shard && at.table.has("weight") && at.is.weight > 0;
        let hashed = shards.iter().find(hashed).map(|at| at.is.weight);
        hashed.map(|weight| format!("organizations placed by hash (its weight is {weight}; 0, or none written)"))
    }

    fn everybody_lives_somewhere(&self, shards: &[Placed<'_, Shard>], owners: &BTreeMap<&ShardName, &OrgId>) {
        let homeless = |(id, at): (&OrgId, &Placed<'_, Organization>)| {
            at.is.shard.is_none()
                && at.table.sound(&["shard", "tier"])
                && !self.ranges.iter().any(|r| r.is.contains(id))
        };
        let needed = self.unknown == UnknownOrganizations::Admit || self.organizations.iter().any(homeless);
        let weights = || shards.iter().filter(|shard| shard.table.sound(&["weight"]));
        if !needed || shards.is_empty() || weights().any(|shard| shard.is.weight > 0) {
            return;
        }
        let owner = owners.values().next().and_then(|id| self.organizations.get(*id));
        match (owner, weights().next()) {
            (Some(owner), _) if owner.table.sound(&["shard"]) => owner.table.fault(
                "shard",
                "the tier is dedicated, but the shard is shared: there is no other for organizations without a place",
            ),
            (None, Some(shard)) => shard.table.fault(
                "weight",
                "every shard has weight 0, so that organizations without a place of their own have none (1 to 100)",
            ),
            (Some(_), _) | (None, None) => (),
        }
    }
}
