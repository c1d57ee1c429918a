//! The model in Envoy's words: resources of the v3 API as JSON, one file for each kind.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use super::model::{
    Action, Cluster, Config, Endpoints, Forward, HeaderMatch, HeaderOps, HeaderValue, PathMatch, Redirect, Route, Tls,
    VirtualHost, Weighted,
};
use crate::data_plane::Files;

/// The files that Envoy watches.
pub(crate) const LISTENERS: &str = "listeners.json";
pub(crate) const ROUTES: &str = "routes.json";
pub(crate) const CLUSTERS: &str = "clusters.json";

/// The names of the listeners of plain HTTP and of TLS.
pub(super) const HTTP: &str = "http";
pub(super) const HTTPS: &str = "https";

/// The name of the routes of plain HTTP. Those behind TLS stand in their listener, since a watched file takes one of the few inotify
/// instances that a user has.
pub(super) const PLAIN: &str = "http";

const TYPE: &str = "type.googleapis.com/envoy";

/// The files for a configuration.
pub(crate) fn files(config: &Config) -> Files {
    let clusters = config.clusters.iter().map(|(name, found)| cluster(name, found)).collect();
    let hosts = config.hosts.iter().map(|(name, host)| virtual_host(name, host)).collect();
    Files::from([
        (LISTENERS.into(), listeners_file(listeners(config))),
        (ROUTES.into(), routes_file(routes(PLAIN, hosts, config))),
        (CLUSTERS.into(), resources("config.cluster.v3.Cluster", clusters)),
    ])
}

/// The file with these listeners.
pub(super) fn listeners_file(found: Vec<Value>) -> String {
    resources("config.listener.v3.Listener", found)
}

/// The file with these routes.
pub(super) fn routes_file(found: Value) -> String {
    resources("config.route.v3.RouteConfiguration", vec![found])
}

fn resources(kind: &str, mut found: Vec<Value>) -> String {
    for resource in &mut found {
        resource["@type"] = format!("{TYPE}.{kind}").into();
    }
    // Envoy tells the version of what it serves, by which it is known that it has taken a file.
    let mut hasher = DefaultHasher::new();
    found.iter().map(Value::to_string).for_each(|text| text.hash(&mut hasher));
    json!({"version_info": format!("{:016x}", hasher.finish()), "resources": found}).to_string()
}

fn listeners(config: &Config) -> Vec<Value> {
    let own = own_settings(config);
    let mut plain = own.clone();
    let source = watched(config.folder.as_deref(), ROUTES);
    merge(&mut plain, json!({"rds": {"route_config_name": PLAIN, "config_source": source}}));
    let mut found = Vec::new();
    if config.http_port != 0 {
        found.push(listener(HTTP, config.http_port, &[json!({"filters": [http_filter("http", &plain)]})]));
    }
    if !config.tls.is_empty() && config.https_port != 0 {
        let chains: Vec<Value> = config.tls.iter().map(|(name, tls)| tls_chain(name, tls, &own, config)).collect();
        let mut https = listener(HTTPS, config.https_port, &chains);
        let inspector = format!("{TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector");
        https["listener_filters"] =
            json!([{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": inspector}}]);
        found.push(https);
    }
    if config.ready_port != 0 {
        found.push(ready(config.ready_port));
    }
    found
}

/// What answers probes. Envoy listens nowhere before it has read everything once.
fn ready(port: u16) -> Value {
    let route = json!({"match": {"path": "/ready"}, "direct_response": {"status": 200}});
    let host = json!({"name": "ready", "domains": ["*"], "routes": [route]});
    // Who reads the access log asks about requests of clients.
    let served = json!({"route_config": {"name": "ready", "virtual_hosts": [host]}, "access_log": []});
    listener("ready", port, &[json!({"filters": [http_filter("ready", &served)]})])
}

/// Where Envoy finds a file: in a folder, or in the one that it runs in. It notices what is moved to that name.
fn watched(folder: Option<&str>, file: &str) -> Value {
    // Without a folder before it, Envoy cannot watch it.
    let path = format!("{}/{file}", folder.unwrap_or("."));
    json!({"resource_api_version": "V3", "path_config_source": {"path": path}})
}

/// What Envoy starts from.
pub(super) fn bootstrap(folder: Option<&str>, admin_port: u16) -> String {
    json!({
        "node": {"id": "meshgate", "cluster": "meshgate"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {"lds_config": watched(folder, LISTENERS), "cds_config": watched(folder, CLUSTERS)},
    })
    .to_string()
}

fn listener(name: &str, port: u16, chains: &[Value]) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": chains,
    })
}

/// What a control plane has otherwise than the others.
fn own_settings(config: &Config) -> Value {
    let mut own = json!({});
    if let Some(status) = config.failure_status {
        // No healthy endpoint, no connection, a broken connection, a timeout: with a status of one's own.
        let failures = json!({"response_flag_filter": {"flags": ["UH", "UF", "UC", "UT"]}});
        own["local_reply_config"] = json!({"mappers": [{"filter": failures, "status_code": status}]});
    }
    if config.keep_slashes {
        own["merge_slashes"] = false.into();
    }
    if config.keep_request_id {
        own["preserve_external_request_id"] = true.into();
    }
    own
}

fn tls_chain(name: &str, tls: &Tls, own: &Value, config: &Config) -> Value {
    // Envoy takes no star by itself for a name.
    let matches = if name == "*" { json!({"transport_protocol": "tls"}) } else { json!({"server_names": [name]}) };
    let mut chain = json!({"filter_chain_match": matches});
    match tls {
        Tls::Terminated { certificate, key, host } => {
            let mut served = own.clone();
            merge(&mut served, json!({"route_config": routes(name, vec![virtual_host(name, host)], config)}));
            chain["filters"] = json!([http_filter("https", &served)]);
            chain["transport_socket"] = json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": {
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_certificates": [{
                            "certificate_chain": {"inline_string": certificate},
                            "private_key": {"inline_string": key},
                        }],
                    },
                },
            });
        }
        Tls::Passthrough(clusters) => {
            let mut proxy = json!({
                "@type": format!("{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "tls",
                "access_log": access_log(),
            });
            match clusters.as_slice() {
                [only] => proxy["cluster"] = only.cluster.clone().into(),
                several => {
                    let several: Vec<Value> =
                        several.iter().map(|found| json!({"name": found.cluster, "weight": found.weight})).collect();
                    proxy["weighted_clusters"] = json!({"clusters": several});
                }
            }
            chain["filters"] = json!([{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]);
        }
    }
    chain
}

