//! Names, labels and other identifiers, as `k8s.io/apimachinery/pkg/util/validation` checks them.
//!
//! Each function returns everything that is wrong with a text: a rule may have more than one sentence.

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

const WILDCARD_RULE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
    consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
    regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const QUALIFIED_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
    character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const CONFIG_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

const HEADER_RULE: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
    validation is '[-A-Za-z0-9]+')";

/// What is wrong with an object's name.
pub(super) fn object_name(kind: &ResourceType, name: &str) -> Vec<String> {
    match (kind.resource.group.as_str(), kind.kind.as_str()) {
        // The pods of a StatefulSet take its name as their host's.
        ("", "Namespace") | ("apps", "StatefulSet") => dns_label(name),
        ("", "Service") => dns_label_1035(name),
        // Their names are paths segments in which colons are common (`system:node`).
        ("rbac.authorization.k8s.io", _) => path_segment(name),
        _ => dns_subdomain(name),
    }
}

/// RFC 1123 label, at most 63 characters.
pub(super) fn dns_label(name: &str) -> Vec<String> {
    let mut problems = too_long(name, 63);
    if !is_label(name) {
        let rule = if name.split('.').all(is_label) { "must not contain dots" } else { LABEL_RULE };
        problems.push(rule.to_owned());
    }
    problems
}

/// RFC 1035 label: begins with a letter.
pub(super) fn dns_label_1035(name: &str) -> Vec<String> {
    let good = is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
    judged(name, 63, good, LABEL_1035_RULE)
}

/// RFC 1123 subdomain, at most 253 characters.
pub(super) fn dns_subdomain(name: &str) -> Vec<String> {
    judged(name, 253, name.split('.').all(is_label), SUBDOMAIN_RULE)
}

/// The host of a rule or a certificate: a subdomain, or all that are one label longer.
pub(super) fn host(name: &str) -> Vec<String> {
    if !name.contains('*') {
        return dns_subdomain(name);
    }
    let good = name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label));
    judged(name, 253, good, WILDCARD_RULE)
}

/// One step of a path in the API.
pub(super) fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|part| name.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// A label key: an optional DNS prefix, a slash, a name of at most 63 characters.
pub(super) fn qualified_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let part = match name.split_once('/') {
        None => name,
        Some((_, rest)) if rest.contains('/') => {
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED_RULE} {prefix}")];
        }
        Some(("", part)) => {
            problems.push("prefix part must be non-empty".to_owned());
            part
        }
        Some((prefix, part)) => {
            problems.extend(dns_subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")));
            part
        }
    };
    if part.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(too_long(part, 63).into_iter().map(|problem| format!("name part {problem}")));
    if !is_qualified_part(part) {
        problems.push(format!("name part {QUALIFIED_RULE}"));
    }
    problems
}

/// The value of a label.
pub(super) fn label_value(value: &str) -> Vec<String> {
    judged(value, 63, value.is_empty() || is_qualified_part(value), LABEL_VALUE_RULE)
}

/// Checks the keys and values of labels.
pub(super) fn labels(field: &str, labels: &Map<String, Value>, errors: &mut FieldErrors) {
    for (key, value) in labels {
        errors.each(field, &Value::from(key.as_str()), qualified_name(key));
        errors.each(field, value, label_value(value.as_str().unwrap_or_default()));
    }
}

