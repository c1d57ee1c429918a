//! The families of connections that are passed on as they are, by the route that carries them: `outbound_tcp_route_*`.
//!
//! Labels and errors are those of Linkerd's proxy (`linkerd/app/outbound/src/metrics/transport.rs`, `opaq/logical/route.rs`). It has the
//! error `invalid_backend` besides, for backends that say that they are none, which are not told apart here.

use std::sync::{Arc, OnceLock};

use super::{Counter, Family, Labels, Registry};

/// `outbound_tcp_route_open_total` and `outbound_tcp_route_close_total`.
#[derive(Clone)]
pub(crate) struct TcpRouteFamilies {
    open: Family<Counter>,
    close: Family<Counter>,
}

/// Why a connection was not carried to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpRouteError {
    /// The route is there to refuse connections.
    Forbidden,
    /// The route says that it is none.
    InvalidPolicy,
    /// Nobody could be connected to, or the connection broke.
    Unexpected,
}

/// A route of connections.
pub(crate) struct TcpRoute {
    families: TcpRouteFamilies,
    labels: Labels,
    /// Made for the first connection: most routes are those of Services that speak HTTP, and carry none.
    series: OnceLock<Series>,
}

struct Series {
    open: Arc<Counter>,
    ended: Arc<Counter>,
    forbidden: Arc<Counter>,
    invalid_policy: Arc<Counter>,
    unexpected: Arc<Counter>,
}

/// One connection on a route; dropping it counts it as closed.
pub(crate) struct RoutedConnection<'a> {
    series: &'a Series,
    error: Option<TcpRouteError>,
}

impl TcpRouteFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: registry.family("outbound_tcp_route_open_total", "Connections opened on a route."),
            close: registry.family("outbound_tcp_route_close_total", "Connections of a route closed, by error."),
        }
    }

    /// The route with these labels, which are those of its parent, its own, and `target_ip` and `target_port`.
    pub(crate) fn route(&self, labels: Labels) -> TcpRoute {
        TcpRoute { families: self.clone(), labels, series: OnceLock::new() }
    }
}

impl TcpRoute {
    /// Counts a connection that the route is to carry.
    pub(crate) fn opened(&self) -> RoutedConnection<'_> {
        let series = self.series.get_or_init(|| {
            let close = |error| self.families.close.hold(&self.labels.clone().with("error", error));
            Series {
                open: self.families.open.hold(&self.labels),
                ended: close(""),
                forbidden: close("forbidden"),
                invalid_policy: close("invalid_policy"),
                unexpected: close("unexpected"),
            }
        });
        series.open.increment();
        RoutedConnection { series, error: None }
    }
}

impl RoutedConnection<'_> {
    /// The connection ends for this.
    pub(crate) fn fail(mut self, error: TcpRouteError) {
        self.error = Some(error);
    }
}

impl Drop for RoutedConnection<'_> {
    fn drop(&mut self) {
        let closed = match self.error {
            None => &self.series.ended,
            Some(TcpRouteError::Forbidden) => &self.series.forbidden,
            Some(TcpRouteError::InvalidPolicy) => &self.series.invalid_policy,
            Some(TcpRouteError::Unexpected) => &self.series.unexpected,
        };
        closed.increment();
    }
}
