//! The conversation from the first byte to the password message.
//!
//! PostgreSQL manual, "Message Flow: Start-up", "SSL Session Encryption", "GSSAPI Session Encryption" and "Canceling
//! Requests in Progress". Each step hands on the connection, so none can be left out: clear text is looked at before a
//! token is asked for, and a token is read before there is a [`Login`].

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::auth::TokenError;
use crate::config::PlaintextPasswords;
use crate::net::{self, ClientStream, Proxies, Step, Ticket, tls, tls::ServerTls};
use crate::refusal::{Kind, Refusal};
use crate::wire::startup::{CancelRequest, Malformed, Opening, Protocol, Startup, TLS_HANDSHAKE};
use crate::wire::welcome;

use super::introduce::{Visitor, first_byte, introduce};
use super::line::{Line, LineError, Patience, hang_up, refuse};
use super::parameters::{Reserved, StartupParameters};

/// What every client is greeted with: a snapshot, shared by the data threads.
#[derive(Debug)]
pub struct Door {
    /// TLS, where the operator has given a certificate.
    pub tls: Option<Arc<ServerTls>>,
    /// From where a token may come in clear text.
    pub plaintext_passwords: PlaintextPasswords,
    /// How long a client may take from its first byte to its first ReadyForQuery.
    pub login_timeout: Duration,
    /// What no client may set.
    pub reserved: Reserved,
    /// Who may say for whom it connects.
    pub proxies: Proxies,
}

/// A client's token, before anybody has looked at it. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the verifier alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// A client that has shown a token and waits for the answer.
#[derive(Debug)]
pub struct Login {
    /// The connection; nothing has been read of what may follow the token.
    pub stream: ClientStream,
    /// Where the client dials from.
    pub peer: SocketAddr,
    /// What is spoken from here on.
    pub protocol: Protocol,
    /// What the client asked for.
    pub parameters: StartupParameters,
    /// What the client has shown.
    pub token: Token,
    /// When the login has to be answered.
    pub deadline: Instant,
}

/// A client that wants another connection's statement cancelled.
///
/// There is no answer: the client takes the end of the connection for it. Drop this once the cancel has been done.
#[derive(Debug)]
pub struct Cancelling {
    /// Whose statement, and the key to it.
    pub request: CancelRequest,
    /// Where the client dials from.
    pub peer: SocketAddr,
    /// The connection.
    pub stream: ClientStream,
}

/// How a greeting ended.
#[derive(Debug)]
pub enum Greeted {
    /// The client wants a session.
    Login(Box<Login>),
    /// The client wants a cancel.
    Cancel(Box<Cancelling>),
    /// The client has heard a no, as far as it listened, and is gone.
    Refused {
        /// What the client heard.
        kind: Kind,
        /// What the operator should know.
        why: String,
        /// Where the client dials from.
        address: IpAddr,
    },
    /// The client left by itself: a probe, or a user who had no password to give.
    Gone,
}

/// Why a client that is still there gets no session.
pub(super) struct No {
    refusal: Refusal,
    why: String,
    /// None when the connection cannot carry the words any more.
    stream: Option<ClientStream>,
    /// What it sent is no packet of the protocol: words would be read as one of whatever it speaks.
    silently: bool,
}

pub(super) enum Ended {
    No(Box<No>),
    Gone,
}

/// Greets the client on `stream`, which dialled from `peer`: up to its token, or to whatever ends it earlier.
///
/// Everything happens before `door.login_timeout` is over, and the first byte comes within two seconds. A client that says
/// nothing loses its place, which `ticket` is, to somebody new. Dropping the future closes the connection.
pub async fn greet(stream: TcpStream, peer: SocketAddr, door: &Door, ticket: &Ticket) -> Greeted {
    let patience = Patience { deadline: Instant::now() + door.login_timeout, ticket };
    let mut visitor = Visitor::direct(peer);
    match conversation(stream, &mut visitor, door, patience).await {
        Ok(greeted) => greeted,
        Err(Ended::Gone) => Greeted::Gone,
        Err(Ended::No(no)) => {
            match no.stream {
                Some(stream) if no.silently => hang_up(stream).await,
                Some(stream) => refuse(stream, &no.refusal).await,
                None => {}
            }
            Greeted::Refused { kind: no.refusal.kind(), why: no.why, address: visitor.peer.ip() }
        }
    }
}

