//! `nginx.ingress.kubernetes.io/...`: what an Ingress says beyond its spec.

use kube::ResourceExt as _;
use kube::api::DynamicObject;

use super::settings::{CRITICAL, Settings};
use super::values::{self, Rule};
use crate::names;
use crate::objects::annotation;

/// Before every name.
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// What of them is no snippet and has a risk above `Low` (0), as `internal/ingress/annotations` has it.
const RISKS: &[(&str, u8)] = &[
    ("auth-proxy-set-headers", 1),
    ("auth-realm", 1),
    ("auth-secret", 1),
    ("auth-url", 2),
    ("canary-by-cookie", 1),
    ("canary-by-header", 1),
    ("canary-by-header-pattern", 1),
    ("canary-by-header-value", 1),
    ("force-ssl-redirect", 1),
    ("proxy-body-size", 1),
    ("rewrite-target", 1),
];

/// The annotations that this stand-in knows; the others do nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    pub(crate) snippet: String,
    pub(crate) service_upstream: bool,
    pub(crate) grpc: bool,
    /// `backend-protocol: HTTPS` and `GRPCS`.
    pub(crate) tls_upstream: bool,
    pub(crate) upstream_host: Option<String>,
    pub(crate) rewrite: Option<String>,
    pub(crate) regex: bool,
    pub(crate) ssl_redirect: bool,
    pub(crate) force_ssl_redirect: bool,
    pub(crate) body_size: String,
    pub(crate) request_buffering: bool,
    /// Seconds to connect, send and read.
    pub(crate) timeouts: [u32; 3],
    pub(crate) custom_errors: Vec<u16>,
    pub(crate) default_backend: Option<String>,
    pub(crate) auth: Option<Auth>,
    pub(crate) basic: Option<Basic>,
    /// Why the paths answer 503 whoever asks: what should guard them cannot be read.
    pub(crate) denied: Option<String>,
    pub(crate) canary: Option<Canary>,
}

/// `auth-url` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) snippet: String,
    pub(crate) response_headers: Vec<String>,
    /// `NAMESPACE/NAME` of a ConfigMap of headers.
    pub(crate) set_headers: Option<String>,
}

/// `auth-type: basic` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Basic {
    /// Namespace and name of the Secret that holds the users.
    pub(crate) secret: (String, String),
    /// Whether each of its entries is a user; otherwise its entry `auth` is a file of them.
    pub(crate) by_entry: bool,
    pub(crate) realm: String,
}

/// `canary: "true"` and what chooses it, in the order in which nginx' controller asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Canary {
    pub(crate) header: Option<String>,
    pub(crate) header_value: Option<String>,
    /// A regular expression, where there is no value.
    pub(crate) header_pattern: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) weight: u32,
    pub(crate) weight_total: u32,
}

impl Annotations {
    /// Reads an Ingress' annotations. Values that are not what their annotation takes are told of in `notes`; the controller takes most of
    /// them for not set.
    ///
    /// # Errors
    /// Of some of them it does not take the Ingress.
    pub(crate) fn read(ingress: &DynamicObject, settings: &Settings, notes: &mut Vec<String>) -> Result<Self, String> {
        let said = |name: &str| annotation(ingress, &format!("{PREFIX}{name}"));
        // An empty value is none.
        let get = |name: &str| said(name).filter(|value| !value.is_empty());
        if let Some((name, risk)) = RISKS.iter().find(|(name, risk)| *risk > settings.risk && said(name).is_some()) {
            return Err(risky(name, *risk));
        }
        let snippet = |name: &str| match said(name) {
            Some(_) if settings.risk < CRITICAL => Err(risky(name, CRITICAL)),
            // The real one says so with `--v=3` only (`dropSnippetDirectives` in `controller.go`).
            Some(_) if !settings.snippets => Ok(String::new()),
            other => Ok(other.unwrap_or_default().to_owned()),
        };
        let configuration_snippet = snippet("configuration-snippet")?;
        let auth_snippet = snippet("auth-snippet")?;
        let strictly = |name: &str, rule: Rule| match get(name) {
            Some(value) if !rule.takes(value) => Err(invalid(name, rule, value)),
            other => Ok(other),
        };
        let upstream_host = strictly("upstream-vhost", values::SERVER_NAME)?.map(|host| host.trim().to_owned());
        let default_backend = strictly("default-backend", values::SERVICE)?.map(str::to_owned);
        let custom_errors = strictly("custom-http-errors", values::CODES)?;
        let auth_url = strictly("auth-url", values::URL)?;
        let namespace = ingress.namespace().unwrap_or_default();
        let reach = Reach { namespace: &namespace, everywhere: settings.cross_namespace };
        let auth = auth_url.map(|url| auth(url, auth_snippet, reach, &get)).transpose();
        let basic = match strictly("auth-type", values::AUTH_TYPE)? {
            Some(kind) => {
                let by_entry = strictly("auth-secret-type", values::AUTH_SECRET_TYPE)? == Some("auth-map");
                let realm = strictly("auth-realm", values::REALM)?.unwrap_or_default().to_owned();
                secret_of_users(kind, reach, &get).map(|secret| Some(Basic { secret, by_entry, realm }))
            }
            None => Ok(None),
        };
        let mut lenient = Lenient { get: &get, notes };
        let canary = lenient.flag("canary", false).then(|| Canary {
            header: lenient.text("canary-by-header", values::BASIC),
            header_value: lenient.text("canary-by-header-value", values::BASIC),
            header_pattern: lenient.text("canary-by-header-pattern", values::PATTERN),
            cookie: lenient.text("canary-by-cookie", values::BASIC),
            weight: lenient.number("canary-weight", 0),
            weight_total: lenient.number("canary-weight-total", 100),
        });
        let protocol = lenient.text("backend-protocol", values::PROTOCOL).unwrap_or_default().to_uppercase();
        let rewrite = lenient.text("rewrite-target", values::REWRITE);
        Ok(Self {
            snippet: configuration_snippet,
            // A value that is neither is no, whatever the ConfigMap says.
            service_upstream: lenient
                .flag("service-upstream", get("service-upstream").is_none() && settings.service_upstream),
            grpc: protocol.starts_with("GRPC"),
            tls_upstream: protocol.ends_with('S'),
            upstream_host,
            regex: lenient.flag("use-regex", false) || rewrite.is_some(),
            rewrite,
            ssl_redirect: lenient.flag("ssl-redirect", settings.ssl_redirect),
            force_ssl_redirect: lenient.flag("force-ssl-redirect", false),
            body_size: lenient.text("proxy-body-size", values::SIZE).unwrap_or_else(|| settings.body_size.clone()),
            request_buffering: match lenient.text("proxy-request-buffering", values::SWITCH).as_deref().map(str::trim) {
                Some(value) => value != "off",
                None => settings.request_buffering,
            },
            timeouts: [
                lenient.number("proxy-connect-timeout", 5),
                lenient.number("proxy-send-timeout", 60),
                lenient.number("proxy-read-timeout", 60),
            ],
            custom_errors: custom_errors.map_or_else(|| settings.custom_errors.clone(), values::codes),
            default_backend,
            denied: auth.as_ref().err().or(basic.as_ref().err()).cloned(),
            auth: auth.ok().flatten(),
            basic: basic.ok().flatten(),
            canary,
        })
    }
}

