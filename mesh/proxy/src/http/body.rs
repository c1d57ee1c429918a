//! Bodies, passed on frame by frame.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderMap, HeaderValue, Request, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{continuation::Gate, error::broken_class, pool::Returning};
use crate::{balance::Endpoint, metrics::Observations, retry::Replay};

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
    pub(crate) fn pass(mut request: Request<Incoming>) -> Request<Self> {
        let gate = Gate::of(&mut request);
        // hyper sends no body with a GET of which nobody says how long it is. From an HTTP/1 client that means there is none;
        // but what came over HTTP/2 from another proxy has lost the coding that said it.
        let said = |name| request.headers().contains_key(name);
        if request.version() == Version::HTTP_11
            && !request.body().is_end_stream()
            && !said(CONTENT_LENGTH)
            && !said(TRANSFER_ENCODING)
        {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        request.map(|body| match gate {
            Some(gate) => Self::Gated(body, gate),
            None => Self::Passed(body),
        })
    }
}

/// A broken request body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The client's connection broke.
    #[error(transparent)]
    Client(#[from] hyper::Error),
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
pub(crate) struct ResponseBody(Option<Watched>);

struct Watched {
    body: Incoming,
    observations: Observations,
    /// The endpoint's load, until the first frame tells how long it took.
    load: Option<EndpointLoad>,
    connection: Option<Returning>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Frames that were read before they were asked for.
    peeked: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    watchers: Vec<Watcher>,
}

/// How the stream of a response ended.
#[derive(Clone, Copy)]
pub(crate) enum StreamEnd<'a> {
    /// As a whole, with trailers if there were any.
    Whole(Option<&'a HeaderMap>),
    Broken(&'a hyper::Error),
    /// The client did not wait for it.
    Dropped,
}

type Watcher = Box<dyn FnOnce(StreamEnd<'_>) + Send>;

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

    /// A body whose end is counted, and after which the connection can be used again.
    pub(crate) fn watched(
        body: Incoming,
        observations: Observations,
        load: EndpointLoad,
        connection: Option<Returning>,
    ) -> Self {
        let mut watched = Watched {
            body,
            observations,
            load: Some(load),
            connection,
            trailers: None,
            ended: false,
            peeked: VecDeque::new(),
            watchers: Vec::new(),
        };
        if watched.body.is_end_stream() {
            watched.end();
        }
        Self(Some(watched))
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

    /// Tells how the stream has ended, when it has.
    pub(crate) fn at_end(&mut self, watch: impl FnOnce(StreamEnd<'_>) + Send + 'static) {
        match &mut self.0 {
            Some(watched) if !watched.ended => watched.watchers.push(Box::new(watch)),
            Some(watched) => watch(watched.how()),
            None => watch(StreamEnd::Whole(None)),
        }
    }

    /// Waits for the first frame, and looks at the next one if it is there already: the trailers of a response of one message, or
    /// of none, are known then. As Linkerd's proxy does, so that it does not wait for the end of a stream.
    pub(crate) async fn peek(&mut self) {
        let Some(watched) = self.0.as_mut().filter(|watched| !watched.ended && watched.peeked.is_empty()) else {
            return;
        };
        while let Some(frame) = match watched.peeked.len() {
            0 => poll_fn(|cx| watched.poll_source(cx)).await,
            1 => poll_fn(|cx| watched.poll_source(cx)).now_or_never().flatten(),
            _ => None,
        } {
            watched.peeked.push_back(frame);
            if watched.ended {
                return;
            }
        }
    }

    /// The trailers, if they have come.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_ref()
    }
}

impl Watched {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.first_frame();
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                if self.trailers.is_some() || self.body.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(error)) => {
                let class = broken_class(error);
                self.ended = true;
                self.observations.each(|observation| observation.fail(class));
                self.tell(StreamEnd::Broken(error));
            }
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    /// How the stream has ended. Nobody asks after an error but of one that was peeked at.
    fn how(&self) -> StreamEnd<'_> {
        let broken = self.peeked.iter().find_map(|frame| frame.as_ref().err());
        broken.map_or(StreamEnd::Whole(self.trailers.as_ref()), StreamEnd::Broken)
    }

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
        for watch in std::mem::take(&mut self.watchers) {
            watch(StreamEnd::Whole(trailers));
        }
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }

    fn tell(&mut self, end: StreamEnd<'_>) {
        for watch in std::mem::take(&mut self.watchers) {
            watch(end);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tell(StreamEnd::Dropped);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(watched) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        match watched.peeked.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => watched.poll_source(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|watched| watched.peeked.is_empty() && watched.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(watched) = &self.0 else { return SizeHint::with_exact(0) };
        let rest = watched.body.size_hint();
        let peeked =
            watched.peeked.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref()).map(Bytes::len).sum::<usize>();
        if peeked == 0 {
            return rest;
        }
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + peeked as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + peeked as u64);
        }
        hint
    }
}
