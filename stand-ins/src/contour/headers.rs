//! `requestHeadersPolicy` and its like.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::settings::Settings;
use crate::envoy::model::HeaderOps;
use crate::objects::{items, text};

/// Values of `%CONTOUR_...%`, by name.
pub(crate) type Variables = BTreeMap<&'static str, String>;

/// Envoy's own variables that may stand in a value; all others are text.
const ENVOY_VARIABLES: [&str; 24] = [
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
    "HOSTNAME",
    "PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "RESPONSE_FLAGS",
    "RESPONSE_CODE_DETAILS",
];

/// A policy, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) ops: HeaderOps,
    /// A value set for `Host`.
    pub(crate) host: Option<String>,
}

/// Reads a policy.
///
/// # Errors
/// What is wrong with it, in the words of the status.
pub(crate) fn policy(policy: &Value, may_set_host: bool, variables: &Variables) -> Result<Policy, String> {
    let mut found = Policy::default();
    for entry in items(policy, "/set") {
        let (name, value) = (text(entry, "/name"), text(entry, "/value"));
        let key = name.to_lowercase();
        if found.ops.set.contains_key(&key) {
            return Err(format!("duplicate header addition: {:?}", canonical(name)));
        }
        if key == "host" {
            if !may_set_host {
                return Err(format!("rewriting {:?} header is not supported", canonical(name)));
            }
            found.host = Some(value.to_owned());
            continue;
        }
        if !is_header_name(name) {
            return Err(format!(
                "invalid set header {:?}: a valid HTTP header must consist of alphanumeric characters or '-'",
                canonical(name)
            ));
        }
        found.ops.set.insert(key, escape(value, variables));
    }
    let mut removed = BTreeSet::new();
    for name in items(policy, "/remove").filter_map(Value::as_str) {
        if !is_header_name(name) {
            return Err(format!(
                "invalid remove header {:?}: a valid HTTP header must consist of alphanumeric characters or '-'",
                canonical(name)
            ));
        }
        if !removed.insert(name.to_lowercase()) {
            return Err(format!("duplicate header removal: {:?}", canonical(name)));
        }
    }
    found.ops.remove = removed.into_iter().collect();
    Ok(found)
}

/// A Service's policy, with what the settings say for all of them.
pub(crate) fn with_settings(mut found: Policy, settings: &Settings, variables: &Variables) -> Policy {
    for (name, value) in &settings.set {
        found.ops.set.entry(name.to_lowercase()).or_insert_with(|| escape(value, variables));
    }
    for name in settings.remove.iter().map(|name| name.to_lowercase()) {
        if !found.ops.remove.contains(&name) {
            found.ops.remove.push(name);
        }
    }
    found
}

pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `Content-Type`, however it was written.
fn canonical(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..].to_lowercase();
    let word = |part: &str| if part.is_ascii() && !part.is_empty() { word(part) } else { part.to_owned() };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// The value as Envoy takes it: known variables are filled in or left for Envoy, every other `%` stands for itself.
fn escape(value: &str, variables: &Variables) -> String {
    let mut escaped = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        escaped.push_str(before);
        rest = after;
        let Some((name, behind)) = after.split_once('%') else {
            escaped.push_str("%%");
            continue;
        };
        let of_request = name.strip_prefix("REQ(").and_then(|name| name.strip_suffix(')'));
        let of_request = of_request.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        if let Some(known) = variables.get(name) {
            escaped.push_str(known);
        } else if of_request || ENVOY_VARIABLES.contains(&name) {
            escaped.extend(["%", name, "%"]);
        } else {
            escaped.push_str("%%");
            continue;
        }
        rest = behind;
    }
    escaped + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_variables_are_filled_in_and_others_are_text() {
        let variables = Variables::from([("CONTOUR_NAMESPACE", "shop".to_owned())]);
        for (value, expected) in [
            ("web.%CONTOUR_NAMESPACE%.svc:80", "web.shop.svc:80"),
            ("%CONTOUR_SERVICE_NAME%", "%%CONTOUR_SERVICE_NAME%%"),
            ("%REQ(x-host)% %PROTOCOL%", "%REQ(x-host)% %PROTOCOL%"),
            ("100% of %CONTOUR_NAMESPACE%", "100%% of shop"),
            ("%REQ(a b)%", "%%REQ(a b)%%"),
        ] {
            assert_eq!(escape(value, &variables), expected, "{value}");
        }
    }

    #[test]
    fn a_policy_is_refused_in_the_words_of_the_status() {
        let refused = |value: Value| policy(&value, false, &Variables::new()).unwrap_err();
        assert_eq!(
            refused(json!({"set": [{"name": "host", "value": "a"}]})),
            "rewriting \"Host\" header is not supported"
        );
        let twice = json!({"set": [{"name": "x-a", "value": "1"}, {"name": "X-A", "value": "2"}]});
        assert_eq!(refused(twice), "duplicate header addition: \"X-A\"");
        assert!(refused(json!({"set": [{"name": "a b", "value": "1"}]})).starts_with("invalid set header \"A b\""));
        assert_eq!(refused(json!({"remove": ["a", "A"]})), "duplicate header removal: \"A\"");
    }
}
