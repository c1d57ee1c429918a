//! `nginx.ingress.kubernetes.io/...`: what an Ingress says beyond its spec.

use kube::api::DynamicObject;

use super::settings::{CRITICAL, Settings, codes};
use crate::objects::annotation;

/// Before every name.
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

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

/// `canary: "true"` and what chooses it, in the order in which nginx' controller asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Canary {
    pub(crate) header: Option<String>,
    pub(crate) header_value: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) weight: u32,
    pub(crate) weight_total: u32,
}

impl Annotations {
    /// Reads an Ingress' annotations. Snippets that are not allowed are left out, and named in `left_out`.
    ///
    /// # Errors
    /// A value that is not what its annotation takes: the controller does not take the Ingress then.
    pub(crate) fn read(
        ingress: &DynamicObject,
        settings: &Settings,
        left_out: &mut Vec<&'static str>,
    ) -> Result<Self, String> {
        let get = |name: &str| annotation(ingress, &format!("{PREFIX}{name}"));
        let flag = |name: &str, default: bool| match get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!(
                "annotation {PREFIX}{name} contains invalid value: expected true or false, found {other:?}"
            )),
        };
        let number = |name: &str, default: u32| match get(name) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| {
                format!("annotation {PREFIX}{name} contains invalid value: expected a number, found {text:?}")
            }),
        };
        let mut snippet = |name: &'static str| match get(name) {
            Some(_) if settings.risk < CRITICAL => Err(format!(
                "annotation {PREFIX}{name} contains risky annotation based on ingress configuration: its risk is Critical, and \
                 annotations-risk-level in the controller's ConfigMap is lower"
            )),
            Some(_) if !settings.snippets => {
                left_out.push(name);
                Ok(String::new())
            }
            other => Ok(other.unwrap_or_default().to_owned()),
        };
        let protocol = get("backend-protocol").unwrap_or("HTTP").to_uppercase();
        if !["HTTP", "HTTPS", "GRPC", "GRPCS", "AUTO_HTTP", "FCGI"].contains(&protocol.as_str()) {
            return Err(format!("annotation {PREFIX}backend-protocol contains invalid value: {protocol:?}"));
        }
        let configuration_snippet = snippet("configuration-snippet")?;
        let auth_snippet = snippet("auth-snippet")?;
        let auth = match get("auth-url") {
            None => None,
            Some(url) => Some(Auth {
                host: host_of(url).ok_or_else(|| {
                    format!(
                        "annotation {PREFIX}auth-url contains invalid value: expected http(s)://host/..., found {url:?}"
                    )
                })?,
                url: url.to_owned(),
                snippet: auth_snippet,
                response_headers: get("auth-response-headers")
                    .into_iter()
                    .flat_map(|list| list.split(','))
                    .map(|name| name.trim().to_owned())
                    .filter(|name| !name.is_empty())
                    .collect(),
                set_headers: get("auth-proxy-set-headers").map(str::to_owned),
            }),
        };
        let canary = flag("canary", false)?;
        Ok(Self {
            snippet: configuration_snippet,
            service_upstream: flag("service-upstream", settings.service_upstream)?,
            grpc: protocol.starts_with("GRPC"),
            tls_upstream: protocol.ends_with('S'),
            upstream_host: get("upstream-vhost").map(str::to_owned),
            rewrite: get("rewrite-target").map(str::to_owned),
            regex: flag("use-regex", false)? || get("rewrite-target").is_some(),
            ssl_redirect: flag("ssl-redirect", settings.ssl_redirect)?,
            force_ssl_redirect: flag("force-ssl-redirect", false)?,
            body_size: get("proxy-body-size").unwrap_or(&settings.body_size).to_owned(),
            request_buffering: match get("proxy-request-buffering") {
                Some(value) => value != "off",
                None => settings.request_buffering,
            },
            timeouts: [
                number("proxy-connect-timeout", 5)?,
                number("proxy-send-timeout", 60)?,
                number("proxy-read-timeout", 60)?,
            ],
            custom_errors: get("custom-http-errors").map_or_else(|| settings.custom_errors.clone(), codes),
            default_backend: get("default-backend").map(str::to_owned),
            auth,
            canary: canary
                .then(|| {
                    Ok::<_, String>(Canary {
                        header: get("canary-by-header").map(str::to_owned),
                        header_value: get("canary-by-header-value").map(str::to_owned),
                        cookie: get("canary-by-cookie").map(str::to_owned),
                        weight: number("canary-weight", 0)?,
                        weight_total: number("canary-weight-total", 100)?,
                    })
                })
                .transpose()?,
        })
    }
}

fn host_of(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let host = rest.split('/').next()?.split(':').next()?;
    (!host.is_empty()).then(|| host.to_owned())
}
