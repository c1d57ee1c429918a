//! The Admin API, as much of it as an ingress controller asks for, and what is said at the status port.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::read::{Flaw, REQUEST_TRANSFORMER};
use super::{VERSION, transform};

/// What is said of a configuration that there is none of (`DECLARATIVE_EMPTY_CONFIG_HASH` in `kong/constants.lua`).
const NO_HASH: &str = "00000000000000000000000000000000";

/// What is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// 32 hexadecimal digits that another configuration has otherwise.
    pub(super) hash: String,
    pub(super) configuration: String,
}

/// A configuration that is to be served.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) body: String,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// It is what is served already.
    Unchanged,
    /// Some of its entities are wrong.
    Refused(Vec<Flaw>),
    /// It is wrong as a whole.
    Unreadable(String),
}

impl Answer {
    pub(super) fn unreadable(why: &str) -> Self {
        Self::Unreadable(why.to_owned())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Taken => (StatusCode::CREATED, Json(json!({}))).into_response(),
            Self::Unchanged => StatusCode::NOT_MODIFIED.into_response(),
            Self::Refused(flaws) => {
                (StatusCode::BAD_REQUEST, Json(refused("see flattened_errors", &flaws))).into_response()
            }
            Self::Unreadable(why) => (StatusCode::BAD_REQUEST, Json(refused(&why, &[]))).into_response(),
        }
    }
}

/// Why a configuration is not taken, as Kong says it (`declarative_config_flattened` of `kong/db/errors.lua`).
pub(super) fn refused(why: &str, flaws: &[Flaw]) -> Value {
    let entity = |flaw: &Flaw| {
        json!({
            "entity_type": flaw.entity,
            "entity_name": flaw.name,
            "entity_tags": flaw.tags,
            "errors": [{"type": "field", "field": flaw.field, "message": flaw.message}],
        })
    };
    json!({
        "code": 14,
        "name": "invalid declarative configuration",
        "message": format!("declarative config is invalid: {why}"),
        "fields": {},
        "flattened_errors": flaws.iter().map(entity).collect::<Vec<Value>>(),
    })
}

#[derive(Clone)]
struct Admin {
    ask: mpsc::Sender<Ask>,
    served: watch::Receiver<Option<Served>>,
    router_flavor: String,
}

/// The Admin API.
pub(super) fn api(ask: mpsc::Sender<Ask>, served: watch::Receiver<Option<Served>>, router_flavor: String) -> Router {
    let of_status = status(served.clone());
    Router::new()
        .route("/", get(root))
        .route("/config", get(configuration).post(configure))
        .route("/schemas/plugins/{name}", get(schema))
        .layer(DefaultBodyLimit::disable())
        .with_state(Admin { ask, served, router_flavor })
        .merge(of_status)
}

/// What is said at the status port.
pub(super) fn status(served: watch::Receiver<Option<Served>>) -> Router {
    Router::new()
        .route("/status", get(state))
        .route("/status/ready", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"message": "Not found"}))))
        .with_state(served)
}

/// Answers on an address.
pub(super) async fn serve(address: SocketAddr, app: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    axum::serve(listener, app).await.with_context(|| format!("serving {address}"))
}

async fn root(State(admin): State<Admin>) -> Json<Value> {
    let configuration = json!({"database": "off", "router_flavor": admin.router_flavor, "role": "traditional"});
    let plugins = json!({"available_on_server": {REQUEST_TRANSFORMER: {"version": VERSION}}});
    Json(json!({
        "tagline": "Welcome to kong",
        "version": VERSION,
        "configuration": configuration,
        "plugins": plugins,
    }))
}

async fn configure(State(admin): State<Admin>, body: String) -> Response {
    let (answer, answered) = oneshot::channel();
    let gone = || (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"message": "the gateway is ending"}))).into_response();
    if admin.ask.send(Ask { body, answer }).await.is_err() {
        return gone();
    }
    answered.await.map_or_else(|_| gone(), IntoResponse::into_response)
}

/// What is served, as it came: JSON is YAML.
async fn configuration(State(admin): State<Admin>) -> Json<Value> {
    let served = admin.served.borrow().as_ref().map(|served| served.configuration.clone());
    Json(json!({"config": served.unwrap_or_else(|| json!({"_format_version": "3.0"}).to_string())}))
}

async fn schema(Path(name): Path<String>) -> Response {
    if name == REQUEST_TRANSFORMER {
        return Json(transform::schema()).into_response();
    }
    let message = format!("No plugin named '{name}'");
    (StatusCode::NOT_FOUND, Json(json!({"message": message}))).into_response()
}

async fn state(State(served): State<watch::Receiver<Option<Served>>>) -> Json<Value> {
    let hash = served.borrow().as_ref().map_or_else(|| NO_HASH.to_owned(), |served| served.hash.clone());
    Json(json!({"configuration_hash": hash}))
}

async fn ready(State(served): State<watch::Receiver<Option<Served>>>) -> Response {
    match served.borrow().is_some() {
        true => Json(json!({"message": "ready"})).into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"message": "no configuration available"}))).into_response()
        }
    }
}
