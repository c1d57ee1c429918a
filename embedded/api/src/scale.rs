//! The scale subresource: `autoscaling/v1` Scale over the paths that a type declares.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use meshgate_store::{Object, Status, Subresource};
use serde_json::{Map, Value, json};

use crate::body;
use crate::handler::{Call, Served};
use crate::options;
use crate::patch::{Patch, PatchKind};
use crate::reply::{self, Reply};

/// Get, update or patch.
pub(crate) async fn answer(mut call: Call, served: &Served, verb: &str) -> Result<Reply, Status> {
    let Some(paths) = Paths::of(served) else { return Err(reply::no_such_resource()) };
    let resource = &served.kind.resource;
    let (namespace, name) = (call.path.store_namespace().to_owned(), call.path.name.clone());
    let object = call.api.store.get(resource, &namespace, &name)?;
    let current = paths.scale(&object);
    if verb == "get" {
        return Ok(reply::ok(&current));
    }
    let options = options::write(&call)?;
    let mut wanted = match verb {
        "update" => body::object(&mut call.request, &options).await?,
        "patch" => {
            let content_type = call.request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let kind = PatchKind::of(content_type.unwrap_or_default(), true)?;
            let bytes = body::bytes(&mut call.request).await?;
            let mut scale = current.clone();
            match kind {
                // Of a Scale only one field can be set, so applying one is merging it.
                PatchKind::Apply => Ok(Patch::merge(body::yaml(&bytes, &options)?)),
                kind => kind.parse(&bytes, &options, "Scale"),
            }?
            .apply(&mut scale)?;
            scale
        }
        _ => return Err(reply::method_not_allowed()),
    };
    body::check_type(&mut wanted, &options, "autoscaling/v1", "Scale")?;
    let replicas = wanted.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
    if replicas.as_i64().is_none_or(|replicas| replicas < 0) {
        return Err(invalid(&name, &replicas));
    }
    let asked = wanted.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut change = |object: &mut Value| {
        if !asked.is_empty() && object.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(&asked) {
            return Err(Status::stale(resource, &name));
        }
        set(object, &paths.replicas, replicas.clone());
        Ok(())
    };
    let scaled = call.api.store.modify(resource, &namespace, &name, Subresource::Main, &options, &mut change)?;
    Ok(reply::with_warnings(reply::json(StatusCode::OK, &paths.scale(&scaled)), &options.warnings.told()))
}

fn invalid(name: &str, replicas: &Value) -> Status {
    let why = "must be greater than or equal to 0";
    let message = format!("Scale.autoscaling \"{name}\" is invalid: spec.replicas: Invalid value: {replicas}: {why}");
    let mut status = Status::new(422, "Invalid", message);
    let cause = json!({"reason": "FieldValueInvalid", "message": format!("Invalid value: {replicas}: {why}"), "field": "spec.replicas"});
    status.details = json!({"name": name, "group": "autoscaling", "kind": "Scale", "causes": [cause]});
    status
}

/// Where a type keeps what a Scale shows.
struct Paths {
    replicas: String,
    status_replicas: String,
    selector: Option<String>,
}

impl Paths {
    fn of(served: &Served) -> Option<Self> {
        let scale = served.version.scale.as_ref()?;
        let pointer = |key: &str| scale[key].as_str().map(|path| path.replace('.', "/"));
        Some(Self {
            replicas: pointer("specReplicasPath")?,
            status_replicas: pointer("statusReplicasPath")?,
            selector: pointer("labelSelectorPath"),
        })
    }

    fn scale(&self, object: &Object) -> Value {
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let meta = &object["metadata"];
        let mut metadata = Map::new();
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = meta.get(key) {
                metadata.insert(key.to_owned(), value.clone());
            }
        }
        let mut status = json!({"replicas": number(&self.status_replicas)});
        let selector = self.selector.as_deref().and_then(|pointer| object.pointer(pointer)).and_then(selector_text);
        if let Some(selector) = selector {
            status["selector"] = json!(selector);
        }
        json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {"replicas": number(&self.replicas)}, "status": status,
        })
    }
}

/// A selector in query syntax: a text stays, a `LabelSelector` or a plain map is written out.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    Some(crate::table::selector_text(selector))
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for key in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = value;
}
