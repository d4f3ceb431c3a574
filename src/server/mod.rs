//! Opening server connections: reach the shard, encrypt, log in, and make sure that the login role is fit.
//!
//! What comes out is a connection that is idle and carries no organization's context yet; lending it is `pool`'s.

mod dial;
mod error;
mod fitness;
mod login;
mod settings;
mod spec;
mod tls;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

pub use error::{ConnectError, ConnectFault, Unfit};
pub use spec::{Address, ConnectSpec, SpecError, TlsPlan};

use crate::net::ServerStream;
use crate::wire::server_login;

/// How long a cancel may take, from dialling to the server's closing.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A server connection that is logged in, idle, and fit to be served from.
///
/// Dropping it closes the socket without a Terminate; the server notices at its next read.
pub struct ServerConnection {
    /// The socket.
    pub stream: ServerStream,
    /// The server process, for [`cancel`].
    pub pid: i32,
    /// The secret that a CancelRequest must carry; 4 bytes under protocol 3.0.
    pub secret_key: Vec<u8>,
    /// What the server told of its settings (ParameterStatus), the latest value of each, in the order of arrival.
    pub parameters: Vec<(String, String)>,
    /// The server's version as a number: 150013 is 15.13.
    pub server_version_num: u32,
    /// Whether the server is a standby (`pg_is_in_recovery`).
    pub in_recovery: bool,
    /// Whether its database has the advisory locks that are each organization's own, as it was when this was opened.
    pub private_locks: bool,
    /// Bytes read beyond the login: nothing, or messages that a server may send unasked.
    pub leftover: BytesMut,
    /// When the login was done.
    pub opened: Instant,
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection")
            .field("pid", &self.pid)
            .field("tls", &self.stream.is_tls())
            .field("server_version_num", &self.server_version_num)
            .finish_non_exhaustive()
    }
}

/// Opens a server connection, within the spec's `connect_timeout`.
///
/// Dropping the future closes the socket. Errors name the shard and its address, and nothing secret.
pub async fn connect(spec: &ConnectSpec) -> Result<ServerConnection, ConnectError> {
    let result = match timeout(spec.connect_timeout, connect_unbounded(spec)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectFault::Timeout),
    };
    result.map_err(|fault| ConnectError::new(spec, fault))
}

async fn connect_unbounded(spec: &ConnectSpec) -> Result<ServerConnection, ConnectFault> {
    let dialled = dial::dial(spec).await?;
    let logged_in = login::log_in(spec, dialled).await?;
    let (mut conversation, answer) = fitness::ask(logged_in).await?;
    let facts = if spec.administers { fitness::facts_only(&answer)? } else { fitness::judge(&answer)? };
    if !server_login::may_come_unasked(&conversation.buffer) {
        return Err(ConnectFault::Protocol("it sent more than it was asked for".to_owned()));
    }
    Ok(ServerConnection {
        pid: conversation.pid,
        secret_key: std::mem::take(&mut conversation.secret_key),
        parameters: std::mem::take(&mut conversation.parameters),
        server_version_num: facts.server_version_num,
        in_recovery: facts.in_recovery,
        private_locks: facts.private_locks,
        leftover: conversation.buffer,
        stream: conversation.stream,
        opened: Instant::now(),
    })
}

/// Asks the server to cancel what its process `pid` runs, by a connection of its own, encrypted as the spec says.
///
/// Done once the server has closed that connection, so that the request has been acted on (libpq, `PQcancel`); bounded by
/// [`CANCEL_TIMEOUT`]. Whether anything was cancelled is not told (PostgreSQL manual, "Canceling Requests in Progress").
pub async fn cancel(spec: &ConnectSpec, pid: i32, secret_key: &[u8]) -> io::Result<()> {
    let request = server_login::cancel_request(pid, secret_key)?;
    let work = async {
        let mut stream = dial::dial(spec).await.map_err(ConnectFault::into_io)?.stream;
        stream.write_all(&request).await?;
        stream.flush().await?;
        read_to_end(&mut stream).await
    };
    timeout(CANCEL_TIMEOUT, work).await.map_err(io::Error::from)?
}

/// Reads and forgets until the server closes; a reset, or TLS without a goodbye, is as good as a close.
async fn read_to_end(stream: &mut ServerStream) -> io::Result<()> {
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_close(error.kind()) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn is_close(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
