//! How long a request and its response may take, by the route that they came on.
//!
//! As with Linkerd's proxy (`linkerd/http/stream-timeouts`), the time of an application begins when it has all of the request, however
//! long the client takes over that, or when it has begun to answer before. Nothing is idle as long as one direction moves.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{self, Instant, Sleep};

use super::{RequestBody, ResponseBody};

/// A limit of a policy's route that is over. The texts are those of Linkerd's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overdue {
    /// Of the request and its response, all attempts together.
    #[error("request timeout: {0:?}")]
    Request(Duration),
    /// Of one attempt, without an answer: another one may go better.
    #[error("response header timeout: {0:?}")]
    Head(Duration),
    /// Of the answer to one attempt, which has not begun or has no end.
    #[error("response stream timeout: {0:?}")]
    Stream(Duration),
    /// Of silence in the middle of an answer, or of a request.
    #[error("idle timeout: {0:?}")]
    Idle(Duration),
}

impl Overdue {
    /// The label `error` where requests are counted by how their streams end.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Request(_) => "REQUEST_TIMEOUT",
            Self::Head(_) => "RESPONSE_HEADERS_TIMEOUT",
            Self::Stream(_) => "RESPONSE_STREAM_TIMEOUT",
            Self::Idle(_) => "IDLE_TIMEOUT",
        }
    }

    fn limit(self) -> Duration {
        let (Self::Request(limit) | Self::Head(limit) | Self::Stream(limit) | Self::Idle(limit)) = self;
        limit
    }
}

/// The limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AttemptLimits {
    /// How long the head of the response is awaited before the attempt is given up for another.
    pub(crate) head: Option<Duration>,
    /// How long the response may take to its end.
    pub(crate) response: Option<Duration>,
    /// How long nothing may move.
    pub(crate) idle: Option<Duration>,
}

/// An attempt that has limits.
pub(crate) struct TimedAttempt {
    limits: AttemptLimits,
    pace: Arc<Pace>,
}

impl AttemptLimits {
    /// The attempt begins, and sends this. `None` if it may take any time.
    pub(crate) fn begin(self, request: &mut RequestBody) -> Option<TimedAttempt> {
        if self == Self::default() {
            return None;
        }
        let pace = Arc::new(Pace::begin());
        request.keep(&pace);
        Some(TimedAttempt { limits: self, pace })
    }
}

impl TimedAttempt {
    /// Ends if the head of the response does not come in time.
    pub(crate) fn without_head(&self) -> impl Future<Output = Overdue> + Send + use<> {
        let (limits, pace) = (self.limits, Arc::clone(&self.pace));
        async move {
            let sent = match limits.idle {
                None => pace.sent().await,
                Some(limit) => tokio::select! {
                    biased;
                    sent = pace.sent() => sent,
                    () = pace.falls_silent(limit) => return Overdue::Idle(limit),
                },
            };
            // As with Linkerd's proxy, the limit of the head takes the place of the other one, even if it is longer.
            let overdue = limits.head.map(Overdue::Head).or(limits.response.map(Overdue::Stream));
            let Some(overdue) = overdue else { return pending().await };
            time::sleep_until(sent + overdue.limit()).await;
            overdue
        }
    }

    /// The head has come, and the rest may take what is left.
    pub(crate) fn limit(&self, rest: &mut ResponseBody) {
        if let Some(limit) = self.limits.response {
            let since = self.pace.sent_at().unwrap_or_else(Instant::now);
            rest.end_by(since + limit, Overdue::Stream(limit));
        }
        if let Some(limit) = self.limits.idle {
            rest.limit_idle(limit, &self.pace);
        }
    }
}

/// How a request gets on, as the limits of its answer need to know.
pub(super) struct Pace(Mutex<Progress>);

struct Progress {
    /// When all of the request had left for the application, or would not leave any more.
    sent: Option<Instant>,
    /// When a part of it left last.
    moved: Instant,
    /// Since when the client is waited for.
    waits: Option<Instant>,
    /// Of who wants to know when all has left.
    waker: Option<Waker>,
}

