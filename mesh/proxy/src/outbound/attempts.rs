//! A request that may be sent more than once.

use http::{HeaderMap, Method, Request, Uri, Version};

use crate::{
    http::{Incoming, RequestBody},
    retry::Recorder,
};

/// The request, to be sent again.
pub(super) struct Again {
    head: Head,
    recorder: Recorder,
}

struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

/// The request for the first attempt, and what further ones are made of. Nothing is if `limit`, the length of a body that is kept,
/// is `None`, or the body says that it is longer.
pub(super) fn begin(request: Request<Incoming>, limit: Option<usize>) -> (Request<RequestBody>, Option<Again>) {
    let Some(limit) = limit.filter(|_| is_repeatable(&request)) else { return (RequestBody::pass(request), None) };
    let (head, body) = request.into_parts();
    let head = Head { method: head.method, uri: head.uri, version: head.version, headers: head.headers };
    let recorder = match Recorder::new(body, limit) {
        Ok(recorder) => recorder,
        Err(body) => return (head.with(RequestBody::Passed(body)), None),
    };
    // Nothing of the body has come yet that could be too long.
    let first = recorder.replay().map_or(RequestBody::Empty, RequestBody::Replayed);
    (head.with(first), Some(Again { head, recorder }))
}

impl Again {
    /// The request for another attempt; `None` if its body turned out longer than what is kept.
    pub(super) fn request(&self) -> Option<Request<RequestBody>> {
        Some(self.head.with(RequestBody::Replayed(self.recorder.replay()?)))
    }
}

impl Head {
    fn with(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Whether a request may be sent twice: not if it is to become something else, or its body waits for the application.
fn is_repeatable<B>(request: &Request<B>) -> bool {
    use http::header::{EXPECT, UPGRADE};
    request.method() != Method::CONNECT
        && !request.headers().contains_key(EXPECT)
        && !request.headers().contains_key(UPGRADE)
}