/// To standard output, in Envoy's own format, which ends with the authority and the address that was chosen.
fn access_log() -> Value {
    let kind = format!("{TYPE}.extensions.access_loggers.stream.v3.StdoutAccessLog");
    json!([{"name": "envoy.access_loggers.stdout", "typed_config": {"@type": kind}}])
}

/// Settings that control planes for the edge have in common.
fn http_filter(name: &str, served: &Value) -> Value {
    let router = format!("{TYPE}.extensions.filters.http.router.v3.Router");
    let mut manager = json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "http_protocol_options": {"accept_http_10": true},
        "access_log": access_log(),
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    });
    merge(&mut manager, served.clone());
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn routes(name: &str, hosts: Vec<Value>, config: &Config) -> Value {
    let mut found = json!({"name": name, "virtual_hosts": hosts});
    if config.any_host_port {
        found["ignore_port_in_host_matching"] = true.into();
    }
    header_ops(&mut found, &config.request_headers, &HeaderOps::default());
    found
}

fn virtual_host(name: &str, host: &VirtualHost) -> Value {
    let own = if host.origin.is_empty() { name.to_owned() } else { format!("{}/{name}", host.origin) };
    json!({"name": own, "domains": [name], "routes": host.routes.iter().map(route).collect::<Vec<_>>()})
}

fn route(route: &Route) -> Value {
    let mut matches = match &route.path {
        PathMatch::Exact(path) => json!({"path": path}),
        PathMatch::Prefix(path) => json!({"prefix": path}),
        // It wants neither `/` itself nor a slash at the end.
        PathMatch::Segments(path) => match path.trim_end_matches('/') {
            "" => json!({"prefix": "/"}),
            bare => json!({"path_separated_prefix": bare}),
        },
        PathMatch::Regex(regex) => json!({"safe_regex": {"regex": regex}}),
    };
    if !route.headers.is_empty() {
        matches["headers"] = route.headers.iter().map(header_match).collect();
    }
    if let Some(percent) = route.percent {
        matches["runtime_fraction"] = json!({"default_value": {"numerator": percent, "denominator": "HUNDRED"}});
    }
    let mut found = json!({"match": matches});
    match &route.action {
        Action::Forward(action) => found["route"] = forward(action),
        Action::Redirect(action) => found["redirect"] = redirect(action),
        Action::Respond(status, body) => {
            found["direct_response"] = json!({"status": status});
            if !body.is_empty() {
                found["direct_response"]["body"] = json!({"inline_string": body});
            }
        }
    }
    header_ops(&mut found, &route.request_headers, &route.response_headers);
    found
}

fn header_match(header: &HeaderMatch) -> Value {
    let mut found = json!({"name": header.name, "invert_match": header.not});
    match &header.value {
        HeaderValue::Present => found["present_match"] = true.into(),
        HeaderValue::Exact(value) => found["string_match"] = json!({"exact": value}),
        HeaderValue::Contains(value) => found["string_match"] = json!({"contains": value}),
        HeaderValue::Regex(value) => found["string_match"] = json!({"safe_regex": {"regex": value}}),
    }
    found
}

