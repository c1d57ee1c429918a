//! The statuses of routes: what is made of each Service, EgressNetwork and Server that a route names as its parent. And those of
//! EgressNetworks.

use std::fmt::Display;

use crate::{
    Cluster, Key, Kind,
    index::State,
    objects::{ACCEPTED, Condition, EgressNetwork, ParentRef, ParentStatus, Referent, Route},
};

/// The name under which Linkerd's policy controller writes statuses.
pub(crate) const CONTROLLER: &str = "linkerd.io/policy-controller";

/// An object whose status does not say what it should.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) told: Told,
}

/// What a status should say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// A route's under [`CONTROLLER`]; nothing if none of its parents is one of ours any more.
    Parents(Vec<ParentStatus>),
    /// An EgressNetwork's of whether it is accepted.
    Accepted(Condition),
}

/// The objects whose statuses are to be written.
pub(crate) fn due(state: &State, cluster: &Cluster) -> Vec<Due> {
    let all = state.all_routes().map(|route| (route, parents(state, cluster, route)));
    let due = all.filter(|(route, parents)| route.told != *parents);
    let routes =
        due.map(|(route, parents)| Due { kind: route.kind, key: route.key.clone(), told: Told::Parents(parents) });
    let all = state.egress_networks().map(|network| (network, network_accepted(cluster, network)));
    let due = all.filter(|(network, accepted)| network.told.as_ref() != Some(accepted));
    let networks = due.map(|(network, accepted)| Due {
        kind: Kind::EgressNetwork,
        key: network.key.clone(),
        told: Told::Accepted(accepted),
    });
    routes.chain(networks).collect()
}

/// What a route's status should say of its parents.
fn parents(state: &State, cluster: &Cluster, route: &Route) -> Vec<ParentStatus> {
    let each = route.named_parents.iter().map(|parent| ParentStatus {
        parent_ref: parent.clone(),
        controller_name: CONTROLLER.into(),
        conditions: [accepted(state, cluster, route, parent), resolved(state, route, parent)]
            .into_iter()
            .chain(partially_invalid(route))
            .map(|condition| Condition { observed_generation: route.generation, ..condition })
            .collect(),
    });
    each.collect()
}

/// As with Linkerd, a port that the Service does not have is no reason: the route is for it once it is there.
fn accepted(state: &State, cluster: &Cluster, route: &Route, parent: &ParentRef) -> Condition {
    if route.is_unusable() {
        return condition(ACCEPTED, false, "UnsupportedValue", route.left_out.join("; "));
    }
    let referent = parent.referent(&route.key);
    let problem = match referent.clone() {
        None => {
            let server = parent.key(&route.key);
            (!state.has_server(&server)).then(|| format!("Server {server} does not exist"))
        }
        Some(referent) if !exists(state, &referent) => Some(missing(&referent)),
        Some(Referent::Service(_)) => None,
        Some(Referent::EgressNetwork(network)) => {
            let overlaps = state.egress_network(&network).is_some_and(|network| network.overlaps(cluster));
            match parent.port {
                _ if overlaps => Some(format!("EgressNetwork {network} is not accepted")),
                None => Some(format!("the reference to EgressNetwork {network} names no port")),
                Some(_) => None,
            }
        }
    };
    if let Some(problem) = problem {
        return condition(ACCEPTED, false, "NoMatchingParent", problem);
    }
    match referent.filter(|referent| state.has_conflict(route, &(referent.clone(), parent.port))) {
        Some(referent) => {
            let problem = format!("{referent} has a route that tells more of what is spoken");
            condition(ACCEPTED, false, "RouteReasonConflicted", problem)
        }
        None => condition(ACCEPTED, true, "Accepted", ""),
    }
}

/// In the words of Linkerd's policy controller (`policy-controller/k8s/status/src/index.rs`), which tells no generation: the definition
/// that Linkerd installs has no field for it.
fn network_accepted(cluster: &Cluster, network: &EgressNetwork) -> Condition {
    match network.overlaps(cluster) {
        false => condition(ACCEPTED, true, "Accepted", ""),
        true => condition(ACCEPTED, false, "EgressReasonNetworkOverlap", "networks overlap with clusterNetworks"),
    }
}

