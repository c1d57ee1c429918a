use futures::FutureExt;
use serde_json::{Value, json};

use super::*;
use crate::examples;

/// Service `default/web`, which selects what [`examples::external_workload`] makes.
fn service(spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "uid": "service-1", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"], "selector": {"app": "vm"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    });
    merge(&mut service["spec"], spec);
    service
}

/// ExternalWorkload `default/NAME` with port 8080 named `http`.
fn workload(name: &str, ip: &str, ready: bool) -> Value {
    let mut workload = examples::external_workload(name, ip);
    workload["metadata"]["uid"] = json!(format!("uid-of-{name}"));
    workload["status"] = json!({"conditions": [
        {"type": "Other", "status": "True"},
        {"type": "Ready", "status": if ready { "True" } else { "False" }},
    ]});
    workload
}

fn merge(value: &mut Value, more: Value) {
    for (name, more) in more.as_object().cloned().unwrap_or_default() {
        value[name] = more;
    }
}

fn look(objects: impl IntoIterator<Item = Value>) -> Picture {
    examples::index(objects).answer(picture).now_or_never().expect("a synced index")
}

/// How slices have to be written, and what is there when they have been; nothing has to be written then.
fn settle(picture: &Picture, mut slices: Vec<EndpointSlice>) -> (Vec<Verb>, Vec<EndpointSlice>) {
    let changes = changes(picture, slices.clone());
    let verbs = changes.iter().map(|change| change.verb).collect();
    for Change { verb, mut slice } in changes {
        let place = slices.iter().position(|known| known.metadata.name == slice.metadata.name);
        match (verb, place) {
            (Verb::Create, None) => {
                let prefix = slice.metadata.generate_name.clone().expect("a prefix of names");
                let is_free = |name: &String| slices.iter().all(|known| known.metadata.name.as_ref() != Some(name));
                slice.metadata.name = (0..).map(|number| format!("{prefix}{number}")).find(is_free);
                slices.push(slice);
            }
            (Verb::Replace, Some(place)) => slices[place] = slice,
            (Verb::Delete, Some(place)) => drop(slices.remove(place)),
            (verb, place) => panic!("{verb:?} of {place:?}"),
        }
    }
    let again = super::changes(picture, slices.clone());
    assert!(again.is_empty(), "expected that what was written is what there should be, found {again:?}");
    (verbs, slices)
}

/// `IPv4 http=8080/TCP: a 192.0.2.1 ready, b 192.0.2.2`
fn words(slices: &[EndpointSlice]) -> Vec<String> {
    let port = |port: &EndpointPort| {
        let text = |text: &Option<String>| text.clone().expect("ports say everything of themselves");
        format!(" {}={}/{}", text(&port.name), port.port.expect("a number"), text(&port.protocol))
    };
    let endpoint = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.as_ref().expect("conditions");
        assert_eq!((conditions.ready, Some(false)), (conditions.serving, conditions.terminating));
        let ready = if conditions.ready == Some(true) { " ready" } else { "" };
        format!("{} {}{ready}", target(endpoint), endpoint.addresses.join("+"))
    };
    let slice = |slice: &EndpointSlice| {
        let ports: String = slice.ports.iter().flatten().map(port).collect();
        let endpoints: Vec<_> = slice.endpoints.iter().flatten().map(endpoint).collect();
        format!("{}{ports}: {}", slice.address_type, endpoints.join(", "))
    };
    slices.iter().map(slice).collect()
}

