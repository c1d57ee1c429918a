//! From objects to the model: which Ingress is taken, what its paths are looked up as, which rules it asks for.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::model::{Backend, Globals, Map, Model, Rule, Snippet};
use super::render::TIMEOUTS;
use super::settings::{Annotations, Settings};
use super::slots::Servers;
use super::snippets;
use crate::names;
use crate::objects::{
    CONFIG_MAPS, INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES, annotation, items, text,
};
use crate::secrets::{self, Fault};
use crate::services::{PortRef, service_port};
use crate::status::Complaint;

/// What an IngressClass of this controller says, before a slash and the class.
const CONTROLLER: &str = "haproxy.org/ingress-controller";

/// The Ingresses that count.
pub(crate) fn ingresses(objects: &Objects, settings: &Settings) -> Vec<Object> {
    objects.all(INGRESSES).filter(|ingress| is_ours(objects, settings, ingress)).cloned().collect()
}

/// By the annotation, else by what the IngressClass says of its controller.
fn is_ours(objects: &Objects, settings: &Settings, ingress: &Object) -> bool {
    let says = |class: &Object| text(&class.data, "/spec/controller").to_owned();
    let named = text(&ingress.data, "/spec/ingressClassName");
    let by_annotation = annotation(ingress, "kubernetes.io/ingress.class").unwrap_or_default();
    let is_default = |class: &&Object| annotation(class, "ingressclass.kubernetes.io/is-default-class") == Some("true");
    let controller = match named {
        "" if by_annotation.is_empty() => objects.all(INGRESS_CLASSES).find(is_default).map(says),
        "" => None,
        name => objects.get(INGRESS_CLASSES, "", name).map(says),
    };
    match settings.class.as_str() {
        "" => by_annotation.is_empty() && controller.map_or(named.is_empty(), |controller| controller == CONTROLLER),
        class if by_annotation == class => true,
        _ if !by_annotation.is_empty() => false,
        class => {
            named.is_empty() && settings.empty_class
                || controller.is_some_and(|it| it == format!("{CONTROLLER}/{class}"))
        }
    }
}

/// The model of these Ingresses.
pub(crate) fn model(
    objects: &Objects,
    settings: &Settings,
    taken: &[Object],
    complaints: &mut BTreeSet<Complaint>,
) -> Model {
    let config_map = settings.config_map.as_ref().and_then(|(space, name)| objects.get(CONFIG_MAPS, space, name));
    let mut translation = Translation {
        objects,
        config_map: config_map.map(|object| &**object),
        rules: BTreeSet::new(),
        model: Model::default(),
        complaints,
    };
    translation.globals(settings.https_port);
    if let Some((namespace, name)) = &settings.certificate {
        translation.certificate(None, namespace, name, "0_");
    }
    for ingress in taken {
        translation.ingress(ingress, settings.https_port);
    }
    let Translation { rules, mut model, .. } = translation;
    model.rules = rules.into_iter().map(|rule| (id(&rule), rule)).collect();
    model
}

/// A rule's id is its content: Ingresses that want the same share the rule.
fn id(rule: &Rule) -> String {
    let mut hasher = DefaultHasher::new();
    rule.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Translation<'a> {
    objects: &'a Objects,
    config_map: Option<&'a DynamicObject>,
    rules: BTreeSet<Rule>,
    model: Model,
    complaints: &'a mut BTreeSet<Complaint>,
}

impl<'a> Translation<'a> {
    /// The real one writes to its log, and no events.
    fn complain(&mut self, kind: Kind, object: &DynamicObject, message: impl Into<String>) {
        self.complaints.insert(Complaint::logged(kind, object, message));
    }

