//! What becomes of requests and connections when the control plane has errors in place of answers, or answers for something else.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use linkerd2_proxy_api::outbound::{OutboundPolicy, ProxyProtocol, opaque_route, proxy_protocol};
use tonic::Code;

use crate::support::{App, Mesh, Setup, endpoint, policy, served_by};

const WEB: &str = "web.ns.svc.cluster.local:80";

fn cluster_ip() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

fn setup() -> Setup {
    Setup::new().with("MESHGATE_PROXY_DISCOVERY_TIMEOUT", "200ms")
}

/// Nothing gets through, neither requests nor bytes; what a client of HTTP is told.
async fn refused(mesh: &Mesh) -> (u16, String) {
    let reply = mesh.connect(1).await.get("/", &[]).await;
    let mut bytes = mesh.connect(1).await;
    bytes.send([0_u8; 20]).await;
    assert_eq!(bytes.read_to_end().await, b"");
    (reply.status.as_u16(), reply.header("l5d-proxy-error").unwrap().to_owned())
}

#[tokio::test]
async fn an_error_in_place_of_a_policy_is_no_leave_to_do_without() {
    let app = App::named("web").await;
    let target = app.address.to_string();
    for (code, status, error) in [
        (Code::InvalidArgument, 503, format!("discovery of {target} failed: as set")),
        (Code::FailedPrecondition, 503, format!("discovery of {target} failed: as set")),
        (Code::PermissionDenied, 504, format!("discovery of {target} did not finish within 200ms")),
        (Code::Internal, 504, format!("discovery of {target} did not finish within 200ms")),
    ] {
        let mesh = setup().original(1, app.address).start().await;
        mesh.control.set_profile(&target, Ok(endpoint(app.address)));
        mesh.control.refuse_policy(&target, code);
        assert_eq!(refused(&mesh).await, (status, error), "{code:?}");
    }
    assert_eq!(app.requests(), 0);
    // Control: who knows of no policy says that there is none.
    for code in [Code::NotFound, Code::Unimplemented] {
        let mesh = setup().original(1, app.address).start().await;
        mesh.control.set_profile(&target, Ok(endpoint(app.address)));
        mesh.control.refuse_policy(&target, code);
        assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "web", "{code:?}");
    }
}

#[tokio::test]
async fn an_error_in_place_of_a_pods_profile_is_no_leave_to_do_without() {
    let app = App::named("web").await;
    let target = app.address.to_string();
    let mesh = setup().original(1, app.address).start().await;
    mesh.control.set_profile(&target, Err(Code::Unknown));
    let error = format!("discovery of {target} did not finish within 200ms");
    assert_eq!(refused(&mesh).await, (504, error));
    assert_eq!(app.requests(), 0);

    // It is asked again, and served when there is an answer.
    mesh.control.set_profile(&target, Ok(endpoint(app.address)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while mesh.connect(1).await.get("/", &[]).await.status != 200 {
        assert!(Instant::now() < deadline, "the profile is not asked for again");
    }
}

#[tokio::test]
async fn requests_do_not_go_past_a_policy_for_something_else() {
    let app = App::named("web").await;
    let http = policy("web", &[(WEB, 1)]);
    let Some(proxy_protocol::Kind::Detect(detect)) = http.protocol.clone().unwrap().kind else { panic!("{http:?}") };
    let opaque = detect.opaque.unwrap();
    let mut forbidden = opaque.clone();
    let filter = opaque_route::filter::Kind::Forbidden(Default::default());
    forbidden.routes[0].rules[0].filters = vec![opaque_route::Filter { kind: Some(filter) }];
    for kind in [
        proxy_protocol::Kind::Opaque(opaque),
        proxy_protocol::Kind::Opaque(forbidden),
        proxy_protocol::Kind::Tls(Default::default()),
    ] {
        let mesh = Setup::ingress().original(1, cluster_ip()).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        let policy = OutboundPolicy { protocol: Some(ProxyProtocol { kind: Some(kind) }), ..http.clone() };
        for target in [WEB.to_owned(), cluster_ip().to_string()] {
            mesh.control.set_policy(&target, policy.clone());
            let named = target == WEB;
            let headers = [("l5d-dst-override", WEB)];
            let reply = mesh.connect(1).await.get("/", if named { &headers } else { &[] }).await;
            let error =
                format!("the policy for {target} has no routes for HTTP: its connections are taken for something else");
            assert_eq!((reply.status.as_u16(), reply.header("l5d-proxy-error")), (502, Some(&*error)), "{policy:?}");
        }
    }
    assert_eq!(app.requests(), 0);
}
