//! Bodies of requests: JSON, YAML and protobuf to objects.

mod duplicates;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use meshgate_machinery::protobuf::{DecodeError, decode_envelope};
use meshgate_store::Status;
use serde_json::Value;

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
pub(crate) async fn object(request: &mut Request<Incoming>, strict: bool) -> Result<Value, Status> {
    optional_object(request, strict)
        .await?
        .ok_or_else(|| Status::bad_request("an object was expected in the body of the request, found nothing"))
}

/// The same where the body may be empty.
pub(crate) async fn optional_object(request: &mut Request<Incoming>, strict: bool) -> Result<Option<Value>, Status> {
    let bytes = bytes(request).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let object = match media_type {
        "" | "application/json" | "text/json" => json(&bytes, strict)?,
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(&bytes, strict)?,

        "application/vnd.kubernetes.protobuf" => protobuf(&bytes)?,
        _ => {
            let accepted = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
            return Err(reply::unsupported_media_type(&accepted));
        }
    };
    Ok(Some(object))
}

/// JSON. With `strict`, a key that occurs twice in a map is a 400.
pub(crate) fn json(bytes: &[u8], strict: bool) -> Result<Value, Status> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    if strict {
        duplicates::check(bytes)?;
    }
    Ok(value)
}

/// YAML, of which JSON is a part. Keys that occur twice are always refused.
pub(crate) fn yaml(bytes: &[u8], strict: bool) -> Result<Value, Status> {
    // Clients send JSON as an apply patch, too; only there can a key occur twice.
    if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        return json(bytes, strict);
    }
    serde_yaml::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: yaml: {error}")))
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
