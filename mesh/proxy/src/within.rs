//! A future with a time limit, or without.
//!
//! The future of a request is as large as everything that may happen to it, each connection holds one, and it is moved for every
//! request. What waits for another future through a variable holds it twice; this holds it once, whether there is a limit or not.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time;

pin_project! {
    /// Ends with what the limit says when that comes first.
    pub(crate) struct Unless<L, F> {
        #[pin]
        future: F,
        // Boxed, for few requests have a limit.
        limit: Option<Pin<Box<L>>>,
    }
}

/// `future`, which may take as long as `limit`. The error is the limit.
pub(crate) fn within<F: Future>(
    limit: Option<Duration>,
    future: F,
) -> impl Future<Output = Result<F::Output, Duration>> {
    let over = limit.map(|limit| {
        let sleep = time::sleep(limit);
        async move {
            sleep.await;
            limit
        }
    });
    unless(over, future)
}

/// `future`, if it ends before `limit` does.
pub(crate) fn unless<L: Future, F: Future>(limit: Option<L>, future: F) -> Unless<L, F> {
    Unless { future, limit: limit.map(Box::pin) }
}

impl<L: Future, F: Future> Future for Unless<L, F> {
    type Output = Result<F::Output, L::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match this.limit {
            Some(limit) => limit.as_mut().poll(cx).map(Err),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_ends_what_takes_longer() {
        let work = |millis| async move {
            time::sleep(Duration::from_millis(millis)).await;
            millis
        };
        let limit = Duration::from_millis(10);
        assert_eq!(within(Some(Duration::from_secs(60)), work(5)).await, Ok(5));
        assert_eq!(within(Some(limit), work(60_000)).await, Err(limit));
        assert_eq!(within(None, work(50)).await, Ok(50));
    }
}
