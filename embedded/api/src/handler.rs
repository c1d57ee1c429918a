//! One request from its first line to its answer: who, what, whether, and by which file.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use meshgate_admission::Admission;
use meshgate_store::{PodAccess, ResourceType, ResourceVersion, Status, Store};
use tokio_util::sync::CancellationToken;

use crate::authn::{self, User};
use crate::credentials::Credentials;
use crate::health::{self, Requests};
use crate::openapi::Documents;
use crate::query::Query;
use crate::rbac;
use crate::reply::{self, Reply};
use crate::route::{self, ResourcePath, Target};
use crate::{discovery, openapi, reviews, scale, subresources, verbs, virtual_kinds};

/// What all requests share.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) admission: Admission,
    pub(crate) pods: Arc<dyn PodAccess>,
    pub(crate) credentials: Credentials,
    pub(crate) shutdown: CancellationToken,
    pub(crate) requests: Requests,
    pub(crate) documents: Documents,
}

impl Api {
    pub(crate) fn new(
        store: Store,
        pods: Arc<dyn PodAccess>,
        credentials: Credentials,
        shutdown: CancellationToken,
    ) -> Self {
        let (requests, documents) = (Requests::default(), Documents::default());
        let admission = Admission::new(store.clone());
        Self { store, admission, pods, credentials, shutdown, requests, documents }
    }
}

/// A request for a resource whose sender may make it.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) user: User,
    pub(crate) path: ResourcePath,
    pub(crate) query: Query,
    pub(crate) request: Request<Incoming>,
}

/// The resource type and the version that a path names.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) kind: Arc<ResourceType>,
    pub(crate) version: ResourceVersion,
}

impl Served {
    /// `apps/v1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        match self.kind.resource.group.as_str() {
            "" => self.version.name.clone(),
            group => format!("{group}/{}", self.version.name),
        }
    }
}

/// Answers a request. Errors become answers, too.
pub(crate) async fn serve(api: Arc<Api>, request: Request<Incoming>) -> Reply {
    let target = route::target(request.uri().path());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let verb = route::verb(request.method(), &target, &query);
    let resource = match &target {
        Target::Resource(path) => path.resource.clone(),
        Target::Other(_) => String::new(),
    };
    let uri = request.uri().clone();
    let answer = answer(&api, request, target, query, &verb).await;
    let reply = answer.unwrap_or_else(|status| reply::status(&status));
    tracing::debug!(%verb, %uri, code = reply.status().as_u16(), "answered");
    api.requests.count(&verb, &resource, reply.status().as_u16());
    reply
}

async fn answer(
    api: &Arc<Api>,
    request: Request<Incoming>,
    target: Target,
    query: Query,
    verb: &str,
) -> Result<Reply, Status> {
    let user = authn::user(request.headers(), &api.credentials, &api.store)?;
    match target {
        Target::Other(path) => {
            authorize_path(api, &user, verb, &path)?;
            answer_path(api, &request, &path, &query)
        }
        Target::Resource(path) => {
            authorize(api, &user, verb, &path)?;
            answer_resource(Call { api: api.clone(), user, path, query, request }, verb).await
        }
    }
}

/// 403 unless the user may do `verb` on the resource.
pub(crate) fn authorize(api: &Api, user: &User, verb: &str, path: &ResourcePath) -> Result<(), Status> {
    let request = rbac::Request {
        verb,
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: &path.namespace,
        name: &path.name,
        path: None,
    };
    if rbac::allowed(&api.store, user, &request) {
        return Ok(());
    }
    Err(reply::forbidden(Some((&path.group_resource(), &path.name)), &rbac::denial(user, &request)))
}

fn authorize_path(api: &Api, user: &User, verb: &str, path: &str) -> Result<(), Status> {
    let request =
        rbac::Request { verb, group: "", resource: "", subresource: "", namespace: "", name: "", path: Some(path) };
    if rbac::allowed(&api.store, user, &request) {
        return Ok(());
    }
    Err(reply::forbidden(None, &rbac::denial(user, &request)))
}

/// Discovery, health, OpenAPI.
fn answer_path(api: &Api, request: &Request<Incoming>, path: &str, query: &Query) -> Result<Reply, Status> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(reply::method_not_allowed());
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Ok(reply::ok(&discovery::root(&api.store))),
        ["api" | "apis", ..] => discovery::answer(&api.store, request.headers(), &segments),
        ["openapi", "v3", rest @ ..] => openapi::answer(api, rest, query),
        ["version"] => Ok(reply::ok(&health::version())),
        [name @ ("healthz" | "livez" | "readyz"), ..] => Ok(health::check(name, query)),
        ["metrics"] => Ok(reply::with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            api.requests.metrics(api.store.revision()),
        )),
        _ => Err(reply::no_such_resource()),
    }
}

async fn answer_resource(call: Call, verb: &str) -> Result<Reply, Status> {
    let path = &call.path;
    if let Some(kind) = virtual_kinds::find(&path.group, &path.version, &path.resource) {
        return reviews::create(call, kind, verb).await;
    }
    let served = served(&call.api.store, path)?;
    if path.name.is_empty() && matches!(verb, "update" | "patch") {
        return Err(reply::method_not_allowed());
    }
    if matches!(verb, "list" | "watch" | "deletecollection") {
        let fields = call.query.get("fieldSelector").unwrap_or_default();
        served.kind.check_field_selector(&served.version, fields)?;
    }
    match (path.subresource.as_str(), verb) {
        ("", "get") => verbs::get(&call, &served),
        ("", "list") => verbs::list(&call, &served),
        ("", "watch") => verbs::watch(&call, &served),
        ("", "create") => verbs::create(call, &served).await,
        ("", "update") => verbs::update(call, &served).await,
        ("", "patch") => verbs::patch(call, &served).await,
        ("", "delete") => verbs::delete(call, &served).await,
        ("", "deletecollection") => verbs::delete_collection(call, &served).await,
        ("status", _) if served.version.status => match verb {
            "get" => verbs::get(&call, &served),
            "update" => verbs::update(call, &served).await,
            "patch" => verbs::patch(call, &served).await,
            _ => Err(reply::method_not_allowed()),
        },
        ("scale", _) if served.version.scale.is_some() => scale::answer(call, &served, verb).await,
        ("" | "status" | "scale", _) => Err(reply::method_not_allowed()),
        _ => subresources::answer(call, &served, verb).await,
    }
}

/// The type behind a path; 404 when there is none, or when the path has a namespace and should not, or has none and should.
fn served(store: &Store, path: &ResourcePath) -> Result<Served, Status> {
    let kind = store.resource(&path.group_resource()).ok_or_else(reply::no_such_resource)?;
    let version = kind.versions.iter().find(|version| version.name == path.version).cloned();
    let version = version.ok_or_else(reply::no_such_resource)?;
    let placed = !path.store_namespace().is_empty();
    if placed != kind.namespaced && (placed || !path.name.is_empty()) {
        return Err(reply::no_such_resource());
    }
    let known = path.subresource.is_empty()
        || path.subresource == "status" && version.status
        || path.subresource == "scale" && version.scale.is_some()
        || path.group.is_empty()
            && virtual_kinds::SUBRESOURCES.iter().any(|sub| sub.of == path.resource && sub.name == path.subresource);
    if !known || !path.rest.is_empty() && path.subresource != "proxy" {
        return Err(reply::no_such_resource());
    }
    Ok(Served { kind, version })
}
