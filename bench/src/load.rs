//! The load: closed loops that ask as fast as they are answered, and an open loop that asks when it is time to.

mod closed;
mod open;

pub(crate) use closed::{Shape, Sight, closed};
pub(crate) use open::open;

use std::{io, net::SocketAddr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{http1, services::Service};

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub address: SocketAddr,
    host: String,
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl Target {
    /// A Service, through whatever its address is redirected to.
    pub fn service(service: &Service) -> Self {
        Self { address: service.address(), host: service.host(), path: service.path(), headers: Vec::new() }
    }

    /// The Service's first endpoint, with nothing between.
    pub fn endpoint(service: &Service) -> Self {
        let address = service.endpoints().first().copied();
        Self { address: address.unwrap_or_else(|| service.address()), ..Self::service(service) }
    }

    /// Each request names the Service itself, as an ingress controller has it do.
    #[must_use]
    pub fn overriding(mut self) -> Self {
        self.headers.push(("l5d-dst-override", format!("{}:{}", self.host, crate::services::PORT)));
        self
    }

    /// The bytes of its HTTP/1.1 request.
    fn request(&self) -> Vec<u8> {
        http1::request(&self.host, &self.path, &self.headers)
    }

    /// One request, to see whether somebody is there.
    ///
    /// # Errors
    /// What was wrong.
    pub async fn ask(&self) -> io::Result<()> {
        let mut connection = http1::Connection::open(self.address).await?;
        match connection.exchange(&self.request()).await? {
            true => Ok(()),
            false => Err(io::Error::other("an answer that is not the backend's")),
        }
    }
}

/// What a closed loop came to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Throughput {
    /// Requests that were answered as they should be.
    pub requests: u64,
    /// Requests that were not, and connections that could not be made.
    pub errors: u64,
    /// How long it was measured.
    pub seconds: f64,
    /// What the proxy used meanwhile, if there was one.
    pub cpu_seconds: Option<f64>,
    /// The share of the time that the proxy or the load, whichever it hit more, could have run while something else did.
    #[serde(deserialize_with = "measured")]
    pub disturbed: f64,
    /// The proxy's memory at the end, with all connections open.
    pub resident_kib: Option<u64>,
    /// Connections that the backend accepted meanwhile.
    pub backend_connections: u64,
}

impl Throughput {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// CPU seconds per 100,000 requests.
    pub fn cpu_per_100k(&self) -> Option<f64> {
        self.cpu_seconds.filter(|_| self.requests > 0).map(|cpu| cpu * 100_000.0 / self.requests as f64)
    }
}

/// A number, or none: JSON has no word for what could not be measured, and gets `null` for it.
fn measured<'a, D: Deserializer<'a>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// What an open loop came to. Latencies are from when a request was due, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub requests: u64,
    pub errors: u64,
    #[serde(deserialize_with = "measured")]
    pub p50: f64,
    #[serde(deserialize_with = "measured")]
    pub p99: f64,
    #[serde(deserialize_with = "measured")]
    pub p999: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_measured_can_be_written_and_read() {
        let nothing = Latency { requests: 0, errors: 9, p50: f64::NAN, p99: f64::NAN, p999: f64::NAN };
        let read: Latency = serde_json::from_str(&serde_json::to_string(&nothing).unwrap()).unwrap();
        assert!(read.p50.is_nan() && read.p999.is_nan() && read.errors == 9);
    }
}
