//! Routes of the Gateway API whose parent is a Service: what Linkerd has in place of TrafficSplits since 2.14.
//!
//! The proxy beside the controller follows them for the Service that the request is for, as it does those of any other client.

use meshgate_apps::echo::grpc::SERVICE;
use meshgate_clusters::Feature;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{deadline, patient};
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::Request;
use meshgate_harness::statistics::Sequential;
use meshgate_harness::verdict::{CaseResult, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SETTLES, measure, sample, shares, until_seen};
use crate::routing::protocols::answering;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "traffic_split/http-route",
        summary: "An HTTPRoute of a Service splits its traffic 80/20, and sends what has the canary's header to the canary alone",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            shares::apex(plan);
            let [one, two] = ["one", "two"].map(|leg| plan.full(leg));
            let canary =
                json!({"matches": [{"headers": [{"name": CANARY, "value": "canary"}]}], "backendRefs": [leg(&two, 1)]});
            let rest = json!({"backendRefs": [leg(&one, 80), leg(&two, 20)]});
            plan.object(route(plan, "HTTPRoute", "apex", &json!([canary, rest])));
        },
        run: |context| Box::pin(http_route(context)),
    },
    Case {
        id: "traffic_split/grpc-route",
        summary: "A GRPCRoute of a Service sends the calls of one method to another Service, and only while it is there",
        needs: &[
            Need::Serves,
            Need::Split,
            Need::Template("grpc"),
            Need::DataPlane(Feature::Http2WithoutTls),
            Need::OncePerRecipe,
            Need::OncePerPromises,
        ],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("a", Backend::A).grpc();
            plan.service("b", Backend::B).grpc();
            plan.route("a", "a").template("grpc").unawaited();
            plan.object(by_method(plan));
        },
        run: |context| Box::pin(grpc_route(context)),
    },
];

/// What asks for the canary.
const CANARY: &str = "x-track";

fn leg(service: &str, weight: u32) -> Value {
    json!({"name": service, "port": 80, "weight": weight})
}

/// What the routes of the mesh are called; a controller's own may be of the same kind.
const MESH: &str = "mesh";

/// A route of a Service of the case.
fn route(plan: &Plan, kind: &str, service: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": plan.full(MESH), "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": plan.full(service), "port": 80}], "rules": rules},
    })
}

/// The calls of one method go to the Service `b`, all others stay at `a`.
fn by_method(plan: &Plan) -> Value {
    let [a, b] = ["a", "b"].map(|name| plan.full(name));
    let unary = json!({"matches": [{"method": {"service": SERVICE, "method": "Unary"}}], "backendRefs": [leg(&b, 1)]});
    route(plan, "GRPCRoute", "a", &json!([unary, {"backendRefs": [leg(&a, 1)]}]))
}

async fn http_route(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_seen(&context, &request, Backend::B).await?;
    let fifth = Sequential { p: 0.2, off: 0.1 };
    measure(&context, "under an HTTPRoute of 80/20", request.clone(), Backend::B, fifth).await?;
    sample(&context, "with the canary's header", request.clone().header(CANARY, "canary"), 100)
        .await?
        .only(Backend::B)?;
    // The control: another value is no match.
    measure(&context, "with another value of it", request.header(CANARY, "stable"), Backend::B, fifth).await?;
    Ok(Outcome::Pass)
}

async fn grpc_route(context: Context) -> CaseResult {
    let (kubernetes, route) = (&context.world.kubernetes, by_method(&context.plan));
    // A second look finds what the first one deleted.
    kubernetes.apply(&route).await?;
    answered(&context, "Unary", Backend::B, "with the GRPCRoute").await?;
    answered(&context, "ServerStream", Backend::A, "which the GRPCRoute leaves where it was").await?;
    kubernetes.delete(&route).await?;
    answered(&context, "Unary", Backend::A, "without the GRPCRoute").await
}

/// Waits until a backend answers the calls of a method, several times in a row.
async fn answered(context: &Context, method: &str, backend: Backend, when: &str) -> CaseResult {
    let deadline = deadline(SETTLES);
    let mut row = 0;
    while row < 5 {
        let request = Request { path: format!("/{SERVICE}/{method}"), ..context.get("a")? };
        // The cell has not waited for this route.
        let by = answering(context, &request).await.unwrap_or_else(|failure| failure.to_string());
        row = if by == backend.name() { row + 1 } else { 0 };
        check(format!("who answers {method}, {when}")).that(
            row > 0 || Instant::now() < deadline,
            format!("{} within {} s", backend.name(), patient(SETTLES).as_secs()),
            by,
        )?;
    }
    Ok(Outcome::Pass)
}
