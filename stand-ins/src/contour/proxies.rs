//! HTTPProxies, as `httpproxy_processor.go` takes them.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::Value;

use super::backends::{Backends, Missing, regex};
use super::headers::{Policy, Variables, is_header_name, policy, with_settings};
use super::ingresses::put;
use super::settings::{Settings, duration, given};
use super::verdicts::Verdicts;
use crate::envoy::model::{
    Action, Config, Forward, HeaderMatch, HeaderOps, HeaderValue, PathMatch, Redirect, Route, Tls, VirtualHost,
    Weighted,
};
use crate::objects::{Object, items, text};
use crate::services::PortRef;

const ROUTE_ERROR: &str = "RouteError";
const SERVICE_ERROR: &str = "ServiceError";
const TLS_ERROR: &str = "TLSError";

/// Adds the hosts of the HTTPProxies, and returns what is wrong with them.
pub(crate) fn add(
    taken: &[&Object],
    settings: &Settings,
    config: &mut Config,
    backends: &mut Backends<'_>,
) -> Verdicts {
    let mut roots: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for proxy in taken.iter().filter(|proxy| proxy.data["spec"]["virtualhost"].is_object()) {
        roots.entry(text(&proxy.data, "/spec/virtualhost/fqdn").to_lowercase()).or_default().push(proxy);
    }
    let mut adder = Adder { taken, settings, backends, verdicts: Verdicts::default(), included: BTreeSet::new() };
    for (fqdn, proxies) in &roots {
        if let [only] = proxies.as_slice() {
            if let Err(problem) = adder.root(only, fqdn, config) {
                problem.of(only, &mut adder.verdicts);
            }
            continue;
        }
        // None of them is served: a host is never taken over by who comes second.
        let names: Vec<String> = proxies.iter().map(|proxy| full_name(proxy)).collect();
        let message = format!("fqdn {fqdn:?} is used in multiple HTTPProxies: {}", names.join(", "));
        for proxy in proxies {
            adder.verdicts.add(proxy, "VirtualHostError", "DuplicateVhost", message.clone());
        }
    }
    for proxy in taken.iter().filter(|proxy| !proxy.data["spec"]["virtualhost"].is_object()) {
        if !adder.included.contains(&full_name(proxy)) {
            let message = "this HTTPProxy is not part of a delegation chain from a root HTTPProxy";
            adder.verdicts.add(proxy, "Orphaned", "Orphaned", message);
        }
    }
    adder.verdicts
}

fn full_name(proxy: &Object) -> String {
    format!("{}/{}", proxy.namespace().unwrap_or_default(), proxy.name_any())
}

/// A problem that ends the reading of an HTTPProxy.
struct Problem(&'static str, &'static str, String);

impl Problem {
    fn of(self, proxy: &Object, verdicts: &mut Verdicts) {
        verdicts.add(proxy, self.0, self.1, self.2);
    }
}

struct Adder<'a, 'b> {
    taken: &'a [&'a Object],
    settings: &'a Settings,
    backends: &'a mut Backends<'b>,
    verdicts: Verdicts,
    included: BTreeSet<String>,
}

impl Adder<'_, '_> {
    fn root(&mut self, proxy: &Object, fqdn: &str, config: &mut Config) -> Result<(), Problem> {
        let spec = &proxy.data["spec"];
        if fqdn.is_empty() {
            let message = "Spec.VirtualHost.Fqdn must be specified".to_owned();
            return Err(Problem("VirtualHostError", "FQDNNotSpecified", message));
        }
        if spec["tcpproxy"].is_null() && items(spec, "/routes").chain(items(spec, "/includes")).next().is_none() {
            let message = "HTTPProxy.Spec must have at least one Route, Include, or a TCPProxy".to_owned();
            return Err(Problem("SpecError", "NothingDefined", message));
        }
        let certificate = self.certificate(proxy, &spec["virtualhost"]["tls"])?;
        let has_tls = spec["virtualhost"]["tls"].is_object();
        if spec["tcpproxy"].is_object() {
            let tls = self.tcp(proxy, has_tls, certificate.is_some())?;
            config.tls.insert(fqdn.to_owned(), tls);
        }
        let mut routes = self.routes(proxy, &[], &mut Vec::new(), has_tls);
        if let Some(domain) = fqdn.strip_prefix("*.") {
            // Envoy's wildcard takes any number of labels, a certificate's and Contour's only one.
            let one_label = format!("[a-z0-9]([-a-z0-9]*[a-z0-9])?\\.{}(:[0-9]+)?", domain.replace('.', "\\."));
            for (route, _) in &mut routes {
                let value = HeaderValue::Regex(one_label.clone());
                route.headers.push(HeaderMatch { name: ":authority".to_owned(), value, not: false });
            }
        }
        let mut secure = VirtualHost::default();
        let plain = config.hosts.entry(fqdn.to_owned()).or_default();
        for (route, upgrade) in routes {
            put(&mut secure, route.clone());
            let https = Action::Redirect(Redirect { https: true, ..Redirect::default() });
            put(plain, if upgrade { bare(route, https) } else { route });
        }
        if let (Some((certificate, key)), true) = (certificate, spec["tcpproxy"].is_null()) {
            config.tls.insert(fqdn.to_owned(), Tls::Terminated { certificate, key, host: secure });
        }
        Ok(())
    }