/// The name of a port, by which another object refers to it: that of an IANA service.
pub(super) fn port_name(name: &str) -> Vec<String> {
    let mut problems = too_long(name, 15);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    for (good, rule) in [
        (
            !name.is_empty() && name.bytes().all(plain),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (name.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (!name.contains("--"), "must not contain consecutive hyphens"),
        (!name.starts_with('-') && !name.ends_with('-'), "must not begin or end with a hyphen"),
    ] {
        if !good {
            problems.push(rule.to_owned());
        }
    }
    problems
}

/// A key of a ConfigMap or a Secret, which is a file where it is mounted.
pub(super) fn config_key(key: &str) -> Vec<String> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let mut problems = judged(key, 253, !key.is_empty() && key.bytes().all(plain), CONFIG_KEY_RULE);
    match key {
        "." | ".." => problems.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable, or the beginning of one.
pub(super) fn env_name(name: &str) -> Vec<String> {
    let printable = |c: u8| c == b' ' || c.is_ascii_graphic();
    let good = name.bytes().all(|c| printable(c) && c != b'=');
    let rule = "a valid environment variable name must consist only of printable ASCII characters other than '='";
    if good { Vec::new() } else { vec![rule.to_owned()] }
}

/// The name of an HTTP header.
pub(super) fn header_name(name: &str) -> Vec<String> {
    let good = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    if good { Vec::new() } else { vec![HEADER_RULE.to_owned()] }
}

/// What is wrong with a text that has a greatest length and one more rule.
fn judged(text: &str, most: usize, good: bool, rule: &str) -> Vec<String> {
    let mut problems = too_long(text, most);
    if !good {
        problems.push(rule.to_owned());
    }
    problems
}

fn too_long(text: &str, most: usize) -> Vec<String> {
    if text.len() > most { vec![format!("must be no more than {most} characters")] } else { Vec::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_sentence() {
        type Rule = fn(&str) -> Vec<String>;
        let cases: [(Rule, &str, &[&str]); 22] = [
            (dns_label, "-a", &["a lowercase RFC 1123 label"]),
            (dns_label, "a.b", &["must not contain dots"]),
            (dns_label_1035, "1a", &["a DNS-1035 label"]),
            (dns_subdomain, "a..b", &["a lowercase RFC 1123 subdomain"]),
            (host, "*", &["a wildcard DNS-1123 subdomain"]),
            (host, "a.*.b", &["a wildcard DNS-1123 subdomain"]),
            (path_segment, "..", &["may not be '..'"]),
            (path_segment, "%/", &["may not contain '/'", "may not contain '%'"]),
            (qualified_name, "", &["name part must be non-empty", "name part must consist of"]),
            (qualified_name, "/a", &["prefix part must be non-empty"]),
            (qualified_name, "A/a", &["prefix part a lowercase RFC 1123 subdomain"]),
            (qualified_name, "a/b/c", &["a qualified name must consist of"]),
            (label_value, "a/b", &["a valid label must be an empty string"]),
            (port_name, "8080", &["must contain at least one letter"]),
            (port_name, "a--b-", &["must not contain consecutive hyphens", "must not begin or end with a hyphen"]),
            (port_name, "A", &["must contain only alpha-numeric", "must contain at least one letter"]),
            (port_name, "resilience-bad-objects-port", &["must be no more than 15 characters"]),
            (config_key, "a/b", &["a valid config key"]),
            (config_key, "..", &["must not be '..'"]),
            (config_key, "..a", &["must not start with '..'"]),
            (env_name, "a=b", &["a valid environment variable name"]),
            (header_name, "", &["a valid HTTP header"]),
        ];
        for (rule, text, expected) in cases {
            let found = rule(text);
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            assert!(
                found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)),
                "{text}: {found:?}"
            );
        }
        let long = "a".repeat(64);
        assert_eq!(dns_label(&long), ["must be no more than 63 characters"]);
        assert_eq!(qualified_name(&long), ["name part must be no more than 63 characters"]);
    }

    #[test]
    fn what_keeps_the_rules_is_taken() {
        type Rule = fn(&str) -> Vec<String>;
        let cases: [(Rule, &[&str]); 11] = [
            (dns_label, &["a", "1-a"]),
            (dns_label_1035, &["a1", "a-b"]),
            (dns_subdomain, &["a.b", "1.2"]),
            (host, &["a.b", "*.a", "*.a.b"]),
            (path_segment, &["system:node", "..."]),
            (qualified_name, &["a", "e.io/A_b.c", "A"]),
            (label_value, &["", "A_b.c-1"]),
            (port_name, &["http", "a-1", "nobodys"]),
            (config_key, &[".a", "A_b.c-1"]),
            (env_name, &["1st", "a b", "..", "A.B-C"]),
            (header_name, &["X-A", "-"]),
        ];
        for (rule, texts) in cases {
            for text in texts {
                assert_eq!(rule(text), Vec::<String>::new(), "{text}");
            }
        }
    }
}
