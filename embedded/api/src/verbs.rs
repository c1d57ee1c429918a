//! The verbs on objects: get, list, create, update, patch, delete, deletecollection.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use meshgate_admission::{Request, Written};
use meshgate_store::{DeleteOptions, Listing, Object, Start, Status, Subresource, WriteOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::body;
use crate::handler::{Call, Served};
use crate::negotiate;
use crate::options::{self, Problems};
use crate::patch::PatchKind;
use crate::reply::{self, Reply};
use crate::table::Shape;
use crate::watch;

/// `GET` of an object.
pub(crate) fn get(call: &Call, served: &Served) -> Result<Reply, Status> {
    options::check_reached(&call.api.store, options::revision(&call.query)?)?;
    let object = call.api.store.get(&served.kind.resource, call.path.store_namespace(), &call.path.name)?;
    answer(call, served, StatusCode::OK, &object)
}

/// An object in the form that the client accepts.
pub(crate) fn answer(call: &Call, served: &Served, code: StatusCode, object: &Object) -> Result<Reply, Status> {
    let form = negotiate::form(call.request.headers())?;
    Ok(Shape::new(form, served, &call.query)?.object(code, object))
}

/// `GET` of a collection.
pub(crate) fn list(call: &Call, served: &Served) -> Result<Reply, Status> {
    let form = negotiate::form(call.request.headers())?;
    let shape = Shape::new(form, served, &call.query)?;
    options::check_list(&call.query, false)?;
    options::check_moment(&call.api.store, &call.query)?;
    let listing = call.api.store.list(&served.kind.resource, namespace(call), &call.query.selectors())?;
    let page = Page::of(listing, call)?;
    Ok(shape.list(&page.listing, page.next.as_deref(), page.remaining))
}

/// The namespace of a collection; all when the path has none.
fn namespace(call: &Call) -> Option<&str> {
    Some(call.path.store_namespace()).filter(|namespace| !namespace.is_empty())
}

/// A part of a list.
struct Page {
    listing: Listing,
    next: Option<String>,
    remaining: Option<usize>,
}

/// What a `continue` token says. The objects are those of the moment of each page; the revision is the first page's,
/// so that a watch from it repeats what changed between the pages.
#[derive(Serialize, Deserialize)]
struct Continue {
    revision: u64,
    namespace: String,
    name: String,
}

impl Page {
    fn of(mut listing: Listing, call: &Call) -> Result<Self, Status> {
        if let Some(token) = call.query.get("continue") {
            let from: Continue =
                URL_SAFE_NO_PAD.decode(token).ok().and_then(|token| serde_json::from_slice(&token).ok()).ok_or_else(
                    || Status::bad_request("continue key is not valid: it was not given out by this server"),
                )?;
            let after = (from.namespace.as_str(), from.name.as_str());
            let begin = listing.items.partition_point(|object| key(object) <= after);
            listing.items.drain(..begin);
            listing.revision = from.revision;
        }
        // A negative one is none.
        let limit = call.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
        if limit == 0 || listing.items.len() <= limit {
            return Ok(Self { listing, next: None, remaining: None });
        }
        let remaining = listing.items.len() - limit;
        listing.items.truncate(limit);
        let (namespace, name) = listing.items.last().map(|object| key(object)).unwrap_or_default();
        let token = Continue { revision: listing.revision, namespace: namespace.to_owned(), name: name.to_owned() };
        let token = serde_json::to_vec(&token).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { listing, next: Some(URL_SAFE_NO_PAD.encode(token)), remaining: Some(remaining) })
    }
}

fn key(object: &Value) -> (&str, &str) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/metadata/namespace"), text("/metadata/name"))
}

