//! Who may connect to a pod: Servers and what authorizes their clients, kept by the pods' proxies.

use std::net::Ipv4Addr;

use anyhow::{Context as _, anyhow};
use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};
use tokio::time::Instant;

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
    Case {
        id: "policies/rate-limit",
        summary: "Of more requests than an HTTPLocalRateLimitPolicy lets through per second, the proxy answers the rest with 429, and no other pod's",
        needs: &[Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            let app = serve_guarded(plan);
            let name = plan.full("server");
            let server = json!({
                "podSelector": {"matchLabels": {"app": app}}, "port": "http", "proxyProtocol": "HTTP/1",
                "accessPolicy": "all-unauthenticated",
            });
            plan.object(policy("v1beta3", "Server", &name, server));
            plan.object(limit(&name, PER_SECOND));
            plan.serve("free", Backend::B);
        },
        run: |context| Box::pin(rate_limit(context)),
    },
]];

/// How many requests per second the limited pod takes.
const PER_SECOND: usize = 10;

const GROUP: &str = "policy.linkerd.io";
/// Where the proxy tells of itself.
const ADMIN_PORT: u16 = 4191;
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

fn limit(server: &str, per_second: usize) -> Value {
    let target = json!({"group": GROUP, "kind": "Server", "name": server});
    policy(
        "v1alpha1",
        "HTTPLocalRateLimitPolicy",
        server,
        json!({"targetRef": target, "total": {"requestsPerSecond": per_second}}),
    )
}

/// The upper bound holds however slow the machine is: each second lets so many through, and what was not used before lets as many through
/// at once, but never more than a second's: so there is no lower bound for who sends in bursts, but that something goes through.
async fn rate_limit(context: Context) -> CaseResult {
    const REQUESTS: usize = 5 * PER_SECOND;
    const TRIES: usize = 3;
    let pod = only_pod(&context, &context.plan.full("app")).await?;
    let main = context.get("main")?;
    let of = |records: &[Record], status| records.iter().filter(|record| record.is(status)).count();
    // The pod was there before its limit. That something is refused says that its proxy knows of it by now.
    let (deadline, mut let_through) = (deadline(SETTLES), 0);
    loop {
        let records = context.send_many(main.clone(), REQUESTS, 8).await;
        let_through += of(&records, 200);
        if of(&records, 429) > 0 {
            break;
        }
        check("answers to more requests than are let through").that(
            Instant::now() < deadline,
            "429 among them",
            "no 429",
        )?;
    }

    // Of a machine that stands still for a while the sample tells nothing.
    let mut judged = None;
    for _ in 0..TRIES {
        let before = Proxy::Pod(pod).read(&context).await?;
        let began = Instant::now();
        let records = context.send_many(main.clone(), REQUESTS, 8).await;
        let seconds = began.elapsed().as_secs_f64();
        let strange = records.iter().find(|record| !record.is(200) && !record.is(429));
        check("answers that are neither 200 nor 429").equal(strange.map(outcome), None)?;
        let most = PER_SECOND as f64 * (seconds + 1.0) + 1.0;
        let_through += of(&records, 200);
        if most < REQUESTS as f64 {
            let now = of(&records, 200);
            check(format!("requests let through of {REQUESTS} in {seconds:.2} s at {PER_SECOND} per second")).that(
                now as f64 <= most,
                format!("at most {most:.0}"),
                now.to_string(),
            )?;
            judged = Some((before, of(&records, 429)));
            break;
        }
    }
    let (before, refused) = judged.ok_or_else(|| {
        anyhow!("{REQUESTS} requests took too long, {TRIES} times, for a limit of {PER_SECOND} per second to be seen")
    })?;
    check("requests let through in all").that(let_through > 0, "some", "none")?;
    // The node's probes, which have no identity, use the limit up and are refused as well.
    let by = [("ratelimit_kind", "HTTPLocalRateLimitPolicy"), ("ratelimit_scope", "total"), ("tls", "true")];
    settle(&context, Proxy::Pod(pod), &before, &[Moved::new("inbound_http_local_ratelimit_total", by, refused)])
        .await?;
    // The controls: as many go through to a pod without a limit, and to this one when it has none any more.
    for record in context.send_many(context.get("free")?, REQUESTS, 8).await {
        check("an answer of a pod without a limit").that(record.is(200), "200", outcome(&record))?;
    }
    let (after, object) = (context.clone(), limit(&context.plan.full("server"), PER_SECOND));
    context.world.kubernetes.delete(&object).await?;
    // A second look finds it again.
    context.afterwards(async move { after.world.kubernetes.apply(&object).await.map(drop).map_err(Failure::from) });
    converge(SETTLES, || async {
        match context.send_many(main.clone(), REQUESTS, 8).await.iter().filter(|record| !record.is(200)).count() {
            0 => Ok(()),
            refused => Err(format!("{refused} of {REQUESTS} refused")),
        }
    })
    .await
    .map_err(|seen| check("requests after the limit is gone").failure("all let through", seen))?;
    Ok(Outcome::Pass)
}

async fn identities(context: Context) -> CaseResult {
    const REQUESTS: usize = 4;
    let app = context.plan.full("app");
    let (guarded, open) = (only_pod(&context, &app).await?, only_pod(&context, Backend::B.name()).await?);
    let directly = |pod: Ipv4Addr| context.send_from(Vantage::Node, Request::get(format!("{pod}:8080"), "/"));
    // The pod was there before its Server and what authorizes clients, of which its proxy hears by a way of its own.
    converge(SETTLES, || async {
        let through = context.send(context.get("main").map_err(|failure| failure.to_string())?).await;
        let direct = directly(guarded).await;
        let knows = through.is(200) && direct.is(403);
        if knows { Ok(()) } else { Err(format!("{} and {}", outcome(&through), outcome(&direct))) }
    })
    .await
    .map_err(|seen| {
        check("the answers to the controller and to a client without an identity").failure("200 and 403", seen)
    })?;
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
        let record = directly(pod).await;
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
    // A second look finds them let in, whatever becomes of this one.
    let (after, object) = (context.clone(), clients(&context.plan.full("clients"), "*"));
    context.afterwards(async move { after.world.kubernetes.apply(&object).await.map(drop).map_err(Failure::from) });
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
    // The cell has not waited for this route, nor the controller's proxy for the pod.
    context.until(SETTLES, "that the controller is refused", context.get("main")?, |record| record.is(403)).await?;
    // The proxy's own port is one of the pod's, where the node asks whether the proxy is ready.
    for (path, status) in [("/ready", 200), ("/metrics", 403)] {
        let record = context.send_from(Vantage::Node, Request::get(format!("{pod}:{ADMIN_PORT}"), path)).await;
        check(format!("an answer of the pod's proxy at {path} from the node")).equal(record.status, Some(status))?;
    }
    Ok(Outcome::Pass)
}