    /// The certificate of a host that has one.
    fn certificate(&self, proxy: &Object, tls: &Value) -> Result<Option<(String, String)>, Problem> {
        if !tls.is_object() {
            return Ok(None);
        }
        let problem = |reason, message: String| Err(Problem(TLS_ERROR, reason, message));
        let (name, passthrough) = (given(tls, "/secretName"), tls["passthrough"] == true);
        match (name, passthrough) {
            (None, true) => Ok(None),
            (Some(_), true) => problem(
                "TLSConfigNotValid",
                "Spec.VirtualHost.TLS: both Passthrough and SecretName were specified".to_owned(),
            ),
            (None, false) => problem(
                "TLSConfigNotValid",
                "Spec.VirtualHost.TLS: neither Passthrough nor SecretName were specified".to_owned(),
            ),
            (Some(name), false) => {
                let own = proxy.namespace().unwrap_or_default();
                let (namespace, secret) = name.split_once('/').unwrap_or((&own, name));
                if namespace != own {
                    let message = format!("Spec.VirtualHost.TLS Secret {name:?} certificate delegation not permitted");
                    return problem("DelegationNotPermitted", message);
                }
                self.backends.certificate(namespace, secret).map(Some).or_else(|why| {
                    problem("SecretNotValid", format!("Spec.VirtualHost.TLS Secret {name:?} is invalid: {why}"))
                })
            }
        }
    }

    fn tcp(&mut self, proxy: &Object, has_tls: bool, terminated: bool) -> Result<Tls, Problem> {
        let problem = |reason, message: String| Problem("TCPProxyError", reason, message);
        if !has_tls {
            let message = "Spec.TCPProxy requires that either Spec.TLS.Passthrough or Spec.TLS.SecretName be set";
            return Err(problem("TLSMustBeConfigured", message.to_owned()));
        }
        if terminated {
            let message = "Spec.TCPProxy behind TLS that ends here is not supported by this stand-in";
            return Err(problem("NotSupported", message.to_owned()));
        }
        let mut clusters = Vec::new();
        for service in items(&proxy.data, "/spec/tcpproxy/services") {
            let (cluster, _) = self.backend(proxy, service).map_err(|missing| {
                let message = missing.into_message();
                problem("ServiceUnresolvedReference", format!("Spec.TCPProxy unresolved service reference: {message}"))
            })?;
            clusters.push(Weighted { cluster, weight: weight(service), ..Weighted::default() });
        }
        if clusters.is_empty() {
            return Err(problem("NothingDefined", "either services or inclusion must be specified".to_owned()));
        }
        even_if_none(&mut clusters);
        Ok(Tls::Passthrough(clusters))
    }

    /// The cluster of a route's Service, and the Service's port.
    fn backend(&mut self, proxy: &Object, service: &Value) -> Result<(String, u16), Missing> {
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let namespace = proxy.namespace().unwrap_or_default();
        let found = self.backends.find(
            &namespace,
            text(service, "/name"),
            &PortRef::Number(port),
            text(service, "/protocol"),
        )?;
        Ok((found.cluster, found.port))
    }

