//! Bytes on their way out: forwarded as slices of the read buffer as long as nothing is put between or left out.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// What one pass over a read buffer sends on.
///
/// As long as what is forwarded is one run of the buffer, nothing is copied; the first gap or insertion copies.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    input: &'a [u8],
    run: Range<usize>,
    copied: Vec<u8>,
}

impl<'a> Outgoing<'a> {
    /// Nothing yet; `scratch` is an empty buffer to copy into.
    pub(super) fn new(input: &'a [u8], scratch: Vec<u8>) -> Self {
        Self { input, run: 0..0, copied: scratch }
    }

    /// Sends on `range` of the input.
    #[inline]
    pub(super) fn forward(&mut self, range: Range<usize>) {
        if range.start == self.run.end {
            self.run.end = range.end;
        } else if self.run.is_empty() && self.copied.is_empty() {
            self.run = range;
        } else {
            self.copy_run();
            self.run = range;
        }
    }

    /// Sends bytes that are not in the input.
    pub(super) fn inject(&mut self, bytes: &[u8]) {
        self.writer().extend_from_slice(bytes);
    }

    /// Where to write bytes that are not in the input.
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        self.copy_run();
        self.run = 0..0;
        &mut self.copied
    }

    /// All that is to be sent.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.copy_run();
        self.copied
    }

    /// Whether nothing is to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.run.is_empty() && self.copied.is_empty()
    }

    /// How many bytes of it had to be copied.
    #[inline]
    pub(super) fn copied_bytes(&self) -> usize {
        self.copied.len()
    }

    /// Writes what it can to `stream` and leaves the rest in `pending`, which must be empty. Gives the scratch back.
    pub(super) fn write<S: AsyncWrite + Unpin>(
        mut self,
        stream: &mut S,
        pending: &mut Pending,
        cx: &mut Context<'_>,
    ) -> (Vec<u8>, io::Result<()>) {
        if !self.copied.is_empty() {
            self.copy_run();
            self.run = 0..0;
        }
        let bytes = if self.copied.is_empty() { &self.input[self.run.clone()] } else { &self.copied[..] };
        let result = pending.write(stream, bytes, cx);
        self.copied.clear();
        (self.copied, result)
    }

    fn copy_run(&mut self) {
        self.copied.extend_from_slice(&self.input[self.run.clone()]);
    }
}

/// What a socket has not yet taken. While it holds anything, its source is not read.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes are written but perhaps not yet sent: TLS buffers.
    unflushed: bool,
}

impl Pending {
    /// Whether the socket has taken everything.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are kept.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes without trying to write them.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Where to write bytes to be sent.
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes `bytes` behind what is pending, and keeps what the socket does not take.
    fn write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let mut at = 0;
        while self.bytes.is_empty() && at < bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &bytes[at..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    at += count;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.bytes.extend_from_slice(&bytes[at..]);
        if self.bytes.is_empty() { self.poll_flush(stream, cx).map(|_| ()) } else { Ok(()) }
    }

    /// Goes on writing; ready when the socket has taken everything.
    pub(super) fn poll_drain<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.at < self.bytes.len() {
            match std::task::ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.at..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.at += count;
                    self.unflushed = true;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.at > 0 {
            // An idle connection keeps no buffer.
            self.bytes = Vec::new();
            self.at = 0;
        }
        if self.poll_flush(stream, cx)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.unflushed {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(false),
            }
            self.unflushed = false;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outgoing: Outgoing<'_>) -> Vec<u8> {
        let (mut sink, mut pending) = (Vec::new(), Pending::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        outgoing.write(&mut sink, &mut pending, &mut cx).1.expect("a vector takes everything");
        assert!(pending.is_empty());
        sink
    }

    #[test]
    fn one_run_is_not_copied() {
        let mut outgoing = Outgoing::new(b"0123456789", Vec::new());
        outgoing.forward(2..4);
        outgoing.forward(4..8);
        assert!(outgoing.copied.is_empty());
        assert_eq!(sent(outgoing), b"234567");
    }

    #[test]
    fn gaps_and_insertions_keep_their_order() {
        let mut outgoing = Outgoing::new(b"0123456789", Vec::new());
        outgoing.forward(0..2);
        outgoing.forward(3..5);
        outgoing.inject(b"--");
        outgoing.forward(5..6);
        outgoing.forward(6..7);
        outgoing.inject(b"!");
        assert_eq!(sent(outgoing), b"0134--56!");
    }

    #[test]
    fn what_the_socket_does_not_take_waits_and_goes_first() {
        let (mut near, mut far) = tokio::io::duplex(4);
        let mut pending = Pending::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        pending.write(&mut near, b"abcdefgh", &mut cx).expect("written");
        assert!(!pending.is_empty());
        let mut got = Vec::new();
        while got.len() < 8 {
            let mut bytes = [0; 3];
            let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
            let _ = tokio::io::AsyncRead::poll_read(Pin::new(&mut far), &mut cx, &mut buffer);
            got.extend_from_slice(buffer.filled());
            let _ = pending.poll_drain(&mut near, &mut cx);
        }
        assert_eq!(got, b"abcdefgh");
        assert!(pending.is_empty());
    }
}
