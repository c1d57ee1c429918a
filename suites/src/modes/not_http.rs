//! What is not HTTP, and so says of no request where it is to go.

use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::NAMESPACE;
use meshgate_harness::probe::{Batch, Request, Scheme, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

use crate::counters::{Moved, Proxy, fqdn, settle};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "modes/not-http",
    // Linkerd 2.9 passed it on without having asked what the address is, so the pod was chosen by nobody and nothing was encrypted.
    summary: "In ingress mode, what is not HTTP goes to a pod of the Service whose address was dialled, chosen and encrypted by the proxy",
    needs: &[Need::Mode(Mode::Ingress), Need::OncePerController],
    claims: &[],
    stage: Stage::Shared,
    plan: |plan| {
        let app = plan.backend("app", 1, &[]);
        plan.service_for("main", &app).port("https", 8443, "https");
    },
    run: |context| Box::pin(discovered(context)),
}];

/// TLS of the application's own is no HTTP to a proxy that cannot end it.
async fn discovered(context: Context) -> CaseResult {
    const CONNECTIONS: usize = 4;
    let app = context.plan.full("app");
    let pods = context.pods_of(&app).await?;
    let [(name, address)] = pods.as_slice() else {
        return Err(check(format!("the pods of {app}")).failure("one", format!("{pods:?}")));
    };
    let (client, server) = (Proxy::Pod(context.world.pod_address("probe").await?), Proxy::Pod(*address));
    let (before, server_before) = (client.read(&context).await?, server.read(&context).await?);

    let request = Request { scheme: Scheme::Https, ..Request::get(format!("{}:8443", fqdn(&context, "main")), "/") };
    let records = context.send_inside(Batch::of(vec![request; CONNECTIONS])).await?;
    check("the number of answers").equal(records.len(), CONNECTIONS)?;
    for record in &records {
        let peer = record.tls.as_ref().and_then(|peer| peer.common_name.as_deref());
        check("an answer over TLS that only the application ends").that(
            record.is(200) && record.service() == Some(app.as_str()) && peer == Some(app.as_str()),
            format!("200 of {app}, which shows its own certificate"),
            format!("{}, certificate of {peer:?}", outcome(record)),
        )?;
    }

    // What the control plane says of an endpoint stands in its labels, and who it is, so that it can be encrypted to.
    let (service, target) = (context.plan.full("main"), format!("{address}:8443"));
    let known = [
        ("direction", "outbound"),
        ("peer", "dst"),
        ("target_addr", &*target),
        ("dst_namespace", NAMESPACE),
        ("dst_service", &*service),
        ("dst_pod", &**name),
        ("tls", "true"),
    ];
    settle(&context, client, &before, &[Moved::new("tcp_open_total", known, CONNECTIONS)]).await?;
    let arrived = [("direction", "inbound"), ("peer", "src"), ("target_port", "8443")];
    let expected = [
        Moved::new("tcp_open_total", arrived, CONNECTIONS),
        Moved::new("tcp_open_total", arrived, CONNECTIONS).and([("tls", "true")]),
        // The control: nobody saw a request in it.
        Moved::new("request_total", [arrived[0], arrived[2]], 0),
    ];
    settle(&context, server, &server_before, &expected).await?;
    Ok(Outcome::Pass)
}