fn forward(action: &Forward) -> Value {
    let mut found = json!({});
    match action.clusters.as_slice() {
        [only]
            if only.request_headers.is_empty() && only.response_headers.is_empty() && only.host_rewrite.is_none() =>
        {
            found["cluster"] = only.cluster.clone().into();
        }
        several => {
            found["weighted_clusters"] = json!({"clusters": several.iter().map(weighted).collect::<Vec<_>>()});
        }
    }
    for (key, value) in [("timeout", action.timeout), ("idle_timeout", action.idle_timeout)] {
        if let Some(value) = value {
            found[key] = seconds(value).into();
        }
    }
    if let Some(host) = &action.host_rewrite {
        found["host_rewrite_literal"] = host.clone().into();
    }
    if let Some(prefix) = &action.prefix_rewrite {
        found["prefix_rewrite"] = prefix.clone().into();
    }
    if action.websocket {
        found["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    }
    found
}

fn weighted(cluster: &Weighted) -> Value {
    let mut found = json!({"name": cluster.cluster, "weight": cluster.weight});
    header_ops(&mut found, &cluster.request_headers, &cluster.response_headers);
    if let Some(host) = &cluster.host_rewrite {
        found["host_rewrite_literal"] = host.clone().into();
    }
    found
}

fn redirect(action: &Redirect) -> Value {
    let mut found = json!({"response_code": if action.found { "FOUND" } else { "MOVED_PERMANENTLY" }});
    if action.https {
        found["https_redirect"] = true.into();
    }
    let texts = [
        ("scheme_redirect", &action.scheme),
        ("host_redirect", &action.host),
        ("path_redirect", &action.path),
        ("prefix_rewrite", &action.prefix),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            found[key] = value.clone().into();
        }
    }
    if let Some(port) = action.port {
        found["port_redirect"] = port.into();
    }
    found
}

fn header_ops(into: &mut Value, request: &HeaderOps, response: &HeaderOps) {
    for (ops, add, remove) in [
        (request, "request_headers_to_add", "request_headers_to_remove"),
        (response, "response_headers_to_add", "response_headers_to_remove"),
    ] {
        let added: Vec<Value> = added(&ops.set, "OVERWRITE_IF_EXISTS_OR_ADD")
            .chain(added(&ops.append, "APPEND_IF_EXISTS_OR_ADD"))
            .collect();
        if !added.is_empty() {
            into[add] = added.into();
        }
        if !ops.remove.is_empty() {
            into[remove] = ops.remove.clone().into();
        }
    }
}

fn added<'a>(headers: &'a BTreeMap<String, String>, action: &'a str) -> impl Iterator<Item = Value> + 'a {
    headers.iter().map(move |(key, value)| json!({"header": {"key": key, "value": value}, "append_action": action}))
}

fn cluster(name: &str, cluster: &Cluster) -> Value {
    let (kind, endpoints) = match &cluster.endpoints {
        Endpoints::Known(addresses) => {
            ("STATIC", addresses.iter().map(|at| endpoint(&at.ip().to_string(), at.port())).collect())
        }
        Endpoints::Dns(name, port) => ("STRICT_DNS", vec![endpoint(name, *port)]),
    };
    let mut found = json!({
        "name": name,
        "type": kind,
        "connect_timeout": seconds(cluster.connect_timeout),
        "dns_lookup_family": "V4_ONLY",
        // Endpoints are ready ones already; when few are left these few are asked.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if cluster.http2 {
        let options = format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions");
        found["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    found
}

fn endpoint(address: &str, port: u16) -> Value {
    json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}})
}

/// A duration as Envoy's JSON has it.
fn seconds(duration: Duration) -> String {
    format!("{}.{:03}s", duration.as_secs(), duration.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_operations_say_what_becomes_of_a_clients_own_header() {
        let ops = HeaderOps {
            remove: vec!["a".into()],
            set: BTreeMap::from([("b".into(), "1".into())]),
            append: BTreeMap::from([("c".into(), "2".into())]),
        };
        let mut found = json!({});
        header_ops(&mut found, &ops, &HeaderOps::default());
        assert_eq!(found["request_headers_to_remove"], json!(["a"]));
        assert_eq!(found["request_headers_to_add"][0]["append_action"], "OVERWRITE_IF_EXISTS_OR_ADD");
        assert_eq!(found["request_headers_to_add"][1]["append_action"], "APPEND_IF_EXISTS_OR_ADD");
        assert_eq!(found.get("response_headers_to_add"), None);
    }

    #[test]
    fn the_most_specific_route_comes_first() {
        let route = |path: PathMatch, conditions: usize| Route {
            path,
            headers: vec![HeaderMatch { name: "x".into(), value: HeaderValue::Present, not: false }; conditions],
            percent: None,
            action: Action::Respond(200, String::new()),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
        };
        let mut host = VirtualHost {
            origin: String::new(),
            routes: vec![
                route(PathMatch::Prefix("/".into()), 0),
                route(PathMatch::Prefix("/".into()), 1),
                route(PathMatch::Segments("/ab".into()), 0),
                route(PathMatch::Regex("/a.*".into()), 0),
                route(PathMatch::Exact("/".into()), 0),
            ],
        };
        host.sort();
        let found = virtual_host("h", &host);
        let order: Vec<&Value> = found["routes"].as_array().unwrap().iter().map(|route| &route["match"]).collect();
        assert_eq!(order[0], &json!({"path": "/"}));
        assert_eq!(order[1], &json!({"safe_regex": {"regex": "/a.*"}}));
        assert_eq!(order[2], &json!({"path_separated_prefix": "/ab"}));
        assert_eq!(order[3]["headers"][0]["name"], "x");
        assert_eq!(order[4], &json!({"prefix": "/"}));
    }

    #[test]
    fn files_are_looked_for_where_they_are() {
        for (folder, path) in [(None, "./"), (Some("/config"), "/config/")] {
            let bootstrap: Value = serde_json::from_str(&bootstrap(folder, 9001)).unwrap();
            let dynamic = &bootstrap["dynamic_resources"];
            for (source, file) in [("lds_config", LISTENERS), ("cds_config", CLUSTERS)] {
                assert_eq!(dynamic[source]["path_config_source"]["path"], format!("{path}{file}"));
            }
            let config = Config { http_port: 80, folder: folder.map(str::to_owned), ..Config::default() };
            let listeners = Value::from(listeners(&config));
            let manager = "/0/filter_chains/0/filters/0/typed_config";
            let routes = format!("{manager}/rds/config_source/path_config_source/path");
            assert_eq!(listeners.pointer(&routes), Some(&json!(format!("{path}{ROUTES}"))));
        }
    }

    #[test]
    fn probes_are_answered_where_a_port_is_for_them_and_are_not_logged() {
        let found = listeners(&Config { ready_port: 8002, ..Config::default() });
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["address"]["socket_address"]["port_value"], 8002);
        let manager = &found[0]["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(manager["access_log"], json!([]));
        assert_eq!(manager["route_config"]["virtual_hosts"][0]["routes"][0]["match"], json!({"path": "/ready"}));
        assert!(listeners(&Config::default()).is_empty(), "the control");
    }

    #[test]
    fn what_a_control_plane_has_otherwise_holds_with_tls_and_without() {
        let tls = Tls::Terminated { certificate: String::new(), key: String::new(), host: VirtualHost::default() };
        let with = |own: Config| {
            let config =
                Config { http_port: 80, https_port: 443, tls: BTreeMap::from([("a.test".into(), tls.clone())]), ..own };
            let manager = |listener: &Value| listener["filter_chains"][0]["filters"][0]["typed_config"].clone();
            let listeners = listeners(&config);
            let (plain, secure) = (manager(&listeners[0]), manager(&listeners[1]));
            let file: Value = serde_json::from_str(&files(&config)[std::path::Path::new(ROUTES)]).unwrap();
            [(plain, file["resources"][0].clone()), (secure.clone(), secure["route_config"].clone())]
        };
        for (manager, routes) in with(Config::default()) {
            assert_eq!((manager.get("preserve_external_request_id"), manager["merge_slashes"] == true), (None, true));
            assert_eq!(
                (routes.get("ignore_port_in_host_matching"), routes.get("request_headers_to_add")),
                (None, None)
            );
        }
        let append = BTreeMap::from([("x".to_owned(), "1".to_owned())]);
        let request_headers = HeaderOps { append, ..HeaderOps::default() };
        let own = Config {
            keep_slashes: true,
            keep_request_id: true,
            any_host_port: true,
            request_headers,
            ..Config::default()
        };
        for (manager, routes) in with(own) {
            assert_eq!(
                (&manager["preserve_external_request_id"], &manager["merge_slashes"]),
                (&json!(true), &json!(false))
            );
            assert_eq!(routes["ignore_port_in_host_matching"], true);
            assert_eq!(routes["request_headers_to_add"][0]["header"]["key"], "x");
        }
    }

    #[test]
    fn clusters_and_durations_are_written_as_envoy_reads_them() {
        let dns = Cluster {
            endpoints: Endpoints::Dns("a.b".into(), 80),
            http2: true,
            connect_timeout: Duration::from_millis(2050),
        };
        let found = cluster("c", &dns);
        assert_eq!((&found["type"], &found["connect_timeout"]), (&json!("STRICT_DNS"), &json!("2.050s")));
        assert!(found["typed_extension_protocol_options"].is_object());
    }
}
