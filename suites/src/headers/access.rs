//! Who may use the proxy beside the controller: nobody but its own pod.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::Backend;
use meshgate_harness::probe::{self, Batch, Request};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::other;

/// The proxy's ports.
const OUTBOUND: u16 = 4140;
const INBOUND: u16 = 4143;
const ADMIN: u16 = 4191;

/// A port that nothing listens on.
const NOBODYS: u16 = 4142;

/// Longer than any connection inside one machine takes, refused or not.
const PATIENCE: Duration = Duration::from_secs(2);

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "headers/outbound-port-closed",
        summary: "Nothing but the pod itself can use the outbound port of the controller's proxy",
        needs: &[Need::Proxy],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("other", Backend::B);
        },
        run: |context| Box::pin(outbound_port_closed(context)),
    },
    Case {
        id: "headers/inbound-port-relays-nothing",
        summary: "The inbound port, dialled directly, relays to no Service, whatever the headers say",
        needs: &[Need::Proxy],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("other", Backend::B);
        },
        run: |context| Box::pin(inbound_port_relays_nothing(context)),
    },
    Case {
        id: "headers/admin-not-public",
        summary: "The proxy's admin port is not reachable through the load balancer",
        needs: &[Need::Proxy],
        claims: &[],
        stage: Stage::Shared,
        plan: |_| {},
        run: |context| Box::pin(admin_not_public(context)),
    },
    Case {
        id: "headers/override-on-unknown-host",
        summary: "On a host that no route has, a client's override leads nowhere",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("known", Backend::A);
            plan.service("other", Backend::B);
        },
        run: |context| Box::pin(override_on_unknown_host(context)),
    },
];

/// As Linkerd's own relay test: a request with an override, sent to the outbound port at the pod's address. The pod redirects
/// it to the inbound side, which finds nobody listening there on the pod's address.
async fn outbound_port_closed(context: Context) -> CaseResult {
    let pod = context.world.controller_pod(&context.world.controller.workload).await?;
    let closed = SocketAddr::from((pod, OUTBOUND));
    let other = other(&context);
    let relay = Request { timeout_ms: 3000, ..Request::get(closed.to_string(), "/") }
        .host(other.clone())
        .header("l5d-dst-override", other.clone());
    // From the node, since a meshed pod's own proxy would act on the header before it gets there.
    let record = context.send_from(Vantage::Node, relay).await;
    check(format!("who answered on {closed}, asked from the node")).equal(record.service(), None)?;
    stays_closed(&context, 0, OUTBOUND).await?;
    answers(&context, other).await
}

async fn inbound_port_relays_nothing(context: Context) -> CaseResult {
    let pod = context.world.controller_pod(&context.world.controller.workload).await?;
    let other = other(&context);
    let request = Request::get(SocketAddr::from((pod, INBOUND)).to_string(), "/")
        .host(other.clone())
        .header("l5d-dst-override", other.clone());
    let record = context.send_from(Vantage::Node, Request { timeout_ms: 3000, ..request }).await;
    check("who answered on the inbound port").equal(record.service(), None)?;
    answers(&context, other).await
}

/// The control: the Service does answer where it is asked properly, through the asking pod's own outbound side.
async fn answers(context: &Context, service: String) -> CaseResult {
    let records = context.send_inside(Batch::of(vec![Request::get(service, "/")])).await?;
    let service = records.first().and_then(|record| record.service());
    check("the control, the Service itself").equal(service, Some(Backend::B.name()))?;
    Ok(Outcome::Pass)
}

async fn admin_not_public(context: Context) -> CaseResult {
    for client in [0, 1] {
        stays_closed(&context, client, ADMIN).await?;
    }
    // The control: the port exists, and answers where operators are.
    let metrics = context.controller_metrics().await?;
    check("the control, the admin port from the node").that(
        metrics.samples().next().is_some(),
        "metrics",
        "an empty document",
    )?;
    Ok(Outcome::Pass)
}

async fn override_on_unknown_host(context: Context) -> CaseResult {
    let known = context.get("known")?;
    let unknown = known.clone().host("unknown.headers.test").header("l5d-dst-override", other(&context));
    let record = context.send(unknown).await;
    check("who answered on an unknown host").that(
        record.service().is_none() && record.status.is_some(),
        "the controller's own answer",
        probe::outcome(&record),
    )?;
    // The control: the same request on a host that has a route is answered by a backend.
    context.expect_seen(known).await?;
    Ok(Outcome::Pass)
}

/// No connection from outside to this port of the controller's address can be opened. That one can says nothing where something on the way,
/// such as a transparent proxy, takes connections to any port.
async fn stays_closed(context: &Context, client: u8, port: u16) -> Result<(), Failure> {
    let [public, nobodys] = [port, NOBODYS].map(|port| context.world.ingress.at(port));
    let from = Vantage::Outside(client);
    if !opens(context, from, public).await {
        return Ok(());
    }
    if opens(context, from, nobodys).await {
        return Err(anyhow!(
            "{public} cannot be judged: a connection to {nobodys}, where nothing listens, opens from outside as well, so something on the \
             way takes connections to any port"
        )
        .into());
    }
    Err(check(format!("{public} from outside")).failure("closed", "open"))
}

/// Whether a connection can be opened.
async fn opens(context: &Context, from: Vantage, to: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PATIENCE, context.world.cluster.connect(from, to)).await, Ok(Ok(_)))
}
