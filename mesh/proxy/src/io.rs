//! A TCP connection whose bytes are counted, and whose first bytes can be looked at before anyone reads them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time,
};

use crate::metrics::TcpConnection;

/// A connection, accepted or dialled.
pub(crate) struct Io {
    stream: TcpStream,
    prefix: Bytes,
    counters: TcpConnection,
}

impl Io {
    pub(crate) fn new(stream: TcpStream, counters: TcpConnection) -> Self {
        Self { stream, prefix: Bytes::new(), counters }
    }

    /// Reads once, at most until the buffer holds `limit` bytes. `Ok(0)` is the end of the stream.
    pub(crate) async fn read_into(
        &mut self,
        buffer: &mut BytesMut,
        limit: usize,
        within: Duration,
    ) -> io::Result<usize> {
        let mut reader = AsyncReadExt::take(&mut *self, limit.saturating_sub(buffer.len()) as u64);
        time::timeout(within, reader.read_buf(buffer)).await?
    }

    /// Gives back what was read, so that the next reader sees it first.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.prefix.is_empty());
        self.prefix = bytes;
    }

    /// Whether bytes were given back that nobody has read again.
    pub(crate) fn has_unread(&self) -> bool {
        self.prefix.has_remaining()
    }

    /// Waits until there is something to read, or the end.
    pub(crate) async fn speaks(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).await.map(drop)
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.counters.failed(error);
        }
        result
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.counters.read(buf.filled().len() - before);
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        if let Ok(written) = result {
            self.counters.written(written);
        }
        Poll::Ready(self.note(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        if let Ok(written) = result {
            self.counters.written(written);
        }
        Poll::Ready(self.note(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
