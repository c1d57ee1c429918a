//! May they: RBAC, evaluated over the roles and bindings in the store at the moment of the request.

mod defaults;

use meshgate_machinery::selector::LabelSelector;
use meshgate_store::{GroupResource, Object, Selectors, Store};
use serde_json::Value;

pub(crate) use defaults::default_objects;

use crate::authn::{MASTERS, User};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// `get`, `list`, ... or a lower-case HTTP method for paths.
    pub(crate) verb: &'a str,
    /// API group.
    pub(crate) group: &'a str,
    /// Plural.
    pub(crate) resource: &'a str,
    /// Subresource or `""`.
    pub(crate) subresource: &'a str,
    /// Namespace or `""`.
    pub(crate) namespace: &'a str,
    /// Object or `""`.
    pub(crate) name: &'a str,
    /// A path that is no resource; the fields above mean nothing then.
    pub(crate) path: Option<&'a str>,
}

/// Whether the user may do it.
pub(crate) fn allowed(store: &Store, user: &User, request: &Request<'_>) -> bool {
    if user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    let mut allowed = false;
    visit(store, user, request.namespace, &mut |rule| {
        allowed = covers(rule, request);
        !allowed
    });
    allowed
}

/// The sentence of a denial, worded as `k8s.io/apiserver` does.
pub(crate) fn denial(user: &User, request: &Request<'_>) -> String {
    let Request { verb, group, resource, subresource, namespace, .. } = request;
    let name = &user.name;
    if let Some(path) = request.path {
        return format!("User {name:?} cannot {verb} path {path:?}");
    }
    let resource = if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

/// All rules that hold for the user in a namespace (and everywhere).
pub(crate) fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    visit(store, user, namespace, &mut |rule| {
        rules.push(rule.clone());
        true
    });
    rules
}

/// Shows every rule that holds for the user to `see`, until that answers `false`.
fn visit(store: &Store, user: &User, namespace: &str, see: &mut dyn FnMut(&Value) -> bool) {
    let list = |plural: &str, namespace: Option<&str>| -> Vec<Object> {
        let listing = store.list(&GroupResource::new(GROUP, plural), namespace, &Selectors::default());
        listing.map(|listing| listing.items).unwrap_or_default()
    };
    let mut bindings = list("clusterrolebindings", None);
    if !namespace.is_empty() {
        bindings.extend(list("rolebindings", Some(namespace)));
    }
    for binding in bindings {
        let place = text(&binding, "/metadata/namespace");
        if !array(&binding, "subjects").iter().any(|subject| is_subject(subject, user, place)) {
            continue;
        }
        for rule in role_rules(store, &binding, place) {
            if !see(&rule) {
                return;
            }
        }
    }
}

/// The rules of the role that a binding refers to.
fn role_rules(store: &Store, binding: &Value, namespace: &str) -> Vec<Value> {
    let name = text(binding, "/roleRef/name");
    let role = match text(binding, "/roleRef/kind") {
        "ClusterRole" => store.get(&GroupResource::new(GROUP, "clusterroles"), "", name),
        _ => store.get(&GroupResource::new(GROUP, "roles"), namespace, name),
    };
    let Ok(role) = role else { return Vec::new() };
    let mut rules = array(&role, "rules").to_vec();
    // Kubernetes has a controller that copies the rules of the aggregated roles; looking them up needs none.
    for selector in
        role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).into_iter().flatten()
    {
        rules.extend(aggregated(store, selector));
    }
    rules
}

/// The rules of all ClusterRoles that a selector selects. One that cannot be read selects none.
fn aggregated(store: &Store, selector: &Value) -> Vec<Value> {
    let Ok(selector) = LabelSelector::from_object(selector) else { return Vec::new() };
    let listing = store.list(&GroupResource::new(GROUP, "clusterroles"), None, &Selectors::default());
    let roles = listing.map(|listing| listing.items).unwrap_or_default();
    roles.iter().filter(|role| selector.matches(role)).flat_map(|role| array(role, "rules").to_vec()).collect()
}

/// Whether a subject of a binding (in `place`, `""` for a cluster role binding) means the user.
fn is_subject(subject: &Value, user: &User, place: &str) -> bool {
    let name = text(subject, "/name");
    match text(subject, "/kind") {
        "User" => name == user.name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let namespace = match text(subject, "/namespace") {
                "" => place,
                namespace => namespace,
            };
            user.name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|account| account == (namespace, name))
        }
        _ => false,
    }
}

