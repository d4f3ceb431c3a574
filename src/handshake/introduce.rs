//! Who dials: the peer of the socket, or whom a trusted balancer names in a header of the PROXY protocol.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::greet::{Door, Ended, ended, given_up, no, violation};
use super::line::{Line, LineError, Patience};
use crate::net::{ClientStream, Step};
use crate::refusal::{Kind, Refusal};
use crate::wire::proxied::{self, BadHeader, FIXED_BYTES};

/// How long a client may take for its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// Who dials.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    /// From where.
    pub peer: SocketAddr,
    /// From this machine all the way: neither the socket nor a balancer says otherwise.
    pub local: bool,
}

impl Visitor {
    pub fn direct(peer: SocketAddr) -> Self {
        Self { peer, local: is_local(peer) }
    }

    /// Whom a balancer names.
    fn named(self, peer: SocketAddr) -> Self {
        Self { peer, local: self.local && is_local(peer) }
    }
}

fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Reads the balancer's header, where there is one, and counts the connection for whom it is.
pub(super) async fn introduce(
    mut stream: TcpStream,
    visitor: &mut Visitor,
    door: &Door,
    patience: Patience<'_>,
) -> Result<TcpStream, Ended> {
    let proxies = &door.proxies;
    if !proxies.may_say(visitor.peer.ip()) {
        // Nobody to tell: who comes by this way has not been told of the proxy.
        return if proxies.must_say() { Err(violation(None, "not from a trusted proxy")) } else { Ok(stream) };
    }
    if first_byte(&stream, patience).await? == proxied::FIRST_BYTE {
        let source = match header(&mut stream, patience).await {
            Ok(header) => header.map_err(|bad| violation(None, bad.to_string()))?,
            Err(error) => return Err(ended(error, Line { stream: ClientStream::Tcp(stream), patience })),
        };
        // The balancer has spoken, and not the client.
        patience.ticket.step(Step::Silent);
        if let Some(source) = source {
            *visitor = visitor.named(source);
        }
    } else if proxies.must_say() {
        return Err(violation(None, "a connection of a trusted proxy without a PROXY header"));
    }
    match patience.ticket.come_from(visitor.peer.ip()) {
        Ok(()) => Ok(stream),
        Err(too_many) => Err(no(Some(ClientStream::Tcp(stream)), too_many.into(), too_many.to_string())),
    }
}

/// Reads a header, and not a byte more.
async fn header(
    stream: &mut TcpStream,
    patience: Patience<'_>,
) -> Result<Result<Option<SocketAddr>, BadHeader>, LineError> {
    let mut header = vec![0; FIXED_BYTES];
    patience.wait(stream.read_exact(&mut header)).await??;
    let mut fixed = [0; FIXED_BYTES];
    fixed.copy_from_slice(&header);
    let rest = match proxied::rest_bytes(fixed) {
        Ok(rest) => rest,
        Err(bad) => return Ok(Err(bad)),
    };
    header.resize(FIXED_BYTES + rest, 0);
    patience.wait(stream.read_exact(&mut header[FIXED_BYTES..])).await??;
    Ok(proxied::source(&header))
}

/// Looks at the first byte without taking it; it has to come soon.
pub(super) async fn first_byte(stream: &TcpStream, patience: Patience<'_>) -> Result<u8, Ended> {
    let deadline = patience.deadline.min(Instant::now() + FIRST_BYTE);
    let mut first = [0];
    match (Patience { deadline, ..patience }).wait(stream.peek(&mut first)).await {
        Ok(Ok(1)) => {
            patience.ticket.step(Step::Begun);
            Ok(first[0])
        }
        Ok(Ok(_) | Err(_)) => Err(Ended::Gone),
        // Nobody to tell: whoever connects and says nothing has no protocol yet.
        Err(LineError::GivenUp) => Err(given_up(None)),
        Err(_) => Err(no(None, Refusal::new(Kind::LoginTimeout, "the login took too long"), "not a byte was sent")),
    }
}
