//! The name that a gateway knows an endpoint's requests by, in place of the one that the application used.
//!
//! A Service of another cluster is reached through that cluster's gateway, to which its name here means nothing. As in Linkerd
//! (`linkerd/proxy/http/src/override_authority.rs`) `:authority` is replaced, and what else tells the old name goes. Different from
//! Linkerd a request of HTTP/1 has a `Host` then, the new one: without any it is none (RFC 9112, section 3.2).

use http::{
    HeaderValue, Request, Uri, Version,
    header::HOST,
    uri::{Authority, Scheme},
};

use super::CANONICAL;
use crate::NameAddr;

/// What an endpoint's requests and connections are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityOverride {
    authority: Authority,
    host: HeaderValue,
    name: Option<NameAddr>,
}

/// What a request said before.
pub(super) struct Original {
    uri: Option<Uri>,
    host: Option<HeaderValue>,
    canonical: Option<HeaderValue>,
}

impl AuthorityOverride {
    /// From the control plane's answer; `None` if it is no authority.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let authority = Authority::try_from(text).ok()?;
        let host = HeaderValue::from_str(text).ok()?;
        let name = authority.port_u16().and_then(|port| NameAddr::new(authority.host(), port));
        Some(Self { authority, host, name })
    }

    /// The name for a connection's header. As in Linkerd it takes a port to be one.
    pub(super) fn name(&self) -> Option<&NameAddr> {
        self.name.as_ref()
    }

    /// Has a request say it.
    pub(super) fn replace<B>(&self, request: &mut Request<B>) -> Box<Original> {
        let http2 = request.version() == Version::HTTP_2;
        let uri = request.uri().authority().and_then(|_| {
            let mut parts = request.uri().clone().into_parts();
            parts.authority = Some(self.authority.clone());
            if parts.path_and_query.is_some() {
                parts.scheme.get_or_insert(Scheme::HTTP);
            }
            Uri::from_parts(parts).ok()
        });
        let uri = uri.map(|uri| std::mem::replace(request.uri_mut(), uri));
        let headers = request.headers_mut();
        let host = if http2 { headers.remove(HOST) } else { headers.insert(HOST, self.host.clone()) };
        Box::new(Original { uri, host, canonical: headers.remove(CANONICAL) })
    }
}

impl Original {
    /// Makes it again what it was, since it could not be sent.
    pub(super) fn restore<B>(self, request: &mut Request<B>) {
        if let Some(uri) = self.uri {
            *request.uri_mut() = uri;
        }
        request.headers_mut().remove(HOST);
        for (name, value) in [(HOST, self.host), (CANONICAL, self.canonical)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const NAME: &str = "web.ns.svc.cluster.local:8080";

    #[test]
    fn a_request_says_the_new_name_and_nothing_of_the_old() {
        for (version, method, uri, host, expected) in [
            (Version::HTTP_11, Method::GET, "/a?b", Some("web-east"), "/a?b"),
            (Version::HTTP_10, Method::GET, "/", None, "/"),
            (Version::HTTP_11, Method::GET, "http://web-east/a", Some("web-east"), "http://NAME/a"),
            (Version::HTTP_11, Method::CONNECT, "web-east:80", Some("web-east:80"), "NAME"),
            (Version::HTTP_2, Method::GET, "https://web-east/a", None, "https://NAME/a"),
            (Version::HTTP_2, Method::GET, "http://web-east/a", Some("web-east"), "http://NAME/a"),
        ] {
            let request = || {
                let request = Request::builder().method(&method).version(version).uri(uri);
                let request = request.header(CANONICAL, "web-east.ns.svc.cluster.local:80");
                let request = host.into_iter().fold(request, |request, host| request.header(HOST, host));
                request.body(()).unwrap()
            };
            let mut it = request();
            let original = AuthorityOverride::parse(NAME).unwrap().replace(&mut it);
            assert_eq!(it.uri().to_string(), expected.replace("NAME", NAME), "{uri}");
            let host = it.headers().get(HOST).map(|host| host.to_str().unwrap());
            assert_eq!(host, (version != Version::HTTP_2).then_some(NAME), "{version:?} {uri}");
            assert!(!it.headers().contains_key(CANONICAL));
            original.restore(&mut it);
            assert_eq!((it.uri(), it.headers()), (request().uri(), request().headers()));
        }
    }

    #[test]
    fn a_name_for_connections_has_a_port() {
        let name = |text| AuthorityOverride::parse(text).unwrap().name().map(ToString::to_string);
        assert_eq!(name(NAME).as_deref(), Some(NAME));
        assert_eq!((name("web.ns"), name("10.0.0.1:80")), (None, None));
        assert_eq!(AuthorityOverride::parse("not a name"), None);
    }
}
