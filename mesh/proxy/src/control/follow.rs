//! One stream of the control plane, opened again whenever it ends.

use std::time::Duration;

use rand::Rng;
use tokio::time;
use tonic::{Response, Status, Streaming};
use tracing::{debug, info};

use crate::metrics::{ControlCall, ControlScope};

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

/// A call that is made again and again.
pub(super) struct Follow {
    call: &'static str,
    target: String,
    scope: ControlScope,
}

impl Follow {
    pub(super) fn new(call: &'static str, target: String, scope: ControlScope) -> Self {
        Self { call, target, scope }
    }

    /// Opens the stream, hands on what comes, and opens it again after a while when it ends.
    pub(super) async fn run<T, F>(self, open: impl Fn() -> F, mut on: impl FnMut(Event<T>) -> Next)
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let mut backoff = MIN_BACKOFF;
        loop {
            let mut counted = self.scope.begin();
            let end = match open().await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    let mut first = true;
                    loop {
                        match stream.message().await {
                            Ok(Some(item)) => {
                                counted.answered();
                                backoff = MIN_BACKOFF;
                                if on(Event::Item { item, first }) == Next::Stop {
                                    return;
                                }
                                first = false;
                            }
                            Ok(None) => break None,
                            Err(status) => break Some(status),
                        }
                    }
                }
                Err(status) => Some(status),
            };
            self.ended(counted, end.as_ref());
            if let Some(status) = end
                && on(Event::Failed(status)) == Next::Stop
            {
                return;
            }
            let jitter = 1.0 + JITTER * rand::rng().random::<f64>();
            time::sleep(backoff.mul_f64(jitter)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
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
