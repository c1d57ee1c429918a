//! Which responses are failures: one answer for metrics, for retries and for how endpoints are judged.
//!
//! As with Linkerd's proxy (`linkerd/app/core/src/classify.rs`), the classes of a ServiceProfile's route come first, then the code of gRPC,
//! then the status. Whether it is gRPC is what the request says of itself. Different from Linkerd, whose proxy takes gRPC without a code for
//! good whatever its status is, the status decides then: a 503 of somebody who does not speak gRPC is no success.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use tonic::Code;

use crate::profile::ResponseClasses;

/// How the response to one request is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Classify {
    classes: Option<Arc<ResponseClasses>>,
    grpc: bool,
}

/// What a response turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) success: bool,
    /// Of gRPC. One that was not sent, or is none, is UNKNOWN.
    pub(crate) code: Option<Code>,
}

impl Classify {
    /// For a request with these headers, on a route with these classes.
    pub(crate) fn new(request: &HeaderMap, classes: Option<Arc<ResponseClasses>>) -> Self {
        Self { classes: classes.filter(|classes| !classes.is_empty()), grpc: is_grpc(request) }
    }

    /// What a response is, by the codes of its head and of its trailers.
    pub(crate) fn class(&self, status: StatusCode, head: Option<Code>, trailers: Option<Code>) -> Class {
        if let Some(is_failure) = self.of_classes(status) {
            return Class { success: !is_failure, code: None };
        }
        let by_status = !status.is_server_error();
        match head.or(trailers) {
            Some(code) if self.grpc || self.classes.is_some() => Class { success: !is_failure(code), code: Some(code) },
            _ => Class { success: by_status, code: self.grpc.then_some(Code::Unknown) },
        }
    }

    /// Whether it takes trailers to know what a response is that has such a head.
    pub(crate) fn needs_trailers(&self, status: StatusCode, head: Option<Code>) -> bool {
        self.grpc && head.is_none() && self.of_classes(status).is_none()
    }

    fn of_classes(&self, status: StatusCode) -> Option<bool> {
        self.classes.as_ref()?.is_failure(status)
    }
}

/// Whether a code is one of Linkerd's failures (`linkerd/proxy/client-policy/src/grpc.rs`). The others are answers to what was asked.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::PermissionDenied
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Whether a message is gRPC, by its content type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The gRPC code of a head or of trailers, if there is one. A number that means nothing is UNKNOWN.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    grpc_status(headers).map(|number| Code::from_i32(number.into()))
}

/// The same as the number that it is.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use linkerd2_proxy_api::destination::{HttpStatusRange, ResponseClass, ResponseMatch, response_match::Match};

    use super::*;

    fn classify(content_type: &'static str, classes: &[(u32, bool)]) -> Classify {
        let class = |(status, is_failure): &(u32, bool)| ResponseClass {
            condition: Some(ResponseMatch {
                r#match: Some(Match::Status(HttpStatusRange { min: *status, max: *status })),
            }),
            is_failure: *is_failure,
        };
        let classes = ResponseClasses::compile(&classes.iter().map(class).collect::<Vec<_>>());
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Classify::new(&headers, Some(Arc::new(classes)))
    }

    fn of(classify: &Classify, status: u16, head: Option<Code>, trailers: Option<Code>) -> (bool, Option<Code>) {
        let Class { success, code } = classify.class(StatusCode::from_u16(status).unwrap(), head, trailers);
        (success, code)
    }

    #[test]
    fn some_codes_are_failures() {
        let grpc = classify("application/grpc+proto", &[]);
        let failures = (0..=17).filter(|code| !of(&grpc, 200, None, Some(Code::from_i32(*code))).0);
        // 17 is no code, and so UNKNOWN.
        assert_eq!(failures.collect::<Vec<_>>(), [2, 4, 7, 13, 14, 15, 17]);
    }

    #[test]
    fn the_request_says_whether_it_is_grpc() {
        let (plain, grpc) = (classify("text/plain", &[]), classify("application/grpc", &[]));
        let internal = Some(Code::Internal);
        assert_eq!(of(&plain, 200, internal, internal), (true, None));
        assert_eq!(of(&plain, 503, None, None), (false, None));
        assert_eq!(of(&grpc, 200, internal, Some(Code::Ok)), (false, internal), "the head goes before");
        assert_eq!(of(&grpc, 503, None, Some(Code::NotFound)), (true, Some(Code::NotFound)));
        assert_eq!(of(&grpc, 200, None, None), (true, Some(Code::Unknown)));
        assert_eq!(of(&grpc, 503, None, None), (false, Some(Code::Unknown)));
        assert!(grpc.needs_trailers(StatusCode::OK, None) && !plain.needs_trailers(StatusCode::OK, None));
        assert!(!grpc.needs_trailers(StatusCode::OK, internal));
    }

    #[test]
    fn classes_go_before_codes() {
        let internal = Some(Code::Internal);
        for content_type in ["application/grpc", "text/plain"] {
            let classes = classify(content_type, &[(200, false), (404, true)]);
            assert_eq!(of(&classes, 200, internal, None), (true, None));
            assert_eq!(of(&classes, 404, Some(Code::Ok), None), (false, None));
            assert!(!classes.needs_trailers(StatusCode::OK, None));
            // What is in none of them may have a code, whatever the request is.
            assert_eq!(of(&classes, 201, None, internal), (false, internal));
            assert!(!of(&classes, 500, None, None).0);
        }
    }

    #[test]
    fn a_number_that_is_no_code_is_unknown() {
        let read = |text: &'static str| {
            grpc_code(&HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(text))]))
        };
        assert_eq!([read("7"), read("99")], [Some(Code::PermissionDenied), Some(Code::Unknown)]);
        assert_eq!([read("-1"), read("none")], [None, None]);
        assert_eq!(grpc_code(&HeaderMap::new()), None);
    }
}
