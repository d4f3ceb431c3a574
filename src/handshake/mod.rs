//! From an accepted socket to a client that has shown a token: TLS, start-up and password, under one deadline.

mod greet;
mod identify;
mod introduce;
mod keyring;
mod line;
mod log_in;
mod options;
mod parameters;

pub use greet::{Cancelling, Door, Greeted, Login, Token, greet};
pub use identify::NotAdmitted;
pub use keyring::{KeyRing, KeyRingControl};
pub use line::{refuse, turn_away};
pub use log_in::{Desk, log_in};
pub use parameters::{Reserved, StartupParameters};

#[cfg(test)]
mod tests;