    /// The routes of an HTTPProxy and of those that it includes, each with whether it is only a redirect over plain HTTP.
    fn routes(
        &mut self,
        proxy: &Object,
        conditions: &[Value],
        visited: &mut Vec<String>,
        has_tls: bool,
    ) -> Vec<(Route, bool)> {
        let name = full_name(proxy);
        if visited.contains(&name) {
            let path = [visited.as_slice(), &[name]].concat().join(" -> ");
            let message = format!("include creates an include cycle: {path}");
            self.verdicts.add(proxy, "IncludeError", "IncludeCreatesCycle", message);
            return Vec::new();
        }
        visited.push(name);
        let mut routes = Vec::new();
        for include in items(&proxy.data, "/spec/includes") {
            routes.extend(self.include(proxy, include, conditions, visited, has_tls));
        }
        visited.pop();
        let mut variables = Variables::from([("CONTOUR_NAMESPACE", proxy.namespace().unwrap_or_default())]);
        for route in items(&proxy.data, "/spec/routes") {
            match self.route(proxy, route, conditions, &mut variables) {
                Ok(found) => {
                    let upgrade = has_tls && route["permitInsecure"] != true;
                    routes.push((found, upgrade));
                }
                Err(problem) => {
                    // With one bad route none is served.
                    problem.of(proxy, &mut self.verdicts);
                    return Vec::new();
                }
            }
        }
        routes
    }

    fn include(
        &mut self,
        proxy: &Object,
        include: &Value,
        conditions: &[Value],
        visited: &mut Vec<String>,
        has_tls: bool,
    ) -> Vec<(Route, bool)> {
        let own: Vec<Value> = items(include, "/conditions").cloned().collect();
        if let Err(message) = paths_valid(&own) {
            let message = format!("include: {message}");
            self.verdicts.add(proxy, "IncludeError", "PathMatchConditionsNotValid", message);
            return Vec::new();
        }
        if let Err(message) = headers_valid(&own) {
            self.verdicts.add(proxy, ROUTE_ERROR, "HeaderMatchConditionsNotValid", message);
            return Vec::new();
        }
        let namespace = proxy.namespace().unwrap_or_default();
        let name = format!("{}/{}", given(include, "/namespace").unwrap_or(&namespace), text(include, "/name"));
        let found = self.taken.iter().copied().find(|other| full_name(other) == name);
        let problem = match found {
            None => ("IncludeNotFound", format!("include {name} not found")),
            Some(found) if found.data["spec"]["virtualhost"].is_object() => {
                ("RootIncludesRoot", format!("root httpproxy cannot include another root httpproxy ({name})"))
            }
            Some(found) => {
                self.included.insert(name);
                return self.routes(found, &[conditions, &own].concat(), visited, has_tls);
            }
        };
        self.verdicts.add(proxy, "IncludeError", problem.0, problem.1);
        if own.is_empty() {
            return Vec::new();
        }
        vec![(matched(&own, Action::Respond(502, String::new())), false)]
    }

