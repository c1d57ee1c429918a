//! Bodies of requests: JSON, YAML and protobuf to objects.

mod duplicates;
mod yaml;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use meshgate_machinery::protobuf::{DecodeError, decode_envelope};
use meshgate_machinery::schema::{Builtin, unknown_field};
use meshgate_store::{Status, WriteOptions};
use serde_json::{Value, json};

use crate::reply;

/// The limit of `k8s.io/apiserver` for request bodies.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// The bytes of a body; 413 when there are too many.
pub(crate) async fn bytes(request: &mut Request<Incoming>) -> Result<Bytes, Status> {
    match Limited::new(request.body_mut(), MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            Err(Status::new(413, "RequestEntityTooLarge", message))
        }
        Err(error) => Err(Status::bad_request(format!("the body of the request could not be read: {error}"))),
    }
}

/// The object in a body; 400 when it is empty or malformed, 415 when it is in another format.
pub(crate) async fn object(request: &mut Request<Incoming>, options: &WriteOptions) -> Result<Value, Status> {
    optional_object(request, options)
        .await?
        .ok_or_else(|| Status::bad_request("an object was expected in the body of the request, found nothing"))
}

/// The same where the body may be empty.
pub(crate) async fn optional_object(
    request: &mut Request<Incoming>,
    options: &WriteOptions,
) -> Result<Option<Value>, Status> {
    let bytes = bytes(request).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let object = match media_type {
        "" | "application/json" | "text/json" => json(&bytes, options)?,
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(&bytes, options)?,
        "application/vnd.kubernetes.protobuf" => protobuf(&bytes)?,
        _ => {
            let accepted = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
            return Err(reply::unsupported_media_type(&accepted));
        }
    };
    Ok(Some(object))
}

/// The same for an object of a built-in kind that is read and not stored: its type is checked, unknown fields are taken
/// out, and refused or told of as the options say.
pub(crate) async fn typed(
    request: &mut Request<Incoming>,
    options: &WriteOptions,
    api_version: &str,
    kind: &str,
) -> Result<Value, Status> {
    let mut object = object(request, options).await?;
    check_type(&mut object, options, api_version, kind)?;
    Ok(object)
}

/// Gives an object the type that it must have, or refuses it.
pub(crate) fn check_type(
    object: &mut Value,
    options: &WriteOptions,
    api_version: &str,
    kind: &str,
) -> Result<(), Status> {
    expect_type(object, api_version, kind)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(builtin) = Builtin::find(group, version, kind) else { return Ok(()) };
    let unknown = builtin.decode(object).map_err(|error| Status::bad_request(error.to_string()))?;
    judge(options, unknown.iter().map(|path| unknown_field(path)).collect())
}

/// Fills an absent `apiVersion` and `kind` and refuses others than the expected ones.
pub(crate) fn expect_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): expected a map"
        )));
    };
    for (key, expected) in [("apiVersion", api_version), ("kind", kind)] {
        let value = map.entry(key).or_insert(Value::Null);
        match value.as_str() {
            Some(found) if found == expected => {}
            None | Some("") if value.is_null() || value.is_string() => *value = json!(expected),
            _ => {
                let what = if key == "kind" { "kind" } else { "API version" };
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({}) does not match the expected {what} ({expected})",
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                )));
            }
        }
    }
    Ok(())
}

/// What the options say of fields that should not be there.
pub(crate) fn judge(options: &WriteOptions, wrong: Vec<String>) -> Result<(), Status> {
    options.judge_fields(wrong).map_err(Status::bad_request)
}

/// JSON. A key that occurs twice in a map is a field that should not be there.
pub(crate) fn json(bytes: &[u8], options: &WriteOptions) -> Result<Value, Status> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    judge(options, duplicates::find(&mut serde_json::Deserializer::from_slice(bytes)))?;
    Ok(value)
}

/// YAML, of which JSON is a part. Keys that are quoted, as all of JSON are, are no merge keys.
pub(crate) fn yaml(bytes: &[u8], options: &WriteOptions) -> Result<Value, Status> {
    // Clients send JSON as an apply patch, too, and that is read a good deal faster.
    if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        return json(bytes, options);
    }
    let (value, twice) = yaml::read(bytes)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    judge(options, twice)?;
    Ok(value)
}

/// Protobuf; 415 for kinds without a decoder, such as custom ones.
fn protobuf(bytes: &[u8]) -> Result<Value, Status> {
    decode_envelope(bytes).map_err(|error| match error {
        DecodeError::UnknownKind { .. } | DecodeError::Content(_) => {
            Status::new(415, "UnsupportedMediaType", error.to_string())
        }
        DecodeError::NotAnEnvelope
        | DecodeError::Truncated
        | DecodeError::Malformed(_)
        | DecodeError::FieldType { .. } => Status::bad_request(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_gets_its_type_from_the_path_or_must_have_it() {
        let mut object = json!({"metadata": {}});
        expect_type(&mut object, "apps/v1", "Deployment").unwrap();
        assert_eq!(object["kind"], "Deployment");
        let mut other = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet"});
        let error = expect_type(&mut other, "apps/v1", "Deployment").unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(error.message, "the kind in the data (ReplicaSet) does not match the expected kind (Deployment)");
        assert_eq!(expect_type(&mut json!([]), "v1", "Pod").unwrap_err().code, 400);
        assert_eq!(expect_type(&mut json!({"kind": 7}), "v1", "Pod").unwrap_err().code, 400);
    }

    #[test]
    fn yaml_has_merge_keys_and_json_has_none() {
        let read = |text: &str| yaml(text.as_bytes(), &WriteOptions::default()).map_err(|error| error.code);
        assert_eq!(read("a: &a {b: c}\nd: {<<: *a}\n"), Ok(json!({"a": {"b": "c"}, "d": {"b": "c"}})));
        let document = r#"{"d": {"<<": {"b": "c"}}}"#;
        assert_eq!(read(document).map(|value| value.to_string()), Ok(document.replace(' ', "")));
        assert_eq!(read("d: {<<: x}"), Err(400));
        let strict = WriteOptions { strict: true, ..WriteOptions::default() };
        assert_eq!(yaml(b"d: {<<: {b: c}, b: d}", &strict).unwrap_err().code, 400);
        yaml(b"d: {<<: {b: c}, e: d}", &strict).unwrap();
    }

    #[test]
    fn what_is_not_stored_is_checked_all_the_same() {
        let review = |spec: Value| json!({"spec": spec});
        let (lax, strict) = (WriteOptions::default(), WriteOptions { strict: true, ..WriteOptions::default() });
        let (version, kind) = ("authorization.k8s.io/v1", "SelfSubjectAccessReview");
        let mut good = review(json!({"resourceAttributes": {"verb": "get"}}));
        check_type(&mut good, &strict, version, kind).unwrap();
        let mut unknown = review(json!({"resourceAttribute": {"verb": "get"}}));
        let error = check_type(&mut unknown.clone(), &strict, version, kind).unwrap_err();
        assert_eq!(error.message, "strict decoding error: unknown field \"spec.resourceAttribute\"");
        check_type(&mut unknown, &lax, version, kind).unwrap();
        let mut wrong = review(json!({"resourceAttributes": {"verb": 7}}));
        assert_eq!(check_type(&mut wrong, &lax, version, kind).unwrap_err().code, 400);
    }
}
