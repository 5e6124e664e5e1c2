//! A connection on which no answer is longer than answers are: what a server sends is held in
//! memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one answer, at most: INFO has some thousand.
const ANSWER: u64 = 1 << 20;

/// How much may still come.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(ANSWER)))
    }

    /// For the next answer.
    pub(super) fn renew(&self) {
        self.0.store(ANSWER, Ordering::Relaxed);
    }
}

/// The connection.
pub(super) struct Bounded<S> {
    stream: S,
    left: Allowance,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, left: Allowance) -> Self {
        Self { stream, left }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = (buffer.filled().len() - before) as u64;
        let left = self.left.0.load(Ordering::Relaxed);
        if came > left {
            return Poll::Ready(Err(io::Error::other(format!(
                "its answer has more than {ANSWER} bytes"
            ))));
        }
        self.left.0.store(left - came, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
