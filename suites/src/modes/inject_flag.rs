//! The injector's flag `--ingress`, in place of the annotation.

use std::time::Duration;

use meshgate_clusters::Vantage;
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::{Dialect, Mesh};
use meshgate_harness::plan::NAMESPACE;
use meshgate_harness::probe::{Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

/// How long a pod may take to be ready.
const SETTLES: Duration = Duration::from_secs(20);

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "modes/inject-flag",
    summary: "inject --ingress gives a workload that says nothing of a mode the annotation, and its proxy runs in ingress mode",
    // It is the injector that is judged, which no dialect and no recipe changes.
    needs: &[
        Need::Mesh(Mesh::Bundled),
        Need::Mode(Mode::Ingress),
        Need::Dialect(Dialect::Modern),
        Need::OncePerController,
    ],
    claims: &[Evidence::Confirms("ingress.inject-flag")],
    stage: Stage::Waiting,
    // The control: the same pod, injected without the flag.
    plan: |plan| {
        plan.backend("pods", 1, &[]);
    },
    run: |context| Box::pin(flag(context)),
}];

async fn flag(context: Context) -> CaseResult {
    let app = context.plan.full("flagged");
    let mut deployment = context.plan.workloads.first().cloned().unwrap_or_default();
    deployment["metadata"]["name"] = json!(app);
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!(app);
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!(app);
    context.world.inject_with_flag(&mut deployment);
    context.apply_meanwhile(&[deployment]).await?;
    judge(&context, &app).await.map(|()| Outcome::Pass)
}

async fn judge(context: &Context, app: &str) -> Result<(), Failure> {
    let found = told(context, app).await?;
    check("the pod's annotation and its proxy's LINKERD2_PROXY_INGRESS_MODE, with the flag")
        .equal(found, ("ingress".to_owned(), Some("true".to_owned())))?;
    let found = told(context, &context.plan.full("pods")).await?;
    check("the control, both without the flag").equal(found, ("enabled".to_owned(), None))
}

/// What a pod's annotation and its running proxy say of the mode.
async fn told(context: &Context, app: &str) -> Result<(String, Option<String>), Failure> {
    converge(SETTLES, || async {
        let pods = context.world.kubernetes.pods(NAMESPACE, &format!("app={app}")).await;
        let pods = pods.map_err(|error| format!("{error:#}"))?;
        let [pod] = pods.as_slice() else { return Err(format!("{} pods", pods.len())) };
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).ok_or("a pod without address")?;
        let record = context.send_from(Vantage::Node, Request::get(format!("{address}:4191"), "/env.json")).await;
        let environment: Value = serde_json::from_str(&record.body).map_err(|_| outcome(&record))?;
        let mode = environment["LINKERD2_PROXY_INGRESS_MODE"].as_str().map(str::to_owned);
        Ok((annotations.get("linkerd.io/inject").cloned().unwrap_or_default(), mode))
    })
    .await
    .map_err(|seen| check(format!("what {app}'s proxy says of its environment")).failure("JSON", seen))
}
