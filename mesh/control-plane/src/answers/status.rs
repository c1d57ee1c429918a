//! The statuses of routes: what is made of each Service and each Server that a route names as its parent.

use std::fmt::Display;

use crate::{
    Key, Kind,
    index::State,
    objects::{Condition, ParentRef, ParentStatus, Route},
};

/// The name under which Linkerd's policy controller writes statuses.
pub(crate) const CONTROLLER: &str = "linkerd.io/policy-controller";

/// A route whose status does not say what it should.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    /// What it should say under [`CONTROLLER`]; nothing if none of its parents is a Service or a Server any more.
    pub(crate) parents: Vec<ParentStatus>,
}

/// The routes whose statuses are to be written.
pub(crate) fn due(state: &State) -> Vec<Due> {
    let all = state.all_routes().map(|route| (route, parents(state, route)));
    let due = all.filter(|(route, parents)| route.told != *parents);
    due.map(|(route, parents)| Due { kind: route.kind, key: route.key.clone(), parents }).collect()
}

/// What a route's status should say of its parents.
fn parents(state: &State, route: &Route) -> Vec<ParentStatus> {
    let resolved = resolved(state, route);
    let each = route.named_parents.iter().map(|parent| ParentStatus {
        parent_ref: parent.clone(),
        controller_name: CONTROLLER.into(),
        conditions: [accepted(state, route, parent), resolved.clone()]
            .into_iter()
            .chain(partially_invalid(route))
            .map(|condition| Condition { observed_generation: route.generation, ..condition })
            .collect(),
    });
    each.collect()
}

/// As with Linkerd, a port that the Service does not have is no reason: the route is for it once it is there.
fn accepted(state: &State, route: &Route, parent: &ParentRef) -> Condition {
    if route.is_unusable() {
        return condition("Accepted", false, "UnsupportedValue", route.left_out.join("; "));
    }
    let key = parent.key(&route.key);
    let problem = match parent.is_server() {
        true => (!state.has_server(&key)).then(|| format!("Server {key} does not exist")),
        false => (!exists(state, &key)).then(|| missing(&key)),
    };
    match problem {
        None => condition("Accepted", true, "Accepted", ""),
        Some(problem) => condition("Accepted", false, "NoMatchingParent", problem),
    }
}

/// The condition of a route of which some rules count and others do not, in the words of the Gateway API.
fn partially_invalid(route: &Route) -> Option<Condition> {
    let message = || format!("Dropped Rule: {}", route.left_out.join("; "));
    let is_partial = !route.left_out.is_empty() && !route.is_unusable();
    is_partial.then(|| condition("PartiallyInvalid", true, "UnsupportedValue", message()))
}

/// Of several reasons the one that no other object can mend.
fn resolved(state: &State, route: &Route) -> Condition {
    if route.has_foreign_backends {
        let message = "a backend is of a kind other than Service";
        return condition("ResolvedRefs", false, "InvalidKind", message);
    }
    match route.backends().into_iter().find(|backend| !exists(state, backend)) {
        Some(service) => condition("ResolvedRefs", false, "BackendNotFound", missing(service)),
        None => condition("ResolvedRefs", true, "ResolvedRefs", ""),
    }
}

/// Whether requests can be sent to a Service: to an ExternalName they cannot.
fn exists(state: &State, service: &Key) -> bool {
    state.service(service).is_some_and(|service| !service.external)
}

fn missing(service: &Key) -> String {
    format!("Service {service} does not exist")
}

