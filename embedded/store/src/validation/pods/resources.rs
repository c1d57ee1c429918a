//! Rules of the resources that a container asks for.

use serde_json::{Map, Value, json};

use super::super::{names, quantities};
use crate::invalid::FieldErrors;

/// What a container may ask for without saying whose it is.
const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What else has a name of its own in Kubernetes, in quotas for instance.
const STANDARD: [&str; 17] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const HUGE_PAGES: &str = "hugepages-";

/// Limits and requests.
pub(super) fn requirements(path: &str, resources: &Value, errors: &mut FieldErrors) {
    let list = |key: &str| resources.get(key).and_then(Value::as_object);
    let (limits, requests) = (list("limits"), list("requests"));
    amounts(&format!("{path}.limits"), limits, errors);
    amounts(&format!("{path}.requests"), requests, errors);
    for (name, request) in requests.into_iter().flatten() {
        match limits.and_then(|limits| limits.get(name)) {
            Some(limit) => within(&format!("{path}.requests"), name, request, limit, errors),
            None if !may_overcommit(name) => {
                let why = "Limit must be set for non overcommitable resources";
                errors.required(format!("{path}.limits"), why);
            }
            None => {}
        }
    }
    let names = || limits.into_iter().chain(requests).flat_map(Map::keys);
    let is_counted = |name: &String| name == "cpu" || name == "memory";
    if names().any(|name| name.starts_with(HUGE_PAGES)) && !names().any(is_counted) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn amounts(path: &str, list: Option<&Map<String, Value>>, errors: &mut FieldErrors) {
    for (name, quantity) in list.into_iter().flatten() {
        let field = format!("{path}[{name}]");
        resource_name(&field, name, errors);
        let Some(amount) = quantities::nanos(quantity) else { continue };
        let value = json!(quantities::text(quantity));
        if amount < 0 {
            errors.invalid(field.as_str(), &value, "must be greater than or equal to 0");
        }
        if is_extended(name) && amount % 1_000_000_000 != 0 {
            errors.invalid(field, &value, "must be an integer");
        }
    }
}

fn resource_name(field: &str, name: &str, errors: &mut FieldErrors) {
    let value = json!(name);
    let problems = names::qualified_name(name);
    let is_name = problems.is_empty();
    errors.each(field, &value, problems);
    if name.contains('/') {
        if !is_native(name) && !is_extended(name) {
            errors.invalid(field, &value, "doesn't follow extended resource name standard");
        }
        return;
    }
    if OF_CONTAINERS.contains(&name) || name.starts_with(HUGE_PAGES) {
        return;
    }
    let is_standard = STANDARD.contains(&name) || name.starts_with("requests.hugepages-");
    if is_name && !is_standard {
        errors.invalid(field, &value, "must be a standard resource type or fully qualified");
    }
    errors.invalid(field, &value, "must be a standard resource for containers");
}

fn within(field: &str, name: &str, request: &Value, limit: &Value, errors: &mut FieldErrors) {
    let (Some(asked), Some(most)) = (quantities::nanos(request), quantities::nanos(limit)) else { return };
    let relation = match may_overcommit(name) {
        false if asked != most => "equal to",
        true if asked > most => "less than or equal to",
        _ => return,
    };
    let problem = format!("must be {relation} {name} limit of {}", quantities::text(limit));
    errors.invalid(field, &json!(quantities::text(request)), &problem);
}

/// Whether it is Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is somebody's, such as `example.com/gpu`: whole pieces, each of which one container has.
fn is_extended(name: &str) -> bool {
    let in_quota = format!("requests.{name}");
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&in_quota).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}