#[test]
fn slices_follow_services_and_workloads() {
    use Verb::{Create, Delete, Replace};
    let web = || service(json!({}));
    let one = |ready| workload("one", "192.0.2.1", ready);
    let two = |port: u16, ready| {
        let mut two = workload("two", "192.0.2.2", ready);
        two["spec"]["ports"][0]["port"] = json!(port);
        two
    };
    let with = |mut object: Value, place: &str, value: Value| {
        *object.pointer_mut(place).unwrap() = value;
        object
    };
    let both_families = || service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let both_addresses = || with(one(true), "/spec/workloadIPs", json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]));
    let and_admin = json!([
        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
        {"name": "admin", "port": 81, "targetPort": "admin", "protocol": "TCP"},
    ]);
    let admin_as_well = json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}]);
    let mut again = web();
    again["metadata"]["uid"] = json!("service-2");
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for (what, objects, verbs, wanted) in [
        ("no workload", vec![web()], vec![], vec![]),
        ("one that does not serve", vec![web(), one(false)], vec![Create], vec!["IPv4 http=8080/TCP: one 192.0.2.1"]),
        ("it serves", vec![web(), one(true)], vec![Replace], vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"]),
        (
            "one with another port of the name",
            vec![web(), one(true), two(8081, true)],
            vec![Create],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready", "IPv4 http=8081/TCP: two 192.0.2.2 ready"],
        ),
        (
            "the same port",
            vec![web(), one(true), two(8080, true)],
            vec![Replace, Delete],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready, two 192.0.2.2 ready"],
        ),
        (
            "one of two does not serve any more",
            vec![web(), one(false), two(8080, true)],
            vec![Replace],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1, two 192.0.2.2 ready"],
        ),
        (
            "one of two is gone",
            vec![web(), two(8080, true)],
            vec![Replace],
            vec!["IPv4 http=8080/TCP: two 192.0.2.2 ready"],
        ),
        (
            "another one in its place",
            vec![web(), one(true)],
            vec![Replace],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "a port more, which the workload does not have",
            vec![service(json!({"ports": and_admin})), one(true)],
            vec![],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "which it has",
            vec![service(json!({"ports": and_admin})), with(one(true), "/spec/ports", admin_as_well)],
            vec![Replace],
            vec!["IPv4 admin=9000/TCP http=8080/TCP: one 192.0.2.1 ready"],
        ),
        ("the one port again", vec![web(), one(true)], vec![Replace], vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"]),
        (
            "a second family",
            vec![both_families(), both_addresses()],
            vec![Create],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready", "IPv6 http=8080/TCP: one 2001:db8::1 ready"],
        ),
        (
            "the workload has one only",
            vec![both_families(), with(one(true), "/spec/workloadIPs", json!([{"ip": "2001:db8::1"}]))],
            vec![Delete],
            vec!["IPv6 http=8080/TCP: one 2001:db8::1 ready"],
        ),
        (
            "the Service has the other only",
            vec![web(), both_addresses()],
            vec![Create, Delete],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "another label of the Service",
            vec![with(web(), "/metadata/labels", json!({"team": "b"})), one(true)],
            vec![Replace],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "none",
            vec![with(web(), "/metadata/labels", json!({})), one(true)],
            vec![Replace],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "the selector is gone",
            vec![with(web(), "/spec/selector", json!({})), one(false)],
            vec![],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "the Service has another DNS name only",
            vec![service(json!({"type": "ExternalName", "externalName": "example.com"})), one(false)],
            vec![],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        ("the Service is gone", vec![one(false)], vec![], vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"]),
        (
            "another one of its name",
            vec![again.clone(), one(true)],
            vec![Create, Delete],
            vec!["IPv4 http=8080/TCP: one 192.0.2.1 ready"],
        ),
        (
            "the selector is another",
            vec![with(again, "/spec/selector", json!({"app": "db"})), one(true)],
            vec![Delete],
            vec![],
        ),
    ] {
        // As the index has them once they are there: a Service with slices is looked at without a workload as well.
        let known = slices.iter().map(|slice| json!(slice));
        let picture = look(objects.into_iter().chain(known));
        let (found, left) = settle(&picture, slices);
        assert_eq!((found, words(&left)), (verbs, wanted.into_iter().map(str::to_owned).collect()), "{what}");
        slices = left;
    }
}

#[test]
fn a_slice_says_whose_it_is_and_who_its_endpoints_are() {
    let mut vm = workload("vm", "192.0.2.7", true);
    vm["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("z1");
    let dotted = workload("vm.example", "192.0.2.8", true);
    let headless = service(json!({"clusterIP": "None"}));
    let (_, slices) = settle(&look([headless, vm, dotted]), Vec::new());
    let endpoint = |name: &str, ip: &str| {
        let uid = format!("uid-of-{name}");
        json!({
            "addresses": [ip],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "ExternalWorkload", "namespace": "default", "name": name, "uid": uid},
        })
    };
    let mut own = endpoint("vm", "192.0.2.7");
    merge(&mut own, json!({"hostname": "vm", "zone": "z1"}));
    let labels = json!({
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "linkerd-external-workloads-controller",
        "service.kubernetes.io/headless": "",
    });
    let owner = json!({"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "service-1", "controller": true});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "linkerd-external-web-0", "generateName": "linkerd-external-web-", "namespace": "default",
            "labels": labels, "ownerReferences": [owner],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [own, endpoint("vm.example", "192.0.2.8")],
    });
    assert_eq!(json!(slices), json!([slice]));
}

#[test]
fn ports_are_found_by_name_or_number_and_protocol() {
    let ports = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    for (what, port, wanted) in [
        ("by name", json!({"port": 80, "targetPort": "http"}), "IPv4 =8080/TCP: vm 192.0.2.7 ready"),
        ("by number", json!({"port": 80, "targetPort": 8080}), "IPv4 =8080/TCP: vm 192.0.2.7 ready"),
        ("by its own number", json!({"port": 8080}), "IPv4 =8080/TCP: vm 192.0.2.7 ready"),
        ("over UDP", json!({"port": 53, "targetPort": "dns", "protocol": "UDP"}), "IPv4 =53/UDP: vm 192.0.2.7 ready"),
        ("over another protocol", json!({"port": 53, "targetPort": 53}), "IPv4: vm 192.0.2.7 ready"),
        ("that it does not have", json!({"port": 80}), "IPv4: vm 192.0.2.7 ready"),
    ] {
        let mut vm = workload("vm", "192.0.2.7", true);
        vm["spec"]["ports"] = ports.clone();
        let (_, slices) = settle(&look([service(json!({"ports": [port]})), vm]), Vec::new());
        assert_eq!(words(&slices), [wanted], "{what}");
    }
}

#[test]
fn only_workloads_that_a_service_of_their_namespace_selects_are_behind_it() {
    let vm = || workload("vm", "192.0.2.7", true);
    let mut elsewhere = vm();
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    let mut other = vm();
    other["metadata"]["labels"]["app"] = json!("db");
    let mut without_addresses = vm();
    without_addresses["spec"]["workloadIPs"] = json!([]);
    // A pod of the same labels is Kubernetes' to tell of.
    let mut pod = examples::pod("vm", "10.244.0.7");
    pod["metadata"]["labels"]["app"] = json!("vm");
    for object in [elsewhere, other, without_addresses, pod] {
        assert_eq!(look([service(json!({})), object.clone()]), Picture::default(), "{object}");
    }
    let mut going = service(json!({}));
    going["metadata"]["deletionTimestamp"] = json!("2026-06-01T10:00:00Z");
    assert!(changes(&look([going, vm()]), Vec::new()).is_empty(), "nothing is made for what is on its way out");
    assert_eq!(changes(&look([service(json!({})), vm()]), Vec::new()).len(), 1);
}

#[test]
fn endpoints_stay_in_their_slices_however_many_there_are() {
    use Verb::{Create, Replace};
    let workloads = |numbers: std::ops::Range<u8>| {
        let each = numbers.map(|number| workload(&format!("vm-{number:03}"), &format!("192.0.2.{number}"), true));
        each.chain([service(json!({}))]).collect::<Vec<_>>()
    };
    let sizes = |slices: &[EndpointSlice]| {
        let size = |slice: &EndpointSlice| slice.endpoints.as_ref().map_or(0, Vec::len);
        slices.iter().map(size).collect::<Vec<_>>()
    };
    let (verbs, slices) = settle(&look(workloads(10..160)), Vec::new());
    assert_eq!((verbs, sizes(&slices)), (vec![Create, Create], vec![100, 50]));
    // One more, whose name comes first: what is full stays as it is.
    let full = slices[0].clone();
    let (verbs, slices) = settle(&look(workloads(9..160)), slices);
    assert_eq!((verbs, sizes(&slices)), (vec![Replace], vec![100, 51]));
    assert_eq!(slices[0], full);
    // Who comes takes the place of one that went, where something changes anyway.
    let (verbs, slices) = settle(&look(workloads(11..161)), slices);
    assert_eq!((verbs, sizes(&slices)), (vec![Replace, Replace], vec![100, 50]));
}

#[test]
fn a_slice_that_somebody_changed_is_mended_and_one_that_goes_is_not_counted() {
    let picture = look([service(json!({})), workload("vm", "192.0.2.7", true)]);
    let (_, slices) = settle(&picture, Vec::new());
    let mut changed = slices.clone();
    changed[0].endpoints = None;
    // As the API server may serve what it was given without.
    changed[0].ports = None;
    let (verbs, mended) = settle(&picture, changed);
    assert_eq!((verbs, words(&mended)), (vec![Verb::Replace], words(&slices)));
    let mut going = slices;
    going[0].metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-06-01T10:00:00Z".parse().unwrap()));
    let verbs: Vec<_> = changes(&picture, going).iter().map(|change| change.verb).collect();
    assert_eq!(verbs, [Verb::Create]);
}
