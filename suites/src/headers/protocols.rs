//! A client's own header on requests that controllers send on in another way than plain ones.

use meshgate_apps::echo::grpc::SERVICE;
use meshgate_clusters::{Feature, Vantage};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Request, describe, websocket};
use meshgate_harness::verdict::{CaseResult, check};

use super::{OVERRIDE, chosen, other, two_services};
use crate::routing::protocols::answering;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "headers/client-override-grpc",
        summary: "A client's l5d-dst-override does not choose the destination of a gRPC call",
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls)],
        claims: &[],
        stage: Stage::Shared,
        plan: speaking_grpc,
        run: |context| Box::pin(grpc(context)),
    },
    Case {
        id: "headers/client-override-websocket",
        summary: "Nor that of an upgrade to WebSocket",
        needs: &[Need::Serves],
        claims: &[],
        stage: Stage::Shared,
        plan: two_services,
        run: |context| Box::pin(web_socket(context)),
    },
];

/// As [`two_services`], both speaking gRPC.
fn speaking_grpc(plan: &mut Plan) {
    plan.service("main", Backend::A).grpc();
    plan.service("other", Backend::B).grpc();
    plan.route("main", "main").template("grpc");
}

async fn grpc(context: Context) -> CaseResult {
    let request = Request { path: format!("/{SERVICE}/Unary"), ..context.get("main")? };
    let request = request.header(OVERRIDE, other(&context));
    let service = answering(&context, &request).await?;
    chosen(&context, "a gRPC call with a client's header", &service).await
}

async fn web_socket(context: Context) -> CaseResult {
    let request = context.get("main")?.header(OVERRIDE, other(&context));
    let what = format!("the upgrade to WebSocket of {}", describe(&request));
    let failed = |error: &dyn std::fmt::Display| check(what.clone()).failure("101 of a backend", error.to_string());
    let outside = context.world.prober.from(Vantage::Outside(0));
    let socket = websocket::open(&request, &outside).await.map_err(|error| failed(&error))?;
    let service = socket.headers.iter().find(|(name, _)| name == "x-echo-service").map(|(_, value)| value.clone());
    socket.close().await.map_err(|error| failed(&error))?;
    chosen(&context, &what, &service.unwrap_or_default()).await
}
