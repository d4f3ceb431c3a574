//! The listener: so many connections at a time, each for so long, so that nobody holds the door by being slow.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at a time; more wait in the kernel's line.
const CONNECTIONS_MAX: usize = 64;
/// A connection's whole life: one request and its answer.
const LIFE_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (out of file descriptors, say).
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections within bounds.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    life: Duration,
}

impl Door {
    /// A door over a socket that listens.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), life: LIFE_MAX }
    }
}

impl Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        // None only if the semaphore were closed, which nobody does; then the bound is gone, not the door.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    return (Visitor { stream, end: Box::pin(sleep(self.life)), _place: place }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin door cannot accept");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end; dropping it frees its place.
pub struct Visitor {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Visitor {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn door() -> (Door, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (Door::new(listener), address)
    }

    #[tokio::test]
    async fn a_visitor_who_says_nothing_is_cut_and_the_place_is_free_again() {
        let (door, address) = door().await;
        let mut door = Door { life: Duration::from_millis(20), ..door };
        let _client = TcpStream::connect(address).await.expect("it listens");
        let (mut visitor, _) = door.accept().await;
        assert_eq!(door.places.available_permits(), CONNECTIONS_MAX - 1);
        let error = visitor.read_u8().await.expect_err("nobody wrote");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(visitor);
        assert_eq!(door.places.available_permits(), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn no_more_visitors_are_let_in_than_there_are_places() {
        let (door, address) = door().await;
        let mut door = Door { places: Arc::new(Semaphore::new(1)), ..door };
        let _clients = [TcpStream::connect(address).await, TcpStream::connect(address).await];
        let (visitor, _) = door.accept().await;
        let second = door.accept();
        tokio::pin!(second);
        let waits = std::future::poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending())).await;
        assert!(waits);
        drop(visitor);
        second.await;
    }
}