/// `GET ...?watch=true` of a collection.
pub(crate) fn watch(call: &Call, served: &Served) -> Result<Reply, Status> {
    let query = &call.query;
    let form = negotiate::form(call.request.headers())?;
    let shape = Shape::new(form, served, query)?;
    let selectors = query.selectors();
    options::check_list(query, true)?;
    let start = match options::revision(query)? {
        // Old revisions are fine here: after a restart, clients ask for state "not older than" what they once saw.
        _ if query.flag("sendInitialEvents") => Start::InitialEvents,
        None if query.has("sendInitialEvents") => Start::After(call.api.store.revision()),
        None => Start::Now,
        Some(revision) => Start::After(revision),
    };
    let watch = match call.api.store.watch(&served.kind.resource, namespace(call), &selectors, start) {
        Ok(watch) => watch,
        // Clients look for this in the stream: kube-rs asks again from the same revision after a 410 that is the answer itself.
        Err(status) if status.code == 410 => return Ok(watch::refused(&status)),
        Err(status) => return Err(status),
    };
    let options = watch::Options {
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds: query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0),
    };
    Ok(watch::answer(&call.api, watch, shape, &options))
}

/// What a request asks to be written, as admission webhooks see it.
fn asked(call: &Call, served: &Served, name: &str) -> Request {
    Request {
        user: call.user.to_value(),
        resource: served.kind.resource.clone(),
        kind: served.kind.kind.clone(),
        version: served.version.name.clone(),
        namespace: call.path.store_namespace().to_owned(),
        name: name.to_owned(),
        subresource: subresource(call),
    }
}

/// An object that was written, with what there is to say of its fields and what webhooks say.
fn written(
    call: &Call,
    served: &Served,
    code: StatusCode,
    options: &WriteOptions,
    written: &Written,
) -> Result<Reply, Status> {
    let warnings = [options.warnings.told(), written.warnings.clone()].concat();
    Ok(reply::with_warnings(answer(call, served, code, &written.object)?, &warnings))
}

/// The object in the body of a request, with the type that the path says. A body of another type is a 400, and a custom object has to say
/// its own.
pub(crate) async fn object_of(call: &mut Call, served: &Served, options: &WriteOptions) -> Result<Value, Status> {
    let mut object = body::object(&mut call.request, options).await?;
    if !served.kind.builtin && object.is_object() {
        // Only types of Go have their kind when the body does not say it.
        let unset = |field: &str| object[field].as_str().is_none_or(str::is_empty);
        let (api_version, kind) = (served.api_version(), &served.kind.kind);
        if unset("kind") {
            return Err(Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{object}'"
            )));
        }
        if unset("apiVersion") {
            let message =
                format!("the API version in the data () does not match the expected API version ({api_version})");
            return Err(Status::bad_request(message));
        }
    }
    body::expect_type(&mut object, &served.api_version(), &served.kind.kind)?;
    Ok(object)
}

/// `POST`.
pub(crate) async fn create(mut call: Call, served: &Served) -> Result<Reply, Status> {
    if !call.path.name.is_empty() || served.kind.namespaced && call.path.namespace.is_empty() {
        return Err(reply::method_not_allowed());
    }
    let options = options::write(&call)?;
    let object = object_of(&mut call, served, &options).await?;
    placed(&object, call.path.store_namespace())?;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let request = asked(&call, served, name);
    let api = call.api.clone();
    let attempt =
        |object, options: &WriteOptions| api.store.create(&request.resource, &request.namespace, object, options);
    let created = api.admission.write(&request, &options, object, attempt).await?;
    written(&call, served, StatusCode::CREATED, &options, &created)
}

/// 400 when the object says that it lives elsewhere than the path says.
pub(crate) fn placed(object: &Value, namespace: &str) -> Result<(), Status> {
    match object.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(own) if !own.is_empty() && own != namespace && !namespace.is_empty() => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ => Ok(()),
    }
}

/// 400 when the object does not say that it has the name that the path says.
fn named(object: &Value, name: &str) -> Result<(), Status> {
    let problem = match object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default() {
        own if own == name => return Ok(()),
        "" => format!("the name of the object ({name} based on URL) was undeterminable: name must be provided"),
        own => format!("the name of the object ({own}) does not match the name on the URL ({name})"),
    };
    Err(Status::bad_request(problem))
}

