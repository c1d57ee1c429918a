//! Who ends a TLS session, and what the proxies can tell of it.

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::metrics::Metrics;
use meshgate_harness::plan::{NAMESPACE, Plan};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::answer;
use crate::counters::{ENDPOINTS, Moved, Proxy, ended, only_pod, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "tls/terminated",
        summary: "HTTPS that the controller ends: the proxy counts TCP on the way in, and on the way out every request, encrypted once more",
        needs: &[Need::Serves, Need::Template("tls"), Need::Proxy, Need::OncePerRecipe],
        claims: &[Evidence::Confirms("notes.https-tcp-stats"), Evidence::Confirms("notes.https-complete-outgoing")],
        stage: Stage::Shared,
        plan: terminating,
        run: |context| Box::pin(terminated(context)),
    },
    Case {
        id: "tls/terminated-outside",
        summary: "HTTPS that a load balancer outside the mesh ends: the application's own proxy counts every request",
        needs: &[Need::Serves, Need::Template("tls"), Need::Mode(Mode::Outside)],
        claims: &[],
        stage: Stage::Shared,
        plan: terminating,
        run: |context| Box::pin(terminated_outside(context)),
    },
    Case {
        id: "tls/passthrough",
        summary: "TLS that is passed through: the backend's own certificate, and nothing but bytes for the proxies",
        needs: &[Need::Serves, Need::Template("tls-passthrough"), Need::Proxy, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            let app = plan.backend("app", 1, &[]);
            plan.service_for("main", &app).port("https", 8443, "https");
            plan.route("main", "main").port(8443).template("tls-passthrough");
        },
        run: |context| Box::pin(passthrough(context)),
    },
];

/// How many requests are counted.
const REQUESTS: usize = 5;

/// The subject of the certificate that the controller is given.
pub(crate) const COMMON_NAME: &str = "the controller's certificate";

fn terminating(plan: &mut Plan) {
    let app = plan.backend("app", 1, &[]);
    plan.service_for("main", &app);
    terminate(plan, "main", "main");
    plan.route("plain", "main");
}

/// A route to a Service over HTTPS, which the controller ends with a certificate of its own.
pub(crate) fn terminate(plan: &mut Plan, route: &str, service: &str) {
    let secret = plan.full("certificate");
    let host = plan.route(route, service).template("tls").value("secret", secret.clone()).host.clone();
    // Without the Secret the route shows another certificate, and the case says so.
    if let Ok((certificate, key)) = certificate(&host) {
        plan.object(self::secret(&secret, &certificate, &key));
    }
}

