//! An Ingress as a load balancer: URL map, certificates, forwarding rules.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::Value;

use super::backends::{Backend, Backends, Fault};
use crate::envoy::model::{Action, Config, Forward, HeaderOps, PathMatch, Route, Tls, VirtualHost, Weighted};
use crate::objects::{Object, SECRETS, annotation, items, text};
use crate::secrets;
use crate::services::PortRef;

/// What is said of an Ingress that is not taken as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It could not be translated, for all of these reasons.
    Translation(Vec<String>),
    /// Google did not take it.
    Sync(String),
    /// Its certificates are not there, and it is served without them.
    NoCertificates,
    /// Its FrontendConfig is not there, and it is served without what that would say.
    NoFrontendConfig,
}

impl Problem {
    /// Reason and message of the event.
    pub(crate) fn event(self) -> (&'static str, String) {
        match self {
            Self::Translation(faults) => {
                ("Translate", format!("Translation failed: invalid ingress spec: {}", faults.join("; ")))
            }
            Self::Sync(why) => ("Sync", format!("Error syncing to GCP: {why}")),
            Self::NoCertificates => (
                "Sync",
                "Could not find TLS certificates. Continuing setup for the load balancer to serve HTTP. Note: this behavior is \
                 deprecated and will be removed in a future version of ingress-gce"
                    .to_owned(),
            ),
            Self::NoFrontendConfig => ("Sync", "no FrontendConfig for Ingress exists.".to_owned()),
        }
    }
}

/// Chain and key, PEM.
type Pair = (String, String);

/// A Secret's certificate, and the hosts that it is said to be for.
type OfHosts = (Vec<String>, Pair);

/// What a project at Google has, of which the cluster knows the names.
#[derive(Debug, Default)]
pub(crate) struct Project {
    /// Reserved addresses.
    pub(crate) addresses: BTreeSet<String>,
    /// Certificates that Google keeps.
    pub(crate) certificates: BTreeSet<String>,
    /// The chain and key in the place of each of those, PEM.
    pub(crate) certificate: Pair,
}

/// What Google is asked for.
#[derive(Debug)]
pub(crate) struct LoadBalancer {
    /// Of which Ingress it is.
    origin: String,
    hosts: BTreeMap<String, Vec<Route>>,
    /// Whether port 80 is served.
    http: bool,
    /// The certificate of each name on port 443.
    certificates: BTreeMap<String, Pair>,
}

impl LoadBalancer {
    /// The load balancer of an Ingress, and what there is to complain of all the same.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of(
        ingress: &Object,
        backends: &mut Backends<'_>,
        project: &Project,
    ) -> Result<(Self, Vec<Problem>), Problem> {
        if let Some(name) = annotation(ingress, "kubernetes.io/ingress.global-static-ip-name")
            && !project.addresses.contains(name)
        {
            // Of a name; the address itself is none (`pkg/loadbalancers/addresses.go`).
            let why = format!("the given static IP name {name} doesn't translate to an existing static IP");
            return Err(Problem::Sync(why));
        }
        let hosts = url_map(ingress, backends)?;
        let (secrets, mut warnings) = match secrets(ingress, backends)? {
            Some(secrets) => (secrets, Vec::new()),
            None => (Vec::new(), vec![Problem::NoCertificates]),
        };
        // There are none here, so whichever is named is not there (`pkg/frontendconfig`).
        if annotation(ingress, "networking.gke.io/v1beta1.FrontendConfig").is_some_and(|name| !name.is_empty()) {
            warnings.push(Problem::NoFrontendConfig);
        }
        let kept_by_google = annotation(ingress, "ingress.gcp.kubernetes.io/pre-shared-cert");
        let names = kept_by_google.into_iter().flat_map(|names| names.split(',')).map(str::trim);
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        if let Some(unknown) = names.iter().find(|name| !project.certificates.contains(**name)) {
            return Err(Problem::Sync(format!("The resource 'sslCertificates/{unknown}' was not found")));
        }
        let default = match names.is_empty() {
            false => Some(&project.certificate),
            true => secrets.first().map(|(_, pair)| pair),
        };
        // The client's SNI chooses among all of the load balancer's certificates, and which names these have is in them. What the Ingress
        // says of its Secrets' hosts is not read by the real one; here it stands for that.
        let of_host = |host: &String| {
            let named = secrets.iter().find(|(hosts, _)| hosts.contains(host)).map(|(_, pair)| pair).or(default)?;
            (host != "*").then(|| (host.clone(), named.clone()))
        };
        let certificates = hosts.keys().filter_map(of_host).collect();
        let http = annotation(ingress, "kubernetes.io/ingress.allow-http").is_none_or(allows);
        Ok((Self { origin: origin(ingress), hosts, http, certificates }, warnings))
    }

    /// Adds what it serves to what all of them serve.
    pub(crate) fn add_to(self, config: &mut Config) {
        let Self { origin, hosts, http, certificates } = self;
        let empty = || VirtualHost { origin: origin.clone(), ..VirtualHost::default() };
        for (host, routes) in hosts {
            if let Some((certificate, key)) = certificates.get(&host).cloned() {
                let new = Tls::Terminated { certificate, key, host: empty() };
                if let Tls::Terminated { host, .. } = config.tls.entry(host.clone()).or_insert(new) {
                    put(&mut host.routes, routes.clone());
                }
            }
            if http {
                put(&mut config.hosts.entry(host).or_insert_with(empty).routes, routes);
            }
        }
    }
}

