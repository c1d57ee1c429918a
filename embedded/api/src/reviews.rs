//! Resources that are only asked: who am I, may I, whose token is this.

use http::StatusCode;
use meshgate_store::Status;
use serde_json::{Value, json};

use crate::authn::User;
use crate::body;
use crate::handler::Call;
use crate::options;
use crate::rbac::{self, Request};
use crate::reply::{self, Reply};
use crate::subresources;
use crate::virtual_kinds::VirtualKind;

/// Answers the creation of a resource without objects. Nothing is stored.
pub(crate) async fn create(mut call: Call, kind: &VirtualKind, verb: &str) -> Result<Reply, Status> {
    let placed = !call.path.namespace.is_empty();
    if !call.path.name.is_empty() || placed && !kind.namespaced {
        return Err(reply::no_such_resource());
    }
    if verb != "create" || placed != kind.namespaced {
        return Err(reply::method_not_allowed());
    }
    let options = options::write(&call)?;
    let api_version = call.path.api_version();
    let mut review = body::typed(&mut call.request, &options, &api_version, kind.kind).await?;
    if let Some(map) = review.as_object_mut() {
        map.entry("metadata").or_insert_with(|| json!({"creationTimestamp": null}));
    }
    let status = match kind.kind {
        "SelfSubjectAccessReview" => access(&call, &call.user, &review["spec"])?,
        "SubjectAccessReview" => access(&call, &subject(&review["spec"])?, &review["spec"])?,
        "LocalSubjectAccessReview" => {
            let asked = review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str);
            if asked != Some(call.path.namespace.as_str()) {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must be that of the request, {:?}",
                    call.path.namespace
                )));
            }
            access(&call, &subject(&review["spec"])?, &review["spec"])?
        }
        "SelfSubjectRulesReview" => rules(&call, &review["spec"]),
        "SelfSubjectReview" => json!({"userInfo": call.user.to_value()}),
        "TokenReview" => token(&call, &review["spec"]),
        _ => return subresources::bind(&call, &review),
    };
    review["status"] = status;
    Ok(reply::with_warnings(reply::json(StatusCode::CREATED, &review), &options.warnings.told()))
}

/// The user that a SubjectAccessReview is about.
fn subject(spec: &Value) -> Result<User, Status> {
    let name = text(spec, "user").to_owned();
    let groups: Vec<String> = strings(&spec["groups"]);
    if name.is_empty() && groups.is_empty() {
        let message = "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user or group must be specified";
        return Err(Status::new(422, "Invalid", message));
    }
    Ok(User { name, groups, uid: text(spec, "uid").to_owned(), ..User::default() })
}

/// The status of an access review.
fn access(call: &Call, user: &User, spec: &Value) -> Result<Value, Status> {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let (attributes, path) = match (resource.is_object(), path.is_object()) {
        (true, false) => (resource, None),
        (false, true) => (path, Some(text(path, "path"))),
        _ => {
            let message = "AccessReview.authorization.k8s.io \"\" is invalid: spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(Status::new(422, "Invalid", message));
        }
    };
    let request = Request {
        verb: text(attributes, "verb"),
        group: text(attributes, "group"),
        resource: text(attributes, "resource"),
        subresource: text(attributes, "subresource"),
        namespace: text(attributes, "namespace"),
        name: text(attributes, "name"),
        path,
    };
    let allowed = rbac::allowed(&call.api.store, user, &request);
    Ok(json!({"allowed": allowed}))
}

/// The status of a SelfSubjectRulesReview.
fn rules(call: &Call, spec: &Value) -> Value {
    let (mut resource_rules, mut path_rules) = (Vec::new(), Vec::new());
    let mut found = rbac::rules(&call.api.store, &call.user, text(spec, "namespace"));
    if call.user.groups.iter().any(|group| group == crate::authn::MASTERS) {
        found.push(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        found.push(json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
    }
    for rule in found {
        let rules = if rule["nonResourceURLs"].is_array() { &mut path_rules } else { &mut resource_rules };
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    json!({"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": false})
}

/// The status of a TokenReview.
fn token(call: &Call, spec: &Value) -> Value {
    let token = text(spec, "token");
    let audiences = strings(&spec["audiences"]);
    let credentials = &call.api.credentials;
    let found = match credentials.tokens().review(token, &audiences) {
        Some(found) => Some(found),
        // The administrator's token is good for the API server only.
        None if audiences.is_empty() => credentials.authenticate(token).map(|user| (user, Vec::new())),
        None => None,
    };
    match found {
        Some((user, audiences)) => json!({"authenticated": true, "user": user.to_value(), "audiences": audiences}),
        None => json!({"authenticated": false, "user": {}, "error": "[invalid bearer token, token lookup failed]"}),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
