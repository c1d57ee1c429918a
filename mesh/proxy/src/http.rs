//! HTTP in and out: serving connections, sending requests, and what lies between the two.

mod authority;
mod body;
mod continuation;
mod error;
mod failed;
mod headers;
mod http1;
mod incoming;
mod limits;
pub(crate) mod orig_proto;
mod params;
mod pool;
mod server;
mod upgrade;

pub(crate) use authority::AuthorityOverride;
pub(crate) use body::{BoxedRequest, EndpointLoad, RequestBody, RequestBodyError, ResponseBody, StreamEnd};
pub(crate) use error::{Abort, ProxyError, Respond, UNSENT, broken_class, h2_error, stream_error};
pub(crate) use failed::Failed;
pub(crate) use headers::{check_head, remove_each, strip_hop_by_hop};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use http1::fuzzing::head as http1_head;
pub(crate) use incoming::{Broken, Incoming};
pub(crate) use limits::{AttemptLimits, Overdue, TimedAttempt};
pub(crate) use params::Http2Params;
pub(crate) use pool::{Pool, PoolSettings, SendError};
pub(crate) use server::{Last, Version, serve};
pub(crate) use upgrade::Upgrade;

use ::http::HeaderName;

/// Tells the proxy at the other end which Service a request is for.
pub(crate) const CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");

/// Says, from proxy to proxy, that the connection that a request came on is to end, as the one to its application has.
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("l5d-proxy-connection");

/// Requests and responses may have this much in their heads.
pub(crate) const MAX_HEAD: usize = 128 * 1024;