    fn annotations<'b>(&self, objects: &'b [&'b DynamicObject]) -> Annotations<'b>
    where
        'a: 'b,
    {
        Annotations { objects, config_map: self.config_map }
    }

    /// What the ConfigMap says of everything.
    fn globals(&mut self, https_port: u16) {
        let Some(config_map) = self.config_map else { return };
        let all = self.annotations(&[]);
        let mut globals = Globals::default();
        for line in all.get("syslog-server").unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            match log_target(line) {
                Some(target) => globals.logs.push(target),
                None => self.complain(
                    CONFIG_MAPS,
                    config_map,
                    format!("annotation syslog-server: incorrect syslog param: '{line}'"),
                ),
            }
        }
        for name in ["maxconn", "nbthread", "hard-stop-after"] {
            globals.global.extend(all.get(name).map(|value| format!("{name} {value}")));
        }
        let snippet = all.get("global-config-snippet").unwrap_or_default().lines();
        globals.global.extend(snippet.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        for (name, _) in TIMEOUTS {
            let value = all.get(&format!("timeout-{name}"));
            globals.timeouts.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        }
        self.model.globals = globals;
        let (rules, problems) = rules(all, false, https_port);
        self.model.global_rules = rules;
        for problem in problems {
            self.complain(CONFIG_MAPS, config_map, problem);
        }
    }

    fn ingress(&mut self, ingress: &'a Object, https_port: u16) {
        let spec = &ingress.data["spec"];
        let namespace = ingress.namespace().unwrap_or_default();
        if let Some(backend) = spec.get("defaultBackend") {
            match self.backend(ingress, &namespace, backend) {
                Ok((name, _)) => self.model.default_backend = Some(name),
                Err(message) => self.complain(INGRESSES, ingress, format!("default backend: {message}")),
            }
        }
        for secret in items(spec, "/tls").map(|tls| text(tls, "/secretName")).filter(|name| !name.is_empty()) {
            self.certificate(Some(ingress), &namespace, secret, "");
        }
        let tls = items(spec, "/tls").next().is_some();
        let (rules, problems) = rules(self.annotations(&[ingress]), tls, https_port);
        let ids: String = rules.iter().map(|rule| format!(".{}", id(rule))).collect();
        self.rules.extend(rules);
        // The route is there without what could not be read: if that is its override, a client's own header chooses.
        for problem in problems {
            self.complain(INGRESSES, ingress, problem);
        }
        for rule in items(spec, "/rules") {
            for path in items(rule, "/http/paths") {
                if let Err(message) = self.path(ingress, &namespace, text(rule, "/host"), path, &ids) {
                    self.complain(INGRESSES, ingress, message);
                }
            }
        }
    }

    fn path(&mut self, ingress: &'a Object, space: &str, host: &str, path: &Value, ids: &str) -> Result<(), String> {
        let (backend, service) = self.backend(ingress, space, &path["backend"])?;
        let whole = text(path, "/path");
        // Both are words of a map and of the configuration.
        if !host.is_empty() && !names::is_host(host) {
            return Err(format!("the host {host:?} is not a DNS name"));
        }
        if whole.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("the path {whole:?} cannot be matched"));
        }
        let own = Annotations { objects: &[service], config_map: None };
        if let Some(condition) = own.get("route-acl") {
            let host = if host.is_empty() { String::new() } else { format!("{{ var(txn.host) -m str {host} }} ") };
            let path = match (whole, text(path, "/pathType")) {
                ("", _) => String::new(),
                (whole, "Exact") => format!("{{ path {whole} }} "),
                (whole, _) => format!("{{ path -m beg {whole} }} "),
            };
            self.model.custom_routes.insert((backend, format!("{host}{path}{{ {condition} }}")));
            return Ok(());
        }
        // `*.shop.test` is asked for as `.shop.test`.
        let host = host.strip_prefix('*').unwrap_or(host);
        if !host.is_empty() {
            self.row(Map::Host, ingress, host.to_owned(), host.to_owned());
        } else if whole.is_empty() {
            return Err(format!("neither Host nor Path are provided for backend {backend}"));
        }
        let value = backend + ids;
        let bare = whole.strip_suffix('/').unwrap_or(whole);
        match text(path, "/pathType") {
            "Exact" => self.row(Map::PathExact, ingress, format!("{host}{whole}"), value),
            _ if bare.is_empty() => self.row(Map::PathPrefix, ingress, format!("{host}/"), value),
            "Prefix" => {
                self.row(Map::PathPrefixExact, ingress, format!("{host}{bare}"), value.clone());
                self.row(Map::PathPrefix, ingress, format!("{host}{bare}/"), value);
            }
            _ => {
                self.row(Map::PathPrefixExact, ingress, format!("{host}{bare}"), value.clone());
                self.row(Map::PathPrefix, ingress, format!("{host}{bare}"), value);
            }
        }
        Ok(())
    }

    /// Of two values for one key HAProxy finds the lower one, as the rows are sorted before they are written.
    fn row(&mut self, map: Map, ingress: &Object, key: String, value: String) {
        let rows = self.model.maps.entry(map).or_default();
        let Some(former) = rows.get_mut(&key).filter(|former| **former != value) else {
            rows.insert(key, value);
            return;
        };
        let message = format!(
            "routing key '{key}' of map '{}' is declared with two different values: '{former}' and '{value}'; the lower one is used",
            map.file()
        );
        if value < *former {
            *former = value;
        }
        self.complain(INGRESSES, ingress, message);
    }

    /// The backend that a path or a default backend names, and the Service.
    fn backend(
        &mut self,
        ingress: &'a Object,
        namespace: &str,
        backend: &Value,
    ) -> Result<(String, &'a DynamicObject), String> {
        let objects = self.objects;
        let name = text(backend, "/service/name");
        let service = objects.get(SERVICES, namespace, name);
        let service = service.ok_or_else(|| format!("service '{namespace}/{name}' does not exist"))?;
        let port = PortRef::of_ingress(&backend["service"]["port"]).ok_or("its backend names no port of a Service")?;
        let found = service_port(objects, namespace, name, &port);
        let found = found.ok_or_else(|| format!("service {name}: no service port matching '{port}'"))?;
        let port = if found.name.is_empty() { found.number.to_string() } else { found.name.to_owned() };
        let key = format!("{namespace}_svc_{name}_{port}");
        let annotated: [&DynamicObject; 2] = [service, ingress];
        let annotations = self.annotations(&annotated);
        let mut default_server = Vec::new();
        if annotations.flag("check", true) {
            default_server.push("check".to_owned());
        }
        match annotations.get("server-proto") {
            Some("h2") => default_server.push("proto h2".to_owned()),
            None | Some("" | "h1") => {}
            Some(other) => {
                let message = format!("annotation 'server-proto': unknown proto {other}");
                self.complain(SERVICES, service, message);
            }
        }
        if let Some(named) = annotations.get("cr-backend").filter(|named| !named.is_empty()) {
            let (space, resource) = named.split_once('/').unwrap_or((namespace, named));
            let message = format!("annotation cr-backend: custom resource '{space}/{resource}' does not exist");
            self.complain(INGRESSES, ingress, message);
        }
        let balance = annotations.get("load-balance").filter(|input| !input.is_empty()).unwrap_or(ROUND_ROBIN);
        let balance = balance_of(balance).unwrap_or_else(|why| {
            self.complain(SERVICES, service, format!("annotation 'load-balance': load-balance: {why}"));
            ROUND_ROBIN
        });
        let snippets: Vec<Snippet> = [(&**service, false), (&**ingress, true)]
            .into_iter()
            .filter_map(|(object, of_ingress)| snippet(object, of_ingress))
            .collect();
        let backend = Backend {
            servers: Servers {
                room: annotations.number("scale-server-slots", 42).max(1),
                addresses: found.endpoints(objects),
            },
            balance: balance.to_owned(),
            forwarded_for: annotations.flag("forwarded-for", true),
            default_server,
            snippets: BTreeSet::new(),
        };
        // Shared by all Ingresses that lead to it: what the first says of it counts, but that each has its snippet in it.
        self.model.backends.entry(key.clone()).or_insert(backend).snippets.extend(snippets);
        Ok((key, service))
    }

    fn certificate(&mut self, ingress: Option<&Object>, namespace: &str, name: &str, first: &str) {
        let secret = self.objects.get(SECRETS, namespace, name);
        let message = match secret.map(secrets::pair) {
            Some(Ok((chain, key))) => {
                self.model.certificates.insert(format!("{first}{namespace}_{name}.pem"), key + &chain);
                return;
            }
            None | Some(Err(Fault::Lacks(_))) => format!("certificate or private key missing in {namespace}/{name}"),
            Some(Err(Fault::Unusable(why))) => {
                format!("secret '{namespace}/{name}' has no valid certificate and private key, it is ignored: {why}")
            }
        };
        if let Some(object) = ingress.or(secret) {
            let kind = if ingress.is_some() { INGRESSES } else { SECRETS };
            self.complain(kind, object, message);
        }
    }
}

