//! Answers a request, whatever it is.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use sha2::{Digest, Sha256};

use super::control::Control;
use super::fault::Fault;
use super::recorder::MARKER;
use super::{Answer, State, grpc, websocket};
use crate::probe::hexadecimal;
use crate::serve::{self, Body, Connection, HangUp};

const JSON: &str = "application/json";

/// Bytes of a long body that are sent at a time.
const PIECE: usize = 64 * 1024;

/// The longest fault that is read.
const FAULT_BYTES: usize = 4096;

pub(super) async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, HangUp> {
    let mut response = match request.uri().path() {
        "/healthz" => serve::text(StatusCode::OK, "text/plain", "ok\n"),
        "/_requests" => requests(&state, request.uri().query().unwrap_or_default()),
        "/_fault" => fault(&state, request).await,
        _ => ordinary(&state, request, &connection).await?,
    };
    for (name, value) in [("x-echo-pod", &state.pod), ("x-echo-service", &state.name)] {
        // A name that is no header value is told by the body alone.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

async fn ordinary(
    state: &Arc<State>,
    request: Request<Incoming>,
    connection: &Connection,
) -> Result<Response<Body>, HangUp> {
    let mut answer = describe(state, &request, connection);
    let marker = request.headers().get(MARKER).and_then(|marker| marker.to_str().ok());
    let number = marker.map(|marker| state.recorder.arrived(marker, &answer));

    let (broken, delay) = state.faults.next();
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let broken = broken.or_else(|| state.fails().then_some(503)).and_then(|status| StatusCode::from_u16(status).ok());
    if let Some(status) = broken {
        return Ok(serve::json(status, JSON, &answer));
    }
    if grpc::is_ours(&request) {
        return Ok(grpc::answer(answer, request).await);
    }
    if websocket::is_upgrade(&request) {
        return Ok(websocket::answer(request));
    }

    let control = match Control::parse(request.uri().path(), request.uri().query().unwrap_or_default()) {
        Ok(control) => control,
        Err(error) => return Ok(serve::text(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n"))),
    };
    let path = request.uri().path().to_owned();
    read(request.into_body(), &mut answer).await?;
    if let Some(number) = number {
        state.recorder.update(number, &answer);
    }
    tokio::time::sleep(Duration::from_millis(control.delay_ms)).await;
    if control.close {
        return Err(HangUp);
    }
    let status = match control.fail_every {
        None => control.status.unwrap_or(200),
        Some(every) => {
            let number = state.counters.next(answer.host.as_deref().unwrap_or_default(), &path);
            if number.is_multiple_of(every) { control.status.unwrap_or(503) } else { 200 }
        }
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = match (control.chunks, control.bytes) {
        (Some(chunks), _) => Response::new(lines(chunks, Duration::from_millis(control.chunk_ms))),
        (None, Some(bytes)) => long(bytes),
        (None, None) => serve::json(status, JSON, &answer),
    };
    *response.status_mut() = status;
    if control.last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// What is known of a request before its body is read.
fn describe(state: &State, request: &Request<Incoming>, connection: &Connection) -> Answer {
    let uri = request.uri();
    let authority = uri.authority().map(ToString::to_string);
    let host = request.headers().get(HOST).map(text).or_else(|| authority.clone());
    Answer {
        pod: state.pod.clone(),
        service: state.name.clone(),
        port: connection.port,
        peer: connection.peer.to_string(),
        protocol: format!("{:?}", request.version()),
        method: request.method().to_string(),
        scheme: if connection.tls { "https" } else { "http" }.to_owned(),
        authority,
        host,
        path: uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string),
        headers: pairs(request.headers()),
        connection_id: connection.id,
        request_number: connection.next_request(),
        ..Answer::default()
    }
}

async fn read(mut body: Incoming, answer: &mut Answer) -> Result<(), HangUp> {
    let mut digest = Sha256::new();
    while let Some(frame) = body.frame().await {
        // The client broke off; nobody is left to answer.
        match frame.map_err(|_| HangUp)?.into_data() {
            Ok(data) => {
                answer.body_bytes += data.len() as u64;
                digest.update(&data);
            }
            Err(frame) => answer.trailers = pairs(&frame.into_trailers().unwrap_or_default()),
        }
    }
    answer.body_sha256 = hexadecimal(&digest.finalize());
    Ok(())
}

/// Names and values of headers.
pub(super) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn lines(count: usize, pause: Duration) -> Body {
    let lines = futures::stream::iter(0..count).then(move |index| async move {
        if index > 0 {
            tokio::time::sleep(pause).await;
        }
        Ok::<_, HangUp>(Frame::data(Bytes::from(format!("line {index}\n"))))
    });
    Body::new(StreamBody::new(lines))
}

fn long(length: usize) -> Response<Body> {
    static XS: [u8; PIECE] = [b'x'; PIECE];
    let pieces = (0..length.div_ceil(PIECE)).map(move |index| {
        let piece = Bytes::from_static(&XS).slice(..PIECE.min(length - index * PIECE));
        Ok::<_, HangUp>(Frame::data(piece))
    });
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(pieces))));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn requests(state: &State, query: &str) -> Response<Body> {
    let marker = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "marker");
    match marker {
        Some((_, marker)) => serve::json(StatusCode::OK, JSON, &state.recorder.find(&marker)),
        None => {
            let text = format!("expected /_requests?marker=VALUE, the value of a request's {MARKER}\n");
            serve::text(StatusCode::BAD_REQUEST, "text/plain", text)
        }
    }
}

async fn fault(state: &Arc<State>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return serve::json(StatusCode::OK, JSON, &state.faults.get());
    }
    let wrong = |error: &dyn std::fmt::Display| {
        let text = format!("expected a fault as JSON, such as {{\"status\": 503}}: {error}\n");
        serve::text(StatusCode::BAD_REQUEST, "text/plain", text)
    };
    let body = match Limited::new(request.into_body(), FAULT_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return wrong(&error),
    };
    let fault: Fault = match serde_json::from_slice(&body) {
        Ok(fault) => fault,
        Err(error) => return wrong(&error),
    };
    if let Some(status) = fault.status.filter(|status| !(200..=599).contains(status)) {
        return wrong(&format!("found the status {status}, which is none from 200 to 599"));
    }
    if let Some(refuse) = fault.refuse_ms {
        let state = Arc::clone(state);
        tokio::spawn(async move {
            state.refuse.send_replace(true);
            tokio::time::sleep(Duration::from_millis(refuse)).await;
            state.refuse.send_replace(false);
        });
    }
    let response = serve::json(StatusCode::OK, JSON, &fault);
    state.faults.set(fault);
    response
}
