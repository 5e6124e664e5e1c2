//! Limits the size of each answer of a server, because answers are held in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest answer, bytes. The one to INFO has some thousand.
const ANSWER: u64 = 1 << 20;

/// The bytes that may still be received. Shared by the stream and by the one who sends commands.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(ANSWER)))
    }

    /// Allows a full answer again. To be called before each command.
    pub(super) fn renew(&self) {
        self.0.store(ANSWER, Ordering::Relaxed);
    }
}

/// A stream that fails when the allowance is used up.
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
        let received = (buffer.filled().len() - before) as u64;
        let left = self.left.0.load(Ordering::Relaxed);
        if received > left {
            return Poll::Ready(Err(io::Error::other(format!(
                "its answer has more than {ANSWER} bytes"
            ))));
        }
        self.left.0.store(left - received, Ordering::Relaxed);
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
