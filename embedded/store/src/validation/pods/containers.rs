//! Rules of containers: names, images, ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{names, one_of, port_number};
use super::{env, probes, resources, security, volumes};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// The containers of a pod spec.
pub(super) fn all(path: &str, spec: &Value, volumes: &BTreeSet<&str>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    let grace = int_at(spec, "/terminationGracePeriodSeconds");
    let on_host = spec["hostNetwork"] == true;
    let (regular, initial) = (items(spec, "/containers"), items(spec, "/initContainers"));
    if regular.is_empty() {
        errors.required(format!("{path}.containers"), "");
    }
    let field = format!("{path}.containers");
    for (index, container) in regular.iter().enumerate() {
        let path = format!("{field}[{index}]");
        self::container(&path, container, volumes, errors);
        unique(&path, str_at(container, "/name"), &mut seen, errors);
        probes::of(&path, container, grace, errors);
    }
    if on_host {
        same_ports(&field, regular, errors);
    } else {
        host_ports(&field, regular, errors);
    }
    let field = format!("{path}.initContainers");
    for (index, container) in initial.iter().enumerate() {
        let path = format!("{field}[{index}]");
        self::container(&path, container, volumes, errors);
        unique(&path, str_at(container, "/name"), &mut seen, errors);
        if str_at(container, "/restartPolicy") == "Always" {
            probes::of(&path, container, grace, errors);
            continue;
        }
        // It ends before there is anything to look after.
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if given(container, key).is_some() {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(format!("{path}.{key}"), why);
            }
        }
    }
}

/// A container and an init container may not share a name either.
fn unique<'a>(path: &str, name: &'a str, seen: &mut BTreeSet<&'a str>, errors: &mut FieldErrors) {
    if !name.is_empty() && !seen.insert(name) {
        errors.duplicate(format!("{path}.name"), &json!(name));
    }
}

fn container(path: &str, container: &Value, volumes: &BTreeSet<&str>, errors: &mut FieldErrors) {
    let name = str_at(container, "/name");
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    } else {
        errors.each(format!("{path}.name"), &json!(name), names::dns_label(name));
    }
    if str_at(container, "/image").is_empty() {
        errors.required(format!("{path}.image"), "");
    }
    one_of(container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"], errors);
    ports(path, container, errors);
    env::env(path, container, errors);
    env::from(path, container, errors);
    volumes::mounts(path, container, volumes, errors);
    one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
    resources::requirements(&format!("{path}.resources"), &container["resources"], errors);
    security::container(path, container, errors);
}

fn ports(path: &str, container: &Value, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = str_at(port, "/name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(format!("{path}.name"), &json!(name));
            }
            errors.each(format!("{path}.name"), &json!(name), problems);
        }
        match int_at(port, "/containerPort").unwrap_or(0) {
            0 => errors.required(format!("{path}.containerPort"), ""),
            number => port_number(&format!("{path}.containerPort"), Some(number), errors),
        }
        if let Some(number) = host_port(port) {
            port_number(&format!("{path}.hostPort"), Some(number), errors);
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
    }
}

fn host_port(port: &Value) -> Option<i64> {
    int_at(port, "/hostPort").filter(|number| *number != 0)
}

/// A port of the node can lead to one container.
fn host_ports(field: &str, containers: &[Value], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in items(container, "/ports").iter().enumerate() {
            let Some(number) = host_port(port) else { continue };
            let place = format!("{}/{}/{number}", str_at(port, "/protocol"), str_at(port, "/hostIP"));
            if !seen.insert(place.clone()) {
                errors.duplicate(format!("{field}[{index}].ports[{at}].hostPort"), &json!(place));
            }
        }
    }
}

/// What shares the node's network listens on the node's ports.
fn same_ports(field: &str, containers: &[Value], errors: &mut FieldErrors) {
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in items(container, "/ports").iter().enumerate() {
            let Some(number) = host_port(port) else { continue };
            if int_at(port, "/containerPort") != Some(number) {
                let problem = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(format!("{field}[{index}].ports[{at}].hostPort"), &json!(number), problem);
            }
        }
    }
}
