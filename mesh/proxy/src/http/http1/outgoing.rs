//! A message on its way out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;

use super::{Error, encode::Encoder, wire};

/// As much as is put together before it is written.
const WRITE: usize = 32 * 1024;

/// The rest of a message whose head has been written.
pub(super) struct Outgoing {
    encoder: Encoder,
    ended: bool,
}

impl Outgoing {
    /// Writes the head, and with it as much of the body as there is already.
    pub(super) fn start<B>(
        wire: &wire::Shared,
        body: &mut B,
        cx: &mut Context<'_>,
        head: impl FnOnce(&B, &mut Vec<u8>) -> Encoder,
    ) -> Result<Self, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        wire::with_buffer(|out| {
            let encoder = head(body, out);
            let mut this = Self { encoder, ended: false };
            // Where the body breaks at once, the head is still told.
            let gathered = this.gather(body, out, cx);
            wire.lock().write(cx, out)?;
            gathered.map(|()| this)
        })
    }

    /// Ready when all of the message has been written.
    pub(super) fn poll<B>(&mut self, wire: &wire::Shared, body: &mut B, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            ready!(wire.lock().poll_flush(cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            let progress = wire::with_buffer(|out| {
                let gathered = self.gather(body, out, cx);
                if !out.is_empty() {
                    wire.lock().write(cx, out)?;
                }
                gathered.map(|()| !out.is_empty() || self.ended)
            })?;
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Puts together what there is of the body, up to a limit.
    fn gather<B>(&mut self, body: &mut B, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<(), Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut trailers = None;
        loop {
            // Which is asked first, since a body that has ended need not be polled.
            if trailers.is_some() || body.is_end_stream() {
                self.ended = true;
                return self.encoder.end(trailers.as_ref(), out);
            }
            if out.len() >= WRITE {
                return Ok(());
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    self.ended = true;
                    return self.encoder.end(None, out);
                }
                Poll::Ready(Some(Err(error))) => return Err(Error::Body(error.into())),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.encoder.data(&data, out)?,
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
    }
}
