//! Pods without the token that Kubernetes mounts, from which a proxy may have to prove who it is.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::metrics::Families;
use meshgate_harness::plan::{NAMESPACE, Plan};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

/// How long a pod may take to be ready, or to fail.
const SETTLES: Duration = Duration::from_secs(20);

const PROXY: &str = "linkerd-proxy";

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "modes/token-mounted",
        summary: "Without the token of its service account a pod's proxy does not start, and says why",
        needs: &[Need::Mode(Mode::Ingress), Need::Dialect(Dialect::Documented), Need::OncePerController],
        claims: &[Evidence::Confirms("contour.token")],
        stage: Stage::Waiting,
        plan: control,
        run: |context| Box::pin(mounted(context)),
    },
    Case {
        id: "modes/token-projected",
        summary: "A proxy has a token of its own: a pod without that of its service account is certified all the same",
        needs: &[Need::Mode(Mode::Ingress), Need::Dialect(Dialect::Modern), Need::OncePerController],
        claims: &[Evidence::Refutes("contour.token")],
        stage: Stage::Waiting,
        plan: control,
        run: |context| Box::pin(projected(context)),
    },
];

/// The control: the same pod with the token that Kubernetes mounts. No case runs before it is ready.
fn control(plan: &mut Plan) {
    plan.backend("pods", 1, &[]);
}

/// The Deployment of a pod without that token, and the label `app` of its pods.
fn without_token(context: &Context) -> (Value, String) {
    let name = context.plan.full("tokenless");
    let mut deployment = context.plan.workloads.first().cloned().unwrap_or_default();
    deployment["metadata"]["name"] = json!(name);
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!(name);
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!(name);
    deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] = json!(false);
    context.world.inject_app(&mut deployment);
    (deployment, name)
}

async fn mounted(context: Context) -> CaseResult {
    let (deployment, app) = without_token(&context);
    context.world.kubernetes.apply(&deployment).await?;
    let reason = converge(SETTLES, || async {
        let pods = context.world.kubernetes.pods(NAMESPACE, &format!("app={app}")).await.unwrap_or_default();
        pods.iter().find_map(ended).ok_or_else(|| "it runs".to_owned())
    })
    .await
    .map_err(|seen| check("the proxy of a pod without a token").failure("to have ended", seen))?;
    check("why the proxy ended").that(
        reason.contains("LINKERD2_PROXY_IDENTITY_TOKEN_FILE") && reason.contains("automountServiceAccountToken"),
        "that there is no token, and how there is one",
        &reason,
    )?;
    certified(&context, &context.plan.full("pods")).await?;
    context.world.kubernetes.delete(&deployment).await?;
    Ok(Outcome::Pass)
}

async fn projected(context: Context) -> CaseResult {
    let (deployment, app) = without_token(&context);
    context.world.kubernetes.apply(&deployment).await?;
    for app in [app, context.plan.full("pods")] {
        certified(&context, &app).await?;
    }
    context.world.kubernetes.delete(&deployment).await?;
    Ok(Outcome::Pass)
}

/// Waits until the one pod's proxy has a certificate.
async fn certified(context: &Context, app: &str) -> Result<(), Failure> {
    converge(SETTLES, || async {
        let pods = context.pods_of(app).await.map_err(|error| format!("{error:?}"))?;
        let [(name, address)] = pods.as_slice() else { return Err(format!("{} pods with addresses", pods.len())) };
        let metrics = context.metrics_of(*address, Families::Counts).await;
        let metrics = metrics.map_err(|_| format!("{name}: its proxy does not answer"))?;
        match metrics.sum("control_identity_cert_refreshes_total", &[("result", "ok")]) {
            issued if issued >= 1.0 => Ok(()),
            _ => Err(format!("{name}: none was issued")),
        }
    })
    .await
    .map_err(|seen| check(format!("the certificate of {app}'s proxy")).failure("one that was issued", seen))
}

/// What the proxy of a pod said when it ended.
fn ended(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let proxy = statuses.iter().find(|status| status.name == PROXY)?;
    let message = |state: &Option<ContainerState>| state.as_ref()?.terminated.as_ref()?.message.clone();
    message(&proxy.state).or_else(|| message(&proxy.last_state))
}
