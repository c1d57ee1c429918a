//! One stream of the control plane, opened again whenever it ends.

use std::time::Duration;

use futures::{Stream, StreamExt};
use rand::Rng;
use tokio::time::{self, Instant};
use tonic::{Response, Status};
use tracing::{debug, info};

use crate::{
    StreamLimits,
    metrics::{ControlCall, ControlScope},
};

const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const JITTER: f64 = 0.1;

/// What comes from the stream.
pub(super) enum Event<T> {
    /// A message; `first` of its stream or not.
    Item { item: T, first: bool },
    /// The stream ended with an error or could not be opened.
    Failed(Status),
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Stop,
}

/// What the streams of one service have in common.
#[derive(Clone)]
pub(super) struct Streams {
    /// Counts them.
    pub(super) scope: ControlScope,
    pub(super) limits: StreamLimits,
}

/// A call that is made again and again.
pub(super) struct Follow {
    call: &'static str,
    target: String,
    streams: Streams,
}

/// How a stream ended.
enum End {
    /// By itself, or with an error, or it could not be opened.
    Theirs(Option<Status>),
    /// It said nothing.
    Silent,
    /// One of its limits was over. It may have been the best of streams.
    Ours,
    /// Nobody wants more of it.
    Stop,
}

impl Follow {
    pub(super) fn new(call: &'static str, target: String, streams: Streams) -> Self {
        Self { call, target, streams }
    }

    /// Opens the stream, hands on what comes, and opens it again after a while when it ends.
    pub(super) async fn run<T, S, F>(self, open: impl Fn() -> F, mut on: impl FnMut(Event<T>) -> Next)
    where
        S: Stream<Item = Result<T, Status>> + Unpin,
        F: Future<Output = Result<Response<S>, Status>>,
    {
        let mut backoff = MIN_BACKOFF;
        loop {
            let mut counted = self.streams.scope.begin();
            match self.follow(&open, &mut counted, &mut backoff, &mut on).await {
                End::Theirs(status) => {
                    self.ended(counted, status.as_ref());
                    if let Some(status) = status
                        && on(Event::Failed(status)) == Next::Stop
                    {
                        return;
                    }
                }
                // Nobody is told: somebody else may have an answer soon, and what was known stays known.
                End::Silent => {
                    self.ended(counted, Some(&Status::deadline_exceeded("no first message within the stream's limit")));
                }
                End::Ours => self.ended(counted, None),
                End::Stop => return,
            }
            let jitter = 1.0 + JITTER * rand::rng().random::<f64>();
            time::sleep(backoff.mul_f64(jitter)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// One stream, to its end. The first limit is one of the call as well, the last one begins when that is answered; as in Linkerd's
    /// proxy (`linkerd/tonic-stream/src/lib.rs`), whose streams without an idle limit end with the first one, though.
    async fn follow<T, S, F>(
        &self,
        open: impl Fn() -> F,
        counted: &mut ControlCall<'_>,
        backoff: &mut Duration,
        mut on: impl FnMut(Event<T>) -> Next,
    ) -> End
    where
        S: Stream<Item = Result<T, Status>> + Unpin,
        F: Future<Output = Result<Response<S>, Status>>,
    {
        let StreamLimits { initial, idle, lifetime } = self.streams.limits;
        let mut silent = after(initial.or(idle));
        let mut stream = match within(silent, open()).await {
            Some(Ok(response)) => response.into_inner(),
            Some(Err(status)) => return End::Theirs(Some(status)),
            None => return End::Silent,
        };
        let over = after(lifetime);
        let mut first = true;
        loop {
            let item = match within(earlier(silent, over), stream.next()).await {
                Some(Some(Ok(item))) => item,
                Some(Some(Err(status))) => return End::Theirs(Some(status)),
                Some(None) => return End::Theirs(None),
                None if first => return End::Silent,
                None => return End::Ours,
            };
            counted.answered();
            *backoff = MIN_BACKOFF;
            if on(Event::Item { item, first }) == Next::Stop {
                return End::Stop;
            }
            first = false;
            silent = after(idle);
        }
    }

    fn ended(&self, counted: ControlCall<'_>, status: Option<&Status>) {
        let Self { call, target, .. } = self;
        match status {
            Some(status) if std::error::Error::source(status).is_some() => {
                info!(%call, %target, error = %status, "the control plane cannot be reached");
            }
            Some(status) => debug!(%call, %target, %status, "the control plane answered with an error"),
            None => debug!(%call, %target, "the control plane ended a stream"),
        }
        counted.end(status);
    }
}

/// When so long has passed; never if that is no time.
fn after(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use futures::stream;

    use super::*;
    use crate::{ControlAddr, metrics::Metrics};

    const SHORT: Option<Duration> = Some(Duration::from_millis(20));

    const WHILE: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(60);

    /// How often a stream that says `first` and nothing more is opened within this time, up to three times, and what is told of them.
    async fn opened(
        limits: StreamLimits,
        answers: bool,
        first: Option<u8>,
        within: Duration,
    ) -> (usize, Vec<Option<u8>>) {
        let service = ControlAddr { authority: "dst:8086".to_owned(), name: None };
        let streams = Streams { scope: Metrics::new().control.scope(&service), limits };
        let (opened, mut told) = (AtomicUsize::new(0), Vec::new());
        let done = tokio::sync::Notify::new();
        let open = || {
            if opened.fetch_add(1, Relaxed) + 1 == 3 {
                done.notify_one();
            }
            async move {
                if !answers {
                    future::pending::<()>().await;
                }
                Ok(Response::new(stream::iter(first.map(Ok)).chain(stream::pending())))
            }
        };
        let on = |event| {
            told.push(match event {
                Event::Item { item, first } => first.then_some(item),
                Event::Failed(_) => None,
            });
            Next::Continue
        };
        tokio::select! {
            () = Follow::new("Get", "web".to_owned(), streams).run(open, on) => {}
            () = done.notified() => {}
            () = time::sleep(within) => {}
        }
        (opened.into_inner(), told)
    }

    #[tokio::test]
    async fn a_stream_that_is_over_a_limit_is_opened_again() {
        let none = StreamLimits::default();
        let initial = StreamLimits { initial: SHORT, ..none };
        let idle = StreamLimits { idle: SHORT, ..none };
        let lifetime = StreamLimits { lifetime: SHORT, ..none };
        // Nothing is told of a stream that says nothing, and no stream says more than once here.
        assert_eq!(opened(initial, false, None, LONG).await, (3, vec![]));
        assert_eq!(opened(initial, true, None, LONG).await, (3, vec![]));
        assert_eq!(opened(idle, true, None, LONG).await, (3, vec![]), "it holds for the first as well");
        assert_eq!(opened(idle, true, Some(1), LONG).await, (3, vec![Some(1); 3]));
        assert_eq!(opened(lifetime, true, Some(1), LONG).await, (3, vec![Some(1); 3]));
        // The controls: once something has come the first limit is over, and without limits there is none.
        assert_eq!(opened(initial, true, Some(1), WHILE).await, (1, vec![Some(1)]));
        assert_eq!(opened(none, true, None, WHILE).await, (1, vec![]));
    }
}
