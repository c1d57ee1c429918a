//! VirtualServices as hosts with routes, and what their status says of it.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::upstreams::Upstreams;
use crate::envoy::model::{
    Action, Forward, HeaderMatch, HeaderOps, HeaderValue, PathMatch, Redirect, Route, VirtualHost, Weighted,
};
use crate::objects::{Object, items, text};

/// What is wrong with a VirtualService.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    /// It is not taken for them.
    pub(crate) errors: Vec<String>,
    /// It is served in spite of them.
    pub(crate) warnings: Vec<String>,
}

impl Problems {
    /// A route leads to what is not there.
    fn warn(&mut self, why: &str) {
        self.warnings.push(format!("Route Warning: InvalidDestinationWarning. Reason: {why}"));
    }

    /// `by` is the half of Gloo that says it: `gateway` or `gloo`.
    pub(crate) fn status(&self, by: &str) -> Value {
        let (state, said) = match (self.errors.as_slice(), self.warnings.as_slice()) {
            // A reason that is left out would stay what it was before.
            ([], []) => ("Accepted", self.warnings.as_slice()),
            ([], warnings) => ("Warning", warnings),
            (errors, _) => ("Rejected", errors),
        };
        json!({"reportedBy": by, "state": state, "reason": said.join("; ")})
    }
}

/// Who has which domains, each on the plain port and on that of TLS.
pub(crate) struct Domains(BTreeMap<(bool, String), Vec<String>>);

impl Domains {
    pub(crate) fn of(all: &[&Object]) -> Self {
        let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for object in all {
            for domain in domains(object) {
                found.entry((secure(object), domain)).or_default().push(id(object));
            }
        }
        Self(found)
    }

    /// Two with the same domain are both refused (`validateVirtualServiceDomains` in
    /// `projects/gateway/pkg/translator/virtual_service_translator.go`).
    pub(crate) fn conflicts(&self, object: &Object, problems: &mut Problems) {
        for domain in domains(object) {
            let holders = self.0.get(&(secure(object), domain.clone())).map(Vec::as_slice).unwrap_or_default();
            if holders.len() > 1 {
                let own = id(object);
                let others: Vec<&str> = holders.iter().map(String::as_str).filter(|holder| *holder != own).collect();
                let others = others.join(" ");
                problems.errors.push(format!(
                    "domain conflict: the [{domain}] domain is present in other virtual services that belong to the same \
                     Gateway as this one: [{others}]"
                ));
            }
        }
    }

    /// The error of a Gateway, that of TLS or the plain one, whose VirtualServices share domains, if they do.
    pub(crate) fn shared(&self, secure: bool) -> Vec<String> {
        let of_gateway = self.0.iter().filter(|((of, _), holders)| *of == secure && holders.len() > 1);
        let domains: Vec<&str> = of_gateway.map(|((_, domain), _)| domain.as_str()).collect();
        let error = (!domains.is_empty()).then(|| {
            format!(
                "domain conflict: the following domains are present in more than one of the virtual services associated with this gateway: [{}]",
                domains.join(" ")
            )
        });
        error.into_iter().collect()
    }
}

