//! Message bytes: the only room that knows them.

pub mod refusal;
pub mod server_login;
pub mod startup;
pub mod welcome;
