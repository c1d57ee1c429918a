//! A body as it comes from a connection, whatever that speaks, or from the proxy itself.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{http1, limits::Overdue};

/// The body of a client's request or of a response.
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    Http1(http1::Body),
    Http2(hyper::body::Incoming),
    /// Of a response that the proxy makes: this, until somebody has taken it.
    Whole(Bytes),
}

/// Why a message did not come, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}")]
    Http1(#[from] http1::Error),
    #[error("{0}")]
    Http2(#[from] hyper::Error),
    /// The route's limit is over.
    #[error("timed out processing response stream: {0}")]
    Overdue(Overdue),
}

impl Broken {
    /// Whether it was the request's body that broke, on its way from the client.
    pub(crate) fn is_of_the_request(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Body(_) | http1::Error::Length),
            Self::Http2(error) => error.is_user(),
            Self::Overdue(_) => false,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Whole(body) => body.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}
