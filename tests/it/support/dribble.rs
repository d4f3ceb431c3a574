//! A stretch of wire between two peers that lets bytes through in small pieces, or cuts after so many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How a stretch of wire treats what passes.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The most bytes that are passed on at once.
    pub piece_bytes: usize,
    /// After so many bytes of the one who dials, both sides are cut.
    pub cut_after_up: usize,
    /// After so many bytes of the one who is dialled, both sides are cut.
    pub cut_after_down: usize,
}

impl Manner {
    /// One byte at a time, both ways, uncut.
    pub const BYTEWISE: Self = Self { piece_bytes: 1, cut_after_up: usize::MAX, cut_after_down: usize::MAX };
    /// As a wire should be.
    pub const SOUND: Self = Self { piece_bytes: 65_536, ..Self::BYTEWISE };
}

/// A listener whose connections go on to another address, in its manner.
pub struct Dribble {
    /// Where to connect instead.
    pub address: SocketAddr,
    manner: Arc<[AtomicUsize; 3]>,
    /// Bytes that the newest connection has passed, up and down.
    passed: Arc<[AtomicUsize; 2]>,
    cut: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Dribble {
    /// Passes what comes to `to`.
    pub async fn to(to: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared: Arc<[AtomicUsize; 3]> = Arc::default();
        let held = Arc::clone(&shared);
        let (passed, cut) = (Arc::<[AtomicUsize; 2]>::default(), Arc::new(Notify::new()));
        let (count, cutting) = (Arc::clone(&passed), Arc::clone(&cut));
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let manner = [0, 1, 2].map(|at| held[at].load(Ordering::SeqCst));
                let (count, cutting) = (Arc::clone(&count), Arc::clone(&cutting));
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(near, to, manner, &count) => {}
                        () = cutting.notified() => {}
                    }
                });
            }
        });
        let dribble = Self { address, manner: shared, passed, cut, task };
        dribble.behave(manner);
        dribble
    }

    /// How many bytes the newest connection has passed, up and down.
    pub fn passed(&self) -> (usize, usize) {
        (self.passed[0].load(Ordering::SeqCst), self.passed[1].load(Ordering::SeqCst))
    }

    /// Cuts all connections that there are.
    pub fn cut_all(&self) {
        self.cut.notify_waiters();
    }

    /// Treats connections that come from now on so.
    pub fn behave(&self, manner: Manner) {
        let Manner { piece_bytes, cut_after_up, cut_after_down } = manner;
        for (at, value) in [piece_bytes, cut_after_up, cut_after_down].into_iter().enumerate() {
            self.manner[at].store(value, Ordering::SeqCst);
        }
    }
}

impl Drop for Dribble {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, to: SocketAddr, [piece, up, down]: [usize; 3], passed: &[AtomicUsize; 2]) {
    for count in passed {
        count.store(0, Ordering::SeqCst);
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a socket option");
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // When one way has been cut, both sides are closed by dropping all halves.
    tokio::select! {
        () = carry(near_in, far_out, piece, up, &passed[0]) => {}
        () = carry(far_in, near_out, piece, down, &passed[1]) => {}
    }
}

/// Carries up to `limit` bytes; returns at the limit, or when either side has ended.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, piece: usize, mut limit: usize, passed: &AtomicUsize) {
    let mut buffer = vec![0; 65_536];
    while limit > 0 {
        let room = buffer.len().min(limit);
        let Ok(count @ 1..) = from.read(&mut buffer[..room]).await else { return };
        for bytes in buffer[..count].chunks(piece) {
            if to.write_all(bytes).await.is_err() {
                return;
            }
            limit -= bytes.len();
            passed.fetch_add(bytes.len(), Ordering::SeqCst);
            // Lets the receiver see this piece by itself.
            tokio::task::yield_now().await;
        }
    }
}
