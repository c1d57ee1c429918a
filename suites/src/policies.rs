//! Who may connect to a pod: Servers and what authorizes their clients, kept by the pods' proxies.

use anyhow::Context as _;
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

use crate::{
    counters::{Moved, Proxy, only_pod, settle},
    resilience::SETTLES,
};

/// The cases of this area.
pub const CASES: &[&[Case]] = &[&[
    Case {
        id: "policies/identities",
        summary: "A Server lets in the identities that are authorized and nobody else, from one request to the next when that changes",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            let app = serve_guarded(plan);
            let named = (plan.full("server"), plan.full("clients"));
            plan.object(policy(
                "v1beta3",
                "Server",
                &named.0,
                json!({
                    "podSelector": {"matchLabels": {"app": app}}, "port": "http", "proxyProtocol": "HTTP/1",
                }),
            ));
            plan.object(clients(&named.1, "*"));
            plan.object(policy(
                "v1alpha1",
                "AuthorizationPolicy",
                &named.1,
                json!({
                    "targetRef": {"group": GROUP, "kind": "Server", "name": named.0},
                    "requiredAuthenticationRefs": [{"group": GROUP, "kind": "MeshTLSAuthentication", "name": named.1}],
                }),
            ));
            plan.service("control", Backend::B);
        },
        run: |context| Box::pin(identities(context)),
    },
    Case {
        id: "policies/deny",
        summary: "A pod whose default policy is deny answers its probes and refuses everybody else, the controller too",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            serve_guarded(plan);
            plan.route("main", "main").unawaited();
            for workload in &mut plan.workloads {
                workload["spec"]["template"]["metadata"]["annotations"] = json!({DEFAULT_POLICY: "deny"});
            }
        },
        run: |context| Box::pin(deny(context)),
    },
]];

const GROUP: &str = "policy.linkerd.io";
const DEFAULT_POLICY: &str = "config.linkerd.io/default-inbound-policy";

/// The case's own pod behind the route `main`.
fn serve_guarded(plan: &mut Plan) -> String {
    let app = plan.backend("app", 1, &[]);
    plan.service_for("main", &app);
    plan.route("main", "main");
    app
}

fn policy(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

fn clients(name: &str, identity: &str) -> Value {
    policy("v1alpha1", "MeshTLSAuthentication", name, json!({"identities": [identity]}))
}

async fn identities(context: Context) -> CaseResult {
    const REQUESTS: usize = 4;
    let app = context.plan.full("app");
    let (guarded, open) = (only_pod(&context, &app).await?, only_pod(&context, Backend::B.name()).await?);
    let before = Proxy::Pod(guarded).read(&context).await?;
    for record in context.send_many(context.get("main")?, REQUESTS, 2).await {
        check("an answer through the controller, which has an identity").that(
            record.is(200) && record.service() == Some(&app),
            format!("200 of {app}"),
            outcome(&record),
        )?;
    }
    // Who comes without a proxy has no identity. The pod without a Server is the control.
    for (pod, status) in [(guarded, 403), (open, 200)] {
        let record = context.send_from(Vantage::Node, Request::get(format!("{pod}:8080"), "/")).await;
        check(format!("an answer of {pod} to a client without an identity")).equal(record.status, Some(status))?;
    }
    let server = context.plan.full("server");
    let at = [("srv_kind", "server"), ("srv_name", &*server)];
    let by = [("authz_kind", "authorizationpolicy"), ("authz_name", &*context.plan.full("clients")), ("tls", "true")];
    settle(
        &context,
        Proxy::Pod(guarded),
        &before,
        &[
            Moved::new("inbound_http_authz_allow_total", at, REQUESTS).and(by),
            Moved::new("inbound_http_authz_deny_total", at, 1).and([("tls", "no_identity")]),
        ],
    )
    .await?;

    // On connections that are open, from one request to the next.
    let set = |identity: &'static str| {
        let object = clients(&context.plan.full("clients"), identity);
        let kubernetes = &context.world.kubernetes;
        async move { kubernetes.apply(&object).await.map(drop).map_err(Failure::from) }
    };
    let request = context.get("main")?;
    set("somebody-else.workbench.serviceaccount.identity.linkerd.cluster.local").await?;
    context.until(SETTLES, "that the controller is refused", request.clone(), |record| record.is(403)).await?;
    set("*").await?;
    context.until(SETTLES, "that the controller is let in again", request, |record| record.is(200)).await?;
    Ok(Outcome::Pass)
}

async fn deny(context: Context) -> CaseResult {
    let app = context.plan.full("app");
    let pod = only_pod(&context, &app).await?;
    let pods = context.world.kubernetes.pods(NAMESPACE, &format!("app={app}")).await?;
    let status = pods.first().and_then(|pod| pod.status.as_ref()).context("a pod without a status")?;
    let ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    check("whether the pod is ready, by its probe").equal(ready, true)?;

    let direct = |path: &str| Request::get(format!("{pod}:8080"), path);
    for (path, status) in [("/healthz", 200), ("/", 403)] {
        let record = context.send_from(Vantage::Node, direct(path)).await;
        check(format!("an answer at {path} from the node")).equal(record.status, Some(status))?;
    }
    let record = context.send(context.get("main")?).await;
    check("an answer through the controller").that(record.is(403), "403", outcome(&record))?;
    let denied = Proxy::Pod(pod).count(&context, "inbound_http_authz_deny_total", &[("srv_name", "deny")]).await?;
    check("requests that the pod's proxy refused").that(denied >= 2.0, "at least 2", denied.to_string())?;
    Ok(Outcome::Pass)
}