/// 400 unless an applied configuration says itself what it is: nothing is filled in from the path.
pub(crate) fn names_itself(object: &Value, api_version: &str, kind: &str, name: &str) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("error decoding YAML: expected a map"));
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (own_version, own_kind) = (text("/apiVersion"), text("/kind"));
    if (own_version, own_kind) != (api_version, kind) {
        let group = if own_version.contains('/') { "" } else { "/" };
        return Err(Status::bad_request(format!("invalid object type: {group}{own_version}, Kind={own_kind}")));
    }
    named(object, name)
}

/// What a path means to write.
pub(crate) fn subresource(call: &Call) -> Subresource {
    if call.path.subresource == "status" { Subresource::Status } else { Subresource::Main }
}

/// `PUT`.
pub(crate) async fn update(mut call: Call, served: &Served) -> Result<Reply, Status> {
    let options = options::write(&call)?;
    let object = object_of(&mut call, served, &options).await?;
    let (namespace, name) = (call.path.store_namespace(), call.path.name.as_str());
    placed(&object, namespace)?;
    named(&object, name)?;
    let request = asked(&call, served, name);
    let api = call.api.clone();
    let attempt = |object, options: &WriteOptions| {
        let Request { resource, namespace, name, subresource, .. } = &request;
        api.store.update(resource, namespace, name, *subresource, object, options)
    };
    let updated = api.admission.write(&request, &options, object, attempt).await?;
    written(&call, served, StatusCode::OK, &options, &updated)
}

/// `PATCH`, in four dialects.
pub(crate) async fn patch(mut call: Call, served: &Served) -> Result<Reply, Status> {
    let options = options::write(&call)?;
    let content_type = call.request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = PatchKind::of(content_type.unwrap_or_default(), served.kind.builtin)?;
    let bytes = body::bytes(&mut call.request).await?;
    let request = asked(&call, served, &call.path.name);
    let Request { resource, namespace, name, subresource, .. } = &request;
    let api = call.api.clone();
    kind.check_options(call.query.get("fieldManager").is_some(), options.force)?;
    if kind == PatchKind::Apply {
        let object = body::yaml(&bytes, &options)?;
        names_itself(&object, &served.api_version(), &served.kind.kind, name)?;
        placed(&object, namespace)?;
        let mut created = false;
        let attempt = |object, options: &WriteOptions| {
            let (object, new) = api.store.apply(resource, namespace, name, *subresource, object, options)?;
            created = new;
            Ok(object)
        };
        let applied = api.admission.write(&request, &options, object, attempt).await?;
        let code = if created { StatusCode::CREATED } else { StatusCode::OK };
        return written(&call, served, code, &options, &applied);
    }
    let patch = kind.parse(&bytes, &options, &served.kind.kind)?;
    let api_version = served.api_version();
    let mut change = |object: &mut Value| {
        let stored = object["apiVersion"].clone();
        object["apiVersion"] = json!(api_version);
        patch.apply(object)?;
        body::expect_type(object, &api_version, &served.kind.kind)?;
        named(object, name)?;
        object["apiVersion"] = stored;
        Ok(())
    };
    let attempt =
        |_, options: &WriteOptions| api.store.modify(resource, namespace, name, *subresource, options, &mut change);
    let patched = api.admission.write(&request, &options, Value::Null, attempt).await?;
    written(&call, served, StatusCode::OK, &options, &patched)
}

/// The options of a delete, from the query and the body.
pub(crate) async fn delete_options(call: &mut Call) -> Result<DeleteOptions, Status> {
    let body = match body::optional_object(&mut call.request, &WriteOptions::default()).await? {
        Some(mut body) => {
            // Clients give these options in `v1`, in `meta.k8s.io/v1` or in the version of what they delete.
            if let Some(map) = body.as_object_mut() {
                map.remove("apiVersion");
            }
            body::check_type(&mut body, &WriteOptions::default(), "v1", "DeleteOptions")?;
            body
        }
        None => Value::Null,
    };
    let mut options = delete_options_of(&body);
    let query = &call.query;
    let mut problems = Problems::of("DeleteOptions");
    options.dry_run |= options::dry_run(query, &mut problems);
    options.grace_seconds = query.number("gracePeriodSeconds")?.or(options.grace_seconds);
    options.propagation = query.get("propagationPolicy").map(str::to_owned).or(options.propagation);
    if let Some(other) = options.propagation.as_deref()
        && !["Background", "Foreground", "Orphan"].contains(&other)
    {
        let supported = "\"Foreground\", \"Background\", \"Orphan\", \"nil\"";
        problems.unsupported("propagationPolicy", &json!(other), supported);
    }
    let policy = query.get("propagationPolicy").or(body["propagationPolicy"].as_str());
    if let (Some(policy), Some(_)) = (policy, body["orphanDependents"].as_bool()) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        problems.invalid("propagationPolicy", policy, why);
    }
    problems.into_result()?;
    Ok(options)
}

