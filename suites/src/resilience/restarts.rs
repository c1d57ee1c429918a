//! The controller and a proxy that end and are started again.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams};
use meshgate_clusters::Ability;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, deadline};
use meshgate_harness::matrix::Mesh;
use meshgate_harness::plan::{Backend, NAMESPACE};
use meshgate_harness::probe::{Record, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};
use tokio::time::Instant;

use super::{CONNECTIONS, PODS, all_good, scale, serve_own};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "resilience/controller-restart",
        summary: "While the controller's only pod is replaced connections fail; then every route answers as before",
        needs: &[Need::Serves, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Alone,
        plan: |plan| {
            plan.serve("a", Backend::A);
            plan.serve("b", Backend::B);
        },
        run: |context| Box::pin(controller_restart(context)),
    },
    Case {
        id: "resilience/proxy-restart",
        summary: "A killed proxy is started again beside its application, which is left alone, and traffic recovers",
        // It finds the proxy by the bundled one's command line, with a shell beside it.
        needs: &[
            Need::Mesh(Mesh::Bundled),
            Need::Cluster(Ability::PodProcesses),
            Need::Serves,
            Need::OncePerRecipe,
            Need::OncePerPromises,
        ],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| serve_own(plan, 1),
        run: |context| Box::pin(proxy_restart(context)),
    },
];

/// From the end of a process to the first of the answers that stay.
const MENDS: Duration = Duration::from_secs(20);

/// The container that the injector adds.
const PROXY: &str = "linkerd-proxy";

/// Ends the proxy of the pod that it runs in: the process of that name in the pod's network.
const KILL: &str = r#"
here=$(readlink /proc/self/ns/net)
ls -l /proc/[0-9]*/ns/net 2>/dev/null | grep -F "$here" | sed 's,.*/proc/\([0-9]*\)/.*,\1,' | while read -r process; do
  case $(tr '\0' ' ' <"/proc/$process/cmdline" 2>/dev/null) in
    *' proxy ') kill -9 "$process" && echo killed ;;
  esac
done
"#;

async fn controller_restart(context: Context) -> CaseResult {
    let controller = &context.world.controller;
    let labels = format!("app.kubernetes.io/instance={}", controller.workload);
    let api: Api<Pod> = Api::namespaced(context.world.kubernetes.client(), &controller.namespace);
    let before = context.world.kubernetes.pods(&controller.namespace, &labels).await?;
    let names: Vec<String> = before.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &names {
        api.delete(name, &DeleteParams::default()).await.with_context(|| format!("deleting {name}"))?;
    }

    let routes = [("a", Backend::A), ("b", Backend::B)];
    let (deadline, mut failed) = (deadline(MENDS), None);
    // The end of the old one has to be seen, or what answers afterwards could still be it.
    while failed.is_none() && Instant::now() < deadline {
        let record = context.send(context.get("a")?).await;
        failed = (!record.is(200)).then(|| outcome(&record));
    }
    check("requests while the controller is away").that(failed.is_some(), "to fail", "200 every time")?;
    for (route, backend) in routes {
        let from = |record: &Record| record.is(200) && record.service() == Some(backend.name());
        // Alone first: while nobody is there, each may have to be waited for.
        context.until_by(deadline, "the new controller to serve the route", context.get(route)?, from).await?;
        let what = "every worker of the new controller to serve the route";
        context.until_all_by(deadline, what, context.get(route)?, from).await?;
    }
    let after = context.world.kubernetes.pods(&controller.namespace, &labels).await?;
    let old: Vec<String> = after
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| pod.metadata.name)
        .filter(|name| names.contains(name))
        .collect();
    check("the controller's old pods").equal(old, Vec::<String>::new())?;
    for (route, _) in routes {
        all_good("after the restart", &context.send_many(context.get(route)?, 50, CONNECTIONS).await)?;
    }
    Ok(Outcome::Pass)
}

async fn proxy_restart(context: Context) -> CaseResult {
    scale(&context, 1).await?;
    let request = context.get("main")?;
    context.until(MENDS, "the pod to answer", request.clone(), |record| record.is(200)).await?;
    let (proxy, application) = restarts(&context).await?;

    let pods = context.pods_of(&context.plan.full(PODS)).await?;
    let (pod, _) = pods.first().context("the case's pod")?;
    let api: Api<Pod> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let attach = AttachParams::default().container(PROXY).stdin(false).stdout(true).stderr(false);
    let mut shell = api.exec(pod, ["sh", "-c", KILL], &attach).await.context("a shell beside the proxy")?;
    let mut said = String::new();
    if let Some(mut output) = shell.stdout() {
        // The shell may go with the container; what it said before counts.
        let _ = tokio::io::AsyncReadExt::read_to_string(&mut output, &mut said).await;
    }
    if !said.contains("killed") {
        return Err(anyhow!("no process of the proxy was found in {pod}: {said:?}").into());
    }

    let restarted = converge(MENDS, || async {
        let (now, _) = restarts(&context).await.map_err(|error| error.to_string())?;
        if now == proxy + 1 { Ok(()) } else { Err(format!("{now}")) }
    });
    restarted.await.map_err(|seen| check("restarts of the killed proxy").failure((proxy + 1).to_string(), seen))?;
    // The pod is unready for a moment and ready again, and a controller hears of both some time later: a few good answers may
    // still come before it hears of the first. What counts is that a whole sample becomes good in time.
    let mended = converge(MENDS, || async {
        let sample = context.send_many(request.clone(), 50, CONNECTIONS).await;
        all_good("after the restart", &sample).map_err(|failure| failure.to_string())
    });
    mended
        .await
        .map_err(|seen| check("traffic through the new proxy").failure("50 of 50 answered, three times", seen))?;
    let (_, after) = restarts(&context).await?;
    check("restarts of the application").equal(after, application)?;
    Ok(Outcome::Pass)
}

/// How often the proxy and the application of the case's pod were started again.
async fn restarts(context: &Context) -> anyhow::Result<(i32, i32)> {
    let app = context.plan.full(PODS);
    let pods = context.world.kubernetes.pods(NAMESPACE, &format!("app={app}")).await?;
    let status = pods.into_iter().find_map(|pod| pod.status).with_context(|| format!("no pod of {app}"))?;
    let mut counts = (0, 0);
    for container in status.container_statuses.into_iter().flatten() {
        if container.name == PROXY {
            counts.0 += container.restart_count;
        } else {
            counts.1 += container.restart_count;
        }
    }
    Ok(counts)
}
