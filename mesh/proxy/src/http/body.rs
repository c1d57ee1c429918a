//! Bodies, passed on frame by frame.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    Broken, Incoming, Overdue,
    continuation::Gate,
    limits::{Limits, Pace},
};
use crate::{
    balance::Endpoint,
    metrics::{Histogram, Observer, Observers, Sent},
    retry::Replay,
};

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
    /// Another one of these, that somebody counts.
    Counted(Box<CountedBody>),
}

/// A request body that somebody counts, and of whose end somebody wants to know.
pub(crate) struct CountedBody {
    body: RequestBody,
    frames: Option<Arc<Histogram>>,
    sent: Sent,
    /// Of an attempt that has limits.
    pace: Option<Arc<Pace>>,
}

impl CountedBody {
    fn end(&self) {
        self.sent.now();
        if let Some(pace) = &self.pace {
            pace.end();
        }
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.end();
    }
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

    /// Somebody has asked for the body.
    pub(crate) fn proceed(&mut self) {
        match self {
            Self::Gated(_, gate) => gate.open(),
            Self::Counted(counted) => counted.body.proceed(),
            Self::Passed(_) | Self::Replayed(_) | Self::Empty => {}
        }
    }

    /// Counts the sizes of its frames, and says when the last of them has left; `None` if there are none. What is sent again is
    /// counted once.
    pub(crate) fn count(&mut self, frames: Option<&Arc<Histogram>>) -> Option<Sent> {
        if self.is_end_stream() {
            return None;
        }
        let frames = match self {
            Self::Replayed(replay) => {
                replay.count(frames);
                None
            }
            _ => frames.cloned(),
        };
        let sent = Sent::default();
        let body = std::mem::replace(self, Self::Empty);
        *self = Self::Counted(Box::new(CountedBody { body, frames, sent: sent.clone(), pace: None }));
        Some(sent)
    }

