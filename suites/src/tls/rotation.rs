//! Certificates that are replaced while they are in use.

use std::net::Ipv4Addr;
use std::time::Duration;

use meshgate_clusters::Vantage;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::{converge, patient};
use meshgate_harness::matrix::Mesh;
use meshgate_harness::metrics::Families;
use meshgate_harness::plan::Plan;
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::json;
use tokio::time::Instant;

use super::identity::{OPAQUE_PORTS, identity_of};
use crate::counters::{Moved, Proxy, only_pod, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "tls/rotation",
    summary: "Both proxies' certificates are replaced and the old ones run out under load: every request is answered, in TLS",
    needs: &[Need::Mesh(Mesh::Bundled), Need::Serves, Need::Proxy, Need::OncePerRecipe, Need::OncePerController],
    claims: &[],
    stage: Stage::Waiting,
    plan,
    run: |context| Box::pin(rotation(context)),
}];

/// The instance of the controller whose proxy's certificates are replaced.
const RENEWING: &str = "renewing";

/// The pod whose proxy's are, and one whose proxy asks for no second.
const RENEWED: &str = "renewed";
const EXPIRED: &str = "expired";

/// Replaced at a tenth of their time: a machine that is busy for a while is no proxy that renews too late.
const LIFETIME: (&str, f64) = ("10s", 10.0);
const REFRESH: &str = "1s";
const NEVER: &str = "1h";

/// How often each certificate has to be replaced, and how long that may take.
const RENEWALS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// How long routes and what is judged last may take to follow.
const SETTLES: Duration = Duration::from_secs(15);

/// A port without HTTP as far as the mesh is concerned: each connection to it is one between the proxies.
const OPAQUE: u16 = 8081;

const REFRESHES: &str = "control_identity_cert_refreshes_total";
const EXPIRES: &str = "control_identity_cert_expiration_timestamp_seconds";

fn annotations(refresh: &str) -> [(&str, &str); 2] {
    [("config.meshgate.dev/identity-lifetime", LIFETIME.0), ("config.meshgate.dev/identity-refresh", refresh)]
}

/// How long the proxy that begins a connection for each request waits for one: not whether a machine stands still for a second meanwhile is judged.
const CONNECTS: (&str, &str) = ("config.linkerd.io/proxy-outbound-connect-timeout", "10s");

fn plan(plan: &mut Plan) {
    plan.instance(RENEWING, &[&annotations(REFRESH)[..], &[CONNECTS]].concat());
    for (name, refresh) in [(RENEWED, REFRESH), (EXPIRED, NEVER)] {
        let app = plan.backend(name, 1, &[]);
        plan.service_for(name, &app);
        let mut of_pod = json!({OPAQUE_PORTS: OPAQUE.to_string()});
        annotations(refresh).into_iter().for_each(|(key, value)| of_pod[key] = json!(value));
        if let Some(workload) = plan.workloads.last_mut() {
            workload["spec"]["template"]["metadata"]["annotations"] = of_pod;
        }
    }
    plan.route("kept", RENEWED);
    plan.route("new", RENEWED).port(OPAQUE);
    plan.route("expired", EXPIRED).unawaited();
}

/// The certificate of a proxy.
#[derive(Clone, Copy, Debug)]
struct Certificate {
    /// How many came before it, and itself.
    issued: f64,
    /// Seconds of the epoch.
    expires: f64,
}

impl Certificate {
    async fn of(context: &Context, pod: Ipv4Addr) -> Result<Self, Failure> {
        let metrics = context.metrics_of(pod, Families::Of([REFRESHES, EXPIRES].into())).await?;
        Ok(Self { issued: metrics.sum(REFRESHES, &[("result", "ok")]), expires: metrics.sum(EXPIRES, &[]) })
    }

    /// Whether it was over when `later` was issued. The clock is that of whoever issues them: this machine's may be another.
    fn was_over(self, later: Self) -> bool {
        // What is counted is whole seconds of both.
        later.expires - LIFETIME.1 > self.expires
    }

    /// Whether `later` has taken its place, and not only just.
    fn is_history(self, later: Self) -> bool {
        self.was_over(later) && later.issued >= self.issued + RENEWALS
    }
}

