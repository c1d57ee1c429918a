//! A connection whose bytes are counted, and whose first bytes can be looked at before anyone reads them.

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
use tokio_rustls::TlsStream;
use tokio_util::either::Either;

use crate::metrics::TcpConnection;

/// What carries a connection's bytes: on the left as they are, on the right encrypted between two proxies.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<Prefixed>>>;

/// A TCP connection with the bytes that were read from it before.
pub(crate) struct Prefixed {
    stream: TcpStream,
    prefix: Bytes,
}

/// A connection, accepted or dialled. Counted is what it carries: with TLS, what was encrypted.
pub(crate) struct Io {
    transport: Transport,
    prefix: Bytes,
    counters: TcpConnection,
}

impl Io {
    pub(crate) fn new(transport: Transport, counters: TcpConnection) -> Self {
        Self { transport, prefix: Bytes::new(), counters }
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

    /// Waits until there is something to read, which stays there, or the end. Nothing is lost when it is given up.
    pub(crate) async fn speaks(&mut self) -> io::Result<()> {
        if !self.has_unread() {
            let mut first = BytesMut::with_capacity(1024);
            self.read_buf(&mut first).await?;
            self.unread(first.freeze());
        }
        Ok(())
    }

    /// Waits until it is clear whether the connection begins with `expected`, for so long at most. What has come stays there.
    pub(crate) async fn begins(&mut self, expected: &[u8], within: Duration) -> io::Result<()> {
        if self.prefix.len() >= expected.len() {
            return Ok(());
        }
        let deadline = time::Instant::now() + within;
        let mut begun = BytesMut::with_capacity(1024);
        while begun.len() < expected.len() && expected.starts_with(&begun) {
            if time::timeout_at(deadline, self.read_buf(&mut begun)).await?? == 0 {
                break;
            }
        }
        self.unread(begun.freeze());
        Ok(())
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.counters.failed(error);
        }
        result
    }
}

/// Reads what came before the stream, if any is left.
fn read_prefix(prefix: &mut Bytes, buf: &mut ReadBuf<'_>) -> bool {
    if !prefix.has_remaining() {
        return false;
    }
    let length = prefix.len().min(buf.remaining());
    buf.put_slice(&prefix.split_to(length));
    true
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if read_prefix(&mut self.prefix, buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.transport).poll_read(cx, buf));
        self.counters.read(buf.filled().len() - before);
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.transport).poll_write(cx, buf));
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
        let result = ready!(Pin::new(&mut self.transport).poll_write_vectored(cx, bufs));
        if let Ok(written) = result {
            self.counters.written(written);
        }
        Poll::Ready(self.note(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

impl Prefixed {
    pub(crate) fn new(stream: TcpStream, prefix: Bytes) -> Self {
        Self { stream, prefix }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if read_prefix(&mut self.prefix, buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
