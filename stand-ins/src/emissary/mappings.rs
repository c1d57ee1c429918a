//! Mappings, the groups that they form, and the routes of each host.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::backends::Backends;
use super::{header_matches, strings};
use crate::envoy::model::{Action, Forward, HeaderMatch, HeaderOps, PathMatch, Redirect, Route, Weighted};
use crate::objects::{Object, text};

/// `timeout_ms` of a Mapping that says nothing (`cluster_request_timeout_ms`).
const TIMEOUT: Duration = Duration::from_secs(3);

const LINKERD: &str = "l5d-dst-override";

/// A Mapping that is in order.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// `*` without one.
    pub(crate) hostname: String,
    path: PathMatch,
    headers: Vec<HeaderMatch>,
    precedence: i64,
    /// Of 100; the Mappings of a group that have none share what is left.
    weight: Option<u32>,
    cluster: String,
    redirect: Option<Redirect>,
    forward: Forward,
    request: HeaderOps,
    response: HeaderOps,
}

impl Mapping {
    /// # Errors
    /// Why it is left out.
    pub(crate) fn read(object: &Object, backends: &mut Backends<'_>) -> Result<Self, String> {
        let spec = &object.data["spec"];
        let prefix =
            Some(text(spec, "/prefix")).filter(|prefix| !prefix.is_empty()).ok_or("prefix: expected a path")?;
        let path = match (spec["prefix_regex"] == true, spec["prefix_exact"] == true) {
            (true, _) => {
                let read = regex::Regex::new(prefix);
                read.map_err(|error| format!("prefix: {prefix:?} is not a valid regex: {error}"))?;
                PathMatch::Regex(prefix.to_owned())
            }
            (false, true) => PathMatch::Exact(prefix.to_owned()),
            (false, false) => PathMatch::Prefix(prefix.to_owned()),
        };
        let weight = match &spec["weight"] {
            Value::Null => None,
            weight => {
                let weight = weight.as_u64().filter(|weight| *weight <= 100);
                Some(weight.and_then(|weight| u32::try_from(weight).ok()).ok_or("weight: expected 0 to 100")?)
            }
        };
        let found = backends.of_mapping(object, spec["grpc"] == true)?;
        let mut request = HeaderOps { remove: strings(spec, "/remove_request_headers"), ..HeaderOps::default() };
        add(&mut request, &spec["add_request_headers"]);
        if spec["add_linkerd_headers"] == true {
            // By way of `add_request_headers`, whose default is to append (`irhttpmapping.py`).
            request.append.insert(LINKERD.to_owned(), found.authority);
        }
        let mut response = HeaderOps { remove: strings(spec, "/remove_response_headers"), ..HeaderOps::default() };
        add(&mut response, &spec["add_response_headers"]);
        Ok(Self {
            hostname: Some(text(spec, "/hostname")).filter(|name| !name.is_empty()).unwrap_or("*").to_owned(),
            path,
            headers: header_matches(spec),
            precedence: spec["precedence"].as_i64().unwrap_or_default(),
            weight,
            cluster: found.name,
            redirect: redirect(spec),
            forward: forward(spec, prefix),
            request,
            response,
        })
    }

    /// Mappings of the same group take the same requests.
    fn group(&self) -> (&str, String, i64) {
        (&self.hostname, format!("{:?} {:?}", self.path, self.headers), self.precedence)
    }
}

fn forward(spec: &Value, prefix: &str) -> Forward {
    let milliseconds = |field: &str| spec[field].as_u64().map(Duration::from_millis);
    // Without the field the prefix goes; with an empty one the path stays as it is.
    let rewrite = spec["rewrite"].as_str().unwrap_or("/");
    Forward {
        clusters: Vec::new(),
        timeout: Some(milliseconds("timeout_ms").unwrap_or(TIMEOUT)),
        idle_timeout: milliseconds("idle_timeout_ms"),
        host_rewrite: spec["host_rewrite"].as_str().map(str::to_owned),
        prefix_rewrite: (!rewrite.is_empty() && rewrite != prefix).then(|| rewrite.to_owned()),
        websocket: strings(spec, "/allow_upgrade").iter().any(|kind| kind == "websocket"),
    }
}

