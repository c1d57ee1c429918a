//! HTTP/1 carried over HTTP/2 between two proxies, so that one connection serves all requests.
//!
//! As in Linkerd (`linkerd/proxy/http/src/orig_proto.rs`): `l5d-orig-proto` says what the request was, and comes back with the
//! response. What HTTP/2 cannot say stays HTTP/1: `Upgrade` and `CONNECT`, and different from Linkerd also `Expect`, since an
//! application's `100 Continue` would not come through.

use http::{
    HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{EXPECT, HOST, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");

/// What follows the version if the request's target was a whole URI.
const ABSOLUTE_FORM: &[u8] = b"; absolute-form";

/// What a request was before.
pub(super) struct Original {
    version: Version,
    uri: Uri,
}

/// Makes an HTTP/1 request one of HTTP/2, if it can be. `fallback` is the authority of a request that has none.
pub(super) fn upgrade<B>(request: &mut Request<B>, fallback: impl FnOnce() -> Option<Authority>) -> Option<Original> {
    let headers = request.headers();
    if request.method() == Method::CONNECT || headers.contains_key(UPGRADE) || headers.contains_key(EXPECT) {
        return None;
    }
    let absolute = request.uri().authority().is_some();
    let marker = HeaderValue::from_static(match (request.version(), absolute) {
        (Version::HTTP_10, false) => "HTTP/1.0",
        (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
        (_, false) => "HTTP/1.1",
        (_, true) => "HTTP/1.1; absolute-form",
    });
    let mut parts = request.uri().clone().into_parts();
    if !absolute {
        let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        parts.authority = Some(host.or_else(fallback)?);
    }
    parts.scheme = parts.scheme.or(Some(Scheme::HTTP));
    parts.path_and_query = parts.path_and_query.or(Some(PathAndQuery::from_static("/")));
    let uri = std::mem::replace(request.uri_mut(), Uri::from_parts(parts).ok()?);
    request.headers_mut().insert(ORIG_PROTO, marker);
    // HTTP/2 frames bodies itself.
    request.headers_mut().remove(TRANSFER_ENCODING);
    let version = std::mem::replace(request.version_mut(), Version::HTTP_2);
    Some(Original { version, uri })
}

/// Makes it again what it was, since it could not be sent.
pub(super) fn restore<B>(request: &mut Request<B>, original: Original) {
    request.headers_mut().remove(ORIG_PROTO);
    *request.version_mut() = original.version;
    *request.uri_mut() = original.uri;
}

/// Makes the response to such a request one of HTTP/1.
pub(super) fn downgrade_response<B>(response: &mut Response<B>) {
    let marker = response.headers_mut().remove(ORIG_PROTO);
    *response.version_mut() = match marker {
        Some(marker) if marker.as_bytes().starts_with(b"HTTP/1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
}

/// Whether a request was one of HTTP/1 in the beginning, and is one of HTTP/2 still.
pub(crate) fn is_carried<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && request.headers().contains_key(ORIG_PROTO)
}

/// Makes a request that was one of HTTP/1 in the beginning one again. Whether it was.
pub(crate) fn downgrade<B>(request: &mut Request<B>) -> bool {
    if request.version() != Version::HTTP_2 || request.method() == Method::CONNECT {
        return false;
    }
    let Some(marker) = request.headers_mut().remove(ORIG_PROTO) else { return false };
    let marker = marker.as_bytes();
    *request.version_mut() = if marker.starts_with(b"HTTP/1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
    if !request.headers().contains_key(HOST)
        && request.version() == Version::HTTP_11
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if !marker.ends_with(ABSOLUTE_FORM) {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = path.into();
    }
    true
}

/// Makes the response to such a request one of HTTP/2.
pub(crate) fn upgrade_response<B>(response: &mut Response<B>) {
    let marker = if response.version() == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    response.headers_mut().insert(ORIG_PROTO, HeaderValue::from_static(marker));
    response.headers_mut().remove(TRANSFER_ENCODING);
    *response.version_mut() = Version::HTTP_2;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn fallback() -> Option<Authority> {
        Some(Authority::from_static("10.0.0.1:80"))
    }

    #[test]
    fn what_goes_over_http2_arrives_as_it_was() {
        for (version, uri, headers, carried, marker) in [
            (Version::HTTP_11, "/a?b", &[("host", "shop.test")][..], "http://shop.test/a?b", "HTTP/1.1"),
            (Version::HTTP_10, "/", &[("host", "shop.test")], "http://shop.test/", "HTTP/1.0"),
            (Version::HTTP_10, "/", &[], "http://10.0.0.1:80/", "HTTP/1.0"),
            (Version::HTTP_11, "/", &[("host", "not a host")], "http://10.0.0.1:80/", "HTTP/1.1"),
            (
                Version::HTTP_11,
                "http://shop.test:81/a",
                &[("host", "other.test")],
                "http://shop.test:81/a",
                "HTTP/1.1; absolute-form",
            ),
        ] {
            let mut it = request(version, uri, headers);
            it.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            assert!(upgrade(&mut it, fallback).is_some());
            assert_eq!((it.version(), it.uri().to_string().as_str()), (Version::HTTP_2, carried));
            assert_eq!(it.headers()[ORIG_PROTO], marker);
            assert!(!it.headers().contains_key(TRANSFER_ENCODING));

            assert!(downgrade(&mut it));
            assert_eq!((it.version(), it.uri().to_string().as_str()), (version, uri));
            let found: Vec<_> =
                it.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(found, headers);
        }
    }

    #[test]
    fn what_http2_cannot_say_stays_http1() {
        for (method, headers) in [
            (Method::CONNECT, &[][..]),
            (Method::GET, &[("upgrade", "websocket"), ("connection", "upgrade")]),
            (Method::PUT, &[("expect", "100-continue")]),
        ] {
            let mut it = request(Version::HTTP_11, "/", headers);
            *it.method_mut() = method;
            assert!(upgrade(&mut it, fallback).is_none());
            assert_eq!((it.version(), it.headers().len()), (Version::HTTP_11, headers.len()));
        }
        let mut it = request(Version::HTTP_10, "/", &[]);
        assert!(upgrade(&mut it, || None).is_none());
    }

    #[test]
    fn a_request_that_could_not_be_sent_is_what_it_was() {
        let mut it = request(Version::HTTP_10, "/a", &[("host", "shop.test")]);
        let original = upgrade(&mut it, fallback).unwrap();
        restore(&mut it, original);
        assert_eq!((it.version(), it.uri().to_string().as_str(), it.headers().len()), (Version::HTTP_10, "/a", 1));
    }

    #[test]
    fn responses_come_back_in_the_applications_version() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let mut response = Response::new(());
            *response.version_mut() = version;
            response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            upgrade_response(&mut response);
            assert_eq!((response.version(), response.headers().len()), (Version::HTTP_2, 1));
            downgrade_response(&mut response);
            assert_eq!((response.version(), response.headers().len()), (version, 0));
        }
    }

    #[test]
    fn http2_of_the_clients_own_is_left_alone() {
        let mut it = request(Version::HTTP_2, "http://shop.test/", &[]);
        assert!(!downgrade(&mut it));
        assert_eq!(it.version(), Version::HTTP_2);
        // Nobody becomes a tunnel that way.
        let mut it = request(Version::HTTP_2, "http://shop.test/", &[("l5d-orig-proto", "HTTP/1.1")]);
        *it.method_mut() = Method::CONNECT;
        assert!(!downgrade(&mut it));
    }
}