/// What it is called where several are told of.
pub(crate) fn id(object: &Object) -> String {
    format!("{}.{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn secure(object: &Object) -> bool {
    object.data["spec"]["sslConfig"].is_object()
}

/// Its domains; without any it is for all.
pub(crate) fn domains(object: &Object) -> Vec<String> {
    let named: Vec<String> =
        items(&object.data, "/spec/virtualHost/domains").filter_map(Value::as_str).map(str::to_owned).collect();
    if named.is_empty() { vec!["*".to_owned()] } else { named }
}

/// Its routes, in the order in which they are written.
pub(crate) fn host(object: &Object, upstreams: &mut Upstreams<'_>, problems: &mut Problems) -> VirtualHost {
    let routes = items(&object.data, "/spec/virtualHost/routes");
    let read = routes.flat_map(|spec| match route(spec, upstreams, problems) {
        Ok(routes) => routes,
        Err(error) => {
            problems.errors.push(format!("Route Error: {error}"));
            Vec::new()
        }
    });
    VirtualHost { origin: id(object), routes: read.collect() }
}

fn route(spec: &Value, upstreams: &mut Upstreams<'_>, problems: &mut Problems) -> Result<Vec<Route>, String> {
    let options = &spec["options"];
    let (mut request, response) = headers(&options["headerManipulation"]);
    let template = &options["transformations"]["requestTransformation"]["transformationTemplate"]["headers"];
    for (name, value) in template.as_object().into_iter().flatten() {
        let text = text(value, "/text");
        if text.contains("{{") || text.contains("{%") {
            return Err(format!("the transformation of {name} has functions in it, which are not to be had here"));
        }
        request.set.insert(name.to_lowercase(), text.to_owned());
    }
    let action = action(spec, &mut request, upstreams, problems)?;
    // Without matchers it takes everything.
    let everything = [json!({"prefix": "/"})];
    let matchers = spec["matchers"].as_array().map(Vec::as_slice).filter(|matchers| !matchers.is_empty());
    let matchers = matchers.unwrap_or(&everything).iter().map(|matcher| {
        let path = path(matcher)?;
        let headers = items(matcher, "/headers").map(header_match).collect::<Result<Vec<_>, String>>()?;
        let (request_headers, response_headers) = (request.clone(), response.clone());
        Ok(Route { path, headers, percent: None, action: action.clone(), request_headers, response_headers })
    });
    matchers.collect()
}

fn path(matcher: &Value) -> Result<PathMatch, String> {
    let given = |field: &str| matcher[field].as_str().filter(|path| !path.is_empty()).map(str::to_owned);
    if let Some(expression) = given("regex") {
        check_regex(&expression)?;
        return Ok(PathMatch::Regex(expression));
    }
    match (given("exact"), given("prefix")) {
        (Some(exact), _) => Ok(PathMatch::Exact(exact)),
        (None, Some(prefix)) => Ok(PathMatch::Prefix(prefix)),
        (None, None) => Err("invalid route: no path matcher".to_owned()),
    }
}

/// `validateRoutesRegex` in `virtual_service_translator.go`.
fn check_regex(expression: &str) -> Result<(), String> {
    let read = regex::Regex::new(expression);
    read.map(drop).map_err(|error| format!("a regex matcher with invalid regex {expression:?}: {error}"))
}

fn header_match(header: &Value) -> Result<HeaderMatch, String> {
    let value = text(header, "/value").to_owned();
    let value = match (value.is_empty(), header["regex"] == true) {
        (true, _) => HeaderValue::Present,
        (false, true) => {
            // The real one leaves this to Envoy, which refuses the routes of everybody for it.
            check_regex(&value)?;
            HeaderValue::Regex(value)
        }
        (false, false) => HeaderValue::Exact(value),
    };
    Ok(HeaderMatch { name: text(header, "/name").to_owned(), value, not: header["invertMatch"] == true })
}

fn action(
    spec: &Value,
    request: &mut HeaderOps,
    upstreams: &mut Upstreams<'_>,
    problems: &mut Problems,
) -> Result<Action, String> {
    if let Some(answer) = spec.get("directResponseAction") {
        let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        return Ok(Action::Respond(status.ok_or("directResponseAction: no status")?, text(answer, "/body").to_owned()));
    }
    if let Some(redirect) = spec.get("redirectAction") {
        let given = |field: &str| redirect[field].as_str().map(str::to_owned);
        return Ok(Action::Redirect(Redirect {
            https: redirect["httpsRedirect"] == true,
            host: given("hostRedirect"),
            path: given("pathRedirect"),
            prefix: given("prefixRewrite"),
            found: redirect["responseCode"] == "FOUND",
            ..Redirect::default()
        }));
    }
    let options = &spec["options"];
    let mut forward = Forward {
        host_rewrite: options["hostRewrite"].as_str().map(str::to_owned),
        prefix_rewrite: options["prefixRewrite"].as_str().map(str::to_owned),
        timeout: options["timeout"].as_str().map(duration).transpose()?,
        websocket: true,
        ..Forward::default()
    };
    let mut action = spec["routeAction"].clone();
    // What a group says is as if the route said it (`setRouteAction` in `route_config.go`).
    if let Some(reference) = action.get("upstreamGroup") {
        action = match upstreams.group(reference) {
            Ok(group) => json!({"multi": {"destinations": group.data["spec"]["destinations"]}}),
            Err(why) => {
                problems.warn(&why);
                let cluster = upstreams.nowhere();
                forward.clusters.push(Weighted { cluster, weight: 1, ..Weighted::default() });
                Value::Null
            }
        };
    }
    let mut find = |destination: &Value| {
        upstreams.find(destination).unwrap_or_else(|why| {
            problems.warn(&why);
            super::upstreams::Destination { cluster: upstreams.nowhere(), ..Default::default() }
        })
    };
    if let Some(single) = action.get("single") {
        let found = find(single);
        // After what the route itself says, in whose place it stays (`plugins/linkerd/plugin.go`).
        request.set.extend(found.headers.set);
        forward.clusters.push(Weighted { cluster: found.cluster, weight: 1, ..Weighted::default() });
    }
    for destination in items(&action, "/multi/destinations") {
        let found = find(&destination["destination"]);
        let (mut request_headers, response_headers) = headers(&destination["options"]["headerManipulation"]);
        request_headers.set.extend(found.headers.set);
        let weight = destination["weight"].as_u64().and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default();
        let cluster = found.cluster;
        forward.clusters.push(Weighted { cluster, weight, request_headers, response_headers, host_rewrite: None });
    }
    match forward.clusters.as_slice() {
        [] if action.is_null() => Err("invalid route: route must specify an action".to_owned()),
        [] if action["multi"].is_object() => {
            Err("must specify at least one weighted destination for multi destination routes".to_owned())
        }
        [] => Err("unknown upstream destination type".to_owned()),
        [_, ..] if forward.clusters.iter().all(|cluster| cluster.weight == 0) => {
            Err("Weighted Destinations require a total weight that is greater than or equal to 1".to_owned())
        }
        _ => Ok(Action::Forward(Box::new(forward))),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|duration| std::time::Duration::try_from(duration).ok());
    parsed.ok_or_else(|| format!("timeout: {text:?} is no duration"))
}

/// `headerManipulation`: added behind a client's own unless `append` says otherwise (`plugins/headers/plugin.go`).
fn headers(manipulation: &Value) -> (HeaderOps, HeaderOps) {
    let ops = |add: &str, remove: &str| {
        let mut ops = HeaderOps::default();
        for added in items(manipulation, add) {
            let into = if added["append"] == false { &mut ops.set } else { &mut ops.append };
            into.insert(text(added, "/header/key").to_lowercase(), text(added, "/header/value").to_owned());
        }
        ops.remove = items(manipulation, remove).filter_map(Value::as_str).map(str::to_owned).collect();
        ops
    };
    (ops("/requestHeadersToAdd", "/requestHeadersToRemove"), ops("/responseHeadersToAdd", "/responseHeadersToRemove"))
}