/// The same from a `DeleteOptions` object.
pub(crate) fn delete_options_of(body: &Value) -> DeleteOptions {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let orphan = body["orphanDependents"].as_bool().map(|orphan| if orphan { "Orphan" } else { "Background" });
    DeleteOptions {
        propagation: text("/propagationPolicy").or_else(|| orphan.map(str::to_owned)),
        grace_seconds: body["gracePeriodSeconds"].as_i64(),
        uid: text("/preconditions/uid"),
        revision: text("/preconditions/resourceVersion"),
        dry_run: body["dryRun"].as_array().is_some_and(|values| !values.is_empty()),
    }
}

/// `DELETE` of an object: the object while something holds it, a `Status` once it is gone.
pub(crate) async fn delete(mut call: Call, served: &Served) -> Result<Reply, Status> {
    let options = delete_options(&mut call).await?;
    let resource = &served.kind.resource;
    let request = asked(&call, served, &call.path.name);
    let api = call.api.clone();
    let warnings = api.admission.delete(&request, options.dry_run).await?;
    let (object, gone) = api.store.delete(resource, &request.namespace, &request.name, &options)?;
    if !gone || answers_with_object(served) {
        return Ok(reply::with_warnings(answer(&call, served, StatusCode::OK, &object)?, &warnings));
    }
    let mut details = json!({"name": call.path.name, "kind": resource.plural, "uid": object["metadata"]["uid"]});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    Ok(reply::with_warnings(reply::success(StatusCode::OK, details), &warnings))
}

/// Pods and Services answer a delete with themselves, as they do on Kubernetes.
fn answers_with_object(served: &Served) -> bool {
    served.kind.resource.group.is_empty() && matches!(served.kind.resource.plural.as_str(), "pods" | "services")
}

/// `DELETE` of a collection: what was there when it began, or as many of it as `limit` says.
pub(crate) async fn delete_collection(mut call: Call, served: &Served) -> Result<Reply, Status> {
    if served.kind.namespaced && call.path.namespace.is_empty() || served.kind.kind == "Namespace" {
        return Err(reply::method_not_allowed());
    }
    let options = delete_options(&mut call).await?;
    options::check_list(&call.query, false)?;
    options::check_moment(&call.api.store, &call.query)?;
    let form = negotiate::form(call.request.headers())?;
    let shape = Shape::new(form, served, &call.query)?;
    let api = call.api.clone();
    let store = &api.store;
    let resource = &served.kind.resource;
    let listing = store.list(resource, namespace(&call), &call.query.selectors())?;
    let page = Page::of(listing, &call)?;
    let mut deleted = Vec::with_capacity(page.listing.items.len());
    for object in page.listing.items {
        let (namespace, name) = key(&object);
        let request = asked(&call, served, name);
        api.admission.delete(&request, options.dry_run).await?;
        match store.delete(resource, namespace, name, &options) {
            Ok((object, _)) => deleted.push(object),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    let listing = Listing { revision: store.revision(), items: deleted };
    Ok(shape.list(&listing, page.next.as_deref(), page.remaining))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delete_options_in_a_body() {
        let options =
            delete_options_of(&json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "dryRun": ["All"]}));
        assert_eq!((options.grace_seconds, options.uid.as_deref(), options.dry_run), (Some(0), Some("u"), true));
        assert_eq!(delete_options_of(&json!({"orphanDependents": true})).propagation.as_deref(), Some("Orphan"));
    }
}