fn condition(type_: &str, holds: bool, reason: &str, message: impl Display) -> Condition {
    Condition {
        type_: type_.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: reason.into(),
        message: message.to_string(),
        observed_generation: None,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Index, examples};

    fn route(parents: Value, backends: Value, told: Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "default", "generation": 3},
            "spec": {"parentRefs": parents, "rules": [{"backendRefs": backends}]},
            "status": {"parents": told},
        })
    }

    fn web() -> Value {
        json!({"group": "", "kind": "Service", "name": "web", "port": 80})
    }

    fn look(index: &Index) -> Vec<Due> {
        index.answer(|state, _| due(state)).now_or_never().expect("a synced index")
    }

    /// The conditions of each parent, as `Type=Status Reason`.
    fn verdicts(due: &[Due]) -> Vec<Vec<String>> {
        let of = |parent: &ParentStatus| {
            let conditions = parent.conditions.iter();
            conditions.map(|one| format!("{}={} {}", one.type_, one.status, one.reason)).collect()
        };
        due.iter().flat_map(|one| &one.parents).map(of).collect()
    }

    #[test]
    fn parents_are_accepted_and_references_resolved_where_their_services_are() {
        let gateway = json!({"kind": "Gateway", "name": "g"});
        let external = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "example.com"},
        });
        let services =
            || [examples::service("web", "10.96.0.5"), examples::service("api", "10.96.0.6"), external.clone()];
        let (yes, resolved) = ("Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs");
        let not_found = "ResolvedRefs=False BackendNotFound";
        for (parents, backends, want) in [
            (json!([web()]), json!([{"name": "api", "port": 80}]), vec![[yes, resolved]]),
            (json!([web()]), json!([]), vec![[yes, resolved]]),
            (json!([gateway, web()]), json!([{"name": "no", "port": 80}]), vec![[yes, not_found]]),
            (json!([web()]), json!([{"name": "ext", "port": 80}]), vec![[yes, not_found]]),
            (json!([web()]), json!([{"kind": "Cake", "name": "api"}]), vec![[yes, "ResolvedRefs=False InvalidKind"]]),
            (
                json!([{"group": "core", "kind": "Service", "name": "web", "namespace": "elsewhere"}, web()]),
                json!([]),
                vec![["Accepted=False NoMatchingParent", resolved], [yes, resolved]],
            ),
            (json!([gateway]), json!([{"name": "no", "port": 80}]), vec![]),
        ] {
            let index = examples::index(services().into_iter().chain([route(parents.clone(), backends, json!([]))]));
            let due = look(&index);
            assert_eq!(verdicts(&due), want, "{parents}");
            let conditions = due.iter().flat_map(|one| &one.parents).flat_map(|parent| &parent.conditions);
            assert!(conditions.clone().all(|condition| condition.observed_generation == Some(3)));
        }
    }

    #[test]
    fn servers_are_parents_as_services_are() {
        let parent = |name: &str| json!({"group": "policy.linkerd.io", "kind": "Server", "name": name});
        let server = json!({
            "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": "s", "namespace": "default"},
            "spec": {"podSelector": {}, "port": 80},
        });
        let (yes, no) = ("Accepted=True Accepted", "Accepted=False NoMatchingParent");
        let resolved = "ResolvedRefs=True ResolvedRefs";
        let index = examples::index([route(json!([parent("s"), parent("t")]), json!([]), json!([]))]);
        assert_eq!(verdicts(&look(&index)), [[no, resolved], [no, resolved]]);
        let changes = index.subscribe(crate::index::Topic::Statuses);
        index.apply(&server).unwrap();
        assert!(changes.has_changed().unwrap(), "a Server that comes is news");
        let due = look(&index);
        assert_eq!(verdicts(&due), [[yes, resolved], [no, resolved]]);
        assert_eq!(json!(due[0].parents[0].parent_ref), parent("s"));
        let changes = index.subscribe(crate::index::Topic::Statuses);
        index.delete(Kind::Server, &Key::new("default", "s"));
        assert!(changes.has_changed().unwrap(), "and one that goes");
        assert_eq!(verdicts(&look(&index)), [[no, resolved], [no, resolved]]);
    }

    #[test]
    fn rules_that_are_left_out_are_told() {
        let rules = |paths: &[&str]| {
            let rule = |path: &&str| json!({"matches": [{"path": {"type": "RegularExpression", "value": path}}]});
            paths.iter().map(rule).collect::<Value>()
        };
        let (yes, resolved) = ("Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs");
        let partial = "PartiallyInvalid=True UnsupportedValue";
        for (paths, want, message) in [
            (&["/a.*"] as &[_], vec![yes, resolved], ""),
            (
                &["/a", "/(", "/b"],
                vec![yes, resolved, partial],
                "Dropped Rule: rules[1]: expected a regular expression, found `/(`",
            ),
            (
                &["("],
                vec!["Accepted=False UnsupportedValue", resolved],
                "rules[0]: expected a regular expression, found `(`",
            ),
        ] {
            let mut route = route(json!([web()]), json!([]), json!([]));
            route["spec"]["rules"] = rules(paths);
            let due = look(&examples::index([examples::service("web", "10.96.0.5"), route]));
            assert_eq!(verdicts(&due), [want], "{paths:?}");
            let conditions = due.iter().flat_map(|one| &one.parents).flat_map(|parent| &parent.conditions);
            let told: Vec<_> = conditions.map(|one| &*one.message).filter(|message| !message.is_empty()).collect();
            assert_eq!(told, Vec::from_iter((!message.is_empty()).then_some(message)));
        }
    }

    #[test]
    fn what_is_told_already_is_not_due() {
        let told = |generation: u32, resolved: Value| {
            let mut conditions = json!([
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                resolved,
            ]);
            for condition in conditions.as_array_mut().unwrap() {
                condition["observedGeneration"] = json!(generation);
                condition["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
            }
            json!([
                // Somebody else's, which says more than is read.
                {"controllerName": "example.com/gateways", "parentRef": {"name": "g"}, "conditions": [{"more": 1}]},
                {"controllerName": CONTROLLER, "parentRef": web(), "conditions": conditions},
            ])
        };
        let yes = json!({"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""});
        let no = json!({"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": ""});
        for (what, parents, told, want) in [
            ("the same", json!([web()]), told(3, yes.clone()), None),
            ("of an older generation", json!([web()]), told(2, yes.clone()), Some(1)),
            ("another verdict", json!([web()]), told(3, no), Some(1)),
            ("of a parent that is none any more", json!([]), told(3, yes), Some(0)),
        ] {
            let index = examples::index([examples::service("web", "10.96.0.5"), route(parents, json!([]), told)]);
            let found: Vec<_> = look(&index).into_iter().map(|due| due.parents.len()).collect();
            assert_eq!(found, Vec::from_iter(want), "{what}");
        }
    }
}
