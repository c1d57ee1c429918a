//! Mappings, one by one: which requests they take, and what they do with them.

use std::time::Duration;

use serde_json::Value;

use super::Resource;
use super::backends::{Backends, Found};
use super::hosts::Host;
use super::module::Module;
use crate::envoy::model::{Forward, HeaderMatch, HeaderOps, HeaderValue, PathMatch, Redirect, Weighted};
use crate::objects::{items, text};

const LINKERD: &str = "l5d-dst-override";

const AUTHORITY: &str = ":authority";

/// A Mapping that is in order.
#[derive(Clone, Debug)]
pub(super) struct Mapping<'a> {
    pub(super) resource: &'a Resource,
    pub(super) conditions: Conditions,
    pub(super) path: PathMatch,
    /// The pattern of its host; of Mappings without one only a Host's selector decides.
    pub(super) hostname: Option<String>,
    pub(super) host_is_regex: bool,
    /// Of 100.
    pub(super) weight: Option<u32>,
    pub(super) action: Action,
    pub(super) request: HeaderOps,
    pub(super) response: HeaderOps,
    /// What is the whole group's: the last Mapping that says something of it is followed.
    pub(super) allow_upgrade: Option<Vec<String>>,
}

/// What it does, but for what its group decides.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Forward(Box<Forward>),
    Redirect(Redirect),
}

/// By what a Mapping takes requests. Those with the same conditions are one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conditions {
    pub(super) precedence: i64,
    pub(super) prefix: String,
    pub(super) method: String,
    pub(super) headers: Vec<Condition>,
    /// Of Mappings without a host, the Hosts that select them.
    selected_by: Vec<String>,
}

/// A condition on a header, the host and the method being two of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    name: String,
    /// `None` for any.
    value: Option<String>,
    is_regex: bool,
}

impl Condition {
    fn new(name: &str, value: Option<&str>, is_regex: bool) -> Self {
        Self { name: name.to_owned(), value: value.map(str::to_owned), is_regex }
    }

    /// How specific it is (`KeyValueDecorator.length`).
    pub(super) fn length(&self) -> usize {
        self.name.len() + self.value.as_deref().unwrap_or("*").len() + usize::from(self.is_regex)
    }

    /// How it is compared with others that are as specific.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.name, self.value.as_deref().unwrap_or("*"))
    }

    /// `None` when it always holds.
    pub(super) fn header_match(&self) -> Option<HeaderMatch> {
        let value = match &self.value {
            None => HeaderValue::Present,
            Some(value) if self.is_regex => HeaderValue::Regex(value.clone()),
            // A host is a pattern without being marked as one, since no name has a star in it.
            Some(host) if self.name == AUTHORITY => match (host.strip_prefix('*'), host.strip_suffix('*')) {
                (Some(""), _) => return None,
                (Some(end), _) => HeaderValue::Regex(format!(".*{}", regex::escape(end))),
                (None, Some(begin)) => HeaderValue::Regex(format!("{}.*", regex::escape(begin))),
                (None, None) => HeaderValue::Exact(host.clone()),
            },
            Some(value) => HeaderValue::Exact(value.clone()),
        };
        Some(HeaderMatch { name: self.name.to_lowercase(), value, not: false })
    }
}

