//! Serving the requests of one connection, one after the other.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use tokio::{
    sync::oneshot,
    time::{self, Sleep},
};

use super::{
    Error, OnUpgrade,
    body::Body,
    client::is_upgrade,
    encode::{self, Asked},
    outgoing::Outgoing,
    parse::{self, Refused, RequestHead},
    wire::{self, HeadError, Unread, Wire},
};
use crate::{
    http::{Abort, BoxedRequest, Incoming, RequestBody, ResponseBody},
    io::Io,
    process::Drain,
};

/// How long a client may still send what nobody reads, so that it sees the answer and not a reset (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// Answers the requests of a connection until the client leaves or `drain` stops. A head that has begun has to end within
/// `head_timeout`; a connection on which none has begun may be idle for as long as the client likes, as with Linkerd.
pub(in crate::http) async fn serve<S, F>(io: Io, head_timeout: Duration, drain: &Drain, service: S) -> Result<(), Error>
where
    S: Fn(BoxedRequest) -> F,
    F: Future<Output = Result<Response<ResponseBody>, Abort>>,
{
    let wire = Wire::new(io);
    let mut stopping = pin!(drain.stopping());
    let mut stopped = false;
    loop {
        let next = {
            let mut limit: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|cx| {
                let mut wire = wire.lock();
                if let Poll::Ready(next) = wire.poll_head(cx, parse::request) {
                    return Poll::Ready(match next {
                        Ok(head) => Ok(head.map(Ok)),
                        Err(HeadError::Refused(refused)) => Ok(Some(Err(refused))),
                        Err(HeadError::Broken(error)) => Err(error),
                    });
                }
                stopped = stopped || stopping.as_mut().poll(cx).is_ready();
                if wire.input.is_empty() {
                    return if stopped { Poll::Ready(Ok(None)) } else { Poll::Pending };
                }
                let limit = limit.get_or_insert_with(|| Box::pin(time::sleep(head_timeout)));
                limit.as_mut().poll(cx).map(|()| Err(Error::Incomplete))
            })
            .await?
        };
        let head = match next {
            Some(Ok(head)) => head,
            Some(Err(refused)) => return refuse(&wire, refused).await,
            // The client has left, or is idle while the proxy stops.
            None => return shutdown(&wire).await,
        };
        let RequestHead { request, length, keep_alive, expects } = head;
        let method = request.method().clone();
        let mut asked = Asked { version: request.version(), keep_alive, method };
        let (request, upgrade) = receive(&wire, request, length, expects);

        let answer = {
            let mut answering = pin!(service(request));
            poll_fn(|cx| {
                if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                wire.lock().poll_left(cx).map(|()| None)
            })
            .await
        };
        // Without an answer the client has left, and takes its request along.
        let Some(Ok(response)) = answer else { return Ok(()) };
        stopped = stopped || drain.is_stopping();
        asked.keep_alive &= !stopped && !matches!(wire.lock().body, Unread::Abandoned);
        let upgraded = is_upgrade(&asked.method, response.status());
        answer_with(&wire, response, &mut asked).await?;

        if upgraded {
            if let (Some(sender), Some(io)) = (upgrade, Wire::into_io(wire)) {
                // Whoever asked for it may be gone.
                let _ = sender.send(io);
            }
            return Ok(());
        }
        if abandon(&wire) {
            shutdown(&wire).await?;
            return linger(&wire).await;
        }
        if !asked.keep_alive {
            return shutdown(&wire).await;
        }
    }
}

/// The request with its body, and where the connection goes if it becomes something else.
fn receive(
    wire: &wire::Shared,
    request: Request<()>,
    length: parse::BodyLength,
    expects: bool,
) -> (BoxedRequest, Option<oneshot::Sender<Io>>) {
    let body = Body::request(wire, length, expects);
    let mut request = request.map(|()| body.map_or(Incoming::Empty, Incoming::Http1));
    let asks = *request.method() == http::Method::CONNECT || request.headers().contains_key(http::header::UPGRADE);
    let upgrade = asks.then(|| {
        let (sender, on_upgrade) = OnUpgrade::new();
        request.extensions_mut().insert(on_upgrade);
        sender
    });
    (RequestBody::pass(request), upgrade)
}

async fn answer_with(wire: &wire::Shared, response: Response<ResponseBody>, asked: &mut Asked) -> Result<(), Error> {
    let (head, mut body) = response.into_parts();
    let head = Response::from_parts(head, ());
    let mut outgoing: Option<Outgoing> = None;
    poll_fn(|cx| {
        let outgoing = match &mut outgoing {
            Some(outgoing) => outgoing,
            None => {
                let write = |body: &ResponseBody, out: &mut Vec<u8>| encode::response(&head, body, asked, out);
                outgoing.insert(Outgoing::start(wire, &mut body, cx, write)?)
            }
        };
        if let Poll::Ready(result) = outgoing.poll(wire, &mut body, cx) {
            return Poll::Ready(result);
        }
        // The application may take its time with the rest, which is for nobody if the client has left.
        wire.lock().poll_left(cx).map(|()| Err(Error::Incomplete))
    })
    .await
}

/// Ends the reading of a request's body whose response has been given. Whether there was one.
fn abandon(wire: &wire::Shared) -> bool {
    let mut wire = wire.lock();
    match &mut wire.body {
        Unread::None => return false,
        Unread::Open(reader) => {
            if let Some(reader) = reader.take() {
                reader.wake();
            }
        }
        Unread::Abandoned => {}
    }
    wire.body = Unread::Abandoned;
    true
}

/// Says why a head is not served.
async fn refuse(wire: &wire::Shared, refused: Refused) -> Result<(), Error> {
    let mut response = Response::new(());
    *response.status_mut() = refused.status();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let mut asked = Asked { method: http::Method::GET, version: http::Version::HTTP_11, keep_alive: false };
    answer_with(wire, response.map(|()| ResponseBody::empty()), &mut asked).await?;
    shutdown(wire).await?;
    linger(wire).await
}

async fn shutdown(wire: &wire::Shared) -> Result<(), Error> {
    poll_fn(|cx| wire.lock().poll_shutdown(cx)).await.map_err(Error::Io)
}

/// Reads what the client still sends, for a while.
async fn linger(wire: &wire::Shared) -> Result<(), Error> {
    // That it goes on for longer is its own matter.
    let _ = time::timeout(LINGER, poll_fn(|cx| wire.lock().poll_drain(cx))).await;
    Ok(())
}

#[cfg(test)]
mod tests;
