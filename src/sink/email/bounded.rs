//! A connection to a relay of which only so much is read: what it says goes into memory line by line, and a line may never end.
//!
//! It never cuts what is said to the relay. All answers of a conversation together have the limit of one over HTTP: fifty
//! recipients cost fifty short lines.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sink::http::MAX_ANSWER_BYTES;

/// What is read at once.
const READ_BYTES: usize = 1024;

/// A connection, and how much of it may still be read.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    left_bytes: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, peer: SocketAddr) -> Self {
        Self { stream, peer, left_bytes: MAX_ANSWER_BYTES }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left_bytes == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, "the relay says too much")));
        }
        let mut bytes = [0; READ_BYTES];
        let most = self.left_bytes.min(READ_BYTES).min(buffer.remaining());
        let mut read = ReadBuf::new(bytes.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        self.left_bytes -= read.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> AsyncTokioStream for Bounded<S>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn exactly_the_limit_is_read_and_all_is_said() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 25));
        for (said, is_taken) in [(MAX_ANSWER_BYTES, true), (MAX_ANSWER_BYTES + 1, false)] {
            let (ours, mut theirs) = tokio::io::duplex(2 * MAX_ANSWER_BYTES);
            theirs.write_all(&vec![b'2'; said]).await.expect("room");
            let mut bounded = Bounded::new(ours, peer);
            let mut heard = vec![0; said];
            let read = bounded.read_exact(&mut heard).await.map_err(|error| error.kind());
            assert_eq!(read, if is_taken { Ok(said) } else { Err(io::ErrorKind::FileTooLarge) });
            bounded.write_all(&vec![b'a'; MAX_ANSWER_BYTES + 1]).await.expect("room");
            assert_eq!(theirs.read(&mut vec![0; said]).await.expect("said"), said.min(MAX_ANSWER_BYTES + 1));
        }
    }
}
