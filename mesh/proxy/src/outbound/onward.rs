//! What has come to this proxy as a gateway, on its way out: a name in place of an address that an application dialled.

use std::{net::SocketAddr, sync::Arc};

use ::http::Response;
use tokio::time;

use super::{Outbound, Routing, destination::Destination};
use crate::{
    NameAddr, Target,
    http::{BoxedRequest, Failed, ResponseBody},
    io::Io,
};

/// The way to a Service, for as long as somebody holds it.
pub(crate) struct Onward {
    outbound: Arc<Outbound>,
    destination: Arc<Destination>,
}

impl Outbound {
    /// The way to `name`.
    pub(crate) fn onward(self: &Arc<Self>, name: &NameAddr) -> Onward {
        Onward { outbound: Arc::clone(self), destination: self.destination(&Target::Name(name.clone())) }
    }
}

impl Onward {
    /// Answers one request, whatever it says itself of where it goes.
    pub(crate) async fn request(&self, request: BoxedRequest) -> Result<Response<ResponseBody>, Failed> {
        self.outbound.respond(Routing::Connection(Arc::clone(&self.destination)), request).await
    }

    /// Passes bytes on. `original` is where they came to, under which is counted what goes wrong.
    pub(crate) async fn bytes(&self, io: Io, original: SocketAddr) {
        match time::timeout(self.outbound.discovery_timeout, self.destination.plan()).await {
            Ok(plan) => self.outbound.opaque(io, original, &plan).await,
            Err(_) => self.outbound.tcp_error(original, "unexpected"),
        }
    }
}
