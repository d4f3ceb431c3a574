//! Partywall: a tenant-isolating proxy for PostgreSQL.
//!
//! A client logs in with a JWT as its password and works as if the database were its own; the rooms below carry each
//! statement from the client's socket to a server connection that has confirmed that client's context, and the rows back.
//! The modules stand in the order of the ladder: a room uses only rooms above it (tests hold that).

// words
pub mod refusal;
pub mod ids;
pub mod event;
// pure: no sockets, files, clocks or runtime
pub mod rate;
pub mod wire;
pub mod config;
pub mod auth;
pub mod tenant;
pub mod guard;
pub mod context;
pub mod limits;
// io
pub mod net;
pub mod server;
pub mod pool;
// talk
pub mod handshake;
pub mod session;
pub mod cancel;
// house
pub mod metrics;
pub mod audit;
pub mod control;
pub mod provision;
pub mod admin;
pub mod demo;
// top
pub mod app;
pub mod cli;