/// What the hosts of an Ingress are known by, where it is asked whose they are.
pub(crate) fn origin(ingress: &Object) -> String {
    format!("{}.{}", ingress.namespace().unwrap_or_default(), ingress.name_any())
}

/// A value of `kubernetes.io/ingress.allow-http` as Go reads a boolean; what is none allows it.
fn allows(value: &str) -> bool {
    !["0", "f", "F", "FALSE", "false", "False"].contains(&value)
}

/// Of two routes for the same path the later one stays.
fn put(routes: &mut Vec<Route>, further: Vec<Route>) {
    for route in further {
        routes.retain(|other| other.path != route.path);
        routes.push(route);
    }
}

/// The routes of each host; `*` is every host that has none.
fn url_map(ingress: &Object, backends: &mut Backends<'_>) -> Result<BTreeMap<String, Vec<Route>>, Problem> {
    let namespace = ingress.namespace().unwrap_or_default();
    let spec = &ingress.data["spec"];
    let mut hosts: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    let (mut faults, mut refusals) = (Vec::new(), Vec::new());
    let mut noted = |fault| match fault {
        Fault::Translation(why) => faults.push(why),
        Fault::Sync(why) => refusals.push(why),
    };
    for rule in items(spec, "/rules").filter(|rule| rule["http"].is_object()) {
        let host = match text(rule, "/host") {
            "" => "*".to_owned(),
            host => host.to_lowercase(),
        };
        let mut routes = Vec::new();
        for path in items(rule, "/http/paths") {
            match backend(&namespace, &path["backend"], backends)
                .and_then(|backend| Ok((path_match(text(path, "/path"), text(path, "/pathType"))?, backend)))
            {
                Ok((matches, backend)) => put(&mut routes, vec![route(matches, &backend)]),
                Err(fault) => noted(fault),
            }
        }
        // A later rule for the same host takes the place of the earlier one, with all of its paths (`PutPathRulesForHost`).
        hosts.insert(host, routes);
    }
    if let Some(default) = spec.get("defaultBackend") {
        hosts.entry("*".to_owned()).or_default();
        match backend(&namespace, default, backends) {
            // It takes what is left of every host.
            Ok(backend) => {
                let everything = PathMatch::Prefix("/".to_owned());
                for routes in hosts.values_mut().filter(|routes| routes.iter().all(|route| route.path != everything)) {
                    routes.push(route(everything.clone(), &backend));
                }
            }
            Err(fault) => noted(fault),
        }
    }
    match (faults.is_empty(), refusals.pop()) {
        (false, _) => Err(Problem::Translation(faults)),
        (true, Some(refusal)) => Err(Problem::Sync(refusal)),
        (true, None) => Ok(hosts),
    }
}

