//! What the proxy counts, by the exact text of its series.

mod balancers;
mod connections;
mod errors;
mod inbound;
mod process;
mod routes;
mod tls;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::Mesh;

const WEB: &str = "web.ns.svc.cluster.local";

fn cluster_ip() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// The labels of a Service of the namespace `ns`, port 80.
fn service(prefix: &str, name: &str) -> String {
    format!(
        "{prefix}_group=\"core\",{prefix}_kind=\"Service\",{prefix}_namespace=\"ns\",{prefix}_name=\"{name}\",\
         {prefix}_port=\"80\",{prefix}_section_name=\"\""
    )
}

/// What the admin server said of everything.
struct Scrape(String);

impl Scrape {
    async fn of(mesh: &Mesh) -> Self {
        Self(mesh.metrics().await)
    }

    /// Once the series with this text has this value.
    async fn once(mesh: &Mesh, series: &str, value: f64) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let scrape = Self::of(mesh).await;
            if scrape.find(series) == Some(value) {
                return scrape;
            }
            assert!(Instant::now() < deadline, "{series} is {:?}, not {value}:\n{}", scrape.find(series), scrape.0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn find(&self, series: &str) -> Option<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().unwrap())
    }

    /// The value of the series with exactly this text.
    fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("there is no {series}:\n{}", self.0))
    }

    /// The bounds of a histogram, and that all of them lead up to `count`.
    fn bounds(&self, name: &str, labels: &str, count: f64) -> Vec<&str> {
        let start = format!("{name}_bucket{{{labels},le=\"");
        let buckets: Vec<_> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix(&start)?.split_once("\"} "))
            .map(|(bound, value)| (bound, value.parse::<f64>().unwrap()))
            .collect();
        assert!(buckets.is_sorted_by_key(|(_, value)| *value), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&("+Inf", count)), "{name}{{{labels}}}");
        assert_eq!(self.value(&format!("{name}_count{{{labels}}}")), count);
        buckets.into_iter().map(|(bound, _)| bound).collect()
    }

    /// All series of a family.
    fn series(&self, name: &str) -> Vec<&str> {
        self.0.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))).collect()
    }
}
