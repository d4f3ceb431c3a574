//! Who is in the demo: organizations, and people in them.

/// One organization of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleOrganization {
    /// Its name, as tokens and rows carry it.
    pub id: &'static str,
    /// Its tier.
    pub tier: &'static str,
    /// The number of its shard, from 0.
    pub shard: usize,
    /// How many pipelines it has.
    pub pipelines: u32,
    /// How often each of them ran.
    pub runs_per_pipeline: u32,
}

/// Two organizations share the first shard; the third has the second for itself, as its tier promises.
pub const ORGANIZATIONS: [SampleOrganization; 3] = [
    SampleOrganization { id: "acme", tier: "starter", shard: 0, pipelines: 12, runs_per_pipeline: 40 },
    SampleOrganization { id: "globex", tier: "professional", shard: 0, pipelines: 30, runs_per_pipeline: 60 },
    SampleOrganization { id: "initech", tier: "enterprise", shard: 1, pipelines: 60, runs_per_pipeline: 80 },
];

/// A person that every organization of the demo has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The user's name.
    pub name: &'static str,
    /// The user's role, one of `policies/guard.toml`.
    pub role: &'static str,
}

/// One who may only read, and one who may write.
pub const PEOPLE: [Person; 2] = [Person { name: "ana", role: "analyst" }, Person { name: "dan", role: "developer" }];

/// The name of a shard by its number.
pub(super) fn shard_name(number: usize) -> String {
    format!("shard_{}", number + 1)
}
