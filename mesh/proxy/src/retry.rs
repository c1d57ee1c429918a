//! Second attempts: how many are allowed, and the body to send again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use linkerd2_proxy_api::destination::RetryBudget;
use parking_lot::Mutex;

use crate::{
    http::{Incoming, RequestBodyError},
    metrics::Histogram,
    window::Window,
};

/// Linkerd's limit: a body that is larger is sent once.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// Retries are a share of the requests of the last while, plus some per second.
pub(crate) struct Budget {
    ratio: f64,
    reserve: f64,
    /// Requests and retries.
    window: Mutex<Window>,
}

impl Budget {
    /// Linkerd's limits: a time to live from 1 to 60 seconds, a ratio from 0 to 1000.
    pub(crate) fn compile(budget: &RetryBudget) -> Option<Self> {
        let ttl = Duration::try_from(budget.ttl?).ok()?;
        let ratio = f64::from(budget.retry_ratio);
        let valid = (1..=60).contains(&ttl.as_secs()) && (0.0..=1000.0).contains(&ratio);
        valid.then(|| Self {
            ratio,
            reserve: f64::from(budget.min_retries_per_second) * ttl.as_secs_f64(),
            window: Mutex::new(Window::new(ttl, Instant::now())),
        })
    }

    /// A request was made.
    pub(crate) fn deposit(&self) {
        self.window.lock().add(Instant::now(), (1.0, 0.0));
    }

    /// Whether another attempt may be made.
    pub(crate) fn withdraw(&self) -> bool {
        self.withdraw_at(Instant::now())
    }

    fn withdraw_at(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        let (requests, retries) = window.sums(now);
        let allowed = requests * self.ratio + self.reserve - retries >= 1.0;
        if allowed {
            window.add(now, (0.0, 1.0));
        }
        allowed
    }
}

/// A request body that is kept while it is sent, so that it can be sent again.
pub(crate) struct Recorder<B = Incoming>(Arc<Mutex<Recording<B>>>);

struct Recording<B> {
    source: B,
    /// As much as is kept.
    limit: usize,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: usize,
    /// The body turned out larger than what is kept.
    overflowed: bool,
    ended: bool,
    /// Counts attempts; only the last one may read.
    attempt: u32,
    /// Counts the sizes of the client's frames.
    sizes: Option<Arc<Histogram>>,
}

/// The body as one attempt sends it: what was recorded, then what still comes.
pub(crate) struct Replay<B = Incoming> {
    recording: Arc<Mutex<Recording<B>>>,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
    hint: SizeHint,
}

impl<B> Recorder<B>
where
    B: Body<Data = Bytes> + Unpin,
    RequestBodyError: From<B::Error>,
{
    /// `None`, and the body back, if it is too large already by what it says about itself.
    pub(crate) fn new(source: B, limit: usize) -> Result<Self, B> {
        if source.size_hint().lower() > limit as u64 {
            return Err(source);
        }
        let recording = Recording {
            source,
            limit,
            frames: Vec::new(),
            trailers: None,
            size: 0,
            overflowed: false,
            ended: false,
            attempt: 0,
            sizes: None,
        };
        Ok(Self(Arc::new(Mutex::new(recording))))
    }

    /// The body for another attempt, which ends the one before; `None` if not all of it was kept.
    pub(crate) fn replay(&self) -> Option<Replay<B>> {
        let mut recording = self.0.lock();
        if recording.overflowed {
            return None;
        }
        recording.attempt += 1;
        let hint = if recording.attempt == 1 { recording.source.size_hint() } else { recording.rest() };
        Some(Replay { attempt: recording.attempt, recording: Arc::clone(&self.0), next: 0, trailers_sent: false, hint })
    }
}