fn redirect(spec: &Value) -> Option<Redirect> {
    let given = |field: &str| spec[field].as_str().map(str::to_owned);
    (spec["host_redirect"] == true).then(|| Redirect {
        host: given("service"),
        path: given("path_redirect"),
        prefix: given("prefix_redirect"),
        found: spec["redirect_response_code"] == 302,
        ..Redirect::default()
    })
}

/// `add_request_headers`: a text, or `{value, append}`, and appended unless that says otherwise (`v3route.py`).
fn add(ops: &mut HeaderOps, headers: &Value) {
    for (name, value) in headers.as_object().into_iter().flatten() {
        let text = value.as_str().or_else(|| value["value"].as_str()).unwrap_or_default().to_owned();
        let into = if value["append"] == false { &mut ops.set } else { &mut ops.append };
        into.insert(name.to_lowercase(), text);
    }
}

/// The routes of every hostname, each with those for all hostnames behind its own.
pub(crate) fn by_hostname(mappings: &[Mapping]) -> BTreeMap<String, Vec<Route>> {
    let mut groups: BTreeMap<_, Vec<&Mapping>> = BTreeMap::new();
    for mapping in mappings {
        groups.entry(mapping.group()).or_default().push(mapping);
    }
    let mut hosts: BTreeMap<String, Vec<(Rank, Route)>> = BTreeMap::from([("*".to_owned(), Vec::new())]);
    for group in groups.into_values() {
        hosts.entry(group[0].hostname.clone()).or_default().push((rank(group[0]), route(&group)));
    }
    let everybodys = hosts.get("*").cloned().unwrap_or_default();
    let with_everybodys = |(name, mut own): (String, Vec<(Rank, Route)>)| {
        own.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut everybodys = if name == "*" { Vec::new() } else { everybodys.clone() };
        everybodys.sort_by(|(one, _), (other, _)| one.cmp(other));
        (name, own.into_iter().chain(everybodys).map(|(_, route)| route).collect())
    };
    hosts.into_iter().map(with_everybodys).collect()
}

/// Higher precedence first, then the longer prefix, then more conditions.
type Rank = (Reverse<i64>, Reverse<usize>, Reverse<usize>);

fn rank(mapping: &Mapping) -> Rank {
    let length = match &mapping.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Segments(path) | PathMatch::Regex(path) => {
            path.len()
        }
    };
    (Reverse(mapping.precedence), Reverse(length), Reverse(mapping.headers.len()))
}

/// The route of a group. The headers are those of all its members together: where two set the same, the one with the greater weight
/// says the value, for requests to every member (`irhttpmappinggroup.py`).
fn route(group: &[&Mapping]) -> Route {
    let first = group[0];
    let given: u32 = group.iter().filter_map(|mapping| mapping.weight).sum();
    let silent = u32::try_from(group.iter().filter(|mapping| mapping.weight.is_none()).count()).unwrap_or(1).max(1);
    let weight = |mapping: &Mapping| mapping.weight.unwrap_or_else(|| 100_u32.saturating_sub(given) / silent);
    let mut members: Vec<&&Mapping> = group.iter().collect();
    members.sort_by_key(|mapping| weight(mapping));
    let (mut request, mut response) = (HeaderOps::default(), HeaderOps::default());
    for member in &members {
        merge(&mut request, &member.request);
        merge(&mut response, &member.response);
    }
    let clusters = members.iter().map(|mapping| Weighted {
        cluster: mapping.cluster.clone(),
        weight: weight(mapping),
        ..Weighted::default()
    });
    let action = match &first.redirect {
        Some(redirect) => Action::Redirect(redirect.clone()),
        None => Action::Forward(Box::new(Forward { clusters: clusters.collect(), ..first.forward.clone() })),
    };
    let (path, headers) = (first.path.clone(), first.headers.clone());
    Route { path, headers, action, request_headers: request, response_headers: response }
}

fn merge(into: &mut HeaderOps, from: &HeaderOps) {
    into.remove.extend(from.remove.iter().filter(|name| !into.remove.contains(name)).cloned().collect::<Vec<_>>());
    for (name, value) in &from.set {
        into.append.remove(name);
        into.set.insert(name.clone(), value.clone());
    }
    for (name, value) in &from.append {
        into.set.remove(name);
        into.append.insert(name.clone(), value.clone());
    }
}
