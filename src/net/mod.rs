//! Sockets: listening, the client's side of a connection, TLS, and how many connections there may be.

mod caps;
mod client_stream;
mod listen;
mod open_files;
mod proxies;
mod server_stream;
pub mod tls;

pub use caps::{Caps, SILENT_AFTER, Step, Ticket, TooMany};
pub use client_stream::ClientStream;
pub use listen::{listen, tune};
pub use open_files::allow_open_files;
pub use proxies::Proxies;
pub use server_stream::ServerStream;