    fn route(
        &mut self,
        proxy: &Object,
        route: &Value,
        conditions: &[Value],
        variables: &mut Variables,
    ) -> Result<Route, Problem> {
        let problem = |reason, message| Problem(ROUTE_ERROR, reason, message);
        let has = |field: &str| route[field].is_object() || items(route, &format!("/{field}")).next().is_some();
        let actions =
            ["services", "requestRedirectPolicy", "directResponsePolicy"].into_iter().filter(|field| has(field));
        if actions.count() != 1 {
            let message =
                "must set exactly one of route.services or route.requestRedirectPolicy or route.directResponsePolicy";
            return Err(problem("RouteActionCountNotValid", message.to_owned()));
        }
        let own: Vec<Value> = items(route, "/conditions").cloned().collect();
        paths_valid(&own).map_err(|message| problem("PathMatchConditionsNotValid", format!("route: {message}")))?;
        let all = [conditions, &own].concat();
        headers_valid(&all).map_err(|message| problem("HeaderMatchConditionsNotValid", message))?;

        let request = policy(&route["requestHeadersPolicy"], true, variables)
            .map_err(|message| problem("RequestHeadersPolicyInvalid", format!("{message} on request headers")))?;
        let response = policy(&route["responseHeadersPolicy"], false, variables)
            .map_err(|message| problem("ResponseHeaderPolicyInvalid", format!("{message} on response headers")))?;
        let timeout = |field: &str| {
            let parsed = duration(text(route, &format!("/timeoutPolicy/{field}")));
            parsed.map_err(|message| {
                let message = format!("route.timeoutPolicy failed to parse: error parsing {field} timeout: {message}");
                problem("TimeoutPolicyNotValid", message)
            })
        };
        let (answer, idle) = (timeout("response")?, timeout("idle")?);

        if let Some(redirect) = route.get("requestRedirectPolicy") {
            return Ok(matched(&all, Action::Redirect(redirect_of(redirect))));
        }
        if let Some(direct) = route.get("directResponsePolicy") {
            let status = direct["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
            return Ok(matched(&all, Action::Respond(status, text(direct, "/body").to_owned())));
        }
        let path = merged_path(&all);
        let prefix_rewrite = prefix_rewrite(route, &path)?;
        let clusters = self.clusters(proxy, route, variables)?;
        if clusters.is_empty() {
            return Ok(matched(&all, Action::Respond(503, String::new())));
        }
        let forward = Forward {
            clusters,
            timeout: answer,
            idle_timeout: idle,
            host_rewrite: request.host,
            prefix_rewrite,
            websocket: route["enableWebsockets"] == true,
        };
        Ok(Route {
            request_headers: request.ops,
            response_headers: response.ops,
            ..matched(&all, Action::Forward(Box::new(forward)))
        })
    }

    /// The clusters of a route's Services; a Service that is not there is left out.
    fn clusters(&mut self, proxy: &Object, route: &Value, variables: &mut Variables) -> Result<Vec<Weighted>, Problem> {
        let mut clusters = Vec::new();
        for service in items(route, "/services") {
            let (cluster, port) = match self.backend(proxy, service) {
                Ok(found) => found,
                Err(Missing::Protocol(message)) => return Err(Problem(SERVICE_ERROR, "UnsupportedProtocol", message)),
                Err(Missing::Service(message)) => {
                    let message = format!("Spec.Routes unresolved service reference: {message}");
                    self.verdicts.add(proxy, SERVICE_ERROR, "ServiceUnresolvedReference", message);
                    continue;
                }
            };
            // They stay for the routes after this one, where the real one fills them in, too.
            variables.insert("CONTOUR_SERVICE_NAME", text(service, "/name").to_owned());
            variables.insert("CONTOUR_SERVICE_PORT", port.to_string());
            let read = |field: &str, may_set_host, reason, what| {
                let found = policy(&service[field], may_set_host, variables);
                found.map_err(|message| Problem(SERVICE_ERROR, reason, format!("{message} on {what} headers")))
            };
            let request = read("requestHeadersPolicy", true, "RequestHeadersPolicyInvalid", "request")?;
            let response = read("responseHeadersPolicy", false, "ResponseHeadersPolicyInvalid", "response")?;
            let Policy { ops, host } = with_settings(request, self.settings, variables);
            clusters.push(Weighted {
                cluster,
                weight: weight(service),
                request_headers: ops,
                response_headers: response.ops,
                host_rewrite: host,
            });
        }
        even_if_none(&mut clusters);
        Ok(clusters)
    }
}

fn weight(service: &Value) -> u32 {
    service["weight"].as_u64().and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default()
}

/// Without weights each has the same.
fn even_if_none(clusters: &mut [Weighted]) {
    if clusters.iter().all(|cluster| cluster.weight == 0) {
        clusters.iter_mut().for_each(|cluster| cluster.weight = 1);
    }
}

/// A route for these conditions that does nothing to headers.
fn matched(conditions: &[Value], action: Action) -> Route {
    Route {
        path: merged_path(conditions),
        headers: conditions.iter().filter_map(header_match).collect(),
        percent: None,
        action,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
    }
}

/// The same match with another action, and nothing done to headers.
fn bare(route: Route, action: Action) -> Route {
    Route { action, request_headers: HeaderOps::default(), response_headers: HeaderOps::default(), ..route }
}

fn paths_valid(conditions: &[Value]) -> Result<(), String> {
    let paths: Vec<(&str, &str)> = conditions
        .iter()
        .flat_map(|condition| ["prefix", "exact", "regex"].map(|kind| (kind, text(condition, &format!("/{kind}")))))
        .filter(|(_, path)| !path.is_empty())
        .collect();
    match paths.as_slice() {
        [] => Ok(()),
        [(kind, path)] if !path.starts_with('/') => {
            Err(format!("{kind} conditions must start with /, {path} was supplied"))
        }
        [("regex", expression)] => regex(expression),
        [_] => Ok(()),
        _ => Err("more than one prefix, exact or regex is not allowed in a condition block".to_owned()),
    }
}

fn headers_valid(conditions: &[Value]) -> Result<(), String> {
    for header in conditions.iter().map(|condition| &condition["header"]).filter(|header| header.is_object()) {
        if !is_header_name(text(header, "/name")) {
            return Err(format!("invalid header name {:?}", text(header, "/name")));
        }
        if let Some(expression) = given(header, "/regex") {
            regex(expression)?;
        }
    }
    Ok(())
}

/// The paths of all conditions, from the root to the route, one behind the other.
fn merged_path(conditions: &[Value]) -> PathMatch {
    let mut path = String::new();
    let mut kind: fn(String) -> PathMatch = PathMatch::Prefix;
    for condition in conditions {
        for (key, found) in [
            ("/prefix", PathMatch::Prefix as fn(String) -> PathMatch),
            ("/exact", PathMatch::Exact),
            ("/regex", PathMatch::Regex),
        ] {
            if let Some(text) = given(condition, key) {
                path += text;
                kind = found;
            }
        }
    }
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    kind(if path.is_empty() { "/".to_owned() } else { path })
}

fn header_match(condition: &Value) -> Option<HeaderMatch> {
    let header = &condition["header"];
    let name = given(header, "/name")?.to_lowercase();
    type OfText = fn(String) -> HeaderValue;
    let texts: [(&str, OfText, bool); 5] = [
        ("/exact", HeaderValue::Exact, false),
        ("/notexact", HeaderValue::Exact, true),
        ("/contains", HeaderValue::Contains, false),
        ("/notcontains", HeaderValue::Contains, true),
        ("/regex", HeaderValue::Regex, false),
    ];
    let of_text = texts.into_iter().find_map(|(key, value, not)| Some((value(given(header, key)?.to_owned()), not)));
    let of_presence = || {
        let present = header["present"] == true;
        (present || header["notpresent"] == true).then_some((HeaderValue::Present, !present))
    };
    let (value, not) = of_text.or_else(of_presence)?;
    Some(HeaderMatch { name, value, not })
}

fn redirect_of(policy: &Value) -> Redirect {
    let text = |key: &str| given(policy, key).map(str::to_owned);
    Redirect {
        scheme: text("/scheme"),
        host: text("/hostname"),
        port: policy["port"].as_u64().and_then(|port| u16::try_from(port).ok()),
        path: text("/path"),
        prefix: text("/prefix"),
        // Unlike Envoy's own default.
        found: policy["statusCode"].as_u64() != Some(301),
        https: false,
    }
}

fn prefix_rewrite(route: &Value, path: &PathMatch) -> Result<Option<String>, Problem> {
    let problem = |reason, message: String| Problem("PrefixReplaceError", reason, message);
    let replacements: Vec<&Value> = items(route, "/pathRewritePolicy/replacePrefix").collect();
    if replacements.is_empty() {
        return Ok(None);
    }
    let PathMatch::Prefix(prefix) = path else {
        let message = "cannot specify prefix replacements without a prefix condition".to_owned();
        return Err(problem("MustHavePrefix", message));
    };
    let mut by_prefix = BTreeMap::new();
    for replacement in replacements {
        let prefix = text(replacement, "/prefix");
        if by_prefix.insert(prefix, text(replacement, "/replacement")).is_some() {
            return Err(match prefix {
                "" => problem("AmbiguousReplacement", "ambiguous prefix replacement".to_owned()),
                prefix => problem("DuplicateReplacement", format!("duplicate replacement prefix '{prefix}'")),
            });
        }
    }
    Ok(by_prefix.get(prefix.as_str()).or_else(|| by_prefix.get("")).map(|replacement| (*replacement).to_owned()))
}
