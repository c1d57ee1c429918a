//! The controller's ConfigMap (`--configmap`).

use super::values;
use crate::objects::{CONFIG_MAPS, Objects, text};

/// What of it this stand-in knows. Defaults are those of `internal/ingress/controller/config/config.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `allow-snippet-annotations`: whether `*-snippet` annotations count. Off since 1.9.
    pub(crate) snippets: bool,
    /// `annotations-risk-level`, from `Low` (0) to `Critical` (3). `High` since 1.12, which leaves snippets out.
    pub(crate) risk: u8,
    /// `allow-cross-namespace-resources`: whether an Ingress may name what is in another namespace. Off since 1.9.
    pub(crate) cross_namespace: bool,
    /// `strict-validate-path-type`: whether the webhook refuses paths of more than letters, digits and `-._/`. On since 1.12.
    pub(crate) strict_paths: bool,
    /// `service-upstream`: send to the Service's address unless an Ingress says otherwise.
    pub(crate) service_upstream: bool,
    /// `proxy-set-headers`: header names and values for every location, from the ConfigMap that it names, if it names one.
    pub(crate) headers: Option<Vec<(String, String)>>,
    /// `custom-http-errors`.
    pub(crate) custom_errors: Vec<u16>,
    /// `ssl-redirect`.
    pub(crate) ssl_redirect: bool,
    /// `proxy-body-size`.
    pub(crate) body_size: String,
    /// `large-client-header-buffers`.
    pub(crate) header_buffers: String,
    /// `proxy-request-buffering`: whether a request is read whole before it is sent on.
    pub(crate) request_buffering: bool,
    /// `enable-access-log-for-default-backend`: whether requests that no Ingress takes are logged.
    pub(crate) default_backend_log: bool,
}

/// Snippets in annotations.
pub(crate) const CRITICAL: u8 = 3;

impl Settings {
    /// Reads the ConfigMap, if there is one; defaults otherwise.
    pub(crate) fn read(objects: &Objects, config_map: Option<(&str, &str)>) -> Self {
        let config_map = config_map.and_then(|(namespace, name)| objects.get(CONFIG_MAPS, namespace, name));
        let data = config_map.map(|config_map| &config_map.data["data"]);
        let get = |key: &str| data.and_then(|data| data[key].as_str());
        let flag = |key: &str, default: bool| get(key).and_then(|value| value.parse().ok()).unwrap_or(default);
        let headers = get("proxy-set-headers").and_then(|name| name.split_once('/'));
        Self {
            snippets: flag("allow-snippet-annotations", false),
            risk: get("annotations-risk-level").map_or(2, |level| match level.to_lowercase().as_str() {
                "critical" => CRITICAL,
                "high" => 2,
                "medium" => 1,
                _ => 0,
            }),
            cross_namespace: flag("allow-cross-namespace-resources", false),
            strict_paths: flag("strict-validate-path-type", true),
            service_upstream: flag("service-upstream", false),
            headers: headers.map(|(namespace, name)| lines(objects, namespace, name)),
            custom_errors: values::codes(get("custom-http-errors").unwrap_or_default()),
            ssl_redirect: flag("ssl-redirect", true),
            body_size: get("proxy-body-size").unwrap_or("1m").to_owned(),
            request_buffering: get("proxy-request-buffering") != Some("off"),
            default_backend_log: flag("enable-access-log-for-default-backend", false),
            header_buffers: get("large-client-header-buffers").unwrap_or("4 8k").to_owned(),
        }
    }
}

/// The entries of a ConfigMap of headers.
pub(crate) fn lines(objects: &Objects, namespace: &str, name: &str) -> Vec<(String, String)> {
    let Some(config_map) = objects.get(CONFIG_MAPS, namespace, name) else { return Vec::new() };
    let data = config_map.data["data"].as_object();
    data.into_iter()
        .flatten()
        .map(|(key, _)| (key.clone(), text(&config_map.data["data"], &pointer(key)).to_owned()))
        .collect()
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}
