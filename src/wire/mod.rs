//! The wire: the only room that knows message bytes (PostgreSQL manual, "Frontend/Backend Protocol").
//!
//! On the hot path it looks at frames without copying them ([`frame`], [`flow`]); elsewhere libraries do the encoding.

pub mod flow;
pub mod frame;
mod owed;
pub mod proxied;
pub mod refusal;
pub mod server_login;
pub mod shorten;
pub mod startup;
pub mod welcome;
