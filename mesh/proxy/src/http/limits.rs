//! How long a response may take, by the route that it came on.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{self, Instant, Sleep};

/// A limit of a policy's route that is over. The texts are those of Linkerd's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overdue {
    /// Of the request and its response, all attempts together.
    #[error("request timeout: {0:?}")]
    Request(Duration),
    /// Of one attempt, without an answer.
    #[error("response header timeout: {0:?}")]
    Head(Duration),
    /// Of one attempt, whose answer has no end.
    #[error("response stream timeout: {0:?}")]
    Stream(Duration),
    /// Of an application's silence in the middle of its answer.
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
}

impl Limits {
    /// The body has to end by then. The soonest of several limits counts.
    pub(super) fn end_by(&mut self, at: Instant, overdue: Overdue) {
        if self.end.as_ref().is_none_or(|(_, sleep)| at < sleep.deadline()) {
            self.end = Some((overdue, Box::pin(time::sleep_until(at))));
        }
    }

    /// Its frames may not take longer than this.
    pub(super) fn idle(&mut self, limit: Duration) {
        self.idle = Some(Idle { limit, sleep: Box::pin(time::sleep(limit)), waits: false });
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
        idle.sleep.as_mut().poll(cx).map(|()| Overdue::Idle(idle.limit))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

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

    #[tokio::test]
    async fn the_soonest_limit_counts() {
        let now = Instant::now();
        for (first, second, expected) in [
            (Overdue::Stream(SOON), Overdue::Request(LATER), Overdue::Stream(SOON)),
            (Overdue::Stream(LATER), Overdue::Request(SOON), Overdue::Request(SOON)),
        ] {
            let mut limits = Limits::default();
            for overdue in [first, second] {
                let (Overdue::Stream(limit) | Overdue::Request(limit)) = overdue else { panic!("{overdue:?}") };
                limits.end_by(now + limit, overdue);
            }
            limits.idle(LATER);
            assert_eq!(poll_fn(|cx| limits.poll(cx)).await, expected);
        }
    }

    #[tokio::test]
    async fn idle_is_who_is_waited_for() {
        let mut limits = Limits::default();
        limits.idle(SOON);
        // Nobody has asked for anything all the while.
        time::sleep(SOON * 2).await;
        assert_eq!(poll_fn(|cx| limits.poll(cx)).now_or_never(), None);
        limits.moved();
        assert_eq!(poll_fn(|cx| limits.poll(cx)).await, Overdue::Idle(SOON));
    }
}
