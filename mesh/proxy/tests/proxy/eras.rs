//! What Linkerd's past did with what it was not told about: an address that is dialled, without an override.

use std::net::SocketAddr;

use crate::support::{App, Connection, Mesh, Setup, endpoint, served_by};

const WEB: &str = "web.ns.svc.cluster.local:80";
const ALT: &str = "alt.ns.svc.cluster.local:80";

/// A proxy in ingress mode, two Services, and a pod that is dialled.
struct World {
    mesh: Mesh,
    pod: App,
    _services: [App; 2],
}

impl World {
    async fn start(era: &str) -> Self {
        let (web, alt, pod) = (App::named("web").await, App::named("alt").await, App::named("pod").await);
        let setup = Setup::ingress().with("MESHGATE_PROXY_DIALECT", era).original(1, pod.address);
        let mesh = setup.start().await;
        let service =
            |name, ip: [u8; 4], app: &App| mesh.control.service(name, SocketAddr::from((ip, 80)), &[app.address]);
        service("web", [10, 96, 0, 1], &web);
        service("alt", [10, 96, 0, 2], &alt);
        mesh.control.set_profile(&pod.address.to_string(), Ok(endpoint(pod.address)));
        Self { mesh, pod, _services: [web, alt] }
    }

    async fn connect(&self) -> Connection {
        self.mesh.connect(1).await
    }

    /// What the control plane was asked about the pod.
    fn asked(&self) -> usize {
        self.mesh.control.calls().iter().filter(|call| call.contains(&self.pod.address.to_string())).count()
    }
}

/// Who answers, or the status of an answer of the proxy.
async fn ask(connection: &mut Connection, override_: Option<&str>) -> String {
    let headers: Vec<_> = override_.map(|value| ("l5d-dst-override", value)).into_iter().collect();
    let reply = connection.get("/", &headers).await;
    if reply.status == 200 { served_by(&reply.body).to_owned() } else { reply.status.as_u16().to_string() }
}

#[tokio::test]
async fn in_2_10_0_a_connection_keeps_its_first_override() {
    for (era, expected) in [("2.10.0", ["web", "web", "pod", "web"]), ("2.9", ["web", "alt", "pod", "web"])] {
        let world = World::start(era).await;
        let mut connection = world.connect().await;
        for (override_, expected) in [Some(WEB), Some(ALT), None, Some(WEB)].into_iter().zip(expected) {
            assert_eq!(ask(&mut connection, override_).await, expected, "{era} {override_:?}");
        }
        assert_eq!(ask(&mut world.connect().await, Some(ALT)).await, "alt", "{era}");
    }
}

#[tokio::test]
async fn in_2_11_nobody_is_asked_about_what_names_nothing() {
    for (era, asked) in [("2.11", false), ("modern", true)] {
        let world = World::start(era).await;
        let mut connection = world.connect().await;
        assert_eq!((ask(&mut connection, None).await, world.asked() > 0), ("pod".to_owned(), asked), "{era}");
        assert_eq!(ask(&mut connection, Some(WEB)).await, "web", "{era}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_forwarded_refused_or_discovered() {
    for (era, passes, asked) in [("2.9", true, false), ("2.11", false, false), ("modern", true, true)] {
        let world = World::start(era).await;
        let mut connection = world.connect().await;
        // The application answers bytes that are no request with an error, or closes the connection: either way it has them.
        connection.send([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]).await;
        connection.read_to_end().await;
        let passed = world.mesh.sum(&["tcp_open_total", "direction=\"outbound\"", "peer=\"dst\""]).await == 1;
        assert_eq!((passed, world.asked() > 0), (passes, asked), "{era}");
    }
}

#[tokio::test]
async fn in_2_13_0_what_has_no_policy_fails() {
    for (era, expected) in [("2.13.0", "502"), ("modern", "pod")] {
        let world = World::start(era).await;
        let mut connection = world.connect().await;
        assert_eq!(ask(&mut connection, Some(WEB)).await, "web", "{era}");
        assert_eq!(ask(&mut connection, None).await, expected, "{era}");
    }
}