/// The codes that HAProxy redirects with.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// What HAProxy does where no `balance` is asked for.
const ROUND_ROBIN: &str = "roundrobin";

/// How HAProxy can choose a server.
const ALGORITHMS: [&str; 11] = [
    "first",
    "hash",
    "hdr",
    "leastconn",
    "random",
    "rdp-cookie",
    ROUND_ROBIN,
    "source",
    "static-rr",
    "uri",
    "url_param",
];

/// A value of `load-balance`, if it is one (`pkg/annotations/service/loadbalance.go`).
///
/// # Errors
/// What is wrong with it.
fn balance_of(input: &str) -> Result<&str, String> {
    if input.contains(char::is_control) {
        return Err("more than one line".to_owned());
    }
    let mut words = input.split(' ');
    let first = words.next().unwrap_or_default();
    let algorithm = first.split(['(', ')']).next().unwrap_or_default();
    if algorithm == "url_param" {
        words.next();
    }
    while let Some(word) = words.next() {
        match word {
            "path-only" | "use_domain_only" | "whole" => {}
            "check_post" | "depth" | "len" | "max_wait" => {
                let missing = || format!("missing parameter for option '{word}' in balance configuration");
                let value = words.next().ok_or_else(missing)?;
                value.parse::<u32>().map_err(|why| format!("parsing \"{value}\": {why}"))?;
            }
            _ => return Err(format!("unknown balance configuration '{word}'")),
        }
    }
    match ALGORITHMS.contains(&algorithm) {
        true => Ok(input),
        false => Err(format!("algorithm in body should be one of [{}]", ALGORITHMS.join(" "))),
    }
}

