//! Rules of probes and of what is done at the beginning and the end of a container.

use serde_json::{Value, json};

use super::super::{names, not_negative, one_of, port};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items};

/// The probes and hooks of a container whose pod has this many seconds to end.
pub(super) fn of(path: &str, container: &Value, grace: Option<i64>, errors: &mut FieldErrors) {
    if let Some(lifecycle) = given(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = given(lifecycle, key) {
                let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                handler(&format!("{path}.lifecycle.{key}"), hook, &kinds, grace, errors);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = given(container, key) {
            self::probe(&format!("{path}.{key}"), probe, key == "readinessProbe", errors);
        }
    }
}

fn probe(path: &str, probe: &Value, is_readiness: bool, errors: &mut FieldErrors) {
    handler(path, probe, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
    let numbers = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    not_negative(path, probe, &numbers, errors);
    if let Some(seconds) = int_at(probe, "/terminationGracePeriodSeconds") {
        let field = format!("{path}.terminationGracePeriodSeconds");
        if seconds <= 0 {
            errors.invalid(field.as_str(), &json!(seconds), "must be greater than 0");
        }
        if is_readiness {
            errors.invalid(field, &json!(seconds), "must not be set for readinessProbes");
        }
    }
    if let Some(count) = int_at(probe, "/successThreshold").filter(|count| !is_readiness && *count != 1) {
        errors.invalid(format!("{path}.successThreshold"), &json!(count), "must be 1");
    }
}

/// What is done: one of some kinds.
fn handler(path: &str, handler: &Value, kinds: &[&str], grace: Option<i64>, errors: &mut FieldErrors) {
    let mut present = kinds.iter().filter_map(|kind| Some((*kind, given(handler, kind)?)));
    match present.next() {
        Some((kind, action)) => self::action(&format!("{path}.{kind}"), kind, action, grace, errors),
        None => errors.required(path, "must specify a handler type"),
    }
    for (kind, _) in present {
        errors.forbidden(format!("{path}.{kind}"), "may not specify more than 1 handler type");
    }
}

fn action(path: &str, kind: &str, action: &Value, grace: Option<i64>, errors: &mut FieldErrors) {
    match kind {
        "exec" => {
            if items(action, "/command").is_empty() {
                errors.required(format!("{path}.command"), "");
            }
        }
        "httpGet" => {
            port(&format!("{path}.port"), &action["port"], errors);
            one_of(action, "scheme", path, &["HTTP", "HTTPS"], errors);
            for header in items(action, "/httpHeaders") {
                let name = header["name"].as_str().unwrap_or_default();
                errors.each(format!("{path}.httpHeaders"), &json!(name), names::header_name(name));
            }
        }
        "sleep" => {
            let seconds = int_at(action, "/seconds").unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                let problem = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(path, &json!(seconds), &problem);
            }
        }
        _ => port(&format!("{path}.port"), &action["port"], errors),
    }
}
