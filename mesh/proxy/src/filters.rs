//! What a route does to its requests and responses besides routing them: changes of headers, redirects, failures on purpose.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use linkerd2_proxy_api::{grpc_route, http_route as api, http_types};
use rand::Rng;
use tonic::Code;

use crate::http::ProxyError;

/// Filters in the order in which they apply.
#[derive(Default)]
pub(crate) struct Filters {
    request: Vec<RequestFilter>,
    response: Vec<HeaderChange>,
}

enum RequestFilter {
    Headers(HeaderChange),
    Redirect(Redirect),
    Fail(Failure, api::Ratio),
}

/// What a client is told instead of an answer.
struct Failure {
    with: FailWith,
    message: String,
}

#[derive(Clone, Copy)]
enum FailWith {
    Status(StatusCode),
    Code(Code),
}

struct HeaderChange {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

struct Redirect {
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<NewPath>,
    status: StatusCode,
}

enum NewPath {
    Full(String),
    Prefix(String),
}

impl Filters {
    pub(crate) fn change_request(&mut self, change: &api::RequestHeaderModifier) {
        self.request.push(RequestFilter::Headers(HeaderChange::of(&change.set, &change.add, &change.remove)));
    }

    pub(crate) fn change_response(&mut self, change: &api::ResponseHeaderModifier) {
        self.response.push(HeaderChange::of(&change.set, &change.add, &change.remove));
    }

    pub(crate) fn redirect(&mut self, to: &api::RequestRedirect) {
        self.request.push(RequestFilter::Redirect(Redirect::of(to)));
    }

    /// Fails a share of the requests with an HTTP status; without a ratio all.
    pub(crate) fn fail(&mut self, fail: &api::HttpFailureInjector) {
        let status = u16::try_from(fail.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        self.fail_with(
            FailWith::Status(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)),
            &fail.message,
            fail.ratio,
        );
    }

    /// The same with a gRPC code. What is none, such as the 500 of Linkerd's policy controller, is UNKNOWN.
    pub(crate) fn fail_grpc(&mut self, fail: &grpc_route::GrpcFailureInjector) {
        let code = i32::try_from(fail.code).map_or(Code::Unknown, Code::from_i32);
        self.fail_with(FailWith::Code(code), &fail.message, fail.ratio);
    }

    fn fail_with(&mut self, with: FailWith, message: &str, ratio: Option<api::Ratio>) {
        let failure = Failure { with, message: message.to_owned() };
        self.request.push(RequestFilter::Fail(failure, ratio.unwrap_or(api::Ratio { numerator: 1, denominator: 1 })));
    }

