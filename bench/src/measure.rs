//! One visit to one subject: started, put under every load, looked at, and stopped.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::{
    authority::Authority,
    backend::Backend,
    load::{self, Latency, Shape, Sight, Throughput},
    process::Running,
    results::{OPEN_RATE, Row, SHAPES},
    services::{SCALES, Service},
    subject::{self, Subject},
    world::{Cores, World},
};

/// Over how many connections the open loop sends.
const OPEN_CONNECTIONS: usize = 32;
/// The load with ever more routes or endpoints.
const SCALED: Shape = Shape::Http1 { connections: 64 };
/// What the warm-up takes longer for each endpoint.
const CONNECT: Duration = Duration::from_millis(1);

/// How long each load lasts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    /// Before counting begins.
    pub warm: Duration,
    /// What is counted.
    pub measured: Duration,
    /// What is counted of the open loop, whose tail needs more.
    pub open: Duration,
}

impl Times {
    pub fn of(measured: Duration) -> Self {
        Self { warm: (measured / 4).max(Duration::from_millis(200)), measured, open: measured * 2 }
    }
}

/// What was found out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub subject: String,
    pub rows: Vec<(Row, Throughput)>,
    pub latency: Option<Latency>,
    /// Memory after one request.
    pub idle_kib: Option<u64>,
    /// Why there is not more.
    pub problem: Option<String>,
}

/// Everything that a visit takes place in.
pub(crate) struct Stage<'a> {
    pub world: &'a World,
    pub cores: Cores,
    pub authority: &'a Authority,
    pub backend: &'a Backend,
    pub folder: &'a Path,
    pub times: Times,
    /// The proxy before the backend, for those who speak TLS with it.
    pub inbound: &'a [std::path::PathBuf],
}

impl Stage<'_> {
    /// Visits a subject.
    pub async fn visit(&self, subject: &Subject) -> Visit {
        let mut visit = Visit { subject: subject.name.clone(), ..Visit::default() };
        if let Err(error) = self.try_visit(subject, &mut visit).await {
            visit.problem = Some(format!("{error:#}"));
        }
        visit
    }

    async fn try_visit(&self, subject: &Subject, visit: &mut Visit) -> anyhow::Result<()> {
        let folder = self.folder.join(&subject.name);
        subject::fresh(&folder)?;
        let mut running = subject.start(self.world, self.cores, self.authority, &[], &folder)?;
        let plain = subject.target(&Service::plain(false));
        let redirect = match &mut running {
            Some(running) => {
                let redirect = self.world.redirect_outbound(subject.http2_port())?;
                subject::until_it_serves(running, &plain).await?;
                Some(redirect)
            }
            None => None,
        };
        visit.idle_kib = running.as_ref().map(Running::resident_kib);
        for shape in SHAPES {
            let service = Service::plain(matches!(shape, Shape::Http2 { .. }));
            self.row(visit, Row::Plain(shape), subject, &service, shape, &mut running).await?;
        }
        let latency = load::open(&plain, OPEN_RATE, OPEN_CONNECTIONS, self.times.warm, self.times.open).await;
        visit.latency = Some(latency.context("the open loop's connections")?);
        if subject.scales() {
            for scale in SCALES {
                let service = Service::with_routes(scale);
                self.row(visit, Row::Routes(scale), subject, &service, SCALED, &mut running).await?;
            }
            self.endpoints(visit, subject, &mut running).await?;
            self.meshed(visit, subject, &mut running).await?;
        } else if subject.is_configured() {
            drop(running);
            let services = SCALES.map(Service::with_endpoints);
            let mut running = subject.start(self.world, self.cores, self.authority, &services, &folder)?;
            self.endpoints(visit, subject, &mut running).await?;
        }
        drop(redirect);
        Ok(())
    }

    /// The same load with ever more endpoints.
    async fn endpoints(
        &self,
        visit: &mut Visit,
        subject: &Subject,
        running: &mut Option<Running>,
    ) -> anyhow::Result<()> {
        for scale in SCALES {
            let service = Service::with_endpoints(scale);
            self.row(visit, Row::Endpoints(scale), subject, &service, SCALED, running).await?;
        }
        Ok(())
    }

    /// The same load to a backend with a proxy of its own, with and without TLS between the two.
    async fn meshed(&self, visit: &mut Visit, subject: &Subject, running: &mut Option<Running>) -> anyhow::Result<()> {
        let folder = self.folder.join("inbound");
        subject::fresh(&folder)?;
        let mut inbound = subject::inbound(self.inbound, self.world, self.cores, self.authority, &folder)?;
        let redirect = self.world.redirect_inbound()?;
        let shape = Shape::Http1 { connections: 64 };
        for http2 in [false, true] {
            for tls in [false, true] {
                let service = Service::meshed(tls, http2);
                let row = self.row(visit, Row::Meshed { tls, http2 }, subject, &service, shape, running).await;
                if let Some(end) = inbound.ended() {
                    bail!("the proxy before the backend: {end}");
                }
                row?;
            }
        }
        drop(redirect);
        Ok(())
    }

    async fn row(
        &self,
        visit: &mut Visit,
        row: Row,
        subject: &Subject,
        service: &Service,
        shape: Shape,
        running: &mut Option<Running>,
    ) -> anyhow::Result<()> {
        let Times { warm, measured, .. } = self.times;
        let target = subject.target(service);
        if let (Some(running), Shape::Http1 { .. }) = (&mut *running, shape) {
            // Discovery, and compiling a thousand routes, come before the load.
            subject::until_it_serves(running, &target).await?;
        }
        // Every endpoint gets its connections before they count.
        let warm = match row {
            Row::Endpoints(count) => warm + CONNECT * u32::try_from(count).unwrap_or(u32::MAX),
            _ => warm,
        };
        let look = || Sight {
            usage: running.as_ref().map(Running::usage),
            resident_kib: running.as_ref().map(Running::resident_kib),
            backend_connections: self.backend.connections(),
        };
        let throughput = load::closed(&target, shape, warm, measured, look).await;
        visit.rows.push((row, throughput));
        match running.as_mut().and_then(Running::ended) {
            Some(end) => bail!("during {row:?}: {end}"),
            None => Ok(()),
        }
    }
}
