//! TLS between proxies: each knows who the other is, and so do the application and whoever counts.

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Pod;
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE};
use meshgate_harness::probe::{Batch, Request, Seen, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::json;

use crate::counters::{Moved, Proxy, only_pod, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "tls/mutual",
        summary: "Between the proxies requests are encrypted: both count them under the other's identity, which the application is told",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("main", Backend::B);
        },
        run: |context| Box::pin(mutual(context)),
    },
    Case {
        id: "tls/opaque-port",
        summary: "A port that is declared opaque is encrypted as well: its proxy knows whose connection it is, and sees no requests on it",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            let app = plan.backend("app", 1, &[]);
            for workload in &mut plan.workloads {
                workload["spec"]["template"]["metadata"]["annotations"] = json!({OPAQUE_PORTS: "8081"});
            }
            plan.service_for("main", &app);
            plan.route("opaque", "main").port(8081);
            plan.route("plain", "main");
        },
        run: |context| Box::pin(opaque_port(context)),
    },
    Case {
        id: "tls/require-id",
        summary: "A request that requires an identity is answered by who has it, and refused with 502 where somebody else would answer",
        needs: &[Need::Proxy, Need::OncePerController],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("main", Backend::B);
        },
        run: |context| Box::pin(require_id(context)),
    },
    Case {
        id: "tls/control-plane",
        summary: "Proxies ask the control plane in TLS, nobody but who has its name",
        needs: &[Need::Proxy, Need::OncePerController],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.service("main", Backend::B);
        },
        run: |context| Box::pin(control_plane(context)),
    },
];

/// Ports that carry no HTTP as far as the mesh is concerned.
pub(super) const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

const CLIENT_ID: &str = "l5d-client-id";
const REQUIRE_ID: &str = "l5d-require-id";

/// A status that nobody else's requests have, so that series of a shared pod can be told apart.
const STATUS: u16 = 233;

/// The name in the certificate of a pod's proxy.
fn identity(pod: &Pod) -> Result<String, Failure> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let namespace = pod.metadata.namespace.as_deref().context("a pod without a namespace")?;
    Ok(format!("{account}.{namespace}.serviceaccount.identity.linkerd.cluster.local"))
}

pub(super) async fn identity_of(context: &Context, namespace: &str, labels: &str) -> Result<String, Failure> {
    let pods = context.world.kubernetes.pods(namespace, labels).await?;
    identity(pods.first().ok_or_else(|| anyhow!("no pod {labels} in {namespace}"))?)
}

async fn controller_identity(context: &Context) -> Result<String, Failure> {
    let controller = &context.world.controller;
    let labels = format!("app.kubernetes.io/instance={}", controller.workload);
    identity_of(context, &controller.namespace, &labels).await
}

fn client_ids(seen: &Seen) -> Vec<&str> {
    seen.header(CLIENT_ID).collect()
}

