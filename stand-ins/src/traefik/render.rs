//! The configuration in the words of Traefik 3's file provider.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::model::{Configuration, Frontend};
use crate::data_plane::Files;

/// The file that Traefik watches.
pub(crate) const DYNAMIC: &str = "dynamic.yaml";

/// What it holds, as the name of a service in it that nothing leads to: Traefik's API tells by it what it serves.
pub(crate) const VERSION: &str = "version";

/// The entry points of a frontend that names none.
const ENTRY_POINTS: [&str; 2] = [HTTP, HTTPS];

/// The names that the flags of 1.7's own documentation give them.
pub(crate) const HTTP: &str = "http";
pub(crate) const HTTPS: &str = "https";

/// The files for Traefik.
pub(crate) fn files(configuration: &Configuration, certificate: &(String, String)) -> Files {
    let (mut routers, mut services, mut middlewares) = (Map::new(), Map::new(), Map::new());
    for (name, frontend) in &configuration.frontends {
        let name = unqualified(name);
        let names = self::middlewares(&name, frontend, &mut middlewares);
        let entry_points: Vec<&str> = match frontend.entry_points.as_slice() {
            [] => ENTRY_POINTS.to_vec(),
            some => some.iter().map(String::as_str).collect(),
        };
        for entry_point in entry_points {
            let mut router = json!({"entryPoints": [entry_point], "rule": rule(frontend), "service": name});
            if frontend.priority > 0 {
                router["priority"] = frontend.priority.into();
            }
            if !names.is_empty() {
                router["middlewares"] = json!(names);
            }
            if entry_point == HTTPS {
                router["tls"] = json!({"options": "default"});
            }
            routers.insert(format!("{name}-{entry_point}"), router);
        }
    }
    for (name, backend) in &configuration.backends {
        let Some(frontend) = configuration.frontends.get(name) else { continue };
        let server = |server: &super::model::Server| json!({"url": server.url, "weight": server.weight});
        let servers: Vec<Value> = backend.servers.values().map(server).collect();
        let balancer = json!({"passHostHeader": frontend.pass_host_header, "servers": servers});
        services.insert(unqualified(name), json!({"loadBalancer": balancer}));
    }
    let certificates: Vec<Value> = configuration.certificates.iter().map(pair).collect();
    let mut hasher = DefaultHasher::new();
    json!([routers, services, middlewares, certificates]).to_string().hash(&mut hasher);
    let version = format!("{VERSION}-{:016x}", hasher.finish());
    services.insert(version.clone(), json!({"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}}));

    // An empty map is refused, and with it the file.
    let filled = |sections: [(&str, Value); 3]| -> Map<String, Value> {
        let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty) || *value == json!([]);
        sections
            .into_iter()
            .filter(|(_, value)| !is_empty(value))
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    };
    let http =
        filled([("routers", routers.into()), ("services", services.into()), ("middlewares", middlewares.into())]);
    let stores = json!({"default": {"defaultCertificate": pair(certificate)}});
    let tls = filled([("certificates", certificates.into()), ("stores", stores), ("options", json!({}))]);
    let dynamic = json!({"http": http, "tls": tls});
    // JSON is YAML; Traefik tells formats by their endings.
    Files::from([(DYNAMIC.into(), format!("{dynamic:#}\n")), (VERSION.into(), version)])
}

/// What follows an `@` is the name of a provider.
fn unqualified(name: &str) -> String {
    name.replace('@', "%40")
}

fn pair((certificate, key): &(String, String)) -> Value {
    json!({"certFile": certificate, "keyFile": key})
}

fn rule(frontend: &Frontend) -> String {
    let host = match frontend.host.as_str() {
        "" => None,
        host if host.contains('*') => {
            let host = host.replace('.', r"\.").replacen('*', "[A-Za-z0-9-_]+", 1);
            Some(format!("HostRegexp(`^{host}$`)"))
        }
        host => Some(format!("Host(`{host}`)")),
    };
    let path = frontend.path.as_ref().map(|rule| format!("{}(`{}`)", rule.matcher, rule.path));
    let rules: Vec<String> = host.into_iter().chain(path).collect();
    if rules.is_empty() { "PathPrefix(`/`)".to_owned() } else { rules.join(" && ") }
}

/// Adds a frontend's middlewares and returns their names, in their order.
fn middlewares(name: &str, frontend: &Frontend, all: &mut Map<String, Value>) -> Vec<String> {
    let mut own = Vec::new();
    let mut headers = Map::new();
    if !frontend.request_headers.is_empty() {
        headers.insert("customRequestHeaders".to_owned(), json!(frontend.request_headers));
    }
    if !frontend.response_headers.is_empty() {
        headers.insert("customResponseHeaders".to_owned(), json!(frontend.response_headers));
    }
    if !headers.is_empty() {
        own.push(("headers", json!({"headers": headers})));
    }
    if let Some(rule) = &frontend.path {
        if rule.strip {
            own.push(("strip", json!({"stripPrefix": {"prefixes": [rule.path]}})));
        }
        if let Some(target) = &rule.rewrite {
            let regex = format!("^{}(.*)", rule.path);
            let rewrite = json!({"regex": regex, "replacement": format!("{target}$1")});
            own.push(("rewrite", json!({"replacePathRegex": rewrite})));
        }
    }
    let add = |(kind, middleware)| {
        let name = format!("{name}-{kind}");
        all.insert(name.clone(), middleware);
        name
    };
    own.into_iter().map(add).collect()
}
