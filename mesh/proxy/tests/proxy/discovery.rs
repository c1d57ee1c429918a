//! What becomes of requests and connections when the control plane has errors in place of answers.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::support::{App, Mesh, Setup, endpoint, served_by};

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