async fn mutual(context: Context) -> CaseResult {
    const REQUESTS: usize = 6;
    let client = controller_identity(&context).await?;
    let server = identity_of(&context, NAMESPACE, &format!("app={}", Backend::B.name())).await?;

    let forged = |request: Request| request.header(CLIENT_ID, server.as_str());
    let seen = context.expect_seen(forged(context.get("main")?)).await?;
    check(format!("the header {CLIENT_ID} that arrives behind the controller, of a client that sends its own"))
        .equal(client_ids(&seen), vec![client.as_str()])?;

    let pod = only_pod(&context, Backend::B.name()).await?;
    let before = (Proxy::Controller.read(&context).await?, Proxy::Pod(pod).read(&context).await?);
    let request = context.get("main")?;
    let path = format!("/?status={STATUS}");
    let records = context.send_many(Request { path: path.clone(), ..request }, REQUESTS, 2).await;
    for record in &records {
        check("the status of a request").equal(record.status, Some(STATUS))?;
    }
    // The control: a request that comes without a proxy is plaintext, from nobody, and counted so.
    let direct = Request { path, ..Request::get(format!("{pod}:8080"), "/") };
    let record = context.send_from(Vantage::Node, forged(direct)).await;
    check("the status of a request past the controller").equal(record.status, Some(STATUS))?;
    let seen = context.send_from(Vantage::Node, forged(Request::get(format!("{pod}:8080"), "/"))).await;
    let seen = seen.seen.as_ref().ok_or_else(|| anyhow!("no answer of the pod: {}", outcome(&seen)))?;
    check(format!("the header {CLIENT_ID} that arrives from a client without a proxy"))
        .equal(client_ids(seen), Vec::<&str>::new())?;

    let status = STATUS.to_string();
    let secret = ("tls", "true");
    let outbound = [("direction", "outbound"), ("status_code", &status), secret, ("server_id", &server)];
    let sent = [
        Moved::new("response_total", outbound, REQUESTS),
        Moved::new("response_total", outbound[..2].to_vec(), REQUESTS),
    ];
    settle(&context, Proxy::Controller, &before.0, &sent).await?;
    let inbound = [("direction", "inbound"), ("status_code", &*status)];
    let received = |labels: [(&'static str, &str); 2], by| Moved::new("response_total", inbound, by).and(labels);
    let received = [
        received([secret, ("client_id", &client)], REQUESTS),
        received([("tls", "no_identity"), ("no_tls_reason", "no_tls_from_remote")], 1),
    ];
    settle(&context, Proxy::Pod(pod), &before.1, &received).await?;
    Ok(Outcome::Pass)
}

async fn opaque_port(context: Context) -> CaseResult {
    const REQUESTS: usize = 4;
    let (app, client) = (context.plan.full("app"), controller_identity(&context).await?);
    let pod = only_pod(&context, &app).await?;
    let before = Proxy::Pod(pod).read(&context).await?;
    // The other port is the control: what comes for it is seen as requests.
    for route in ["opaque", "plain"] {
        for record in context.send_many(context.get(route)?, REQUESTS, 2).await {
            check(format!("an answer on the route {route}")).that(
                record.is(200) && record.service() == Some(&app),
                format!("200 of {app}"),
                outcome(&record),
            )?;
        }
    }
    let requests = |port: u16, by| {
        let labels = [("direction", "inbound".to_owned()), ("target_addr", format!("{pod}:{port}"))];
        Moved::new("request_total", labels, by).and([("tls", "true"), ("client_id", &client)])
    };
    let after = settle(&context, Proxy::Pod(pod), &before, &[requests(8080, REQUESTS), requests(8081, 0)]).await?;
    let any = [("direction", "inbound"), ("target_port", "8081")];
    check("requests that the pod's proxy saw on the opaque port").equal(after.sum("request_total", &any), 0.0)?;
    let secret = [any[0], any[1], ("peer", "src"), ("tls", "true"), ("client_id", &*client)];
    let connections = Proxy::Pod(pod).count(&context, "tcp_open_total", &secret).await?;
    let all = Proxy::Pod(pod).count(&context, "tcp_open_total", &secret[..3]).await?;
    check("connections to the opaque port with the controller's identity").that(
        connections >= 1.0 && connections == all,
        "all of them, and at least one",
        format!("{connections} of {all}"),
    )?;
    Ok(Outcome::Pass)
}

async fn control_plane(context: Context) -> CaseResult {
    const REQUESTS: &str = "control_request_total";
    /// How the services' names begin (Linkerd's proxies ask headless ones, `linkerd-dst-headless`), which of the control plane's identities
    /// each must prove, and whether every proxy asks them: one whose application asks nobody need not know where anybody is.
    const SERVICES: [(&str, &str, bool); 3] = [
        ("linkerd-dst", "linkerd-destination", false),
        ("linkerd-policy", "linkerd-destination", true),
        ("linkerd-identity", "linkerd-identity", true),
    ];
    let pod = only_pod(&context, Backend::B.name()).await?;
    for (proxy, whose) in [(Proxy::Controller, "the controller's"), (Proxy::Pod(pod), "the application's")] {
        let metrics = proxy.read(&context).await?;
        let mut proven = 0.0;
        for (service, account, by_all) in SERVICES {
            let name = format!("{account}.linkerd.serviceaccount.identity.linkerd.cluster.local");
            let asked: f64 = metrics
                .select(REQUESTS, &[("tls", "true"), ("server_id", &name)])
                .filter(|sample| sample.label("addr").starts_with(service))
                .map(|sample| sample.value)
                .sum();
            if by_all {
                check(format!("questions of {whose} proxy to {service} as {account}")).that(
                    asked >= 1.0,
                    "at least one",
                    asked.to_string(),
                )?;
            }
            proven += asked;
        }
        let all = metrics.sum(REQUESTS, &[]);
        check(format!("questions of {whose} proxy to anybody that is not proven to be the control plane")).that(
            proven == all,
            "none",
            format!("{} of {all}", all - proven),
        )?;
    }
    Ok(Outcome::Pass)
}

async fn require_id(context: Context) -> CaseResult {
    let server = identity_of(&context, NAMESPACE, &format!("app={}", Backend::B.name())).await?;
    let authority = format!("{}.{NAMESPACE}.svc.cluster.local:80", context.plan.full("main"));
    let requiring = |id: &str| {
        let request = Request::get(authority.clone(), "/").host(&authority).header("l5d-dst-override", &*authority);
        request.header(REQUIRE_ID, id)
    };
    let other = "somebody-else.workbench.serviceaccount.identity.linkerd.cluster.local";
    let records = context.send_inside(Batch::of(vec![requiring(&server), requiring(other)])).await?;
    let [right, wrong] = records.as_slice() else {
        return Err(anyhow!("expected two answers, found {}", records.len()).into());
    };
    let seen = right.seen.as_ref().filter(|_| right.is(200));
    let seen = seen.ok_or_else(|| check("a request that requires who is there").failure("200", outcome(right)))?;
    check(format!("the headers {REQUIRE_ID} that reach the application")).equal(seen.header(REQUIRE_ID).count(), 0)?;
    check("a request that requires somebody else").that(wrong.is(502), "502", outcome(wrong))?;
    Ok(Outcome::Pass)
}