async fn rotation(context: Context) -> CaseResult {
    const REQUESTS: usize = 10;
    const CONNECTIONS: usize = 2;
    let (app, namespace) = (context.plan.full(RENEWED), &context.world.controller.namespace);
    let pod = only_pod(&context, &app).await?;
    let client = identity_of(&context, namespace, &format!("app.kubernetes.io/instance={RENEWING}")).await?;
    let sides = [context.world.controller_pod(RENEWING).await?, pod];
    let first = [Certificate::of(&context, sides[0]).await?, Certificate::of(&context, sides[1]).await?];
    let server = Proxy::Pod(pod);
    let before = server.read(&context).await?;

    // Over a connection between the proxies that stays, and over a new one for each request.
    let request = |route, query: &str| -> Result<Request, Failure> {
        Ok(Request { path: format!("/?delay_ms=400&{query}"), ..context.get_at(RENEWING, route)? })
    };
    let (kept, new) = (request("kept", "last=0")?, request("new", "last=1")?);
    let (began, mut sent) = (Instant::now(), 0);
    loop {
        let (kept, new) = tokio::join!(
            context.send_many(kept.clone(), REQUESTS, CONNECTIONS),
            context.send_many(new.clone(), REQUESTS, CONNECTIONS),
        );
        for record in kept.iter().chain(&new) {
            let good = record.is(200) && record.service() == Some(&app);
            check("a request while certificates are replaced").that(good, format!("200 of {app}"), outcome(record))?;
        }
        sent += REQUESTS;
        let now = [Certificate::of(&context, sides[0]).await?, Certificate::of(&context, sides[1]).await?];
        if first.iter().zip(now).all(|(first, now)| first.is_history(now)) {
            break;
        }
        check("the certificates of the controller's proxy and of the application's").that(
            began.elapsed() < patient(PATIENCE),
            format!("replaced {RENEWALS} times, and the first ones over"),
            format!("{now:?} after {first:?}"),
        )?;
    }

    let secret = [("direction", "inbound"), ("tls", "true"), ("client_id", &*client)];
    let plain = format!("{pod}:8080");
    let requests = Moved::new("response_total", secret, sent).and([("target_addr", &*plain), ("status_code", "200")]);
    settle(&context, server, &before, &[requests]).await?;
    let opaque = OPAQUE.to_string();
    let connections = [&secret[..], &[("peer", "src"), ("target_port", &*opaque)]].concat();
    // One that was open already has had a request, too.
    let all = server.count(&context, "tcp_open_total", &connections).await?;
    let opened = all - before.sum("tcp_open_total", &connections);
    let open = before.sum("tcp_open_connections", &connections);
    check("connections between the proxies that began meanwhile").that(
        opened + open >= sent as f64,
        format!("{sent} for as many requests, but for {open} that were open"),
        opened.to_string(),
    )?;
    without_renewal(&context).await
}

/// The control: a pod that differs in nothing but that its proxy asks for no second certificate.
async fn without_renewal(context: &Context) -> CaseResult {
    let pod = only_pod(context, &context.plan.full(EXPIRED)).await?;
    let renewed = only_pod(context, &context.plan.full(RENEWED)).await?;
    converge(PATIENCE, || async {
        let of = async |pod| Certificate::of(context, pod).await.map_err(|error| error.to_string());
        let (certificate, newest) = (of(pod).await?, of(renewed).await?);
        let over = certificate.issued == 1.0 && certificate.was_over(newest);
        if over { Ok(()) } else { Err(format!("{certificate:?}, and the newest {newest:?}")) }
    })
    .await
    .map_err(|seen| check("the certificate that is not replaced").failure("the first, and over", seen))?;
    let direct = Request::get(format!("{pod}:8080"), "/");
    converge(SETTLES, || async {
        let record = context.send_from(Vantage::Node, direct.clone()).await;
        if record.is(200) { Ok(()) } else { Err(outcome(&record)) }
    })
    .await
    .map_err(|seen| check("a request of a client without a proxy").failure("200", seen))?;
    let refused = |record: &Record| record.status.is_some_and(|status| status >= 500);
    let what = "a request to a pod whose proxy's certificate is over to be refused";
    context.until(SETTLES, what, context.get_at(RENEWING, "expired")?, refused).await?;
    Ok(Outcome::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_over_by_the_clock_of_its_issuer() {
        // Of an issuer whose clock is decades behind.
        let first = Certificate { issued: 1.0, expires: 1010.0 };
        let at = |now: f64, issued: f64| Certificate { issued, expires: now + 10.0 };
        assert!(!first.was_over(at(1010.0, 9.0)), "in this very second perhaps not");
        assert!(first.was_over(at(1011.0, 9.0)));
        assert!(first.is_history(at(1011.0, 4.0)) && !first.is_history(at(1011.0, 3.0)));
    }
}
