//! Watches: JSON lines, bookmarks, an end at `timeoutSeconds`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use meshgate_machinery::managed_fields::Wire;
use meshgate_store::{Event, Object, Status, Store, Watch};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::handler::Api;
use crate::reply::{BodyError, Reply};
use crate::table::Shape;

/// How often a bookmark tells the current revision.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are ready together leave together, up to about this many bytes.
const BATCH: usize = 16 * 1024;

/// Options of a watch.
pub(crate) struct Options {
    /// `allowWatchBookmarks`.
    pub(crate) bookmarks: bool,
    /// `timeoutSeconds`; half an hour to an hour by default, as on Kubernetes.
    pub(crate) timeout_seconds: Option<u64>,
}

/// The answer to a watch: a stream that begins at once and has no length.
pub(crate) fn answer(api: &Arc<Api>, watch: Watch, shape: Shape, options: &Options) -> Reply {
    let seconds = options.timeout_seconds.unwrap_or_else(|| rand::rng().random_range(1800..3600));
    let now = Instant::now();
    let lines = Lines {
        store: api.store.clone(),
        shutdown: api.shutdown.clone(),
        watch,
        shape,
        ticks: options.bookmarks.then(|| interval_at(now + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL)),
        deadline: now + Duration::from_secs(seconds),
        over: false,
    };
    let frames = futures::stream::unfold(lines, |mut lines| async move {
        let bytes = lines.next().await?;
        Some((Ok::<_, BodyError>(Frame::data(bytes)), lines))
    });
    let mut reply = Reply::new(StreamBody::new(frames).boxed_unsync());
    *reply.status_mut() = StatusCode::OK;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// A watch that ends with an error before its first event.
pub(crate) fn refused(status: &Status) -> Reply {
    let mut buffer = Vec::new();
    line("ERROR", &status.to_value(), &mut buffer);
    crate::reply::with_type(StatusCode::OK, "application/json", buffer)
}

/// A watch as lines of JSON.
struct Lines {
    store: Store,
    shutdown: CancellationToken,
    watch: Watch,
    shape: Shape,
    ticks: Option<Interval>,
    deadline: Instant,
    over: bool,
}

impl Lines {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut buffer = Vec::new();
        tokio::select! {
            biased;
            event = self.watch.next() => self.take(event, &mut buffer),
            () = tick(&mut self.ticks) => {
                // Read before the events that are already waiting: the bookmark may only tell of what was sent.
                let revision = self.store.revision();
                self.take_ready(&mut buffer, usize::MAX);
                if !self.over {
                    self.bookmark(revision, false, &mut buffer);
                }
            }
            () = sleep_until(self.deadline) => return None,
            () = self.shutdown.cancelled() => return None,
        }
        self.take_ready(&mut buffer, BATCH);
        Some(buffer.into())
    }

    /// Takes the events that are there already.
    fn take_ready(&mut self, buffer: &mut Vec<u8>, limit: usize) {
        while !self.over && buffer.len() < limit {
            let Some(event) = self.watch.try_next() else { return };
            self.take(Some(event), buffer);
        }
    }

    fn take(&mut self, event: Option<Event>, buffer: &mut Vec<u8>) {
        match event {
            Some(Event::Added(object)) => self.write("ADDED", &object, buffer),
            Some(Event::Modified(object)) => self.write("MODIFIED", &object, buffer),
            Some(Event::Deleted(object)) => self.write("DELETED", &object, buffer),
            Some(Event::InitialEventsEnd(revision)) if self.ticks.is_some() => self.bookmark(revision, true, buffer),
            // Only who asks for bookmarks gets any.
            Some(Event::InitialEventsEnd(_)) => {}
            None => {
                let message = "the watch fell too far behind; list again";
                let status = Status::new(410, "Expired", message).to_value();
                line("ERROR", &status, buffer);
                self.over = true;
            }
        }
    }

    fn write(&mut self, kind: &str, object: &Object, buffer: &mut Vec<u8>) {
        line(kind, &self.shape.event(object), buffer);
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool, buffer: &mut Vec<u8>) {
        let (api_version, kind) = self.shape.object_type();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        line("BOOKMARK", &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}), buffer);
    }
}

/// The next tick; never when there are none.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => futures::future::pending().await,
    }
}

fn line(kind: &str, object: &Value, buffer: &mut Vec<u8>) {
    let begin = buffer.len();
    buffer.extend_from_slice(b"{\"type\":\"");
    buffer.extend_from_slice(kind.as_bytes());
    buffer.extend_from_slice(b"\",\"object\":");
    match serde_json::to_writer(&mut *buffer, &Wire(object)) {
        Ok(()) => buffer.extend_from_slice(b"}\n"),
        // A `Value` can always be written; if it ever cannot, half a line must not leave.
        Err(_) => buffer.truncate(begin),
    }
}
