//! Where an organization lives that has no place of its own: in a range, else on a consistent hash ring of the shards.

use std::fmt;
use std::hash::{Hash, Hasher};

use hashring::HashRing;

use crate::config::{Range, Shard, Sharding, ShardingMethod};
use crate::ids::{OrgId, ShardName};

/// Points on the ring for each unit of a shard's weight: enough that equal shards differ by about a tenth.
const POINTS_PER_WEIGHT: u32 = 160;

/// Ranges, and the ring.
pub(super) struct Placement {
    ranges: Vec<Range>,
    ring: HashRing<Point>,
}

/// One of a shard's points on the ring.
///
/// Hashed as its bytes, by SipHash-2-4 with a key of zeros (`hashring`'s own): the same in every process, version and
/// machine, for data lies where the hash said. A test pins the values.
struct Point {
    shard: ShardName,
    number: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.shard.as_str().as_bytes());
        state.write(&self.number.to_le_bytes());
    }
}

/// An organization on its way to the ring, hashed as its bytes.
struct Place<'a>(&'a OrgId);

impl Hash for Place<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_str().as_bytes());
    }
}

impl Placement {
    pub(super) fn new(shards: &[Shard], sharding: &Sharding) -> Self {
        let mut ring = HashRing::new();
        match sharding.method {
            ShardingMethod::ConsistentHash => ring.batch_add(points(shards)),
        }
        Self { ranges: sharding.ranges.clone(), ring }
    }

    /// The shard of the range that holds `org`, else the one that the ring gives; none where no shard has a weight.
    pub(super) fn shard_of(&self, org: &OrgId) -> Option<&ShardName> {
        let range = self.ranges.iter().find(|range| range.contains(org)).map(|range| &range.shard);
        range.or_else(|| self.ring.get(&Place(org)).map(|point| &point.shard))
    }
}

/// Every point of every shard, in the order of their names, so that the order of the file decides nothing.
fn points(shards: &[Shard]) -> Vec<Point> {
    let mut shards: Vec<_> = shards.iter().collect();
    shards.sort_by(|left, right| left.name.cmp(&right.name));
    let points = |shard: &Shard| {
        let name = shard.name.clone();
        (0..shard.weight * POINTS_PER_WEIGHT).map(move |number| Point { shard: name.clone(), number })
    };
    shards.into_iter().flat_map(points).collect()
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement").field("ranges", &self.ranges).field("points", &self.ring.len()).finish()
    }
}
