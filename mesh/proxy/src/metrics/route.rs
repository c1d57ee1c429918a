//! The families of connections that are passed on as they are, by the route that carries them: `outbound_tcp_route_*`, and
//! `outbound_tls_route_*` where the policy says that they are TLS.
//!
//! Labels and errors are those of Linkerd's proxy (`linkerd/app/outbound/src/metrics/transport.rs`, `opaq/logical/route.rs`,
//! `tls/logical/route.rs`).

use std::sync::{Arc, OnceLock};

use super::{Counter, Family, Labels, Registry};

/// What connections that are passed on are to the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOn {
    /// Any bytes, TLS among them.
    Bytes,
    /// TLS, whatever else may come.
    Tls,
}

/// `outbound_tcp_route_open_total` and `outbound_tcp_route_close_total`, or those of TLS.
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
    /// The route, or the backend that was chosen, says that it is none.
    InvalidBackend,
    /// The policy says nothing that could be followed.
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
    invalid_backend: Arc<Counter>,
    invalid_policy: Arc<Counter>,
    unexpected: Arc<Counter>,
}

/// One connection on a route; dropping it counts it as closed.
pub(crate) struct RoutedConnection<'a> {
    series: &'a Series,
    error: Option<TcpRouteError>,
}

impl TcpRouteFamilies {
    pub(super) fn new(registry: &Registry, what: PassedOn) -> Self {
        let [open, close] = match what {
            PassedOn::Bytes => ["outbound_tcp_route_open_total", "outbound_tcp_route_close_total"],
            PassedOn::Tls => ["outbound_tls_route_open_total", "outbound_tls_route_close_total"],
        };
        Self {
            open: registry.family(open, "Connections opened on a route."),
            close: registry.family(close, "Connections of a route closed, by error."),
        }
    }

    /// The route with these labels: those of its parent and its own, then `target_ip` and `target_port`, or `hostname` if it is one of TLS.
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
                invalid_backend: close("invalid_backend"),
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
            Some(TcpRouteError::InvalidBackend) => &self.series.invalid_backend,
            Some(TcpRouteError::InvalidPolicy) => &self.series.invalid_policy,
            Some(TcpRouteError::Unexpected) => &self.series.unexpected,
        };
        closed.increment();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(registry: &Registry) -> Vec<String> {
        let text = registry.render(|_, _| false);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn connections_are_counted_once_there_are_any_and_by_why_they_end() {
        let registry = Registry::new(Duration::MAX);
        let families = [PassedOn::Bytes, PassedOn::Tls].map(|what| TcpRouteFamilies::new(&registry, what));
        let [bytes, tls] = families.map(|families| families.route(Labels::new().with("route_name", "r")));
        assert_eq!(lines(&registry), Vec::<String>::new());
        bytes.opened().fail(TcpRouteError::InvalidBackend);
        drop(bytes.opened());
        let open = tls.opened();
        assert_eq!(
            lines(&registry),
            [
                "outbound_tcp_route_open_total{route_name=\"r\"} 2",
                "outbound_tcp_route_close_total{route_name=\"r\",error=\"\"} 1",
                "outbound_tcp_route_close_total{route_name=\"r\",error=\"forbidden\"} 0",
                "outbound_tcp_route_close_total{route_name=\"r\",error=\"invalid_backend\"} 1",
                "outbound_tcp_route_close_total{route_name=\"r\",error=\"invalid_policy\"} 0",
                "outbound_tcp_route_close_total{route_name=\"r\",error=\"unexpected\"} 0",
                "outbound_tls_route_open_total{route_name=\"r\"} 1",
                "outbound_tls_route_close_total{route_name=\"r\",error=\"\"} 0",
                "outbound_tls_route_close_total{route_name=\"r\",error=\"forbidden\"} 0",
                "outbound_tls_route_close_total{route_name=\"r\",error=\"invalid_backend\"} 0",
                "outbound_tls_route_close_total{route_name=\"r\",error=\"invalid_policy\"} 0",
                "outbound_tls_route_close_total{route_name=\"r\",error=\"unexpected\"} 0",
            ]
        );
        open.fail(TcpRouteError::Forbidden);
        let closed = "outbound_tls_route_close_total{route_name=\"r\",error=\"forbidden\"} 1";
        assert!(lines(&registry).iter().any(|line| line == closed));
    }
}
