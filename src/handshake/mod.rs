//! From an accepted socket to a client that has shown a token: TLS, start-up and password, under one deadline.

mod greet;
mod keyring;
mod line;
mod options;
mod parameters;

pub use greet::{Cancelling, Door, Greeted, Login, Token, greet};
pub use keyring::{KeyRing, KeyRingControl};
pub use line::{refuse, turn_away};
pub use parameters::{Reserved, StartupParameters};

#[cfg(test)]
mod tests;
