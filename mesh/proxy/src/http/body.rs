//! Bodies, passed on frame by frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};

use super::{Broken, Incoming, continuation::Gate, error::broken_class};
use crate::{balance::Endpoint, metrics::Observations, retry::Replay};

/// A request on its way. Boxed, because it passes many hands, and who hands it on moves it.
pub(crate) type BoxedRequest = Box<Request<RequestBody>>;

/// What is sent to an application.
pub(crate) enum RequestBody {
    /// The client's body as it comes.
    Passed(Incoming),
    /// As before, but not before the application asks for it.
    Gated(Incoming, Gate),
    /// The client's body, kept for a second attempt.
    Replayed(Replay),
    /// Of a request without one that is sent again.
    Empty,
}

impl RequestBody {
    /// The client's request, to be sent once.
    pub(super) fn pass(request: Request<Incoming>) -> BoxedRequest {
        let gate = Gate::of(&request);
        Box::new(request.map(|body| match gate {
            Some(gate) => Self::Gated(body, gate),
            None => Self::Passed(body),
        }))
    }

    /// The application has asked for the body.
    pub(super) fn proceed(&mut self) {
        if let Self::Gated(_, gate) = self {
            gate.open();
        }
    }
}

/// A broken request body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The client's connection broke.
    #[error(transparent)]
    Client(#[from] Broken),
    /// A later attempt has taken the body over.
    #[error("the request is being retried")]
    Superseded,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Passed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Gated(body, gate) => {
                ready!(gate.poll(cx));
                Pin::new(body).poll_frame(cx).map_err(Into::into)
            }
            Self::Replayed(replay) => replay.poll_frame(cx),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passed(body) | Self::Gated(body, _) => body.is_end_stream(),
            Self::Replayed(replay) => replay.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passed(body) | Self::Gated(body, _) => body.size_hint(),
            Self::Replayed(replay) => replay.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

/// What is sent to a client: nothing, or an application's body, watched to its end.
pub(crate) struct ResponseBody(Option<Box<Watched>>);

struct Watched {
    body: Incoming,
    observations: Observations,
    /// The endpoint's load, until the first frame tells how long it took.
    load: Option<EndpointLoad>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// A request that its endpoint is busy with.
pub(crate) struct EndpointLoad(Arc<Endpoint>, std::time::Instant);

impl EndpointLoad {
    pub(crate) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.load().begin();
        Self(Arc::clone(endpoint), std::time::Instant::now())
    }
}

impl Drop for EndpointLoad {
    fn drop(&mut self) {
        self.0.load().end(self.1.elapsed());
    }
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// A body whose end is counted.
    pub(crate) fn watched(body: Incoming, observations: Observations, load: EndpointLoad) -> Self {
        let mut watched = Watched { body, observations, load: Some(load), trailers: None, ended: false };
        if watched.body.is_end_stream() {
            watched.end();
        }
        Self(Some(Box::new(watched)))
    }

    /// Adds what watches the response further out.
    pub(crate) fn observe(&mut self, observation: crate::metrics::Observation) {
        let Some(watched) = &mut self.0 else { return };
        watched.observations.add(observation);
        if watched.ended {
            let trailers = watched.trailers.as_ref();
            watched.observations.each(|observation| observation.end(trailers));
        }
    }
}

impl Watched {
    fn first_frame(&mut self) {
        if self.load.take().is_some() {
            self.observations.each(crate::metrics::Observation::first_frame);
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.first_frame();
        let trailers = self.trailers.as_ref();
        self.observations.each(|observation| observation.end(trailers));
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(watched) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut watched.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                watched.first_frame();
                if let Some(trailers) = frame.trailers_ref() {
                    watched.trailers = Some(trailers.clone());
                }
                if watched.trailers.is_some() || watched.body.is_end_stream() {
                    watched.end();
                }
            }
            Some(Err(error)) => {
                let class = broken_class(error);
                watched.ended = true;
                watched.observations.each(|observation| observation.fail(class));
            }
            None => watched.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|watched| watched.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |watched| watched.body.size_hint())
    }
}
