//! A client that has begun the head of an HTTP/1 request has to end it.
//!
//! hyper's own limit runs from the end of the response before, so it would cut connections that are merely idle, which Linkerd
//! keeps for as long as the client likes. Here the time begins with the first byte that is read of a head. Bytes that came along
//! with the request before do not count until another one follows: until then the client holds no more than an idle one does.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time,
};

/// Longer than a client on a bad line needs. Linkerd has no limit.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that tells the timer when something is read.
pub(super) struct Noticed<T> {
    io: T,
    read: Arc<AtomicBool>,
}

/// The timer of one server connection, which hyper starts whenever it waits for a head.
pub(super) struct HeadTimer {
    /// Something has been read since it was started last. Both ends are in the connection's task.
    read: Arc<AtomicBool>,
}

/// Ends a while after the first byte. The connection's task is woken by that byte, so nothing else needs to wake it.
struct FromFirstByte {
    read: Arc<AtomicBool>,
    within: Duration,
    sleep: Option<Pin<Box<time::Sleep>>>,
}

pub(super) fn noticed<T>(io: T) -> (Noticed<T>, HeadTimer) {
    let read = Arc::<AtomicBool>::default();
    (Noticed { io, read: Arc::clone(&read) }, HeadTimer { read })
}

impl Timer for HeadTimer {
    fn sleep(&self, within: Duration) -> Pin<Box<dyn Sleep>> {
        self.read.store(false, Ordering::Relaxed);
        Box::pin(FromFirstByte { read: Arc::clone(&self.read), within, sleep: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Sleep for FromFirstByte {}

impl Future for FromFirstByte {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.sleep.is_none() && !this.read.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let within = this.within;
        this.sleep.get_or_insert_with(|| Box::pin(time::sleep(within))).as_mut().poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noticed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noticed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
