//! From an accepted socket to a client that has shown a token: TLS, start-up and password, under one deadline.

mod greet;
mod line;
mod options;
mod parameters;

pub use greet::{Cancelling, Door, Greeted, Login, Token, greet, turn_away};
pub use line::refuse;
pub use parameters::{Reserved, StartupParameters};
