//! Counters of a proxy: how far they moved while a case sent its requests.
//!
//! A response is counted at the end of its stream, a moment after the client has seen that end. So the counters are read until
//! they have moved as expected, several times in a row: too far is as wrong as too little. What they are compared with is read when
//! all that was sent before has been counted ([`ended`]), or a late one of those would be too far.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::anyhow;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::metrics::{Families, Metrics};
use meshgate_harness::plan::NAMESPACE;
use meshgate_harness::verdict::{Failure, check};
use tokio::time::Instant;

/// How long counters may take to tell of what has ended.
const SETTLES: Duration = Duration::from_secs(5);

/// The proxy that counts.
#[derive(Clone, Copy, Debug)]
pub enum Proxy {
    /// Beside the controller.
    Controller,
    /// In this pod.
    Pod(Ipv4Addr),
}

impl Proxy {
    /// The pod that it is in at present.
    async fn pod(self, context: &Context) -> Result<Ipv4Addr, Failure> {
        let world = &context.world;
        Ok(match self {
            Self::Controller => world.controller_pod(&world.controller.workload).await?,
            Self::Pod(pod) => pod,
        })
    }

    /// What it counts at present.
    pub async fn read(self, context: &Context) -> Result<Metrics, Failure> {
        context.metrics_of(self.pod(context).await?, Families::Counts).await
    }

    /// The sum of some series at present.
    pub async fn count(self, context: &Context, series: &'static str, labels: &[(&str, &str)]) -> Result<f64, Failure> {
        let families = Families::Of([series].into());
        Ok(context.metrics_of(self.pod(context).await?, families).await?.sum(series, labels))
    }

    /// The same as [`Proxy::read`], and how long everything took.
    pub async fn read_all(self, context: &Context) -> Result<Metrics, Failure> {
        context.metrics_of(self.pod(context).await?, Families::All).await
    }
}

/// Series, by name and labels, and by how much their sum has to move.
#[derive(Clone, Debug)]
pub struct Moved {
    name: &'static str,
    labels: Vec<(&'static str, String)>,
    by: f64,
}

impl Moved {
    /// The label value `""` stands for a label that is absent.
    pub fn new<L: Into<String>>(
        name: &'static str,
        labels: impl IntoIterator<Item = (&'static str, L)>,
        by: usize,
    ) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { name, labels, by: by as f64 }
    }

    /// With these labels too.
    pub fn and<L: Into<String>>(mut self, labels: impl IntoIterator<Item = (&'static str, L)>) -> Self {
        self.labels.extend(labels.into_iter().map(|(key, value)| (key, value.into())));
        self
    }

    fn sum(&self, metrics: &Metrics) -> f64 {
        let labels: Vec<(&str, &str)> = self.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        metrics.sum(self.name, &labels)
    }

    /// `series +3, not +4`.
    fn describe(&self, by: f64) -> String {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        format!("{}{{{}}} +{by}, not +{}", self.name, labels.join(","), self.by)
    }
}

/// Waits until all series have moved exactly as expected since `before`, and returns the metrics that say so, of those names only.
pub async fn settle(context: &Context, proxy: Proxy, before: &Metrics, expected: &[Moved]) -> Result<Metrics, Failure> {
    let wrong = |now: &Metrics| {
        let moved = expected.iter().map(|series| (series, series.sum(now) - series.sum(before)));
        moved.filter(|(series, by)| series.by != *by).map(|(series, by)| series.describe(by)).collect::<Vec<_>>()
    };
    // Once for all looks.
    let pod = proxy.pod(context).await?;
    let families = Families::Of(expected.iter().map(|series| series.name).collect());
    let result = converge(SETTLES, || async {
        let now = context.metrics_of(pod, families.clone()).await.map_err(|failure| failure.to_string())?;
        let wrong = wrong(&now);
        if wrong.is_empty() { Ok(now) } else { Err(wrong.join("; ")) }
    })
    .await;
    result.map_err(|seen| {
        let whose = match proxy {
            Proxy::Controller => "beside the controller".to_owned(),
            Proxy::Pod(address) => format!("in the pod {address}"),
        };
        check(format!("how far the counters of the proxy {whose} moved"))
            .failure("as far as the case's requests make them", seen)
    })
}

/// The series that count requests when they are sent or arrive, and responses when they end: of endpoints, and of routes of profiles.
pub const ENDPOINTS: [&str; 2] = ["request_total", "response_total"];
pub const ROUTES: [&str; 2] = ["route_request_total", "route_response_total"];

/// Waits until a proxy has counted a response to each request with these labels: nothing is added any more to what it says of them, as long as
/// nothing is sent. A request that was given up has no response, so they are not waited for any longer than counters may take.
pub async fn ended(
    context: &Context,
    proxy: Proxy,
    series: [&'static str; 2],
    labels: &[(&str, &str)],
) -> Result<(), Failure> {
    let pod = proxy.pod(context).await?;
    let (families, deadline) = (Families::Of(series.into()), deadline(SETTLES));
    loop {
        let now = context.metrics_of(pod, families.clone()).await?;
        if under_way(&now, series, labels) == 0.0 || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many requests have no response yet.
fn under_way(metrics: &Metrics, [requests, responses]: [&str; 2], labels: &[(&str, &str)]) -> f64 {
    metrics.sum(requests, labels) - metrics.sum(responses, labels)
}

/// The whole name of a Service of the case: `service.workbench.svc.cluster.local`.
pub fn fqdn(context: &Context, service: &str) -> String {
    format!("{}.{NAMESPACE}.svc.cluster.local", context.plan.full(service))
}

/// The ClusterIP of a Service of the case.
pub async fn cluster_ip(context: &Context, service: &str) -> Result<Ipv4Addr, Failure> {
    let name = context.plan.full(service);
    let api: Api<Service> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let object = api.get(&name).await.map_err(anyhow::Error::from)?;
    let address = object.spec.and_then(|spec| spec.cluster_ip).and_then(|address| address.parse().ok());
    Ok(address.ok_or_else(|| anyhow!("Service {name} has no ClusterIP"))?)
}

/// The address of the only pod with an `app` label.
pub async fn only_pod(context: &Context, app: &str) -> Result<Ipv4Addr, Failure> {
    let pods = context.pods_of(app).await?;
    match pods.as_slice() {
        [(_, address)] => Ok(*address),
        _ => Err(anyhow!("expected one pod of {app}, found {pods:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_response_is_under_way() {
        let text = r#"
            request_total{direction="outbound",dst_service="one"} 3
            request_total{direction="outbound",dst_service="two"} 2
            response_total{direction="outbound",dst_service="one",status_code="200"} 2
            response_total{direction="outbound",dst_service="two",status_code="200"} 1
            response_total{direction="outbound",dst_service="two",status_code="",error="timeout"} 1
        "#;
        let metrics = Metrics::parse(text).unwrap();
        let of = |service| under_way(&metrics, ENDPOINTS, &[("direction", "outbound"), ("dst_service", service)]);
        assert_eq!(of("one"), 1.0);
        assert_eq!(of("two"), 0.0, "one that failed has ended as well");
        assert_eq!(of("never-asked"), 0.0);
    }
}
