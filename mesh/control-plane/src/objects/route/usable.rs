//! What of a rule a proxy can be told. A proxy that cannot read one rule takes everything that is said of the Service for invalid, and
//! answers each request with 500 (Linkerd's `linkerd/proxy/client-policy`): one object would take the others with it.

use std::fmt::Display;

use http::{HeaderName, HeaderValue, Method, StatusCode, uri};
use regex::Regex;
use thiserror::Error;

use crate::objects::wire::route as spec;

/// Why a rule is left out.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Unusable {
    #[error("expected {expected}, found `{found}`")]
    Value { expected: &'static str, found: String },
    #[error("methods of gRPC are not matched by regular expressions; name the method, or leave it out")]
    GrpcRegex,
}

type Result = std::result::Result<(), Unusable>;

fn expect(expected: &'static str, found: impl Display, is_so: bool) -> Result {
    if is_so { Ok(()) } else { Err(Unusable::Value { expected, found: found.to_string() }) }
}

/// The match of an HTTPRoute.
pub(super) fn http_match(spec: &spec::HttpMatch) -> Result {
    if let Some(spec::TypedValue { type_, value: Some(value) }) = &spec.path {
        value_match(type_, value)?;
    }
    if let Some(method) = &spec.method {
        expect("a method", method, Method::from_bytes(method.as_bytes()).is_ok())?;
    }
    spec.query_params.iter().try_for_each(|param| value_match(&param.type_, &param.value))?;
    header_matches(&spec.headers)
}

/// The match of a GRPCRoute.
pub(super) fn grpc_match(spec: &spec::GrpcMatch) -> Result {
    if spec.method.as_ref().is_some_and(|method| method.type_ == REGEX) {
        return Err(Unusable::GrpcRegex);
    }
    header_matches(&spec.headers)
}

/// The filters of a rule or of a backend.
pub(super) fn filters(filters: &[spec::Filter]) -> Result {
    for filter in filters {
        for headers in filter.request_header_modifier.iter().chain(&filter.response_header_modifier) {
            headers.remove.iter().try_for_each(|name| header_name(name))?;
            for header in headers.set.iter().chain(&headers.add) {
                header_name(&header.name)?;
                header_value(&header.value)?;
            }
        }
        if let Some(to) = &filter.request_redirect {
            redirect(to)?;
        }
    }
    Ok(())
}

const REGEX: &str = "RegularExpression";

fn header_matches(headers: &[spec::NamedValue]) -> Result {
    headers.iter().try_for_each(|header| {
        header_name(&header.name)?;
        value_match(&header.type_, &header.value)?;
        if header.type_ == REGEX { Ok(()) } else { header_value(&header.value) }
    })
}

fn value_match(type_: &str, value: &str) -> Result {
    expect("a regular expression", value, type_ != REGEX || Regex::new(value).is_ok())
}

fn header_name(name: &str) -> Result {
    expect("the name of a header", name, HeaderName::from_bytes(name.as_bytes()).is_ok())
}

fn header_value(value: &str) -> Result {
    expect("the value of a header", value.escape_debug(), HeaderValue::from_bytes(value.as_bytes()).is_ok())
}

fn redirect(to: &spec::Redirect) -> Result {
    if let Some(scheme) = &to.scheme {
        expect("the scheme of a URL", scheme, uri::Scheme::try_from(scheme.as_str()).is_ok())?;
    }
    if let Some(host) = to.hostname.as_ref().filter(|host| !host.is_empty()) {
        expect("the name of a host", host, uri::Authority::try_from(host.as_str()).is_ok())?;
    }
    match to.status_code {
        Some(status) => expect("the status of a redirect", status, StatusCode::from_u16(status).is_ok()),
        None => Ok(()),
    }
}
