//! Which source address arrives, and what that costs: `externalTrafficPolicy`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use meshgate_clusters::{Ability, Entrance, Vantage};
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

use super::answer;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "tls/traffic-policy-cluster",
        summary: "externalTrafficPolicy Cluster hides the client's address behind the node's, and delays nothing",
        needs: NEEDS,
        claims: &[Evidence::Refutes("notes.delay"), Evidence::Confirms("notes.source-obscured")],
        stage: Stage::Shared,
        plan: |plan| plain_backend(plan, "Cluster"),
        run: |context| Box::pin(policy(context, "Cluster", Vantage::Node)),
    },
    Case {
        id: "tls/traffic-policy-local",
        summary: "externalTrafficPolicy Local keeps the client's address, and is as fast as Cluster",
        needs: NEEDS,
        claims: &[Evidence::Confirms("notes.local-keeps-source")],
        stage: Stage::Shared,
        plan: |plan| plain_backend(plan, "Local"),
        run: |context| Box::pin(policy(context, "Local", CLIENT)),
    },
];

const NEEDS: &[Need] =
    &[Need::Cluster(Ability::OutsideClients), Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises];

/// The client that sends: one that has not connected to the addresses in question before.
const CLIENT: Vantage = Vantage::Outside(1);

/// Far from the two to three seconds that the page speaks of.
const PROMPT: Duration = Duration::from_millis(500);

/// How long a new load balancer may take to work.
const SETTLES: Duration = Duration::from_secs(10);

/// A backend without a proxy, before which the source address shows, behind a load balancer of its own. A meshed pod sees
/// its own proxy as the source whatever the policy.
fn plain_backend(plan: &mut Plan, policy: &str) {
    let name = plan.unmeshed_backend("plain");
    plan.object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }));
    plan.serve("main", Backend::B);
}

async fn policy(context: Context, policy: &str, source: Vantage) -> CaseResult {
    let plain = entrance(&context, NAMESPACE, &context.plan.full("plain")).await?;
    let request = Request::get(plain.at(80).to_string(), "/");
    let records = prompt_answers(&context, policy, &request).await?;
    for record in &records {
        let peer = peer(record)?;
        check(format!("the source address that a backend behind a load balancer with policy {policy} sees"))
            .equal(peer, context.world.cluster.address(source))?;
    }

    // The same before the meshed controller, by a Service like its own.
    let ingress = ingress_with(&context, policy).await?;
    context.apply_meanwhile(std::slice::from_ref(&ingress)).await?;
    let namespace = &context.world.controller.namespace;
    let local = entrance(&context, namespace, &context.plan.full("ingress")).await?;
    let request = context.world.request_to(context.route("main")?, &local);
    let judged = prompt_answers(&context, policy, &request).await;
    context.world.kubernetes.delete(&ingress).await?;
    judged?;
    Ok(Outcome::Pass)
}

/// Waits until a load balancer works, for one client, and has another one send on fresh connections. A delay that comes from the
/// source address would be in every one of them, one that comes from a busy machine only in some.
async fn prompt_answers(context: &Context, policy: &str, request: &Request) -> Result<Vec<Record>, Failure> {
    converge(SETTLES, || async {
        let record = context.send(request.clone()).await;
        if record.is(200) { Ok(()) } else { Err(outcome(&record)) }
    })
    .await
    .map_err(|seen| check(format!("a load balancer with policy {policy}")).failure("200", seen))?;
    let mut records = Vec::new();
    for _ in 0..5 {
        let record = context.send_from(CLIENT, request.clone()).await;
        check(format!("a request under policy {policy}")).that(record.is(200), "200", outcome(&record))?;
        records.push(record);
    }
    let took = Duration::from_micros(records.iter().map(|record| record.total_us).min().unwrap_or(u64::MAX));
    check(format!("the quickest of {} connections under policy {policy}", records.len())).that(
        took < PROMPT,
        format!("200 within {} ms", PROMPT.as_millis()),
        format!("after {} ms", took.as_millis()),
    )?;
    Ok(records)
}

/// Where a backend saw the connection come from.
fn peer(record: &Record) -> Result<Ipv4Addr, Failure> {
    let peer = answer(record)?.peer;
    let address: SocketAddrV4 = peer.parse().with_context(|| format!("the IPv4 peer of an echo backend: {peer:?}"))?;
    Ok(*address.ip())
}

/// A Service like the controller's own, with another name and this policy.
async fn ingress_with(context: &Context, policy: &str) -> Result<Value, Failure> {
    let controller = &context.world.controller;
    let api: Api<Service> = Api::namespaced(context.world.kubernetes.client(), &controller.namespace);
    let own = api.get(&controller.workload).await.context("the controller's Service")?;
    let spec = own.spec.context("the spec of the controller's Service")?;
    let ports: Vec<Value> = spec
        .ports
        .into_iter()
        .flatten()
        .map(|port| json!({"name": port.name, "port": port.port, "targetPort": port.target_port}))
        .collect();
    Ok(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": context.plan.full("ingress"), "namespace": controller.namespace},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": spec.selector, "ports": ports,
        },
    }))
}

async fn entrance(context: &Context, namespace: &str, service: &str) -> Result<Entrance, Failure> {
    Ok(context.world.entrance(namespace, service, deadline(SETTLES)).await?)
}
