//! Rules of where a webhook is, and of what it understands.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::names;
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, str_at};

/// One of a URL and a Service.
pub(in crate::validation) fn client(path: &str, config: &Value, errors: &mut FieldErrors) {
    match (given(config, "url"), given(config, "service")) {
        (Some(text), None) => url(&format!("{path}.url"), text.as_str().unwrap_or_default(), errors),
        (None, Some(service)) => self::service(&format!("{path}.service"), service, errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn url(field: &str, url: &str, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("https") {
        errors.invalid(field, &json!(scheme), &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = rest.split('/').next().unwrap_or_default();
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.invalid(field, &json!(""), &format!("host must be provided{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(field, &json!(user), "user information is not permitted in the URL");
    }
    for (part, what) in [(fragment, "fragments"), (query, "query parameters")] {
        if !part.is_empty() {
            errors.invalid(field, &json!(part), &format!("{what} are not permitted in the URL"));
        }
    }
}

fn service(path: &str, service: &Value, errors: &mut FieldErrors) {
    // Kubernetes takes the one for the other when it tells of them.
    for (key, said) in [("namespace", "name"), ("name", "namespace")] {
        if str_at(service, &format!("/{key}")).is_empty() {
            errors.required(format!("{path}.{said}"), &format!("service {said} is required"));
        }
    }
    if let Some(port) = int_at(service, "/port").filter(|port| !(1..=65535).contains(port)) {
        let problem = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(format!("{path}.port"), &json!(port), problem);
    }
    url_path(&format!("{path}.path"), str_at(service, "/path"), errors);
}

/// A path whose steps are names.
fn url_path(field: &str, path: &str, errors: &mut FieldErrors) {
    let value = json!(path);
    match path {
        "" | "/" => return,
        "//" => {
            errors.invalid(field, &value, "segment[0] may not be empty");
            return;
        }
        _ => {}
    }
    if !path.starts_with('/') {
        errors.invalid(field, &value, "must start with a '/'");
    }
    // The first character goes, whatever it is.
    let mut rest = path.chars();
    rest.next();
    let steps = rest.as_str();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(field, &value, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for problem in names::dns_subdomain(step) {
            errors.invalid(field, &value, &format!("segment[{index}]: {problem}"));
        }
    }
}

/// The versions of reviews that it takes, of which the API server must speak one.
pub(in crate::validation) fn review_versions(
    field: &str,
    versions: &[Value],
    required: &str,
    spoken: &[&str],
    errors: &mut FieldErrors,
) {
    if versions.is_empty() {
        errors.required(field, required);
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let (field, text) = (format!("{field}[{index}]"), version.as_str().unwrap_or_default());
        if seen.insert(text) {
            errors.each(field, version, names::dns_label_1035(text));
        } else {
            errors.invalid(field, version, "duplicate version");
        }
    }
    if !spoken.iter().any(|version| seen.contains(version)) {
        let problem = format!("must include at least one of {}", spoken.join(", "));
        errors.invalid(field, &json!(versions), &problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a client.
    fn problems(config: &Value) -> String {
        let kind = crate::builtin::types().next().unwrap();
        let mut errors = FieldErrors::default();
        client("clientConfig", config, &mut errors);
        errors.into_result(&kind, "a").err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn urls() {
        for url in ["https://e.io", "https://localhost:8443/a/b", "HTTPS://[::1]/"] {
            assert_eq!(problems(&json!({"url": url})), "", "{url}");
        }
        for (url, problem) in [
            ("http://e.io/", "clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme"),
            ("", "'https' is the only allowed URL scheme"),
            ("https:///a", "clientConfig.url: Invalid value: \"\": host must be provided"),
            ("https://a@e.io/", "clientConfig.url: Invalid value: \"a\": user information is not permitted"),
            ("https://e.io/#a", "clientConfig.url: Invalid value: \"a\": fragments are not permitted"),
            ("https://e.io?a=b", "clientConfig.url: Invalid value: \"a=b\": query parameters are not permitted"),
        ] {
            let found = problems(&json!({"url": url}));
            assert!(found.contains(problem), "{url}: {found}");
        }
    }

    #[test]
    fn services() {
        let service = |key: &str, value: Value| {
            let mut config = json!({"service": {"name": "a", "namespace": "b"}});
            config["service"][key] = value;
            config
        };
        for path in ["", "/", "/a", "/a/b.c/"] {
            assert_eq!(problems(&service("path", json!(path))), "", "{path}");
        }
        for (config, problem) in [
            (json!({}), "clientConfig: Required value: exactly one of url or service is required"),
            (json!({"url": "https://e.io", "service": {}}), "exactly one of url or service is required"),
            (service("name", json!("")), "clientConfig.service.namespace: Required value: service namespace is"),
            (service("namespace", json!("")), "clientConfig.service.name: Required value: service name is required"),
            (service("port", json!(0)), "clientConfig.service.port: Invalid value: 0: port is not valid: must be"),
            (service("path", json!("TCP")), "clientConfig.service.path: Invalid value: \"TCP\": must start with a '/'"),
            (service("path", json!("/TCP")), "\"/TCP\": segment[0]: a lowercase RFC 1123 subdomain"),
            (service("path", json!("/a//b")), "\"/a//b\": segment[1] may not be empty"),
            (service("path", json!("//")), "\"//\": segment[0] may not be empty"),
        ] {
            let found = problems(&config);
            assert!(found.contains(problem), "{config}: {found}");
        }
    }
}
