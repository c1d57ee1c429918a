//! The bytes of one connection, between whoever reads messages from it and whoever writes them to it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Error, parse::Refused};
use crate::{http::MAX_HEAD, io::Io};

/// As much as is read at once.
const READ: usize = 64 * 1024;

thread_local! {
    /// What is read goes here first, so that no connection needs a buffer of its own to wait with.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    /// What is written is put together here.
    static WRITE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection whose reader and writer may be in two tasks. Nobody holds the lock while it waits or asks for a body.
pub(super) type Shared = Arc<Mutex<Wire>>;

/// A connection with what was read too early and what could not be written yet.
pub(super) struct Wire {
    io: Io,
    /// Read, and not yet part of a message.
    pub(super) input: Bytes,
    /// Less than this much of the input, as far as is known, is a head.
    searched: usize,
    ended: bool,
    /// Empty unless the peer reads slowly.
    output: BytesMut,
    /// Of a server's connection: what becomes of the request's body.
    pub(super) body: Unread,
}

/// Whether there is a body on the connection that has not been read to its end.
pub(super) enum Unread {
    /// No.
    None,
    /// Somebody reads it, or will: the waker is for who waits for more.
    Open(Option<Waker>),
    /// Nobody reads it, or is to: the request has been answered.
    Abandoned,
}

impl Wire {
    pub(super) fn new(io: Io) -> Shared {
        let wire =
            Self { io, input: Bytes::new(), searched: 0, ended: false, output: BytesMut::new(), body: Unread::None };
        Arc::new(Mutex::new(wire))
    }

    /// The connection, for another protocol; `None` if somebody still uses it for this one.
    pub(super) fn into_io(shared: Shared) -> Option<Io> {
        let mut wire = Arc::try_unwrap(shared).ok()?.into_inner();
        wire.io.unread(wire.input);
        Some(wire.io)
    }

    /// Reads once; zero is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let read = read.filled();
            self.ended = read.is_empty();
            if self.input.is_empty() {
                self.input = Bytes::copy_from_slice(read);
            } else {
                let mut input = match std::mem::take(&mut self.input).try_into_mut() {
                    Ok(input) => input,
                    Err(shared) => BytesMut::from(&*shared),
                };
                input.extend_from_slice(read);
                self.input = input.freeze();
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// The next head; `None` if the connection has ended before its first byte.
    pub(super) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        parse: impl Fn(&mut Bytes) -> Result<Option<T>, Refused>,
    ) -> Poll<Result<Option<T>, HeadError>> {
        loop {
            if self.may_be_head()
                && let Some(head) = parse(&mut self.input)?
            {
                self.searched = 0;
                return Poll::Ready(Ok(Some(head)));
            }
            self.searched = self.input.len();
            if self.input.len() > MAX_HEAD {
                return Poll::Ready(Err(Refused::TooLarge.into()));
            }
            if ready!(self.poll_fill(cx)).map_err(Error::Io)? == 0 {
                let end = if self.input.is_empty() { Ok(None) } else { Err(Error::Incomplete.into()) };
                return Poll::Ready(end);
            }
        }
    }

    /// Whether it is worth parsing: the first bytes are, for they may be wrong; later ones if a head ends in them.
    fn may_be_head(&self) -> bool {
        let new = &self.input[self.searched.saturating_sub(3).min(self.input.len())..];
        let ends = || new.windows(2).any(|pair| pair == b"\n\n") || new.windows(4).any(|four| four == b"\r\n\r\n");
        !self.input.is_empty() && (self.searched == 0 || ends())
    }

    /// Writes what goes now, and keeps the rest for [`Wire::poll_flush`].
    pub(super) fn write(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while self.output.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => bytes = &bytes[written..],
                Poll::Pending => break,
            }
        }
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was kept.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.output.advance(written),
            }
        }
        if self.output.capacity() > 0 {
            self.output = BytesMut::new();
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Ready when the peer has left. What it says early is kept, and as long as there is something of that, nobody looks.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.body, Unread::None) || !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_fill(cx)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Whether a connection that is idle is of no use any more: closed, or spoken on by somebody who was not asked.
    pub(super) fn is_spent(&mut self, cx: &mut Context<'_>) -> bool {
        !self.input.is_empty() || self.poll_fill(cx).is_ready()
    }

    /// Reads and forgets until the peer has closed.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.input = Bytes::new();
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}

/// Runs `write` with an empty buffer.
pub(super) fn with_buffer<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = WRITE_BUFFER.take();
    buffer.clear();
    let result = write(&mut buffer);
    WRITE_BUFFER.set(buffer);
    result
}

/// Why there is no head.
pub(super) enum HeadError {
    /// There is one that is not served.
    Refused(Refused),
    /// The connection broke.
    Broken(Error),
}

impl From<Refused> for HeadError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for HeadError {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}
