//! Sending a request on a connection, and reading the response.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{Method, Request, Response, StatusCode};

use super::{
    Error, OnUpgrade,
    body::{Body, Upload},
    encode,
    outgoing::Outgoing,
    parse::{self, BodyLength, ResponseHead},
    wire::{self, HeadError, Wire},
};
use crate::{
    http::{Incoming, RequestBody, pool::Home},
    io::Io,
};

/// A connection to an endpoint that nobody uses at the moment.
pub(crate) struct Connection(pub(super) wire::Shared);

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection ended before the first byte of one.
    Unanswered(Error),
    /// Something else went wrong.
    Broken(Error),
}

impl Connection {
    pub(crate) fn new(io: Io) -> Self {
        Self(Wire::new(io))
    }

    /// Whether it is of no use any more. `cx` is woken when that changes.
    pub(crate) fn is_spent(&self, cx: &mut Context<'_>) -> bool {
        self.0.lock().is_spent(cx)
    }

    /// As before, at this moment.
    pub(crate) fn is_spent_now(&self) -> bool {
        self.is_spent(&mut Context::from_waker(Waker::noop()))
    }

    /// Sends a request, which is still there if that fails, but for what has been sent of its body. The connection goes home when
    /// the response has been read, if it can be used again then.
    pub(crate) async fn send(
        self,
        request: &mut Request<RequestBody>,
        home: Option<Home>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        let mut exchange = Exchange { wire: &self.0, request, body: &mut body, sending: Sending::Head, broken: None };
        let exchanged = poll_fn(|cx| exchange.poll(cx)).await;
        let sending = exchange.sending;
        let head = match exchanged {
            Ok(head) => head,
            Err(failure) => {
                *request.body_mut() = body;
                return Err(failure);
            }
        };
        let upload = if let Sending::Body(mut outgoing) = sending {
            let wire = Arc::clone(&self.0);
            Some(Upload(tokio::spawn(async move {
                // What goes wrong from here on is seen by what comes of the response.
                let _ = poll_fn(|cx| outgoing.poll(&wire, &mut body, cx)).await;
            })))
        } else {
            None
        };
        Ok(self.respond(head, request.method(), home, upload))
    }

    fn respond(
        self,
        head: ResponseHead,
        method: &Method,
        home: Option<Home>,
        upload: Option<Upload>,
    ) -> Response<Incoming> {
        let (length, home) = (head.length(method), home.filter(|_| head.keeps_alive(method)));
        let mut response = head.response;
        if is_upgrade(method, response.status()) {
            let (sender, on_upgrade) = OnUpgrade::new();
            response.extensions_mut().insert(on_upgrade);
            if let Some(io) = Wire::into_io(self.0) {
                // Its receiver is in the response.
                let _ = sender.send(io);
            }
            return response.map(|()| Incoming::Empty);
        }
        let body = Body::response(self.0, length, home, upload);
        response.map(|()| if length == BodyLength::None { Incoming::Empty } else { Incoming::Http1(body) })
    }
}

/// Whether what follows such a response is not HTTP.
pub(super) fn is_upgrade(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || *method == Method::CONNECT && status.is_success()
}

/// A request and its response, up to the response's head.
struct Exchange<'a> {
    wire: &'a wire::Shared,
    request: &'a Request<RequestBody>,
    body: &'a mut RequestBody,
    sending: Sending,
    /// Nothing more can be sent. The endpoint may have answered before it closed.
    broken: Option<io::Error>,
}

/// What is still to be sent.
enum Sending {
    Head,
    Body(Outgoing),
    Nothing,
}

impl Exchange<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failure>> {
        loop {
            self.send(cx)?;
            let mut wire = self.wire.lock();
            let failure = match wire.poll_head(cx, parse::response) {
                Poll::Pending => match self.broken.take() {
                    Some(error) => Failure::Unanswered(error.into()),
                    None => return Poll::Pending,
                },
                Poll::Ready(Ok(Some(head))) => {
                    let status = head.response.status();
                    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Ok(head));
                    }
                    if status == StatusCode::CONTINUE {
                        self.body.proceed();
                    }
                    continue;
                }
                Poll::Ready(Ok(None)) => Failure::Unanswered(self.broken.take().map_or(Error::Incomplete, Error::Io)),
                Poll::Ready(Err(HeadError::Broken(error))) if wire.input.is_empty() => Failure::Unanswered(error),
                Poll::Ready(Err(HeadError::Broken(error))) => Failure::Broken(error),
                Poll::Ready(Err(HeadError::Refused(refused))) => Failure::Broken(Error::Malformed(refused.reason())),
            };
            return Poll::Ready(Err(failure));
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if let Sending::Head = self.sending {
            let head = |body: &RequestBody, out: &mut Vec<u8>| encode::request(self.request, body, out);
            match Outgoing::start(self.wire, self.body, cx, head) {
                Ok(outgoing) => self.sending = Sending::Body(outgoing),
                Err(Error::Io(error)) => return Err(Failure::Unanswered(error.into())),
                Err(error) => return Err(Failure::Broken(error)),
            }
        }
        if let Sending::Body(outgoing) = &mut self.sending {
            match outgoing.poll(self.wire, self.body, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.sending = Sending::Nothing;
                    // Who waits for the end of a body learns of it by this, also where there is none.
                    *self.body = RequestBody::Empty;
                }
                Poll::Ready(Err(Error::Io(error))) => (self.sending, self.broken) = (Sending::Nothing, Some(error)),
                Poll::Ready(Err(error)) => return Err(Failure::Broken(error)),
            }
        }
        Ok(())
    }
}
