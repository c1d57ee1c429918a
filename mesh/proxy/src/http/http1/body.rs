//! A body on its way in.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::{
    Error,
    client::Connection,
    decode::Decoder,
    parse::BodyLength,
    wire::{self, Unread},
};
use crate::http::pool::Home;

/// What asks the client for its body, where it waits to be asked.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is still to be read of a message.
pub(crate) struct Body {
    decoder: Decoder,
    source: Source,
}

enum Source {
    Request {
        wire: wire::Shared,
        /// Whether the client waits to be asked for the body.
        expects: bool,
    },
    Response {
        wire: wire::Shared,
        /// Where the connection goes after this, if it can be used again.
        home: Option<Home>,
        /// What still sends the request, which ends with its response.
        upload: Option<Upload>,
    },
    /// There is nothing more to be read.
    Done,
}

/// A task that is stopped when it is not needed any more.
pub(super) struct Upload(pub(super) JoinHandle<()>);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body {
    /// A request's. The connection knows of it until it has been read.
    pub(super) fn request(wire: &wire::Shared, length: BodyLength, expects: bool) -> Option<Self> {
        let decoder = Decoder::from(length);
        if decoder.is_ended() {
            return None;
        }
        wire.lock().body = Unread::Open(None);
        Some(Self { decoder, source: Source::Request { wire: Arc::clone(wire), expects } })
    }

    /// A response's. Its connection goes home at its end.
    pub(super) fn response(wire: wire::Shared, length: BodyLength, home: Option<Home>, upload: Option<Upload>) -> Self {
        let mut this = Self { decoder: length.into(), source: Source::Response { wire, home, upload } };
        this.finish_if_ended();
        this
    }

    fn finish_if_ended(&mut self) {
        if !self.decoder.is_ended() {
            return;
        }
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Request { wire, .. } => wire.lock().body = Unread::None,
            Source::Response { wire, home: Some(home), upload } => {
                // Behind a request that was not sent to its end there is none.
                if upload.is_none_or(|upload| upload.0.is_finished()) {
                    home.give_back(Connection(wire));
                }
            }
            Source::Response { .. } | Source::Done => {}
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::Done => Poll::Ready(None),
            Source::Response { wire, .. } => self.decoder.poll(&mut wire.lock(), cx),
            Source::Request { wire, expects } => {
                let mut wire = wire.lock();
                if let Unread::Abandoned = wire.body {
                    return Poll::Ready(Some(Err(Error::Incomplete)));
                }
                if std::mem::take(expects) {
                    wire.write(cx, CONTINUE)?;
                }
                let polled = self.decoder.poll(&mut wire, cx);
                if polled.is_pending() {
                    wire.body = Unread::Open(Some(cx.waker().clone()));
                }
                polled
            }
        }
    }
}

impl Drop for Body {
    /// Nobody reads the rest, which the connection has to know.
    fn drop(&mut self) {
        if let Source::Request { wire, .. } = &self.source {
            wire.lock().body = Unread::Abandoned;
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_source(cx));
        if let Some(Err(_)) = &frame {
            this.source = Source::Done;
        } else {
            this.finish_if_ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