/// Whether a rule allows a request.
fn covers(rule: &Value, request: &Request<'_>) -> bool {
    let any = |key: &str, matches: &dyn Fn(&str) -> bool| {
        array(rule, key).iter().filter_map(Value::as_str).any(|value| value == "*" || matches(value))
    };
    if !any("verbs", &|verb| verb == request.verb) {
        return false;
    }
    if let Some(path) = request.path {
        return any("nonResourceURLs", &|url| match url.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == url,
        });
    }
    let combined = match request.subresource {
        "" => request.resource.to_owned(),
        subresource => format!("{}/{subresource}", request.resource),
    };
    let of_any = format!("*/{}", request.subresource);
    any("apiGroups", &|group| group == request.group)
        && any("resources", &|resource| resource == combined || (!request.subresource.is_empty() && resource == of_any))
        && named(rule, request.name)
}

/// Whether `resourceNames` of a rule is empty or has the name. There is no wildcard for names.
fn named(rule: &Value, name: &str) -> bool {
    let names = array(rule, "resourceNames");
    names.is_empty() || names.iter().any(|allowed| allowed.as_str() == Some(name))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods<'a>(verb: &'a str, subresource: &'a str, name: &'a str) -> Request<'a> {
        Request { verb, group: "", resource: "pods", subresource, namespace: "demo", name, path: None }
    }

    #[test]
    fn verbs_groups_and_resources_must_all_match() {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]});
        assert!(covers(&rule, &pods("get", "", "web")));
        assert!(!covers(&rule, &pods("delete", "", "web")));
        assert!(!covers(&rule, &Request { group: "apps", ..pods("get", "", "web") }));
        assert!(!covers(&rule, &pods("get", "log", "web")), "a subresource is not its resource");
    }

    #[test]
    fn subresources_and_wildcards() {
        let log = json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]});
        assert!(covers(&log, &pods("get", "log", "web")));
        assert!(!covers(&log, &pods("get", "", "web")));
        let scale = json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]});
        assert!(covers(&scale, &pods("patch", "scale", "web")));
        assert!(!covers(&scale, &pods("patch", "", "web")));
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        assert!(covers(&all, &pods("delete", "log", "web")));
    }

    #[test]
    fn names_restrict_and_do_not_allow_collections() {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"], "resourceNames": ["web"]});
        assert!(covers(&rule, &pods("get", "", "web")));
        assert!(!covers(&rule, &pods("get", "", "db")));
        assert!(!covers(&rule, &pods("list", "", "")));
    }

    #[test]
    fn paths() {
        let rule = json!({"nonResourceURLs": ["/healthz", "/openapi/*"], "verbs": ["get"]});
        let path = |path| Request { path: Some(path), ..pods("get", "", "") };
        assert!(covers(&rule, &path("/healthz")));
        assert!(covers(&rule, &path("/openapi/v3")));
        assert!(!covers(&rule, &path("/metrics")));
        assert!(!covers(&rule, &pods("get", "", "web")), "a rule about paths says nothing about resources");
    }

    #[test]
    fn subjects() {
        let user = User::service_account("demo", "web", "");
        let account = |namespace: &str| json!({"kind": "ServiceAccount", "name": "web", "namespace": namespace});
        assert!(is_subject(&account("demo"), &user, ""));
        assert!(!is_subject(&account("other"), &user, "demo"));
        assert!(is_subject(&json!({"kind": "Group", "name": "system:serviceaccounts:demo"}), &user, ""));
        assert!(is_subject(&json!({"kind": "User", "name": "system:serviceaccount:demo:web"}), &user, ""));
    }

    #[test]
    fn denials_are_worded_as_kubernetes_words_them() {
        let user = User::service_account("traefik", "traefik", "");
        let request = Request {
            verb: "list",
            group: "networking.k8s.io",
            resource: "ingresses",
            subresource: "",
            namespace: "",
            name: "",
            path: None,
        };
        assert_eq!(
            denial(&user, &request),
            "User \"system:serviceaccount:traefik:traefik\" cannot list resource \"ingresses\" in API group \"networking.k8s.io\" at the cluster scope"
        );
        assert!(denial(&user, &Request { namespace: "demo", subresource: "status", ..request }).ends_with(
            "cannot list resource \"ingresses/status\" in API group \"networking.k8s.io\" in the namespace \"demo\""
        ));
    }
}
