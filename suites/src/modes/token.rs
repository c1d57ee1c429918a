//! A controller without the token that Kubernetes mounts, from which the proxy beside it may have to prove who it is.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::matrix::Dialect;
use meshgate_harness::metrics::Families;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

/// How long a pod may take to be ready, or to fail.
const SETTLES: Duration = Duration::from_secs(20);

const PROXY: &str = "linkerd-proxy";

/// The instance without a token.
const NAME: &str = "tokenless";

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "modes/token-mounted",
        summary: "Beside a controller without the token of its service account the proxy does not start, and says why",
        needs: &[Need::Mode(Mode::Ingress), Need::Dialect(Dialect::Documented), Need::OncePerController],
        claims: &[Evidence::Confirms("contour.token")],
        stage: Stage::Waiting,
        plan: |_| {},
        run: |context| Box::pin(mounted(context)),
    },
    Case {
        id: "modes/token-projected",
        summary: "A proxy has a token of its own: beside a controller without that of its service account it is certified all the same",
        needs: &[Need::Mode(Mode::Ingress), Need::Dialect(Dialect::Modern), Need::OncePerController],
        claims: &[Evidence::Refutes("contour.token")],
        stage: Stage::Waiting,
        plan: |_| {},
        run: |context| Box::pin(projected(context)),
    },
];

/// The Deployment of a further instance of the controller, and what it reads, whose pods have no such token, as Contour's Envoy has none by its own manifests. That of the cell,
/// which differs in that alone, is the control: no case runs before it is ready.
fn without_token(context: &Context) -> Result<Vec<Value>, Failure> {
    let mut objects = context.world.further_instance(NAME)?;
    objects.retain(|object| object["kind"] == "Deployment" || object["kind"] == "ConfigMap");
    for object in objects.iter_mut().filter(|object| object["kind"] == "Deployment") {
        object["spec"]["template"]["spec"]["automountServiceAccountToken"] = json!(false);
    }
    Ok(objects)
}

/// The pods of an instance.
async fn pods(context: &Context, instance: &str) -> anyhow::Result<Vec<Pod>> {
    let labels = format!("app.kubernetes.io/instance={instance}");
    context.world.kubernetes.pods(&context.world.controller.namespace, &labels).await
}

async fn mounted(context: Context) -> CaseResult {
    let objects = without_token(&context)?;
    context.apply_meanwhile(&objects).await?;
    let reason = converge(SETTLES, || async {
        let pods = pods(&context, NAME).await.unwrap_or_default();
        pods.iter().find_map(ended).ok_or_else(|| "it runs".to_owned())
    })
    .await
    .map_err(|seen| check("the proxy beside a controller without a token").failure("to have ended", seen));
    context.world.kubernetes.delete_all(&objects).await?;
    let reason = reason?;
    check("why the proxy ended").that(
        reason.contains("LINKERD2_PROXY_IDENTITY_TOKEN_FILE") && reason.contains("automountServiceAccountToken"),
        "that there is no token, and how there is one",
        &reason,
    )?;
    certified(&context, &context.world.controller.workload).await?;
    Ok(Outcome::Pass)
}

async fn projected(context: Context) -> CaseResult {
    let objects = without_token(&context)?;
    context.apply_meanwhile(&objects).await?;
    let judged = certified(&context, NAME).await;
    context.world.kubernetes.delete_all(&objects).await?;
    judged?;
    certified(&context, &context.world.controller.workload).await?;
    Ok(Outcome::Pass)
}

/// Waits until the proxy in a pod of an instance has a certificate.
async fn certified(context: &Context, instance: &str) -> Result<(), Failure> {
    converge(SETTLES, || async {
        let pods = pods(context, instance).await.map_err(|error| format!("{error:#}"))?;
        let addresses = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok());
        let mut seen = "no pod with an address".to_owned();
        for address in addresses {
            seen = match context.metrics_of(address, Families::Counts).await {
                Ok(metrics) if metrics.sum("control_identity_cert_refreshes_total", &[("result", "ok")]) >= 1.0 => {
                    return Ok(());
                }
                Ok(_) => format!("{address}: none was issued"),
                Err(_) => format!("{address}: its proxy does not answer"),
            };
        }
        Err(seen)
    })
    .await
    .map_err(|seen| {
        check(format!("the certificate of the proxy beside {instance}")).failure("one that was issued", seen)
    })
}

/// What the proxy of a pod said when it ended.
fn ended(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let proxy = statuses.iter().find(|status| status.name == PROXY)?;
    let message = |state: &Option<ContainerState>| state.as_ref()?.terminated.as_ref()?.message.clone();
    message(&proxy.state).or_else(|| message(&proxy.last_state))
}