/// The condition of a route of which some rules count and others do not, in the words of the Gateway API.
fn partially_invalid(route: &Route) -> Option<Condition> {
    let message = || format!("Dropped Rule: {}", route.left_out.join("; "));
    let is_partial = !route.left_out.is_empty() && !route.is_unusable();
    is_partial.then(|| condition("PartiallyInvalid", true, "UnsupportedValue", message()))
}

/// A backend of another kind comes before all others: no other object can mend that.
fn resolved(state: &State, route: &Route, parent: &ParentRef) -> Condition {
    const RESOLVED: &str = "ResolvedRefs";
    if route.has_foreign_backends {
        let message = "a backend is of a kind other than Service and EgressNetwork";
        return condition(RESOLVED, false, "InvalidKind", message);
    }
    let parent = parent.referent(&route.key);
    for backend in route.backends() {
        if !exists(state, backend) {
            return condition(RESOLVED, false, "BackendNotFound", missing(backend));
        }
        if matches!(backend, Referent::EgressNetwork(_)) && parent.as_ref() != Some(backend) {
            let message = format!("{backend} is a backend of none but its own routes");
            return condition(RESOLVED, false, "InvalidKind", message);
        }
    }
    condition(RESOLVED, true, RESOLVED, "")
}

/// Whether requests can be sent there: to an ExternalName they cannot.
fn exists(state: &State, referent: &Referent) -> bool {
    match referent {
        Referent::Service(key) => state.service(key).is_some_and(|service| !service.external),
        Referent::EgressNetwork(key) => state.egress_network(key).is_some(),
    }
}

