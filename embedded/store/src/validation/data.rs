//! Rules of ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::names;
use crate::invalid::FieldErrors;
use crate::json::str_at;

/// Largest sum of values, in bytes.
const MAX_DATA: usize = 1024 * 1024;

/// Whose token a Secret holds.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// A ConfigMap.
pub(super) fn config_map(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    frozen(old, object, errors);
    let (data, binary) = (map(object, "data"), map(object, "binaryData"));
    let mut size = 0;
    for (key, value) in data.into_iter().flatten() {
        errors.each(format!("data[{key}]"), &json!(key), names::config_key(key));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(format!("data[{key}]"), &json!(key), "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in binary.into_iter().flatten() {
        errors.each(format!("binaryData[{key}]"), &json!(key), names::config_key(key));
        size += decoded_len(value);
    }
    if size > MAX_DATA {
        errors.too_long("", MAX_DATA);
    }
}

/// A Secret.
pub(super) fn secret(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    if let Some(old) = old {
        errors.immutable("type", old.get("type"), object.get("type"));
    }
    frozen(old, object, errors);
    let data = map(object, "data");
    let mut size = 0;
    for (key, value) in data.into_iter().flatten() {
        errors.each(format!("data[{key}]"), &json!(key), names::config_key(key));
        size += decoded_len(value);
    }
    if size > MAX_DATA {
        errors.too_long("data", MAX_DATA);
    }
    typed(object, errors);
}

/// What a Secret of a type of Kubernetes' own must have.
fn typed(object: &Value, errors: &mut FieldErrors) {
    let value = |key: &str| map(object, "data").and_then(|data| data.get(key));
    let mut require = |key: &str, is_there: bool| {
        if !is_there {
            errors.required(format!("data[{key}]"), "");
        }
    };
    match str_at(object, "/type") {
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                require(key, value(key).is_some());
            }
        }
        "kubernetes.io/basic-auth" => {
            let keys = ["username", "password"];
            let has_one = keys.iter().any(|key| value(key).is_some());
            keys.iter().for_each(|key| require(key, has_one));
        }
        "kubernetes.io/ssh-auth" => {
            let key = "ssh-privatekey";
            require(key, value(key).is_some_and(|value| decoded_len(value) > 0));
        }
        "kubernetes.io/dockercfg" => registries(".dockercfg", value(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            registries(".dockerconfigjson", value(".dockerconfigjson"), errors);
        }
        "kubernetes.io/service-account-token" => {
            let annotations = object.pointer("/metadata/annotations");
            let account = annotations.and_then(|annotations| annotations.get(ACCOUNT)).and_then(Value::as_str);
            if account.unwrap_or_default().is_empty() {
                errors.required(format!("metadata.annotations[{ACCOUNT}]"), "");
            }
        }
        _ => {}
    }
}

/// Credentials for registries, which are a JSON object.
fn registries(key: &str, value: Option<&Value>, errors: &mut FieldErrors) {
    let field = format!("data[{key}]");
    let Some(value) = value else {
        errors.required(field, "");
        return;
    };
    let content = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    // Null is no object, but what Go reads into one.
    if let Err(error) = serde_json::from_slice::<Option<Map<String, Value>>>(&content) {
        errors.invalid(field, &json!("<secret contents redacted>"), &error.to_string());
    }
}

/// Refuses a change of what was said to stay as it is.
fn frozen(old: Option<&Value>, object: &Value, errors: &mut FieldErrors) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let why = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        errors.forbidden("immutable", why);
    }
    for field in ["data", "binaryData"] {
        if old.get(field) != object.get(field) {
            errors.forbidden(field, why);
        }
    }
}

fn map<'a>(object: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key).and_then(Value::as_object)
}

/// Bytes that a text in base64 stands for.
fn decoded_len(value: &Value) -> usize {
    value.as_str().unwrap_or_default().trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    #[test]
    fn config_maps() {
        let good = Good::new(
            "",
            "configmaps",
            json!({"metadata": {"name": "a"}, "data": {"a": "b"}, "binaryData": {"c": "eA=="}}),
        );
        good.takes(&[("/data/A_b.c-1", json!("x")), ("/binaryData", Value::Null)]);
        good.refuses(&[
            ("/data/a b", json!("x"), "data[a b]", "a valid config key must consist of"),
            ("/data/..", json!("x"), "data[..]", "must not be '..'"),
            ("/data/c", json!("x"), "data[c]", "duplicate of key present in binaryData"),
            ("/binaryData/..c", json!("eA=="), "binaryData[..c]", "must not start with '..'"),
            ("/data/a", json!("x".repeat(MAX_DATA)), "", "may not be more than 1048576 bytes"),
        ]);
    }

    #[test]
    fn secrets_have_what_their_type_says() {
        let secret = |kind: &str, data: Value| {
            Good::new("", "secrets", json!({"metadata": {"name": "a"}, "type": kind, "stringData": data}))
        };
        let tls = secret("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": "x", "ca.crt": "x"}));
        tls.takes(&[("/stringData/ca.crt", Value::Null)]);
        tls.refuses(&[
            ("/stringData/tls.crt", Value::Null, "data[tls.crt]", "Required value"),
            ("/stringData/tls.key", Value::Null, "data[tls.key]", "Required value"),
        ]);
        let basic = secret("kubernetes.io/basic-auth", json!({"username": "a", "password": "b"}));
        basic.takes(&[("/stringData/username", Value::Null), ("/stringData/password", Value::Null)]);
        basic.refuses(&[
            ("/stringData", Value::Null, "data[username]", "Required value"),
            ("/stringData", Value::Null, "data[password]", "Required value"),
        ]);
        let ssh = secret("kubernetes.io/ssh-auth", json!({"ssh-privatekey": "x"}));
        ssh.takes(&[]);
        ssh.refuses(&[("/stringData/ssh-privatekey", json!(""), "data[ssh-privatekey]", "Required value")]);
        let docker = secret("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "{\"auths\": {}}"}));
        docker.takes(&[]);
        docker.refuses(&[
            ("/stringData", Value::Null, "data[.dockerconfigjson]", "Required value"),
            ("/stringData/.dockerconfigjson", json!("{"), "data[.dockerconfigjson]", "<secret contents redacted>"),
            ("/stringData/.dockerconfigjson", json!("[]"), "data[.dockerconfigjson]", "<secret contents redacted>"),
        ]);
        secret("e.io/own", json!({})).takes(&[]);
        let token = Good::new(
            "",
            "secrets",
            json!({
                "metadata": {"name": "a", "annotations": {ACCOUNT: "default"}},
                "type": "kubernetes.io/service-account-token",
            }),
        );
        let annotation = "metadata.annotations[kubernetes.io/service-account.name]";
        token.takes(&[]);
        token.refuses(&[("/metadata/annotations", Value::Null, annotation, "Required value")]);
    }
}