    /// Keeps `pace` of how it gets on, also if there is nothing of it: that has left with the head.
    pub(super) fn keep(&mut self, pace: &Arc<Pace>) {
        let pace = Some(Arc::clone(pace));
        if let Self::Counted(counted) = self {
            counted.pace = pace;
            return;
        }
        let body = std::mem::replace(self, Self::Empty);
        *self = Self::Counted(Box::new(CountedBody { body, frames: None, sent: Sent::default(), pace }));
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
            Self::Counted(counted) => {
                let Poll::Ready(frame) = Pin::new(&mut counted.body).poll_frame(cx) else {
                    if let Some(pace) = &counted.pace {
                        pace.wait();
                    }
                    return Poll::Pending;
                };
                if let Some(pace) = &counted.pace {
                    pace.advance();
                }
                if let (Some(frames), Some(Ok(frame))) = (&counted.frames, &frame)
                    && let Some(data) = frame.data_ref()
                {
                    frames.sized(data.len());
                }
                if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
                    || counted.body.is_end_stream()
                {
                    counted.end();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passed(body) | Self::Gated(body, _) => body.is_end_stream(),
            Self::Replayed(replay) => replay.is_end_stream(),
            Self::Empty => true,
            Self::Counted(counted) => counted.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passed(body) | Self::Gated(body, _) => body.size_hint(),
            Self::Replayed(replay) => replay.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Counted(counted) => counted.body.size_hint(),
        }
    }
}

/// What is sent to a client: nothing, or a body that is watched to its end.
pub(crate) struct ResponseBody(Option<Box<Watched>>);

struct Watched {
    body: Incoming,
    observers: Observers,
    /// The endpoint's load, until the first frame tells how long it took.
    load: Option<EndpointLoad>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Frames that were read before they were asked for.
    peeked: VecDeque<Result<Frame<Bytes>, Broken>>,
    watchers: Vec<Watcher>,
    /// How long the rest may take, if the route says so, as few do.
    limits: Option<Box<Limits>>,
}

/// How the stream of a response ended.
#[derive(Clone, Copy)]
pub(crate) enum StreamEnd<'a> {
    /// As a whole, with trailers if there were any.
    Whole(Option<&'a HeaderMap>),
    Broken(&'a Broken),
    /// The client did not wait for it, or the route did not let it.
    Dropped,
}

type Watcher = Box<dyn FnOnce(StreamEnd<'_>) + Send>;

/// A request that its endpoint is busy with.
pub(crate) struct EndpointLoad {
    endpoint: Arc<Endpoint>,
    began: std::time::Instant,
    /// How long it took was said before it was over.
    said: bool,
}

impl EndpointLoad {
    pub(crate) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.load().begin();
        Self { endpoint: Arc::clone(endpoint), began: std::time::Instant::now(), said: false }
    }

    /// It counts as one that took so long, however long it takes.
    pub(crate) fn took(&mut self, time: Duration) {
        self.endpoint.load().took(time);
        self.said = true;
    }
}

impl Drop for EndpointLoad {
    fn drop(&mut self) {
        let load = self.endpoint.load();
        load.end();
        if !self.said {
            load.took(self.began.elapsed());
        }
    }
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// A body whose end is counted.
    pub(crate) fn watched(body: Incoming, observers: Observers, load: EndpointLoad) -> Self {
        Self::new(body, observers, Some(load))
    }

    /// What the proxy says itself.
    pub(crate) fn whole(body: Bytes) -> Self {
        Self::new(Incoming::Whole(body), Observers::default(), None)
    }

    fn new(body: Incoming, observers: Observers, load: Option<EndpointLoad>) -> Self {
        let mut watched = Watched {
            body,
            observers,
            load,
            trailers: None,
            ended: false,
            peeked: VecDeque::new(),
            watchers: Vec::new(),
            limits: None,
        };
        if watched.body.is_end_stream() {
            watched.end();
        }
        Self(Some(Box::new(watched)))
    }

    /// Adds what watches the response further out.
    pub(crate) fn observe(&mut self, observer: impl Into<Observer>) {
        let mut observer = observer.into();
        let Some(watched) = &mut self.0 else { return observer.end(None) };
        for data in watched.peeked.iter().flatten().filter_map(Frame::data_ref) {
            observer.data(data.len());
        }
        if watched.ended {
            match watched.how() {
                StreamEnd::Broken(error) => observer.broke(error),
                _ => observer.end(watched.trailers.as_ref()),
            }
        }
        watched.observers.add(observer);
    }

    /// All of it has to have come by then. The soonest of several limits counts.
    pub(crate) fn end_by(&mut self, at: Instant, overdue: Overdue) {
        if let Some(limits) = self.limits() {
            limits.end_by(at, overdue);
        }
    }

    /// Nobody waits longer than this for the next frame, unless the request moves on.
    pub(super) fn limit_idle(&mut self, limit: Duration, request: &Arc<Pace>) {
        if let Some(limits) = self.limits() {
            limits.idle(limit, request);
        }
    }

    /// Nothing takes time any more if all has come.
    fn limits(&mut self) -> Option<&mut Limits> {
        let watched = self.0.as_mut().filter(|watched| !watched.ended)?;
        Some(watched.limits.get_or_insert_default())
    }

    /// The response gives way to another one. Whoever counts it need not know that the rest of it was not wanted.
    pub(crate) fn give_way(mut self) {
        if let Some(watched) = &mut self.0 {
            let trailers = watched.trailers.as_ref();
            watched.observers.each(|observer| observer.end(trailers));
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
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let over = self.limits.as_mut().map_or(Poll::Pending, |limits| limits.poll_end(cx));
        let frame = if let Poll::Ready(overdue) = over {
            Some(Err(Broken::Overdue(overdue)))
        } else {
            match (Pin::new(&mut self.body).poll_frame(cx), &mut self.limits) {
                (Poll::Ready(frame), None) => frame,
                (Poll::Ready(frame), Some(limits)) => {
                    limits.moved();
                    frame
                }
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(limits)) => Some(Err(Broken::Overdue(ready!(limits.poll_idle(cx))))),
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                self.first_frame();
                if let Some(data) = frame.data_ref() {
                    self.observers.each(|observer| observer.data(data.len()));
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                if self.trailers.is_some() || self.body.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(error)) => {
                self.ended = true;
                self.observers.each(|observer| observer.broke(error));
                self.tell(match error {
                    // It was the route's limit, which says nothing of who would have sent more.
                    Broken::Overdue(_) => StreamEnd::Dropped,
                    error => StreamEnd::Broken(error),
                });
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
            self.observers.each(Observer::first_frame);
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.first_frame();
        let trailers = self.trailers.as_ref();
        self.observers.each(|observer| observer.end(trailers));
        for watch in std::mem::take(&mut self.watchers) {
            watch(StreamEnd::Whole(trailers));
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
    type Error = Broken;

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
