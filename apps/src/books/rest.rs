//! The JSON API over a table: `/NAME.json` and `/NAME/{id}.json`, in the way of a Rails resource.

use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::client;
use super::table::{Row, Table, text};
use crate::chance::{self, Chance};
use crate::serve::{self, Body, Http};

const JSON: &str = "application/json";

/// The longest record that is read.
const RECORD_BYTES: usize = 64 * 1024;

/// What is wrong with a record, by column: `{"pages": ["is not a number"]}`.
pub(super) type Problems = Row;

/// What a service adds to its table.
pub(super) trait Resource: Send + Sync + 'static {
    /// `books` for `/books.json`.
    const NAME: &'static str;

    /// Its records.
    fn table(&self) -> &Table;

    /// What is wrong with a record that is to be stored. It may be put right on the way: `"345"` becomes 345.
    fn check(&self, row: &mut Row) -> impl Future<Output = Result<Problems, client::Error>> + Send;

    /// What has to go before a record does.
    fn release(&self, id: u64) -> impl Future<Output = Result<(), client::Error>> + Send;
}

/// The known failure: which `HEAD` requests are answered with 503.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Failing {
    /// Share of the HEAD requests that fail, 0 to 1
    #[arg(long, env = "FAILURE_RATE", default_value_t = 0.0, value_parser = chance::share)]
    pub failure_rate: f64,
    /// Every so many HEAD requests one fails, by counting
    #[arg(long, env = "FAIL_EVERY")]
    pub fail_every: Option<NonZeroU64>,
    /// Fixes the random numbers behind FAILURE_RATE
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
}

/// A service with its port bound.
pub(super) struct Server<R> {
    listener: TcpListener,
    resource: Arc<R>,
    failing: Arc<Mutex<Chance>>,
}

impl<R: Resource> Server<R> {
    /// Binds the port; 0 takes any.
    pub async fn bind(port: u16, failing: &Failing, resource: R) -> io::Result<Self> {
        let chance = Chance::new(failing.failure_rate, failing.fail_every.map(NonZeroU64::get), failing.seed);
        let listener = serve::bind(port).await?;
        Ok(Self { listener, resource: Arc::new(resource), failing: Arc::new(Mutex::new(chance)) })
    }

    /// The port.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(port = self.port()?, "{} is ready", R::NAME);
        let Self { listener, resource, failing } = self;
        Http::plain(listener)
            .serve(shutdown, move |request, _| {
                let (resource, failing) = (Arc::clone(&resource), Arc::clone(&failing));
                async move {
                    let head = request.method() == Method::HEAD;
                    if head && failing.lock().strikes() {
                        return Ok(without_body(StatusCode::SERVICE_UNAVAILABLE));
                    }
                    let response = answer(resource.as_ref(), request).await;
                    Ok(if head { headers_of(response) } else { response })
                }
            })
            .await
    }
}

/// Which record a path names.
enum Target {
    All,
    One(u64),
    /// An id that no record can have.
    Nothing,
}

fn target(path: &str, name: &str) -> Option<Target> {
    let rest = path.strip_prefix('/')?.strip_suffix(".json")?.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(Target::All);
    }
    let id = rest.strip_prefix('/')?;
    (!id.contains('/')).then(|| id.parse().map_or(Target::Nothing, Target::One))
}

async fn answer<R: Resource>(resource: &R, request: Request<Incoming>) -> Response<Body> {
    let table = resource.table();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let target = target(request.uri().path(), R::NAME);
    let result = match (method.as_str(), target) {
        ("GET" | "HEAD", Some(Target::All)) => Ok(json_of(StatusCode::OK, &table.select(&query))),
        ("POST", Some(Target::All)) => create(resource, request).await,
        ("GET" | "HEAD", Some(Target::One(id))) => {
            Ok(table.find(id).map_or_else(not_found, |row| json_of(StatusCode::OK, &row)))
        }
        ("PUT", Some(Target::One(id))) => update(resource, id, request).await,
        ("DELETE", Some(Target::One(id))) => delete(resource, id).await,
        ("GET" | "HEAD", None) if request.uri().path() == "/ping" => {
            Ok(serve::text(StatusCode::OK, "text/plain", "pong"))
        }
        _ => Ok(not_found()),
    };
    result.unwrap_or_else(|error| {
        tracing::info!(%error, "a request failed, because of another service");
        serve::text(StatusCode::INTERNAL_SERVER_ERROR, "text/html;charset=utf-8", "<h1>Internal Server Error</h1>")
    })
}

async fn create<R: Resource>(resource: &R, request: Request<Incoming>) -> Result<Response<Body>, client::Error> {
    let Some(mut row) = attributes(resource, request).await else { return Ok(no_record()) };
    let problems = resource.check(&mut row).await?;
    if !problems.is_empty() {
        return Ok(json_of(StatusCode::UNPROCESSABLE_ENTITY, &problems));
    }
    Ok(stored::<R>(StatusCode::CREATED, &resource.table().insert(row)))
}

async fn update<R: Resource>(
    resource: &R,
    id: u64,
    request: Request<Incoming>,
) -> Result<Response<Body>, client::Error> {
    let Some(mut row) = resource.table().find(id) else { return Ok(not_found()) };
    let Some(changes) = attributes(resource, request).await else { return Ok(no_record()) };
    row.extend(changes);
    let problems = resource.check(&mut row).await?;
    if !problems.is_empty() {
        return Ok(json_of(StatusCode::UNPROCESSABLE_ENTITY, &problems));
    }
    Ok(resource.table().replace(id, row).map_or_else(not_found, |row| stored::<R>(StatusCode::OK, &row)))
}

async fn delete<R: Resource>(resource: &R, id: u64) -> Result<Response<Body>, client::Error> {
    if resource.table().find(id).is_none() {
        return Ok(not_found());
    }
    resource.release(id).await?;
    Ok(if resource.table().remove(id) { without_body(StatusCode::NO_CONTENT) } else { not_found() })
}

/// The columns that a client may write, of those that it sent.
async fn attributes<R: Resource>(resource: &R, request: Request<Incoming>) -> Option<Row> {
    let body = Limited::new(request.into_body(), RECORD_BYTES).collect().await.ok()?.to_bytes();
    let mut row: Row = serde_json::from_slice(&body).ok()?;
    row.retain(|column, _| resource.table().columns().contains(&column.as_str()));
    Some(row)
}

fn stored<R: Resource>(status: StatusCode, row: &Row) -> Response<Body> {
    let mut response = json_of(status, row);
    let location = format!("/{}/{}.json", R::NAME, text(row, "id"));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn json_of(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    serve::json(status, JSON, value)
}

fn no_record() -> Response<Body> {
    json_of(StatusCode::BAD_REQUEST, &json!({"error": "expected a JSON object of at most 64 KiB"}))
}

fn not_found() -> Response<Body> {
    serve::text(StatusCode::NOT_FOUND, "text/html;charset=utf-8", "<h1>Not Found</h1>")
}

fn without_body(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answer to HEAD: what GET would get, without the body and with its length.
fn headers_of(response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| Body::empty());
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// Adds what is wrong with a column.
pub(super) fn problem(problems: &mut Problems, column: &str, message: &str) {
    let messages = problems.entry(column).or_insert_with(|| json!([]));
    if let Value::Array(messages) = messages {
        messages.push(message.into());
    }
}
