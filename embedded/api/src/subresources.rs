//! The subresources of core kinds that are neither `status` nor `scale`.

use std::time::Duration;

use http::StatusCode;
use meshgate_store::{GroupResource, Status, Subresource, WriteOptions};
use serde_json::{Value, json};

use crate::body;
use crate::handler::{Call, Served};
use crate::options::{self, Problems};
use crate::reply::{self, Reply};
use crate::streaming;
use crate::tokens::{ISSUER, Reference};
use crate::verbs;

/// Dispatches by resource and subresource; `served` has made sure that the pair exists.
pub(crate) async fn answer(call: Call, served: &Served, verb: &str) -> Result<Reply, Status> {
    match (call.path.resource.as_str(), call.path.subresource.as_str(), verb) {
        ("pods", "log", "get") => streaming::logs::answer(&call).await,
        ("pods", "exec", "get" | "create") => streaming::exec::answer(call).await,
        ("pods", "portforward", "get" | "create") => streaming::forward::answer(call).await,
        ("pods" | "services", "proxy", _) => streaming::proxy::answer(call).await,
        ("pods", "binding", "create") => pod_binding(call).await,
        ("pods", "eviction", "create") => evict(call).await,
        ("serviceaccounts", "token", "create") => token(call).await,
        ("namespaces", "finalize", "update") => finalize(call, served).await,
        _ => Err(reply::method_not_allowed()),
    }
}

/// `POST pods/NAME/binding`.
async fn pod_binding(mut call: Call) -> Result<Reply, Status> {
    let mut binding = body::typed(&mut call.request, &WriteOptions::default(), "v1", "Binding").await?;
    binding["metadata"]["name"] = json!(call.path.name);
    bind(&call, &binding)
}

/// Assigns a pod to a node, as a scheduler asks. A pod is assigned once.
pub(crate) fn bind(call: &Call, binding: &Value) -> Result<Reply, Status> {
    let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (pod, node) = (text("/metadata/name"), text("/target/name"));
    if pod.is_empty() || node.is_empty() {
        return Err(Status::bad_request("a Binding needs metadata.name (the pod) and target.name (the node)"));
    }
    let pods = GroupResource::new("", "pods");
    let options = options::write(call)?;
    let mut change = |object: &mut Value| match object.pointer("/spec/nodeName").and_then(Value::as_str) {
        Some(current) if !current.is_empty() => {
            Err(Status::conflict(&pods, pod, &format!("pod {pod} is already assigned to node \"{current}\"")))
        }
        _ => {
            object["spec"]["nodeName"] = json!(node);
            Ok(())
        }
    };
    call.api.store.modify(&pods, &call.path.namespace, pod, Subresource::Main, &options, &mut change)?;
    Ok(reply::success(StatusCode::CREATED, Value::Null))
}

/// `POST pods/NAME/eviction`: a delete that could be refused. Disruption budgets are not consulted.
async fn evict(mut call: Call) -> Result<Reply, Status> {
    let eviction = body::typed(&mut call.request, &WriteOptions::default(), "policy/v1", "Eviction").await?;
    let mut options = verbs::delete_options_of(&eviction["deleteOptions"]);
    let mut problems = Problems::of("CreateOptions");
    options.dry_run |= options::dry_run(&call.query, &mut problems);
    problems.into_result()?;
    let pods = GroupResource::new("", "pods");
    call.api.store.delete(&pods, &call.path.namespace, &call.path.name, &options)?;
    Ok(reply::success(StatusCode::CREATED, Value::Null))
}

/// `POST serviceaccounts/NAME/token`.
async fn token(mut call: Call) -> Result<Reply, Status> {
    let mut request =
        body::typed(&mut call.request, &WriteOptions::default(), "authentication.k8s.io/v1", "TokenRequest").await?;
    let spec = &request["spec"];
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let seconds = spec["expirationSeconds"].as_u64().unwrap_or(3600);
    if seconds < 600 {
        let why = "may not specify a duration less than 10 minutes";
        let message = format!(
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {seconds}: {why}"
        );
        return Err(Status::new(422, "Invalid", message));
    }
    let pod = bound_pod(&call, &spec["boundObjectRef"])?;
    let tokens = call.api.credentials.tokens();
    let expiry = Duration::from_secs(seconds);
    let issued = tokens.issue_bound(&call.path.namespace, &call.path.name, &audiences, expiry, pod)?;
    let expires = jiff::Timestamp::from_second(issued.expires.as_second()).unwrap_or(issued.expires);
    let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
    request["metadata"]["name"] = json!(call.path.name);
    request["metadata"]["namespace"] = json!(call.path.namespace);
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": issued.token, "expirationTimestamp": expires.to_string()});
    Ok(reply::json(StatusCode::CREATED, &request))
}

/// The pod that a token is asked to be bound to. Other kinds are refused, for a token could not be tied to them.
fn bound_pod(call: &Call, reference: &Value) -> Result<Option<Reference>, Status> {
    if !reference.is_object() {
        return Ok(None);
    }
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    if text("kind") != "Pod" {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount to object type {:?}: expected a Pod",
            text("kind")
        )));
    }
    let pods = GroupResource::new("", "pods");
    let pod = call.api.store.get(&pods, &call.path.namespace, text("name"))?;
    let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!("the UID in the bound object reference ({}) does not match the UID in record", text("uid"));
        return Err(Status::conflict(&pods, text("name"), &why));
    }
    Ok(Some(Reference { name: text("name").to_owned(), uid: uid.to_owned() }))
}

/// `PUT namespaces/NAME/finalize`: sets `spec.finalizers`; a terminating namespace without any goes for good.
async fn finalize(mut call: Call, served: &Served) -> Result<Reply, Status> {
    let options = options::write(&call)?;
    let wanted = verbs::object_of(&mut call, served, &options).await?;
    let finalizers = wanted.pointer("/spec/finalizers").cloned().unwrap_or(json!([]));
    let namespaces = &served.kind.resource;
    let store = &call.api.store;
    let mut change = |object: &mut Value| {
        object["spec"]["finalizers"] = finalizers.clone();
        Ok(())
    };
    let object = store.modify(namespaces, "", &call.path.name, Subresource::Main, &options, &mut change)?;
    let done = finalizers.as_array().is_none_or(Vec::is_empty) && object["metadata"]["deletionTimestamp"].is_string();
    if done && !options.dry_run {
        store.remove(namespaces, "", &call.path.name)?;
    }
    verbs::answer(&call, served, StatusCode::OK, &object)
}