fn invalid(name: &str, rule: Rule, value: &str) -> String {
    format!("annotation {PREFIX}{name} contains invalid value: expected {}, found {value:?}", rule.expected)
}

fn risky(name: &str, risk: u8) -> String {
    let risk = match risk {
        1 => "Medium",
        2 => "High",
        _ => "Critical",
    };
    format!(
        "annotation {PREFIX}{name} contains risky annotation based on ingress configuration: its risk is {risk}, and \
         annotations-risk-level in the controller's ConfigMap is lower"
    )
}

/// What an Ingress may name.
#[derive(Clone, Copy)]
struct Reach<'a> {
    namespace: &'a str,
    everywhere: bool,
}

impl Reach<'_> {
    /// Namespace and name of what is named as `NAME` or `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// It may not name that.
    fn of(self, annotation: &str, named: &str) -> Result<(String, String), String> {
        let (namespace, name) = named.split_once('/').unwrap_or((self.namespace, named));
        if !self.everywhere && namespace != self.namespace {
            return Err(format!(
                "cross namespace usage of secrets is not allowed: {annotation} is {named:?}, and the Ingress of namespace {:?}",
                self.namespace
            ));
        }
        Ok((namespace.to_owned(), name.to_owned()))
    }
}

/// Annotations whose invalid values are no values.
struct Lenient<'n, G> {
    get: &'n G,
    notes: &'n mut Vec<String>,
}

impl<'a, G: Fn(&str) -> Option<&'a str>> Lenient<'_, G> {
    fn valid(&mut self, name: &str, rule: Rule) -> Option<&'a str> {
        let value = (self.get)(name)?;
        if rule.takes(value) {
            return Some(value);
        }
        self.notes.push(invalid(name, rule, value));
        None
    }

    fn text(&mut self, name: &str, rule: Rule) -> Option<String> {
        self.valid(name, rule).map(str::to_owned)
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.valid(name, values::FLAG).and_then(values::flag).unwrap_or(default)
    }

    fn number(&mut self, name: &str, default: u32) -> u32 {
        self.valid(name, values::NUMBER).and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}

/// `auth-url` and what goes with it.
///
/// # Errors
/// What cannot be read of it: without it nobody may pass.
fn auth<'a>(
    url: &str,
    snippet: String,
    reach: Reach<'_>,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Auth, String> {
    let host = host_of(url).ok_or_else(|| {
        format!("annotation {PREFIX}auth-url contains invalid value: expected http(s)://host/..., found {url:?}")
    })?;
    let headers = get("auth-response-headers").unwrap_or_default();
    let names: Vec<String> =
        headers.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if !names.iter().all(|name| names::is_header(name)) {
        return Err(invalid("auth-response-headers", values::HEADERS, headers));
    }
    let set_headers = get("auth-proxy-set-headers");
    if let Some(name) = set_headers.filter(|name| !values::BASIC.takes(name)) {
        return Err(invalid("auth-proxy-set-headers", values::BASIC, name));
    }
    set_headers.map(|name| reach.of("auth-proxy-set-headers", name)).transpose()?;
    Ok(Auth {
        url: url.to_owned(),
        host,
        snippet,
        response_headers: names,
        set_headers: set_headers.map(str::to_owned),
    })
}

/// The Secret that `auth-type` asks for.
///
/// # Errors
/// As [`auth`].
fn secret_of_users<'a>(
    kind: &str,
    reach: Reach<'_>,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<(String, String), String> {
    if kind != "basic" {
        return Err(format!(
            "annotation {PREFIX}auth-type: {kind} is not to be had here, where nginx lacks the module for it"
        ));
    }
    let named = get("auth-secret").filter(|name| values::BASIC.takes(name));
    reach.of("auth-secret", named.ok_or("error reading secret name from annotation auth-secret")?)
}

fn host_of(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let host = rest.split('/').next()?.split(':').next()?;
    (!host.is_empty()).then(|| host.to_owned())
}
