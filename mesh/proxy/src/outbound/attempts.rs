//! A request that may be sent more than once.

use http::{HeaderMap, Method, Request, Uri, Version};

use crate::{
    http::{BoxedRequest, RequestBody},
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
pub(super) fn begin(mut request: BoxedRequest, limit: Option<usize>) -> (BoxedRequest, Option<Again>) {
    let Some(limit) = limit.filter(|_| is_repeatable(&request)) else { return (request, None) };
    let (body, again) = match std::mem::replace(request.body_mut(), RequestBody::Empty) {
        RequestBody::Passed(body) => match Recorder::new(body, limit) {
            // Nothing of the body has come yet that could be too long.
            Ok(recorder) => (recorder.replay().map_or(RequestBody::Empty, RequestBody::Replayed), Some(recorder)),
            Err(body) => (RequestBody::Passed(body), None),
        },
        // It waits to be asked for, or is sent again already.
        body => (body, None),
    };
    let again = again.map(|recorder| Again { head: Head::of(&request), recorder });
    *request.body_mut() = body;
    (request, again)
}

impl Again {
    /// The request for another attempt; `None` if its body turned out longer than what is kept.
    pub(super) fn request(&self) -> Option<BoxedRequest> {
        Some(self.head.with(RequestBody::Replayed(self.recorder.replay()?)))
    }
}

impl Head {
    fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
        }
    }

    fn with(&self, body: RequestBody) -> BoxedRequest {
        let mut request = Box::new(Request::new(body));
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