impl Pace {
    fn begin() -> Self {
        Self(Mutex::new(Progress { sent: None, moved: Instant::now(), waits: None, waker: None }))
    }

    /// There is nothing more from the client yet.
    pub(super) fn wait(&self) {
        self.0.lock().waits.get_or_insert_with(Instant::now);
    }

    /// A part of the request leaves.
    pub(super) fn advance(&self) {
        let mut progress = self.0.lock();
        (progress.moved, progress.waits) = (Instant::now(), None);
    }

    /// That was all. Only the first time counts.
    pub(super) fn end(&self) {
        let waker = {
            let mut progress = self.0.lock();
            progress.sent.get_or_insert_with(Instant::now);
            progress.waits = None;
            progress.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn sent_at(&self) -> Option<Instant> {
        self.0.lock().sent
    }

    /// Waits until all of the request has left; when that was. One at a time may.
    async fn sent(&self) -> Instant {
        poll_fn(|cx| {
            let mut progress = self.0.lock();
            match progress.sent {
                Some(at) => Poll::Ready(at),
                None => {
                    progress.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Ends when the client has been waited for as long as this.
    async fn falls_silent(&self, limit: Duration) {
        loop {
            // Who is not waited for now will be later, and has as long from then on.
            let since = self.0.lock().waits;
            time::sleep_until(since.unwrap_or_else(Instant::now) + limit).await;
            if since.is_some() && since == self.0.lock().waits {
                return;
            }
        }
    }
}

/// The limits of one response's body.
#[derive(Default)]
pub(super) struct Limits {
    end: Option<(Overdue, Pin<Box<Sleep>>)>,
    idle: Option<Idle>,
}

struct Idle {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Whether a frame has been asked for that has not come yet: the limit is of that, since a client that takes its time with what
    /// it was sent does not make the application idle.
    waits: bool,
    /// An application that listens is not idle either.
    request: Arc<Pace>,
}

impl Limits {
    /// The body has to end by then. The soonest of several limits counts.
    pub(super) fn end_by(&mut self, at: Instant, overdue: Overdue) {
        if self.end.as_ref().is_none_or(|(_, sleep)| at < sleep.deadline()) {
            self.end = Some((overdue, Box::pin(time::sleep_until(at))));
        }
    }

    /// Its frames may not take longer than this, unless the request moves on.
    pub(super) fn idle(&mut self, limit: Duration, request: &Arc<Pace>) {
        let sleep = Box::pin(time::sleep(limit));
        self.idle = Some(Idle { limit, sleep, waits: false, request: Arc::clone(request) });
    }

    /// A frame has come, or the end.
    pub(super) fn moved(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.waits = false;
        }
    }

    /// Ready when the body should have ended, also while frame follows frame.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        let Some((overdue, sleep)) = &mut self.end else { return Poll::Pending };
        sleep.as_mut().poll(cx).map(|()| *overdue)
    }

    /// There is no frame yet. Ready if it takes too long.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if !std::mem::replace(&mut idle.waits, true) {
            idle.sleep.as_mut().reset(Instant::now() + idle.limit);
        }
        loop {
            ready!(idle.sleep.as_mut().poll(cx));
            // Looked up only now, so that each part of a request costs no timer.
            let due = idle.request.0.lock().moved + idle.limit;
            if due <= Instant::now() {
                return Poll::Ready(Overdue::Idle(idle.limit));
            }
            idle.sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LATER: Duration = Duration::from_secs(3600);

    impl Limits {
        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
            match self.poll_end(cx) {
                Poll::Pending => self.poll_idle(cx),
                over => over,
            }
        }
    }

    /// An attempt with a head, a response and an idle limit.
    fn attempt(limits: [Option<Duration>; 3]) -> (TimedAttempt, Arc<Pace>) {
        let [head, response, idle] = limits;
        let pace = Arc::new(Pace::begin());
        (TimedAttempt { limits: AttemptLimits { head, response, idle }, pace: Arc::clone(&pace) }, pace)
    }

    #[tokio::test]
    async fn the_soonest_limit_counts() {
        let now = Instant::now();
        for (first, second, expected) in [
            (Overdue::Stream(SOON), Overdue::Request(LATER), Overdue::Stream(SOON)),
            (Overdue::Stream(LATER), Overdue::Request(SOON), Overdue::Request(SOON)),
        ] {
            let mut limits = Limits::default();
            for overdue in [first, second] {
                limits.end_by(now + overdue.limit(), overdue);
            }
            limits.idle(LATER, &Arc::new(Pace::begin()));
            assert_eq!(poll_fn(|cx| limits.poll(cx)).await, expected);
        }
    }

    #[tokio::test]
    async fn idle_is_who_is_waited_for() {
        let mut limits = Limits::default();
        limits.idle(SOON, &Arc::new(Pace::begin()));
        // Nobody has asked for anything all the while.
        time::sleep(SOON * 2).await;
        assert_eq!(poll_fn(|cx| limits.poll(cx)).now_or_never(), None);
        limits.moved();
        assert_eq!(poll_fn(|cx| limits.poll(cx)).await, Overdue::Idle(SOON));
    }

    #[tokio::test]
    async fn who_listens_is_not_idle() {
        for listens in [true, false] {
            let (mut limits, request) = (Limits::default(), Arc::new(Pace::begin()));
            limits.idle(SOON, &request);
            assert_eq!(poll_fn(|cx| limits.poll(cx)).now_or_never(), None);
            time::sleep(SOON * 2).await;
            if listens {
                let before = request.0.lock().moved;
                request.advance();
                assert!(request.0.lock().moved > before);
                // However slow this machine is.
                request.0.lock().moved += LATER;
            }
            let expected = (!listens).then_some(Overdue::Idle(SOON));
            assert_eq!(poll_fn(|cx| limits.poll(cx)).now_or_never(), expected);
        }
    }

    #[tokio::test]
    async fn a_response_is_waited_for_once_its_request_has_left() {
        for (limits, overdue) in [
            ([Some(SOON), None, None], Overdue::Head(SOON)),
            ([None, Some(SOON), None], Overdue::Stream(SOON)),
            ([Some(SOON), Some(Duration::ZERO), None], Overdue::Head(SOON)),
        ] {
            let (attempt, request) = attempt(limits);
            let mut late = Box::pin(attempt.without_head());
            assert_eq!(late.as_mut().now_or_never(), None);
            time::sleep(SOON * 2).await;
            assert_eq!(late.as_mut().now_or_never(), None, "the client is not done");
            request.end();
            let sent = request.sent_at().unwrap();
            assert_eq!(late.await, overdue);
            assert!(Instant::now() >= sent + SOON);
        }
    }

    #[tokio::test]
    async fn all_may_have_left_while_nobody_looked() {
        let (attempt, request) = attempt([Some(SOON), None, None]);
        request.end();
        let sent = request.sent_at();
        time::sleep(SOON * 2).await;
        request.end();
        assert_eq!(request.sent_at(), sent, "only the first time counts");
        assert_eq!(attempt.without_head().now_or_never(), Some(Overdue::Head(SOON)));
    }

    #[tokio::test]
    async fn a_client_that_is_waited_for_makes_its_request_idle() {
        let (attempt, request) = attempt([None, None, Some(SOON)]);
        let mut late = Box::pin(attempt.without_head());
        assert_eq!(late.as_mut().now_or_never(), None);
        time::sleep(SOON * 2).await;
        assert_eq!(late.as_mut().now_or_never(), None, "nobody waits for the client");
        request.wait();
        request.advance();
        request.wait();
        let since = request.0.lock().waits.unwrap();
        assert_eq!(late.await, Overdue::Idle(SOON));
        assert!(Instant::now() >= since + SOON);
    }

    #[tokio::test]
    async fn who_has_all_of_a_request_may_think_about_it() {
        let (attempt, request) = attempt([None, None, Some(SOON)]);
        let late = attempt.without_head();
        request.wait();
        request.end();
        assert!(time::timeout(SOON * 3, late).await.is_err());
    }
}
