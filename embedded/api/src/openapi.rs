//! `/openapi/v3`: an index, and a document per group and version, made when it is asked for.
//!
//! kubectl looks into a document for two things: whether a kind has a PATCH operation with a parameter
//! `fieldValidation` (then the server validates, and nothing else is read), and the schemas that `explain` shows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue};
use meshgate_machinery::schema;
use meshgate_store::{GroupResource, Status};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::discovery::{self, Entry};
use crate::handler::Api;
use crate::health::GIT_VERSION;
use crate::query::Query;
use crate::reply::{self, Reply};

/// The last document that was made, so that clients which ask for it one after another share the work.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Option<(String, String)>>);

/// `segments` are those after `/openapi/v3`.
pub(crate) fn answer(api: &Api, segments: &[&str], query: &Query) -> Result<Reply, Status> {
    match segments {
        [] => Ok(reply::ok(&index(api))),
        ["api", version] => document(api, "", version, query),
        ["apis", group, version] => document(api, group, version, query),
        _ => Err(reply::no_such_resource()),
    }
}

fn index(api: &Api) -> Value {
    let mut paths = Map::new();
    for (group, versions) in discovery::groups(&api.store) {
        for (version, entries) in versions {
            let key = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let url = format!("/openapi/v3/{key}?hash={}", hash(api, &group, &version, &entries));
            paths.insert(key, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// Changes when the document does: its resources, and the schemas of those that come from CRDs.
fn hash(api: &Api, group: &str, version: &str, entries: &[Entry]) -> String {
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    for entry in entries {
        if let Some(schema) = custom_schema(api, group, version, entry) {
            schema.to_string().hash(&mut hasher);
        }
    }
    format!("{:016X}", hasher.finish())
}

/// The schema of a CRD's version.
fn custom_schema(api: &Api, group: &str, version: &str, entry: &Entry) -> Option<Arc<Value>> {
    let kind = api.store.resource(&GroupResource::new(group, &entry.plural))?;
    kind.versions.iter().find(|candidate| candidate.name == version)?.schema.clone()
}

fn document(api: &Api, group: &str, version: &str, query: &Query) -> Result<Reply, Status> {
    let groups = discovery::groups(&api.store);
    let versions = groups.get(group).ok_or_else(reply::no_such_resource)?;
    let (_, entries) = versions.iter().find(|(name, _)| name == version).ok_or_else(reply::no_such_resource)?;
    let hash = hash(api, group, version, entries);
    let mut kept = api.documents.0.lock();
    let text = match &*kept {
        Some((key, text)) if *key == hash => text.clone(),
        _ => {
            let text = write(api, group, version, entries).to_string();
            *kept = Some((hash.clone(), text.clone()));
            text
        }
    };
    drop(kept);
    let mut reply = reply::with_type(StatusCode::OK, "application/json", text);
    let headers = reply.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{hash}\"")) {
        headers.insert(ETAG, tag);
    }
    // The index names each document with its hash, so under that name it never changes; kubectl keeps it then.
    let caching =
        if query.get("hash") == Some(&hash) { "public, max-age=31536000, immutable" } else { "no-cache, private" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    Ok(reply)
}

fn write(api: &Api, group: &str, version: &str, entries: &[Entry]) -> Value {
    let mut paths = Map::new();
    let mut schemas = schema::openapi::components(group, version, entries.iter().map(|entry| entry.kind.as_str()));
    for entry in entries {
        let gvk = json!({"group": group, "version": version, "kind": entry.kind});
        let name = match custom_schema(api, group, version, entry) {
            Some(schema) => Some(add_custom(group, version, &entry.kind, &schema, &mut schemas)),
            None => schema::openapi::name(group, version, &entry.kind),
        };
        add_paths(group, version, entry, &gvk, name.as_deref(), &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Adds the schema of a custom kind, with the fields that all objects have, and returns its name.
fn add_custom(group: &str, version: &str, kind: &str, schema: &Value, schemas: &mut Map<String, Value>) -> String {
    const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    if !schemas.contains_key(METADATA) {
        // Metadata and all that it refers to come with any small built-in kind.
        let mut shared = schema::openapi::components("", "v1", ["ConfigMap"]);
        shared.retain(|name, _| !name.ends_with(".ConfigMap"));
        schemas.extend(shared);
    }
    let mut schema = schema.clone();
    let text = |description: &str| json!({"type": "string", "description": description});
    schema["properties"]["apiVersion"] = text("The group and version of the object's schema.");
    schema["properties"]["kind"] = text("The kind of the object.");
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.",
        "allOf": [{"$ref": format!("#/components/schemas/{METADATA}")}],
    });
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    let reversed: Vec<&str> = group.rsplit('.').collect();
    let name = format!("{}.{version}.{kind}", reversed.join("."));
    schemas.insert(name.clone(), schema);
    name
}

/// The operations of a resource: enough for clients that look for a kind among them.
fn add_paths(
    group: &str,
    version: &str,
    entry: &Entry,
    gvk: &Value,
    schema: Option<&str>,
    paths: &mut Map<String, Value>,
) {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let collection = match entry.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", entry.plural),
        false => format!("{root}/{}", entry.plural),
    };
    let mut content = json!({});
    if let Some(schema) = schema {
        content["application/json"] = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    }
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let operation = |action: &str, parameters: Value| {
        json!({
            "responses": {"200": {"description": "OK", "content": content}},
            "parameters": parameters,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        })
    };
    let write = || json!([query("dryRun"), query("fieldManager"), query("fieldValidation")]);
    let can = |verb: &str| entry.verbs.contains(&verb);
    let (mut many, mut one) = (Map::new(), Map::new());
    for (verb, method, action, on_one) in [
        ("list", "get", "list", false),
        ("create", "post", "post", false),
        ("deletecollection", "delete", "deletecollection", false),
        ("get", "get", "get", true),
        ("update", "put", "put", true),
        ("patch", "patch", "patch", true),
        ("delete", "delete", "delete", true),
    ] {
        if can(verb) {
            let parameters = if matches!(verb, "create" | "update" | "patch") { write() } else { json!([]) };
            let operations = if on_one { &mut one } else { &mut many };
            operations.insert(method.to_owned(), operation(action, parameters));
        }
    }
    if !one.is_empty() {
        paths.insert(format!("{collection}/{{name}}"), Value::Object(one));
    }
    paths.insert(collection, Value::Object(many));
}