impl<B: Body> Recording<B> {
    /// The size of all that was recorded and all that still comes.
    fn rest(&self) -> SizeHint {
        let kept = self.size as u64;
        if self.ended {
            return SizeHint::with_exact(kept);
        }
        let source = self.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower() + kept);
        if let Some(upper) = source.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
    RequestBodyError: From<B::Error>,
{
    /// Counts the sizes of the client's frames, each once however often it is sent.
    pub(crate) fn count(&self, sizes: Option<&Arc<Histogram>>) {
        self.recording.lock().sizes = sizes.cloned();
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let mut recording = self.recording.lock();
        if recording.attempt != self.attempt {
            return Poll::Ready(Some(Err(RequestBodyError::Superseded)));
        }
        if let Some(frame) = recording.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        if recording.ended {
            let trailers = recording.trailers.clone().filter(|_| !std::mem::replace(&mut self.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = std::task::ready!(Pin::new(&mut recording.source).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(sizes) = &recording.sizes {
                        sizes.sized(data.len());
                    }
                    self.next += usize::from(recording.keep(data));
                } else if let Some(trailers) = frame.trailers_ref() {
                    recording.trailers = Some(trailers.clone());
                    recording.ended = true;
                    self.trailers_sent = true;
                }
            }
            Some(Err(_)) => recording.overflowed = true,
            None => recording.ended = true,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let recording = self.recording.lock();
        self.next == recording.frames.len()
            && match recording.ended {
                true => recording.trailers.is_none() || self.trailers_sent,
                false => recording.source.is_end_stream(),
            }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl<B> Recording<B> {
    /// Keeps a frame; false if there are too many now and none is kept any more.
    fn keep(&mut self, data: &Bytes) -> bool {
        self.size += data.len();
        if self.overflowed || self.size > self.limit {
            self.overflowed = true;
            self.frames = Vec::new();
            return false;
        }
        self.frames.push(data.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, future::poll_fn, stream};
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    impl From<Infallible> for RequestBodyError {
        fn from(never: Infallible) -> Self {
            match never {}
        }
    }

    async fn drain(replay: &mut Replay<impl Body<Data = Bytes, Error = Infallible> + Unpin>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| replay.poll_frame(cx)).await {
            if let Ok(data) = frame.unwrap().into_data() {
                all.extend_from_slice(&data);
            }
        }
        all
    }

    #[tokio::test]
    async fn a_body_is_sent_again_from_its_start() {
        let chunks = stream::iter(["ab", "cd", "ef"]).map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
        let recorder = Recorder::new(StreamBody::new(chunks), MAX_BODY).ok().unwrap();
        let mut first = recorder.replay().unwrap();
        poll_fn(|cx| first.poll_frame(cx)).await.unwrap().unwrap();
        let mut second = recorder.replay().unwrap();
        assert_eq!(drain(&mut second).await, b"abcdef");
        let late = poll_fn(|cx| first.poll_frame(cx)).await;
        assert!(matches!(late, Some(Err(RequestBodyError::Superseded))));
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        assert!(Recorder::new(Full::new(Bytes::from(vec![0; MAX_BODY + 1])), MAX_BODY).is_err());
        let chunks = stream::iter(0..3).map(|_| Ok(Frame::data(Bytes::from(vec![0; MAX_BODY / 2]))));
        let recorder = Recorder::new(BodyExt::boxed_unsync(StreamBody::new(chunks)), MAX_BODY).ok().unwrap();
        let mut first = recorder.replay().unwrap();
        assert_eq!(drain(&mut first).await.len(), MAX_BODY / 2 * 3);
        assert!(recorder.replay().is_none());
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = |retry_ratio, min_retries_per_second| {
            let ttl = Some(prost_types::Duration { seconds: 10, nanos: 0 });
            Budget::compile(&RetryBudget { retry_ratio, min_retries_per_second, ttl }).unwrap()
        };
        let share = budget(0.2, 0);
        assert!(!share.withdraw());
        (0..10).for_each(|_| share.deposit());
        assert_eq!([(); 3].map(|()| share.withdraw()), [true, true, false]);
        let later = Instant::now() + Duration::from_secs(11);
        assert!(!share.withdraw_at(later), "the requests were too long ago");
        assert_eq!((0..200).filter(|_| budget(0.0, 10).withdraw()).count(), 200);
        let reserve = budget(0.0, 10);
        assert_eq!((0..200).filter(|_| reserve.withdraw()).count(), 100);
    }
}
