//! A client's connection during login: every read and write of it is bounded in length and by one deadline.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::net::{ClientStream, Ticket};
use crate::refusal::Refusal;
use crate::wire;
use crate::wire::startup::{Malformed, Opening};

/// How long a client that is refused has to take its answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// The same, where there was no place for it.
const TURNING_AWAY: Duration = Duration::from_millis(250);
/// How much a refused client may go on saying: a token that is too long, say. It is not kept.
const UNHEARD_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Why nothing came over the line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Somebody new has the client's place.
    #[error("the client's place was given to another")]
    GivenUp,
    /// The login deadline is over.
    #[error("the login took too long")]
    Deadline,
    /// The client has gone.
    #[error("the client has gone: {0}")]
    Gone(#[from] io::Error),
    /// The client sent something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How long a client is waited for: to the deadline, and as long as nobody else has its place.
#[derive(Clone, Copy)]
pub(super) struct Patience<'t> {
    pub deadline: Instant,
    pub ticket: &'t Ticket,
}

impl Patience<'_> {
    pub async fn wait<T>(self, future: impl Future<Output = T>) -> Result<T, LineError> {
        tokio::select! {
            biased;
            () = self.ticket.given_up() => Err(LineError::GivenUp),
            done = timeout_at(self.deadline, future) => done.map_err(|_| LineError::Deadline),
        }
    }
}

pub(super) struct Line<'t> {
    pub stream: ClientStream,
    pub patience: Patience<'t>,
}

impl Line<'_> {
    /// Reads one opening packet, and not a byte more: what follows it may belong to TLS.
    pub async fn opening(&mut self) -> Result<Opening, LineError> {
        let mut length = [0; 4];
        self.read(&mut length).await?;
        let mut packet = vec![0; wire::startup::packet_bytes(length)?];
        self.read(&mut packet).await?;
        Ok(wire::startup::opening(&packet)?)
    }

    /// Reads the password message, and not a byte more: what follows it belongs to the session.
    pub async fn password(&mut self) -> Result<String, LineError> {
        let mut header = [0; 5];
        self.read(&mut header).await?;
        let mut body = vec![0; wire::startup::password_bytes(header)?];
        self.read(&mut body).await?;
        Ok(wire::startup::password(&body)?.to_owned())
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        Ok(self.patience.wait(writing).await??)
    }

    async fn read(&mut self, buffer: &mut [u8]) -> Result<(), LineError> {
        let reading = self.stream.read_exact(buffer);
        self.patience.wait(reading).await??;
        Ok(())
    }
}

/// Tells a client the no that ends its login, and closes; gives up quietly after two seconds.
pub async fn refuse(stream: ClientStream, refusal: &Refusal) {
    refuse_within(GOODBYE, stream, refusal).await;
}

/// Closes the connection of somebody who does not speak the protocol, without a word, as a server does
/// (`ProcessStartupPacket`, backend_startup.c).
pub(super) async fn hang_up(stream: ClientStream) {
    say_within(GOODBYE, stream, &[]).await;
}

/// Tells a client for whom there is no place that it is refused, without listening to it first.
///
/// Takes a quarter of a second at most, since whoever is turned away is not counted.
pub async fn turn_away(stream: TcpStream, refusal: &Refusal) {
    refuse_within(TURNING_AWAY, ClientStream::Tcp(stream), refusal).await;
}

async fn refuse_within(time: Duration, stream: ClientStream, refusal: &Refusal) {
    let mut bytes = Vec::new();
    wire::refusal::encode(refusal, &mut bytes);
    say_within(time, stream, &bytes).await;
}

async fn say_within(time: Duration, mut stream: ClientStream, bytes: &[u8]) {
    let telling = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        // A socket that is closed with bytes unread sends a reset, which may overtake the words.
        let mut unheard = (&mut stream).take(UNHEARD_BYTES_MAX);
        tokio::io::copy(&mut unheard, &mut tokio::io::sink()).await
    };
    // The client may be gone, or not read: then nobody is there to be told, and the no is counted by the caller.
    let _ = timeout(time, telling).await;
}
