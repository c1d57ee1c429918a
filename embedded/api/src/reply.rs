//! Responses: their body type and the few shapes they come in.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use meshgate_store::{GroupResource, Status};
use serde::Serialize;
use serde_json::{Value, json};

/// Whatever a streamed body may fail with; the connection is dropped then.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every response.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// The response of every handler.
pub(crate) type Reply = Response<Body>;

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A complete response with a content type.
pub(crate) fn with_type(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// JSON.
pub(crate) fn json<T: Serialize>(code: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(code, "application/json", bytes),
        Err(error) => status(&Status::internal(format!("the answer could not be written as JSON: {error}"))),
    }
}

/// JSON with code 200.
pub(crate) fn ok<T: Serialize>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// Characters of all warnings of an answer, and of each where there are more: clients bound what they take as headers. Taken from the filter of
/// Kubernetes' API server (`endpoints/filters/warning.go`).
const WARNINGS: usize = 4 * 1024;
const WARNING_CUT: usize = 256;

/// An answer with warnings, which kubectl prints.
pub(crate) fn with_warnings(mut reply: Reply, warnings: &[String]) -> Reply {
    let all: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
    let each = if all > WARNINGS { WARNING_CUT } else { WARNINGS };
    let mut written = 0;
    for warning in warnings {
        if written >= WARNINGS {
            break;
        }
        let text: String = warning.chars().take(each).filter(|c| !c.is_control()).collect();
        written += text.chars().count();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        // What no header can carry is left out: a warning is no reason to fail.
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{text}\"")) {
            reply.headers_mut().append(WARNING, value);
        }
    }
    reply
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Reply {
    with_type(code, "text/plain; charset=utf-8", text.into())
}

/// An error.
pub(crate) fn status(status: &Status) -> Reply {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = status.to_value().to_string();
    let mut reply = with_type(code, "application/json", bytes);
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

/// The `Status` of a success, as a delete answers with it.
pub(crate) fn success(code: StatusCode, details: Value) -> Reply {
    let mut value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if !details.is_null() {
        value["details"] = details;
    }
    if code == StatusCode::CREATED {
        value["code"] = json!(201);
    }
    json(code, &value)
}

/// 404 for a path that leads nowhere.
pub(crate) fn no_such_resource() -> Status {
    let mut status = Status::new(404, "NotFound", "the server could not find the requested resource");
    status.details = json!({});
    status
}

/// 405.
pub(crate) fn method_not_allowed() -> Status {
    let mut status =
        Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    status.details = json!({});
    status
}

/// 415 with what would have been accepted.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::new(415, "UnsupportedMediaType", message)
}

/// 403 with the sentence of an authorizer.
pub(crate) fn forbidden(resource: Option<(&GroupResource, &str)>, why: &str) -> Status {
    match resource {
        None => {
            let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
            status.details = json!({});
            status
        }
        Some((resource, "")) => {
            let mut status = Status::new(403, "Forbidden", format!("{resource} is forbidden: {why}"));
            status.details = json!({"group": resource.group, "kind": resource.plural});
            status
        }
        Some((resource, name)) => Status::forbidden(resource, name, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_as_long_as_clients_take() {
        let sent = |warnings: &[String]| -> Vec<usize> {
            let reply = with_warnings(text(StatusCode::OK, ""), warnings);
            reply.headers().get_all(WARNING).iter().map(|warning| warning.len() - "299 - \"\"".len()).collect()
        };
        let few = vec!["x".repeat(1000); 4];
        assert_eq!(sent(&few), [1000; 4], "as they are");
        let many = vec!["x".repeat(1000); 100];
        assert_eq!(sent(&many), [WARNING_CUT; WARNINGS / WARNING_CUT]);
        assert_eq!(sent(&["x".repeat(1 << 20)]), [WARNING_CUT]);
    }
}