async fn conversation(
    stream: TcpStream,
    visitor: &mut Visitor,
    door: &Door,
    patience: Patience<'_>,
) -> Result<Greeted, Ended> {
    if net::tune(&stream).is_err() {
        return Err(Ended::Gone);
    }
    let stream = introduce(stream, visitor, door, patience).await?;
    let (line, opening) = open(stream, door, patience).await?;
    patience.ticket.step(Step::Begun);
    match opening {
        Packet::Cancel(request) => {
            Ok(Greeted::Cancel(Box::new(Cancelling { request, peer: visitor.peer, stream: line.stream })))
        }
        Packet::Startup(startup) => {
            let login = ask_for_token(line, *visitor, startup, door).await?;
            Ok(Greeted::Login(Box::new(login)))
        }
    }
}

/// What is left of [`Opening`] once encryption has been settled.
enum Packet {
    Cancel(CancelRequest),
    Startup(Startup),
}

/// Settles encryption and reads the packet that says what the client wants.
async fn open<'t>(stream: TcpStream, door: &Door, patience: Patience<'t>) -> Result<(Line<'t>, Packet), Ended> {
    let mut line = if first_byte(&stream, patience).await? == TLS_HANDSHAKE {
        direct_tls(stream, door, patience).await?
    } else {
        Line { stream: ClientStream::Tcp(stream), patience }
    };
    let (mut asked_tls, mut asked_gss) = (line.stream.is_tls(), line.stream.is_tls());
    loop {
        // At most one request of each kind, so at most three rounds.
        let opening = match line.opening().await {
            Ok(opening) => opening,
            Err(error) => return Err(ended(error, line)),
        };
        match opening {
            Opening::Cancel(request) => return Ok((line, Packet::Cancel(request))),
            Opening::Startup(startup) => return Ok((line, Packet::Startup(startup))),
            Opening::TlsRequest if !asked_tls => {
                asked_tls = true;
                line = answer_tls_request(line, door).await?;
                asked_gss |= line.stream.is_tls();
            }
            Opening::GssRequest if !asked_gss => {
                asked_gss = true;
                line = answer(line, b'N').await?;
            }
            Opening::TlsRequest | Opening::GssRequest => {
                return Err(violation(Some(line), "encryption was asked for again"));
            }
        }
    }
}

async fn direct_tls<'t>(stream: TcpStream, door: &Door, patience: Patience<'t>) -> Result<Line<'t>, Ended> {
    let Some(tls) = &door.tls else {
        return Err(violation(None, "TLS was begun, but there is no certificate"));
    };
    let line = tls_handshake(stream, tls, patience).await?;
    match &line.stream {
        ClientStream::Tls(stream) if tls::spoke_alpn(stream) => Ok(line),
        _ => Err(violation(
            Some(line),
            "received direct SSL connection request without ALPN protocol negotiation extension",
        )),
    }
}

async fn answer_tls_request<'t>(line: Line<'t>, door: &Door) -> Result<Line<'t>, Ended> {
    let patience = line.patience;
    let Some(tls) = &door.tls else { return answer(line, b'N').await };
    let ClientStream::Tcp(stream) = &line.stream else {
        return Err(violation(Some(line), "encryption was asked for again"));
    };
    // A client waits for the answer before it begins TLS: what is there already came from somebody in between, who
    // wants it taken for a part of the encrypted conversation (CVE-2021-23214).
    if has_more(stream).await {
        return Err(violation(Some(line), "received unencrypted data after SSL request"));
    }
    match answer(line, b'S').await?.stream {
        ClientStream::Tcp(stream) => tls_handshake(stream, tls, patience).await,
        ClientStream::Tls(_) => Err(violation(None, "encryption was asked for again")),
    }
}

async fn tls_handshake<'t>(stream: TcpStream, tls: &ServerTls, patience: Patience<'t>) -> Result<Line<'t>, Ended> {
    match patience.wait(tls.accept(stream)).await {
        Ok(Ok(stream)) => Ok(Line { stream: ClientStream::Tls(Box::new(stream)), patience }),
        Ok(Err(error)) => Err(violation(None, format!("the TLS handshake failed: {error}"))),
        Err(LineError::GivenUp) => Err(given_up(None)),
        Err(_) => {
            Err(no(None, Refusal::new(Kind::LoginTimeout, "the login took too long"), "during the TLS handshake"))
        }
    }
}