fn missing(referent: &Referent) -> String {
    format!("{referent} does not exist")
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
    use crate::{Index, Object, examples};

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
        index.answer(due).now_or_never().expect("a synced index")
    }

    /// What is due to be said of parents of routes.
    fn parents_of(due: &[Due]) -> impl Iterator<Item = &ParentStatus> + Clone {
        let each = due.iter().filter_map(|one| match &one.told {
            Told::Parents(parents) => Some(parents),
            Told::Accepted(_) => None,
        });
        each.flatten()
    }

    /// The conditions of each parent, as `Type=Status Reason`.
    fn verdicts(due: &[Due]) -> Vec<Vec<String>> {
        let of = |parent: &ParentStatus| {
            let conditions = parent.conditions.iter();
            conditions.map(|one| format!("{}={} {}", one.type_, one.status, one.reason)).collect()
        };
        parents_of(due).map(of).collect()
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
            let conditions = parents_of(&due).flat_map(|parent| &parent.conditions);
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
        assert_eq!(json!(parents_of(&due).next().unwrap().parent_ref), parent("s"));
        let changes = index.subscribe(crate::index::Topic::Statuses);
        index.delete(Kind::Server, &Key::new("default", "s"));
        assert!(changes.has_changed().unwrap(), "and one that goes");
        assert_eq!(verdicts(&look(&index)), [[no, resolved], [no, resolved]]);
    }

    #[test]
    fn a_route_of_a_type_that_tells_less_is_in_conflict() {
        let of = |kind: &str, parent: Value| {
            let mut route = route(json!([parent]), json!([]), json!([]));
            route["kind"] = json!(kind);
            route
        };
        let any_port = || json!({"group": "core", "kind": "Service", "name": "web"});
        let (yes, no) = ("Accepted=True Accepted", "Accepted=False RouteReasonConflicted");
        for (routes, want) in [
            (vec![of("TCPRoute", web()), of("TLSRoute", web())], vec![no, yes]),
            (vec![of("TCPRoute", web()), of("TLSRoute", web()), of("HTTPRoute", web())], vec![no, no, yes]),
            (vec![of("HTTPRoute", web()), of("GRPCRoute", web())], vec![no, yes]),
            (vec![of("TLSRoute", web()), of("TCPRoute", web())], vec![yes, no]),
            // A port is named by one of them only.
            (vec![of("TCPRoute", web()), of("TLSRoute", any_port())], vec![yes, yes]),
        ] {
            let index = examples::index([examples::service("web", "10.96.0.5")].into_iter().chain(routes.clone()));
            let due = look(&index);
            for (route, want) in routes.iter().zip(want) {
                let kind = Object::parse(route).unwrap().kind();
                let own: Vec<_> = due.iter().filter(|due| due.kind == kind).cloned().collect();
                assert_eq!(verdicts(&own), [[want, "ResolvedRefs=True ResolvedRefs"]], "{route} of {routes:?}");
            }
        }
        let mut two = of("TLSRoute", web());
        two["spec"]["rules"] = json!([{}, {}]);
        let due = look(&examples::index([examples::service("web", "10.96.0.5"), two]));
        assert_eq!(verdicts(&due), [["Accepted=False UnsupportedValue", "ResolvedRefs=True ResolvedRefs"]]);
    }

    #[test]
    fn networks_are_parents_and_backends_of_their_own_routes() {
        let named = |name: &str| json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": name});
        let at = |name: &str| {
            let mut parent = named(name);
            parent["port"] = json!(80);
            parent
        };
        let network = |name: &str, networks: Value| {
            json!({
                "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"trafficPolicy": "Deny", "networks": networks},
                "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}]},
            })
        };
        let (yes, no) = ("Accepted=True Accepted", "Accepted=False NoMatchingParent");
        let (resolved, wrong) = ("ResolvedRefs=True ResolvedRefs", "ResolvedRefs=False InvalidKind");
        for (parent, backends, want) in [
            (at("out"), json!([]), [yes, resolved]),
            (at("out"), json!([named("out"), {"name": "web", "port": 80}]), [yes, resolved]),
            (at("out"), json!([named("in")]), [yes, wrong]),
            (at("out"), json!([named("gone")]), [yes, "ResolvedRefs=False BackendNotFound"]),
            (web(), json!([named("out")]), [yes, wrong]),
            (named("out"), json!([]), [no, resolved]),
            (at("in"), json!([]), [no, resolved]),
            (at("gone"), json!([]), [no, resolved]),
        ] {
            let index = examples::index([
                examples::service("web", "10.96.0.5"),
                network("out", json!([{"cidr": "203.0.113.0/24"}])),
                network("in", json!([{"cidr": "10.96.0.0/16"}])),
                route(json!([parent]), backends.clone(), json!([])),
            ]);
            assert_eq!(verdicts(&look(&index)), [want], "{parent} {backends}");
        }
    }

    #[test]
    fn networks_are_accepted_where_no_address_is_the_clusters() {
        for (networks, accepted) in [
            (Value::Null, true),
            (json!([]), true),
            (json!([{"cidr": "203.0.113.0/24"}]), true),
            (json!([{"cidr": "203.0.113.0/24"}, {"cidr": "10.96.0.0/16"}]), false),
            (json!([{"cidr": "0.0.0.0/0"}]), false),
            (json!([{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12"]}]), false),
            (
                json!([{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"]}]),
                true,
            ),
        ] {
            let mut network = json!({
                "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
                "metadata": {"name": "all", "namespace": "default", "generation": 3},
                "spec": {"trafficPolicy": "Allow", "networks": networks},
            });
            let due = look(&examples::index([network.clone()]));
            let [Due { kind, key, told: Told::Accepted(told) }] = &due[..] else { panic!("{due:?}") };
            assert_eq!((*kind, key), (Kind::EgressNetwork, &Key::new("default", "all")));
            let reason = if accepted { "Accepted" } else { "EgressReasonNetworkOverlap" };
            assert_eq!(
                (&*told.type_, told.status == "True", &*told.reason),
                ("Accepted", accepted, reason),
                "{networks}"
            );
            network["status"] = json!({"conditions": [{"type": "Other", "status": "False"}, told]});
            assert!(look(&examples::index([network])).is_empty(), "what is told already is not due");
        }
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
            let conditions = parents_of(&due).flat_map(|parent| &parent.conditions);
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
            let found: Vec<_> = look(&index).into_iter().map(|due| parents_of(&[due]).count()).collect();
            assert_eq!(found, Vec::from_iter(want), "{what}");
        }
    }
}