fn backend(namespace: &str, backend: &Value, backends: &mut Backends<'_>) -> Result<Backend, Fault> {
    match PortRef::of_ingress(&backend["service"]["port"]) {
        Some(port) => backends.find(namespace, text(backend, "/service/name"), &port),
        None => Err(Fault::Translation("ingress backend is not a service backend".to_owned())),
    }
}

/// Paths of a URL map are whole ones, or end in `/*`.
fn path_match(path: &str, kind: &str) -> Result<PathMatch, Fault> {
    let invalid = |kind: &str| {
        let why = if path.is_empty() {
            "type due to empty path".to_owned()
        } else {
            format!("{path} due to invalid wildcard")
        };
        Err(Fault::Translation(format!("failed to validate {kind} path {why}")))
    };
    match kind {
        "Exact" if path.is_empty() || path.contains('*') => invalid("exact"),
        "Exact" => Ok(PathMatch::Exact(path.to_owned())),
        "Prefix" if path.is_empty() || path.contains('*') => invalid("prefix"),
        "Prefix" if path == "/" => Ok(PathMatch::Prefix("/".to_owned())),
        "Prefix" => Ok(PathMatch::Segments(path.strip_suffix('/').unwrap_or(path).to_owned())),
        _ => match (path, path.strip_suffix("/*")) {
            ("", _) => Ok(PathMatch::Prefix("/".to_owned())),
            (_, Some(folder)) if !folder.contains('*') => Ok(PathMatch::Prefix(format!("{folder}/"))),
            (path, None) if !path.contains('*') => Ok(PathMatch::Exact(path.to_owned())),
            _ => Err(Fault::Sync(format!(
                "Invalid value for field 'resource.pathMatchers': '{path}'. Invalid path pattern"
            ))),
        },
    }
}

fn route(path: PathMatch, backend: &Backend) -> Route {
    let cluster = Weighted {
        cluster: backend.cluster.clone(),
        weight: 1,
        request_headers: backend.request_headers.clone(),
        ..Weighted::default()
    };
    let forward = Forward {
        clusters: vec![cluster],
        timeout: Some(backend.timeout),
        host_rewrite: backend.host.clone(),
        // Google's proxies take an upgrade as it comes.
        websocket: true,
        ..Forward::default()
    };
    let via =
        HeaderOps { append: BTreeMap::from([("via".to_owned(), "1.1 google".to_owned())]), ..HeaderOps::default() };
    Route {
        path,
        headers: Vec::new(),
        percent: None,
        action: Action::Forward(Box::new(forward)),
        request_headers: via.clone(),
        response_headers: via,
    }
}

/// The certificates in Secrets; `None` when one is not there.
fn secrets(ingress: &Object, backends: &Backends<'_>) -> Result<Option<Vec<OfHosts>>, Problem> {
    let namespace = ingress.namespace().unwrap_or_default();
    let mut found = Vec::new();
    for tls in items(&ingress.data, "/spec/tls") {
        let name = text(tls, "/secretName");
        let Some(secret) = backends.objects.get(SECRETS, &namespace, name) else { return Ok(None) };
        let hosts = items(tls, "/hosts").filter_map(Value::as_str).map(str::to_lowercase).collect();
        let pair = pair(secret).map_err(|why| Problem::Sync(format!("secret \"{name}\" {why}")))?;
        found.push((hosts, pair));
    }
    Ok(Some(found))
}

/// The chain and key of a Secret. Google takes no pair that does not fit, and neither does Envoy.
fn pair(secret: &Object) -> Result<Pair, String> {
    secrets::pair(secret).map_err(|fault| match fault {
        secrets::Fault::Lacks(key) => format!("has no '{key}'"),
        secrets::Fault::Unusable(why) => format!("has no certificate and key that can be used: {why}"),
    })
}
