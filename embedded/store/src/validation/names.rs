//! Names, labels and other identifiers, as `k8s.io/apimachinery/pkg/util/validation` checks them.

use serde_json::{Map, Value};

use crate::ResourceType;
use crate::invalid::FieldErrors;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
    and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const LABEL_1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
    character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
    start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with an object's name, if anything.
pub(super) fn object_name(kind: &ResourceType, name: &str) -> Option<String> {
    match (kind.resource.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => dns_label(name),
        ("", "Service") => dns_label_1035(name),
        // Their names are paths segments in which colons are common (`system:node`).
        ("rbac.authorization.k8s.io", _) => path_segment(name),
        _ => dns_subdomain(name),
    }
}

/// RFC 1123 label, at most 63 characters.
pub(super) fn dns_label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!is_label(name)).then(|| LABEL_RULE.to_owned())
}

/// RFC 1035 label: begins with a letter.
pub(super) fn dns_label_1035(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let good = is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
    (!good).then(|| LABEL_1035_RULE.to_owned())
}

/// RFC 1123 subdomain, at most 253 characters.
pub(super) fn dns_subdomain(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!name.split('.').all(is_label)).then(|| SUBDOMAIN_RULE.to_owned())
}

fn path_segment(name: &str) -> Option<String> {
    if name == "." || name == ".." {
        return Some(format!("may not be '{name}'"));
    }
    name.chars().find(|c| "/%".contains(*c)).map(|c| format!("may not contain '{c}'"))
}

fn is_label(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty() && name.starts_with(edge) && name.ends_with(edge) && name.chars().all(|c| edge(c) || c == '-')
}

fn is_qualified_part(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    !name.is_empty()
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || "-_.".contains(c))
}

/// What is wrong with a label key: an optional DNS prefix, a slash, a name of at most 63 characters.
pub(super) fn qualified_name(name: &str) -> Option<String> {
    let (prefix, part) = match name.split_once('/') {
        Some((prefix, part)) => (Some(prefix), part),
        None => (None, name),
    };
    if let Some(prefix) = prefix
        && let Some(problem) = dns_subdomain(prefix)
    {
        return Some(format!("prefix part {problem}"));
    }
    if part.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if part.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    (!is_qualified_part(part)).then(|| QUALIFIED_RULE.to_owned())
}

/// Checks the keys and values of labels.
pub(super) fn labels(field: &str, labels: &Map<String, Value>, errors: &mut FieldErrors) {
    for (key, value) in labels {
        if let Some(problem) = qualified_name(key) {
            errors.invalid(field, &Value::from(key.as_str()), &problem);
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            errors.invalid(field, value, "must be no more than 63 characters");
        } else if !text.is_empty() && !is_qualified_part(text) {
            errors.invalid(field, value, LABEL_VALUE_RULE);
        }
    }
}