impl<'a> Mapping<'a> {
    /// # Errors
    /// Why it is left out.
    pub(super) fn read(
        resource: &'a Resource,
        module: &Module,
        hosts: &[Host],
        backends: &mut Backends<'_>,
    ) -> Result<Self, String> {
        let spec = &resource.spec;
        let prefix = text(spec, "/prefix");
        let path = match (spec["prefix_regex"] == true, spec["prefix_exact"] == true) {
            (true, _) => PathMatch::Regex(prefix.to_owned()),
            (false, true) => PathMatch::Exact(prefix.to_owned()),
            (false, false) => PathMatch::Prefix(prefix.to_owned()),
        };
        let (hostname, host_is_regex) = hostname(spec);
        let mut headers = headers(spec);
        if let Some(hostname) = hostname {
            headers.push(Condition::new(AUTHORITY, Some(hostname), host_is_regex));
        }
        if let Some(method) = spec["method"].as_str() {
            headers.push(Condition::new(":method", Some(method), false));
        }
        let selecting = hosts.iter().filter(|host| hostname.is_none() && host.selects(&resource.labels));
        let conditions = Conditions {
            precedence: spec["precedence"].as_i64().unwrap_or_default(),
            prefix: prefix.to_owned(),
            method: spec["method"].as_str().unwrap_or("GET").to_owned(),
            headers,
            selected_by: selecting.map(|host| host.name.clone()).collect(),
        };

        let mut request = ops(module.field(spec, "add_request_headers"), module.field(spec, "remove_request_headers"))?;
        let response = ops(module.field(spec, "add_response_headers"), module.field(spec, "remove_response_headers"))?;
        let action = if spec["host_redirect"] == true {
            Action::Redirect(redirect(spec))
        } else {
            let Found { cluster, authority } = backends.find(resource)?;
            if spec["add_linkerd_headers"].as_bool().unwrap_or(module.add_linkerd_headers) {
                // By way of `add_request_headers`, in place of what that says, and by its default to append.
                request.set.remove(LINKERD);
                request.append.insert(LINKERD.to_owned(), authority);
            }
            Action::Forward(Box::new(forward(spec, cluster, module.timeout)))
        };
        Ok(Self {
            resource,
            conditions,
            path,
            hostname: hostname.map(str::to_owned),
            host_is_regex,
            weight: spec["weight"].as_u64().map(|weight| u32::try_from(weight).unwrap_or(u32::MAX)),
            action,
            request,
            response,
            allow_upgrade: spec["allow_upgrade"].is_array().then(|| strings(&spec["allow_upgrade"])),
        })
    }
}

/// `hostname`, which is preferred, or the older `host`, and whether that is a regular expression.
fn hostname(spec: &Value) -> (Option<&str>, bool) {
    match (spec["hostname"].as_str(), spec["host"].as_str()) {
        (Some(hostname), _) => (Some(hostname), false),
        (None, host) => (host, host.is_some() && spec["host_regex"] == true),
    }
}

fn headers(spec: &Value) -> Vec<Condition> {
    let fields = |name: &str| spec[name].as_object().into_iter().flatten();
    // `true` is any value.
    let plain = fields("headers").map(|(name, value)| Condition::new(name, value.as_str(), false));
    let regexes = fields("regex_headers")
        .map(|(name, value)| Condition::new(name, Some(value.as_str().unwrap_or_default()), true));
    plain.chain(regexes).collect()
}

fn forward(spec: &Value, cluster: String, timeout: Duration) -> Forward {
    let milliseconds = |field: &str| spec[field].as_u64().map(Duration::from_millis);
    // Without the field the prefix goes; with an empty one the path stays as it is.
    let rewrite = spec["rewrite"].as_str().unwrap_or("/");
    Forward {
        clusters: vec![Weighted { cluster, weight: 1, ..Weighted::default() }],
        timeout: Some(milliseconds("timeout_ms").unwrap_or(timeout)),
        idle_timeout: milliseconds("idle_timeout_ms"),
        host_rewrite: spec["host_rewrite"].as_str().map(str::to_owned),
        prefix_rewrite: (!rewrite.is_empty()).then(|| rewrite.to_owned()),
        websocket: false,
    }
}

fn redirect(spec: &Value) -> Redirect {
    let given = |field: &str| spec[field].as_str().map(str::to_owned);
    let path = given("path_redirect");
    Redirect {
        host: given("service"),
        prefix: given("prefix_redirect").filter(|_| path.is_none()),
        path,
        found: spec["redirect_response_code"] == 302,
        ..Redirect::default()
    }
}

/// Headers to add, each a text or `{value, append}` and appended unless that says otherwise (`generate_headers_to_add` in
/// `v3route.py`), and names of headers to remove.
fn ops(added: &Value, removed: &Value) -> Result<HeaderOps, String> {
    let mut ops = HeaderOps { remove: strings(removed), ..HeaderOps::default() };
    for (name, value) in added.as_object().into_iter().flatten() {
        let text = value.as_str().or_else(|| value["value"].as_str()).unwrap_or_default();
        let into = if value["append"] == false { &mut ops.set } else { &mut ops.append };
        into.insert(name.to_lowercase(), text.to_owned());
    }
    match ops.remove.iter().chain(ops.set.keys()).chain(ops.append.keys()).find(|name| !is_header_name(name)) {
        Some(name) => Err(format!("{name:?} is not a valid header name")),
        None => Ok(ops),
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The strings of a list, or a string by itself.
fn strings(value: &Value) -> Vec<String> {
    let one = value.as_str().into_iter();
    one.chain(items(value, "").filter_map(Value::as_str)).map(str::to_owned).collect()
}
