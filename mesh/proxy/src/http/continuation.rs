//! `Expect: 100-continue`: the client's body is not asked for before the application has asked for it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Version, header::EXPECT};
use tokio::time::{self, Sleep};

/// An application that knows nothing of `Expect` says nothing, and waits for the body (RFC 9110, 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Shut until the application sends `100 Continue`, or for a while.
pub(crate) enum Gate {
    Shut,
    Waiting(Pin<Box<Sleep>>),
    Open,
}

impl Gate {
    /// A gate if the request asks for one. Its client is asked for the body as soon as that is read.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let expects = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let asks = request.version() == Version::HTTP_11 && request.headers().get(EXPECT).is_some_and(expects);
        asks.then_some(Self::Shut)
    }

    pub(crate) fn open(&mut self) {
        *self = Self::Open;
    }

    /// Ready once the gate is open.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Shut => *self = Self::Waiting(Box::pin(time::sleep(PATIENCE))),
                Self::Waiting(patience) => {
                    ready!(patience.as_mut().poll(cx));
                    *self = Self::Open;
                }
                Self::Open => return Poll::Ready(()),
            }
        }
    }
}