/// The Secret of a certificate and its key, or of what stands in their place.
pub(crate) fn secret(name: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

/// A self-signed certificate and its key, in PEM.
pub(crate) fn certificate(host: &str) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new([host.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

async fn terminated(context: Context) -> CaseResult {
    let pod = only_pod(&context, &context.plan.full("app")).await?;
    let port = ingress_target_port(&context, context.world.controller.ports.https).await?;
    let http_port = ingress_target_port(&context, context.world.controller.ports.http).await?;
    let ip = pod.to_string();
    ended(&context, Proxy::Controller, ENDPOINTS, &[("direction", "outbound"), ("target_ip", ip.as_str())]).await?;
    let before = Proxy::Controller.read(&context).await?;
    for _ in 0..REQUESTS {
        let record = expect(&context, context.get("main")?).await?;
        let peer = record.tls.as_ref().and_then(|peer| peer.common_name.as_deref());
        check("the certificate that a client sees").equal(peer, Some(COMMON_NAME))?;
        check("the scheme that the backend sees").equal(answer(&record)?.scheme, "http")?;
    }
    let outgoing = |count| {
        let labels = [("direction", "outbound".to_owned()), ("target_ip", pod.to_string()), ("tls", "true".to_owned())];
        [
            Moved::new("request_total", labels.clone(), count),
            Moved::new("response_total", labels, count).and([("status_code", "200"), ("classification", "success")]),
        ]
    };
    settle(&context, Proxy::Controller, &before, &outgoing(REQUESTS)).await?;
    incoming_is_tcp(&before, &Proxy::Controller.read(&context).await?, port)?;

    // The control: the same over plain HTTP shows among the incoming requests.
    for _ in 0..REQUESTS {
        expect(&context, context.get("plain")?).await?;
    }
    let http_port = http_port.to_string();
    let labels = [("direction", "inbound"), ("target_port", http_port.as_str())];
    converge(std::time::Duration::from_secs(5), || async {
        let now = Proxy::Controller.read(&context).await.map_err(|error| error.to_string())?;
        let by = now.sum("request_total", &labels) - before.sum("request_total", &labels);
        if by >= REQUESTS as f64 { Ok(()) } else { Err(format!("{by}")) }
    })
    .await
    .map_err(|seen| check("incoming requests over plain HTTP").failure(format!("at least {REQUESTS}"), seen))?;
    Ok(Outcome::Pass)
}

/// Both ways to the load balancer lead to the same plain HTTP behind it, so that the application's proxy cannot tell them apart. What
/// it does not see is TLS, which would count as bytes only.
async fn terminated_outside(context: Context) -> CaseResult {
    // A status that no probe of the kubelet is answered with.
    const STATUS: u16 = 236;
    let pod = only_pod(&context, &context.plan.full("app")).await?;
    let (address, status) = (format!("{pod}:8080"), STATUS.to_string());
    let mut before = Proxy::Pod(pod).read(&context).await?;
    for (route, shown) in [("main", Some(COMMON_NAME)), ("plain", None)] {
        for _ in 0..REQUESTS {
            let request = Request { path: format!("/?status={STATUS}"), ..context.get(route)? };
            let record = context.send(request).await;
            check("a request").that(record.is(STATUS), status.as_str(), outcome(&record))?;
            let peer = record.tls.as_ref().and_then(|peer| peer.common_name.as_deref());
            check("the certificate that a client sees").equal(peer, shown)?;
            check("the scheme that the backend sees").equal(answer(&record)?.scheme, "http")?;
        }
        let arrived = [("direction", "inbound"), ("target_addr", address.as_str()), ("status_code", status.as_str())];
        let expected = [Moved::new("response_total", arrived, REQUESTS).and([("classification", "success")])];
        before = settle(&context, Proxy::Pod(pod), &before, &expected).await?;
    }
    Ok(Outcome::Pass)
}

async fn passthrough(context: Context) -> CaseResult {
    let app = context.plan.full("app");
    let pod = only_pod(&context, &app).await?;
    let port = ingress_target_port(&context, context.world.controller.ports.https).await?;
    let (before, backend_before) = (Proxy::Controller.read(&context).await?, Proxy::Pod(pod).read(&context).await?);
    for _ in 0..REQUESTS {
        let record = expect(&context, context.get("main")?).await?;
        let peer = record.tls.as_ref().and_then(|peer| peer.common_name.as_deref());
        check("the certificate that a client sees").equal(peer, Some(app.as_str()))?;
        check("the scheme that the backend sees").equal(answer(&record)?.scheme, "https")?;
    }
    let ip = pod.to_string();
    let outbound = [("direction", "outbound"), ("target_ip", ip.as_str())];
    let inbound = [("direction", "inbound"), ("target_port", "8443")];
    let after = settle(
        &context,
        Proxy::Controller,
        &before,
        &[
            Moved::new("request_total", outbound, 0),
            Moved::new("tcp_open_total", outbound, REQUESTS).and([("peer", "dst")]),
        ],
    )
    .await?;
    incoming_is_tcp(&before, &after, port)?;
    settle(
        &context,
        Proxy::Pod(pod),
        &backend_before,
        &[
            Moved::new("request_total", inbound, 0),
            Moved::new("tcp_open_total", inbound, REQUESTS).and([("peer", "src")]),
        ],
    )
    .await?;
    Ok(Outcome::Pass)
}

/// The proxy beside the controller has counted connections to this port and no requests.
fn incoming_is_tcp(before: &Metrics, after: &Metrics, port: i32) -> Result<(), Failure> {
    let port = port.to_string();
    let by = |name: &str, labels: &[(&str, &str)]| {
        let labels = [&[("direction", "inbound"), ("target_port", port.as_str())], labels].concat();
        after.sum(name, &labels) - before.sum(name, &labels)
    };
    check(format!("incoming requests counted on port {port}, which carries TLS"))
        .equal(by("request_total", &[]), 0.0)?;
    // Other cases connect there, too.
    let opened = by("tcp_open_total", &[("peer", "src")]);
    check(format!("incoming connections counted on port {port}")).that(
        opened >= REQUESTS as f64,
        format!("at least {REQUESTS}"),
        opened.to_string(),
    )
}

async fn expect(context: &Context, request: Request) -> Result<Record, Failure> {
    let record = context.send(request).await;
    check("a request").that(record.is(200) && record.seen.is_some(), "200 of an echo backend", outcome(&record))?;
    Ok(record)
}

/// The port of the controller's pods behind a port of its Service.
async fn ingress_target_port(context: &Context, port: u16) -> Result<i32, Failure> {
    let controller = &context.world.controller;
    let client = context.world.kubernetes.client();
    let services: Api<Service> = Api::namespaced(client.clone(), &controller.namespace);
    let service = services.get(&controller.workload).await.context("the controller's Service")?;
    let name = service
        .spec
        .and_then(|spec| spec.ports)
        .into_iter()
        .flatten()
        .find(|known| known.port == i32::from(port))
        .with_context(|| format!("the controller's Service has no port {port}"))?
        .name;
    let slices: Api<EndpointSlice> = Api::namespaced(client, &controller.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", controller.workload));
    let found = slices
        .list(&of_service)
        .await
        .context("the endpoints of the controller")?
        .items
        .into_iter()
        .flat_map(|slice| slice.ports.into_iter().flatten())
        .find(|known| known.name == name)
        .and_then(|known| known.port);
    Ok(found.ok_or_else(|| anyhow!("no endpoint of the controller for its port {port}"))?)
}