/// The lines of `backend-config-snippet`.
fn snippet(object: &DynamicObject, of_ingress: bool) -> Option<Snippet> {
    let own = [object];
    let written = Annotations { objects: &own, config_map: None }.get("backend-config-snippet")?;
    let origin = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let lines: Vec<String> = snippets::lines(written).map(str::to_owned).collect();
    (!lines.is_empty()).then_some(Snippet { of_ingress, origin, lines })
}

/// The rules that annotations ask for, and what is wrong with those that cannot be read. A line that cannot be read takes those of its
/// annotation with it that come after.
fn rules(annotations: Annotations<'_>, tls: bool, https_port: u16) -> (Vec<Rule>, Vec<String>) {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    if annotations.flag("ssl-redirect", tls) {
        rules.push(Rule::Redirect {
            port: annotations.number("ssl-redirect-port", https_port),
            code: Some(annotations.number("ssl-redirect-code", 302)).filter(|code| CODES.contains(code)).unwrap_or(302),
        });
    }
    if let Some(host) = annotations.get("set-host").filter(|host| !host.is_empty()) {
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            problems.push(format!("annotation set-host: incorrect value '{host}' in set-host annotation"));
        } else {
            rules.push(Rule::SetHeader { name: "Host".to_owned(), value: host.to_owned() });
        }
    }
    for line in annotations.get("request-set-header").unwrap_or_default().split('\n').filter(|line| !line.is_empty()) {
        // A name that ends the word would begin another one of the configuration.
        let Some((name, value)) = line.split_once(' ').filter(|(name, _)| names::is_header(name)) else {
            problems.push(format!(
                "annotation request-set-header: incorrect value '{line}' in request-set-header annotation"
            ));
            break;
        };
        rules.push(Rule::SetHeader { name: name.to_owned(), value: in_quotes(value) });
    }
    (rules, problems)
}

fn in_quotes(value: &str) -> String {
    let begin = if value.starts_with('"') { "" } else { "\"" };
    let end = if value.len() > 1 && value.ends_with('"') { "" } else { "\"" };
    format!("{begin}{value}{end}")
}

/// `address:stdout, format: raw, facility:daemon` as the arguments of `log`.
fn log_target(line: &str) -> Option<String> {
    let line: String = line.split_whitespace().collect();
    let pairs: Vec<(&str, &str)> =
        line.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once(':')).collect::<Option<_>>()?;
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let address = get("address")?;
    let port = get("port").filter(|_| address != "stdout").map(|port| format!(":{port}")).unwrap_or_default();
    let option = |name: &str, keyword: &str| get(name).map(|value| format!(" {keyword} {value}")).unwrap_or_default();
    let word = |name: &str| get(name).map(|value| format!(" {value}")).unwrap_or_default();
    let facility = get("facility")?;
    let known = ["address", "port", "length", "format", "facility", "level", "minlevel"];
    pairs.iter().all(|(key, _)| known.contains(key)).then(|| {
        format!(
            "{address}{port}{}{} {facility}{}{}",
            option("length", "len"),
            option("format", "format"),
            word("level"),
            word("minlevel")
        )
    })
}
