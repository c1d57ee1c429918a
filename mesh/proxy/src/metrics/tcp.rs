//! The families of connections: `tcp_*`, and what their first bytes looked like.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use super::{Counter, Family, Gauge, Histogram, Keyed, Labels, Registry, Shape};

/// `tcp_open_total`, `tcp_open_connections`, `tcp_read_bytes_total`, `tcp_write_bytes_total`, `tcp_close_total` and
/// `outbound_tcp_transfer_cost_bytes_total`.
#[derive(Clone)]
pub(crate) struct TcpFamilies {
    open_total: Family<Counter>,
    open: Family<Gauge>,
    read: Family<Counter>,
    written: Family<Counter>,
    close: Family<Counter>,
    cost: Family<Counter>,
}

/// Where an endpoint is, as the control plane says (`zone_locality`, Linkerd's `endpoint_translator.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZoneLocality {
    Unknown,
    /// In this proxy's own zone.
    Local,
    /// In another, which bytes may cost something to get to.
    Remote,
}

impl ZoneLocality {
    /// By what the control plane says about an endpoint.
    pub(crate) fn of(metric_labels: &BTreeMap<String, String>) -> Self {
        match metric_labels.get("zone_locality").map(String::as_str) {
            Some("local") => Self::Local,
            Some("remote") => Self::Remote,
            _ => Self::Unknown,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Local => "Local",
            Self::Remote => "Remote",
        }
    }
}

/// `*_tcp_detect_http_results_total` and `*_tcp_detect_http_duration_seconds`.
#[derive(Clone)]
pub(crate) struct DetectFamilies {
    results: Family<Counter>,
    durations: Family<Histogram>,
}

impl DetectFamilies {
    pub(super) fn new(registry: &Registry, [results, durations]: [&'static str; 2]) -> Self {
        Self {
            results: registry.family(results, "What first bytes looked like."),
            durations: registry.shaped(durations, "How long it took until that was clear.", &Shape::DETECT),
        }
    }

    /// Counts a connection of which this has come out after so long. Another one's labels may be the same.
    pub(crate) fn count(&self, result: &str, took: Duration, labels: &Labels) {
        self.results.hold(&Labels::new().with("result", result).followed_by(labels)).increment();
        self.durations.hold(labels).took(took);
    }
}

/// The series of one kind of connection.
pub(crate) struct TcpScope {
    labels: Labels,
    open_total: Arc<Counter>,
    open: Arc<Gauge>,
    read: Arc<Counter>,
    written: Arc<Counter>,
    close: Family<Counter>,
    closed: Keyed<&'static str, Counter>,
    /// Those of the endpoint's zone, if it is one that may be elsewhere.
    cost: Option<Cost>,
}

struct Cost {
    received: Arc<Counter>,
    sent: Arc<Counter>,
}

/// One open connection; dropping it counts it as closed.
pub(crate) struct TcpConnection {
    scope: Arc<TcpScope>,
    errno: &'static str,
}

impl TcpFamilies {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.family(name, help);
        Self {
            open_total: counter("tcp_open_total", "Connections opened."),
            open: registry.family("tcp_open_connections", "Connections that are open."),
            read: counter("tcp_read_bytes_total", "Bytes read from peers."),
            written: counter("tcp_write_bytes_total", "Bytes written to peers."),
            close: counter("tcp_close_total", "Connections closed."),
            cost: counter(
                "outbound_tcp_transfer_cost_bytes_total",
                "Bytes that went to endpoints and came from them, by where these are.",
            ),
        }
    }

    /// The series with these labels.
    pub(crate) fn scope(&self, labels: Labels) -> Arc<TcpScope> {
        self.make(labels, None)
    }

    /// Those of an endpoint that is not in this pod.
    pub(crate) fn endpoint(&self, labels: Labels, locality: ZoneLocality) -> Arc<TcpScope> {
        let cost = |op| self.cost.hold(&Labels::new().with("op", op).with("zone_locality", locality.label()));
        self.make(labels, Some(Cost { received: cost("Recv"), sent: cost("Send") }))
    }

    fn make(&self, labels: Labels, cost: Option<Cost>) -> Arc<TcpScope> {
        Arc::new(TcpScope {
            cost,
            open_total: self.open_total.hold(&labels),
            open: self.open.hold(&labels),
            read: self.read.hold(&labels),
            written: self.written.hold(&labels),
            close: self.close.clone(),
            closed: Keyed::default(),
            labels,
        })
    }
}

impl TcpScope {
    /// Counts a connection that has just opened.
    pub(crate) fn opened(self: &Arc<Self>) -> TcpConnection {
        self.open_total.increment();
        self.open.add(1);
        TcpConnection { scope: Arc::clone(self), errno: "" }
    }
}

impl TcpConnection {
    pub(crate) fn read(&self, bytes: usize) {
        self.scope.read.add(bytes as u64);
        if let Some(cost) = &self.scope.cost {
            cost.received.add(bytes as u64);
        }
    }

    pub(crate) fn written(&self, bytes: usize) {
        self.scope.written.add(bytes as u64);
        if let Some(cost) = &self.scope.cost {
            cost.sent.add(bytes as u64);
        }
    }

    /// Remembers the first error, for the label `errno`.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        if self.errno.is_empty() {
            self.errno = errno(error);
        }
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        let Self { scope, errno } = self;
        scope.open.add(-1);
        let labels = || scope.labels.clone().with("errno", errno);
        scope.closed.get_or_make(errno, || scope.close.hold(&labels())).increment();
    }
}

fn errno(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "ECONNRESET",
        io::ErrorKind::ConnectionAborted => "ECONNABORTED",
        io::ErrorKind::ConnectionRefused => "ECONNREFUSED",
        io::ErrorKind::BrokenPipe => "EPIPE",
        io::ErrorKind::NotConnected => "ENOTCONN",
        io::ErrorKind::TimedOut => "ETIMEDOUT",
        io::ErrorKind::HostUnreachable => "EHOSTUNREACH",
        io::ErrorKind::NetworkUnreachable => "ENETUNREACH",
        _ => "EIO",
    }
}