    /// `prefix` is that of the path by which the route was chosen.
    ///
    /// # Errors
    /// What the client is told instead of the application's answer.
    pub(crate) fn on_request<T>(&self, request: &mut Request<T>, prefix: Option<&str>) -> Result<(), ProxyError> {
        for filter in &self.request {
            match filter {
                RequestFilter::Headers(change) => change.apply(request.headers_mut()),
                RequestFilter::Redirect(redirect) => return Err(redirect.answer(request, prefix)),
                RequestFilter::Fail(Failure { with, message }, ratio) => {
                    if rand::rng().random_range(0..ratio.denominator.max(1)) < ratio.numerator {
                        let message = message.clone();
                        return Err(match *with {
                            FailWith::Status(status) => ProxyError::Injected { status, message },
                            FailWith::Code(code) => ProxyError::InjectedGrpc { code, message },
                        });
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn on_response(&self, headers: &mut HeaderMap) {
        self.response.iter().for_each(|change| change.apply(headers));
    }
}

impl HeaderChange {
    fn of(set: &Option<http_types::Headers>, add: &Option<http_types::Headers>, remove: &[String]) -> Self {
        let list = |headers: &Option<http_types::Headers>| {
            let headers = headers.as_ref().map(|headers| &headers.headers[..]).unwrap_or_default();
            let parse = |header: &http_types::headers::Header| {
                Some((header.name.parse().ok()?, HeaderValue::from_bytes(&header.value).ok()?))
            };
            headers.iter().filter_map(parse).collect()
        };
        let remove = remove.iter().filter_map(|name| name.parse().ok()).collect();
        Self { set: list(set), add: list(add), remove }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

impl Redirect {
    fn of(to: &api::RequestRedirect) -> Self {
        use api::path_modifier::Replace;
        let path = to.path.as_ref().and_then(|path| path.replace.as_ref()).map(|replace| match replace {
            Replace::Full(full) => NewPath::Full(full.clone()),
            Replace::Prefix(prefix) => NewPath::Prefix(prefix.clone()),
        });
        Self {
            scheme: to.scheme.clone().and_then(|scheme| Scheme::try_from(scheme).ok()),
            host: Some(to.host.clone()).filter(|host| !host.is_empty()),
            port: u16::try_from(to.port).ok().filter(|port| *port != 0),
            path,
            status: u16::try_from(to.status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .filter(StatusCode::is_redirection)
                .unwrap_or(StatusCode::FOUND),
        }
    }

    /// Where the request is sent: what the redirect does not say is the request's own. As the Gateway API says, a port
    /// follows the scheme unless it is named.
    fn answer<T>(&self, request: &Request<T>, prefix: Option<&str>) -> ProxyError {
        let own = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let Some(own) = request.uri().authority().cloned().or(own) else {
            return ProxyError::Malformed("a redirect needs the host of the request");
        };
        let scheme = self.scheme.clone().or(request.uri().scheme().cloned()).unwrap_or(Scheme::HTTP);
        let port = self.port.or(own.port_u16().filter(|_| self.scheme.is_none()));
        let host = self.host.as_deref().unwrap_or(own.host());
        let default = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let authority = match port.filter(|port| *port != default) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let location =
            Uri::builder().scheme(scheme).authority(authority).path_and_query(self.path(request.uri(), prefix));
        match location.build().ok().and_then(|location| HeaderValue::try_from(location.to_string()).ok()) {
            Some(location) => ProxyError::Redirected { status: self.status, location },
            None => ProxyError::Malformed("its redirect is not a URI"),
        }
    }

    fn path(&self, own: &Uri, prefix: Option<&str>) -> String {
        let new = match &self.path {
            None => return own.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
            Some(NewPath::Full(full)) => full.clone(),
            Some(NewPath::Prefix(new)) => {
                let rest = prefix.and_then(|prefix| own.path().strip_prefix(prefix)).unwrap_or_default();
                format!("{}/{}", new.trim_end_matches('/'), rest.trim_start_matches('/'))
            }
        };
        let new = if new.starts_with('/') { new } else { format!("/{new}") };
        match own.query() {
            Some(query) => format!("{new}?{query}"),
            None => new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        use api::path_modifier::Replace;
        let to = |scheme: Option<&str>, host: &str, port, replace: Option<Replace>| api::RequestRedirect {
            scheme: scheme.map(http_types::Scheme::from),
            host: host.to_owned(),
            port,
            path: replace.map(|replace| api::PathModifier { replace: Some(replace) }),
            status: 301,
        };
        let prefix = |path: &str| Some(Replace::Prefix(path.to_owned()));
        for (redirect, expected) in [
            (to(None, "", 0, None), "http://web.example:8080/a/b?c=d"),
            (to(Some("https"), "", 0, None), "https://web.example/a/b?c=d"),
            (to(Some("https"), "", 443, None), "https://web.example/a/b?c=d"),
            (to(None, "other.example", 81, None), "http://other.example:81/a/b?c=d"),
            (to(None, "", 0, Some(Replace::Full("/x".to_owned()))), "http://web.example:8080/x?c=d"),
            (to(None, "", 0, prefix("/x")), "http://web.example:8080/x/b?c=d"),
            (to(None, "", 0, prefix("/")), "http://web.example:8080/b?c=d"),
        ] {
            let mut filters = Filters::default();
            filters.redirect(&redirect);
            let mut request = Request::get("/a/b?c=d").header(HOST, "web.example:8080").body(()).unwrap();
            let ProxyError::Redirected { status, location } = filters.on_request(&mut request, Some("/a")).unwrap_err()
            else {
                panic!("{redirect:?}")
            };
            assert_eq!((status, location.to_str().unwrap()), (StatusCode::MOVED_PERMANENTLY, expected));
        }
    }
}
