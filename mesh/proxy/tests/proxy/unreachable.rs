//! Endpoints that are gone with their node: nobody is there to refuse a connection.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time,
};

use crate::support::{App, Mesh, Setup, client, endpoint, h2, served_by};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

fn cluster_ip() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// An address at which connections are neither taken nor refused: the kernel drops their first packet if the listener has as many
/// connections as it may have that nobody takes.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 2, 20], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 100, "the listener takes any number of connections");
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

fn setup() -> Setup {
    let timeout = format!("{}ms", CONNECT_TIMEOUT.as_millis());
    Setup::new()
        .with("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", &timeout)
        .with("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", &timeout)
}

#[tokio::test]
async fn a_connection_that_nobody_answers_is_a_gateway_timeout() {
    let silent = Silent::start().await;
    let mesh = setup().original(1, cluster_ip()).original(2, silent.address).start().await;
    mesh.control.service("web", cluster_ip(), &[silent.address]);
    mesh.control.set_profile(&silent.address.to_string(), Ok(endpoint(silent.address)));
    for n in [1, 2] {
        let begun = Instant::now();
        let reply = mesh.connect(n).await.get("/", &[]).await;
        assert_eq!(reply.status, 504, "{reply:?}");
        assert!(begun.elapsed() >= CONNECT_TIMEOUT, "{:?}", begun.elapsed());
        let explained = format!("endpoint {}: client error (Connect)", silent.address);
        assert_eq!(reply.header("l5d-proxy-error"), Some(&*explained), "{reply:?}");
    }

    let mut sender = h2(client(2), mesh.proxy.addresses().outbound[0]).await;
    let request = Request::post("http://web/Service/Method").header("content-type", "application/grpc");
    let response = sender.send_request(request.body(Empty::new().boxed_unsync()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "4");

    let reply = mesh.connect_inbound(2).await.get("/", &[]).await;
    assert_eq!(reply.status, 504, "{reply:?}");
    for (inbound, direction) in [(false, "outbound"), (true, "inbound")] {
        let mut opaque = if inbound { mesh.connect_inbound(2).await } else { mesh.connect(2).await };
        opaque.send("not http at all").await;
        assert_eq!(opaque.read_to_end().await, b"");
        let target = format!("target_addr=\"{}\"", silent.address);
        assert_eq!(mesh.sum(&[&format!("{direction}_tcp_errors_total"), &target, "error=\"i/o\""]).await, 1);
    }
}

/// How many of so many requests are not answered by an application, and how many take as long as a connection may.
async fn lost(mesh: &Mesh, requests: usize) -> (usize, usize) {
    let (mut lost, mut slow) = (0, 0);
    let mut connection = mesh.connect(1).await;
    for _ in 0..requests {
        let begun = Instant::now();
        let reply = connection.get("/", &[]).await;
        slow += usize::from(begun.elapsed() >= CONNECT_TIMEOUT);
        if reply.status != 200 || served_by(&reply.body) != "web" {
            lost += 1;
            connection = mesh.connect(1).await;
        }
    }
    (lost, slow)
}

/// Linkerd's proxy fails two thirds of HTTP/1's requests where one endpoint of two refuses them.
#[tokio::test]
async fn beside_an_endpoint_that_is_there_it_costs_next_to_nothing() {
    const REQUESTS: usize = 1000;
    let (silent, app) = (Silent::start().await, App::named("web").await);
    let mesh = setup().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address, silent.address]);
    // Until it has been tried, and given up.
    assert!(lost(&mesh, 50).await.0 <= 2);
    let (lost, slow) = lost(&mesh, REQUESTS).await;
    assert!(lost * 100 < REQUESTS, "{lost} of {REQUESTS} requests were lost");
    assert!(slow * 50 < REQUESTS, "{slow} of {REQUESTS} requests waited for who is not there");

    // The control: it is the only one, and nobody answers.
    mesh.control.set_endpoints("web.ns.svc.cluster.local:80", &[silent.address]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while mesh.connect(1).await.get("/", &[]).await.status == 200 {
        assert!(Instant::now() < deadline, "an endpoint that is not there answers");
    }
}
