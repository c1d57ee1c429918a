//! `GET pods/NAME/log`.

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use meshgate_store::{LogOptions, Status};
use tokio_stream::wrappers::ReceiverStream;

use crate::handler::Call;
use crate::reply::{self, BodyError, Reply};

/// The log as plain text, streamed.
pub(crate) async fn answer(call: &Call) -> Result<Reply, Status> {
    let query = &call.query;
    let container = super::container(call)?;
    let options = LogOptions {
        follow: query.flag("follow"),
        tail_lines: query.number("tailLines")?,
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds: since(call)?,
    };
    let limit = query.number::<usize>("limitBytes")?.unwrap_or(usize::MAX);
    let chunks = call.api.pods.logs(&call.path.namespace, &call.path.name, &container, options).await?;
    let frames = ReceiverStream::new(chunks)
        .scan(limit, |left, mut chunk| {
            chunk.truncate(*left);
            *left -= chunk.len();
            // A chunk of nothing left ends the stream.
            futures::future::ready((!chunk.is_empty()).then_some(chunk))
        })
        .map(|chunk| Ok::<_, BodyError>(Frame::data(Bytes::from(chunk))))
        .take_until(call.api.shutdown.clone().cancelled_owned());
    let mut reply = reply::text(StatusCode::OK, "");
    *reply.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(reply)
}

fn since(call: &Call) -> Result<Option<u64>, Status> {
    let Some(time) = call.query.get("sinceTime") else { return call.query.number("sinceSeconds") };
    let time: Timestamp = time.parse().map_err(|error| {
        Status::bad_request(format!("sinceTime: expected a time such as 2026-01-02T03:04:05Z, found {time:?}: {error}"))
    })?;
    let seconds = Timestamp::now().duration_since(time).as_secs();
    Ok(Some(u64::try_from(seconds).unwrap_or(0)))
}