async fn answer(mut line: Line<'_>, byte: u8) -> Result<Line<'_>, Ended> {
    match line.write(&[byte]).await {
        Ok(()) => Ok(line),
        Err(error) => Err(ended(error, line)),
    }
}

/// Whether bytes have arrived that nobody has read.
async fn has_more(stream: &TcpStream) -> bool {
    poll_fn(|cx| {
        let mut byte = [0];
        let peeked = stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(matches!(peeked, Poll::Ready(Ok(1..))))
    })
    .await
}

async fn ask_for_token(mut line: Line<'_>, visitor: Visitor, startup: Startup, door: &Door) -> Result<Login, Ended> {
    if !may_show_token(&line.stream, visitor, door.plaintext_passwords) {
        let refusal = Refusal::new(Kind::TlsRequired, "a token is accepted over TLS only");
        return Err(no(Some(line.stream), refusal, "the client did not ask for TLS"));
    }
    let mut bytes = Vec::new();
    if startup.newer_than_known || !startup.protocol_options.is_empty() {
        welcome::negotiate_protocol_version(startup.protocol, &startup.protocol_options, &mut bytes);
    }
    let parameters = match StartupParameters::sort(startup.parameters, &door.reserved) {
        Ok(parameters) => parameters,
        Err(refusal) => {
            let why = refusal.message().to_owned();
            return Err(no(Some(line.stream), refusal, why));
        }
    };
    welcome::authentication_cleartext_password(&mut bytes);
    if let Err(error) = line.write(&bytes).await {
        return Err(ended(error, line));
    }
    let token = match line.password().await {
        Ok(token) => Token::new(token),
        Err(error) => return Err(ended(error, line)),
    };
    let Line { stream, patience } = line;
    let (peer, deadline) = (visitor.peer, patience.deadline);
    Ok(Login { stream, peer, protocol: startup.protocol, parameters, token, deadline })
}

fn may_show_token(stream: &ClientStream, visitor: Visitor, plaintext: PlaintextPasswords) -> bool {
    stream.is_tls()
        || match plaintext {
            PlaintextPasswords::Never => false,
            PlaintextPasswords::Loopback => visitor.local,
            PlaintextPasswords::Always => true,
        }
}

pub(super) fn ended(error: LineError, line: Line<'_>) -> Ended {
    match error {
        LineError::Gone(_) => Ended::Gone,
        LineError::GivenUp => given_up(Some(line.stream)),
        LineError::Deadline => {
            let refusal = Refusal::new(Kind::LoginTimeout, "the login took too long");
            no(Some(line.stream), refusal, "the client was silent or slow")
        }
        LineError::Malformed(Malformed::TokenTooLong) => {
            no(Some(line.stream), TokenError::too_long(), Malformed::TokenTooLong.to_string())
        }
        LineError::Malformed(fault) => {
            let kind = match fault {
                Malformed::Version { .. } => Kind::NotSupported,
                _ => Kind::ProtocolViolation,
            };
            let silently = matches!(fault, Malformed::PacketLength | Malformed::CancelKey);
            let why = fault.to_string();
            let refusal = Refusal::new(kind, why.clone()).fatal();
            Ended::No(Box::new(No { refusal, why, stream: Some(line.stream), silently }))
        }
    }
}

pub(super) fn violation(line: Option<Line<'_>>, why: impl Into<String>) -> Ended {
    let why = why.into();
    no(line.map(|line| line.stream), Refusal::new(Kind::ProtocolViolation, why.clone()), why)
}

/// Somebody new has the client's place, because it said nothing.
pub(super) fn given_up(stream: Option<ClientStream>) -> Ended {
    no(stream, net::TooMany::InAll.into(), "it said nothing, and its place was given to another")
}

pub(super) fn no(stream: Option<ClientStream>, refusal: Refusal, why: impl Into<String>) -> Ended {
    Ended::No(Box::new(No { refusal, why: why.into(), stream, silently: false }))
}
