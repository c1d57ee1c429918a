//! The scale subresource: `autoscaling/v1` Scale over the paths that a type declares.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use meshgate_store::{Status, Subresource, WriteOptions, scale};
use serde_json::{Map, Value, json};

use crate::handler::{Call, Served};
use crate::patch::{Patch, PatchKind};
use crate::reply::{self, Reply};
use crate::{body, options, verbs};

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

/// Get, update or patch.
pub(crate) async fn answer(mut call: Call, served: &Served, verb: &str) -> Result<Reply, Status> {
    let Some(paths) = Paths::of(served) else { return Err(reply::no_such_resource()) };
    let resource = &served.kind.resource;
    let (namespace, name) = (call.path.store_namespace().to_owned(), call.path.name.clone());
    if verb == "get" {
        let object = call.api.store.get(resource, &namespace, &name)?;
        return Ok(reply::ok(&paths.scale(&object)));
    }
    let options = options::write(&call)?;
    let wanted = Wanted::read(&mut call, verb, &options).await?;
    let mut change = |object: &mut Value| {
        let scale = wanted.write(object, &paths, &options)?;
        let replicas = replicas_of(&scale);
        if replicas.as_i64().is_none_or(|replicas| replicas < 0) {
            return Err(invalid(&name, &replicas));
        }
        let asked = scale.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if !asked.is_empty() && object.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(asked) {
            return Err(Status::stale(resource, &name));
        }
        set(object, &paths.replicas, replicas);
        Ok(())
    };
    let scaled = call.api.store.modify(resource, &namespace, &name, Subresource::Scale, &options, &mut change)?;
    Ok(reply::with_warnings(reply::json(StatusCode::OK, &paths.scale(&scaled)), &options.warnings.told()))
}

/// What a Scale is to become.
enum Wanted {
    /// This one.
    Whole(Value),
    /// What it is, with a change.
    Patched(Patch),
    /// What it is, with a configuration merged into it.
    Applied(Value),
}

impl Wanted {
    async fn read(call: &mut Call, verb: &str, options: &WriteOptions) -> Result<Self, Status> {
        match verb {
            "update" => Ok(Self::Whole(body::object(&mut call.request, options).await?)),
            "patch" => {
                let content_type = call.request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                let kind = PatchKind::of(content_type.unwrap_or_default(), true)?;
                let bytes = body::bytes(&mut call.request).await?;
                kind.check_options(call.query.get("fieldManager").is_some(), options.force)?;
                if kind != PatchKind::Apply {
                    return Ok(Self::Patched(kind.parse(&bytes, options, KIND)?));
                }
                let mut configuration = body::yaml(&bytes, options)?;
                verbs::names_itself(&configuration, API_VERSION, KIND, &call.path.name)?;
                verbs::placed(&configuration, call.path.store_namespace())?;
                scale::decode(&mut configuration)?;
                Ok(Self::Applied(configuration))
            }
            _ => Err(reply::method_not_allowed()),
        }
    }

    /// The Scale that an object is to have. Who owns its replicas then is noted in the object.
    fn write(&self, object: &mut Value, paths: &Paths, options: &WriteOptions) -> Result<Value, Status> {
        let old = paths.scale(object);
        let mut new = match self {
            Self::Applied(configuration) => return scale::apply(object, &paths.replicas, old, configuration, options),
            Self::Whole(whole) => whole.clone(),
            Self::Patched(patch) => {
                let mut patched = old.clone();
                patch.apply(&mut patched)?;
                patched
            }
        };
        body::check_type(&mut new, options, API_VERSION, KIND)?;
        new["spec"] = spec(replicas_of(&new));
        scale::update(object, &paths.replicas, old, &mut new, options);
        Ok(new)
    }
}

/// The replicas that a Scale says; 0 when it says none.
fn replicas_of(scale: &Value) -> Value {
    scale.pointer("/spec/replicas").cloned().unwrap_or(json!(0))
}

/// The `spec` of a Scale as Go writes it, which leaves out a 0. So nobody owns a 0, unless somebody has applied it.
fn spec(replicas: Value) -> Value {
    let mut spec = Map::new();
    if replicas.as_i64() != Some(0) {
        spec.insert("replicas".to_owned(), replicas);
    }
    Value::Object(spec)
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

    fn scale(&self, object: &Value) -> Value {
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
            "kind": KIND, "apiVersion": API_VERSION, "metadata": metadata,
            "spec": spec(json!(number(&self.replicas))), "status": status,
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
