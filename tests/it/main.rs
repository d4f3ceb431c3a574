//! The integration tests: one binary, real clusters, real clients.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking; inside #[test] clippy knows"
)]

mod cluster;
mod compatibility;
mod crown;
mod configuration;
mod conversation;
mod copy_in;
mod corpus;
mod door;
mod front;
mod fuzz;
mod guard;
mod identity;
mod lessons;
mod limits;
mod model;
mod pipeline;
mod shards;
mod demo;
mod docker;
mod policies;
mod recorded;
mod refusal_order;
mod residue;
mod isolation;
mod server_login;
mod support;
mod walls;
mod house;
