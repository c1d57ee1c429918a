//! Connections that fail in the proxy, by why they do.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;

use crate::{
    identity::client_hello,
    support::{App, Authority, Mesh, Setup},
};

const NAME: &str = "web.ns.serviceaccount.identity.linkerd.cluster.local";

async fn counted(mesh: &Mesh, direction: &str, target: SocketAddr, error: &str) -> Option<u64> {
    let (ip, port) = (target.ip(), target.port());
    let labels = format!("target_addr=\"{target}\",target_ip=\"{ip}\",target_port=\"{port}\",error=\"{error}\"");
    mesh.metric(&format!("{direction}_tcp_errors_total{{{labels}}}")).await
}

#[tokio::test]
async fn connections_that_cannot_be_passed_on_are_counted_by_target() {
    let app = App::tcp(|stream| async move { drop(stream) }).await;
    let nobody = TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap();
    let mesh = Setup::new().original(1, nobody).original(2, app.address).start().await;
    for (inbound, direction) in [(false, "outbound"), (true, "inbound")] {
        for _ in 0..2 {
            for n in [1, 2] {
                let mut connection = if inbound { mesh.connect_inbound(n).await } else { mesh.connect(n).await };
                connection.send("not http at all").await;
                assert_eq!(connection.read_to_end().await, b"");
            }
        }
        assert_eq!(counted(&mesh, direction, nobody, "i/o").await, Some(2), "{direction}");
        // That of an application that hangs up was passed on.
        assert_eq!(mesh.sum(&[&format!("{direction}_tcp_errors_total")]).await, 2, "{direction}");
    }
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_are_told_from_those_that_fail() {
    let authority = Authority::start(Duration::from_secs(3600)).await;
    let app = App::named("app").await;
    let mesh = Setup::new()
        .identified(NAME, &authority)
        .with("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "1s")
        .original(1, app.address)
        .start()
        .await;
    // Nothing behind the first message, and what nobody has encrypted.
    for (behind, error) in [(&b""[..], "tls detection timeout"), (b"\x17\x03\x03\x00\x15not so well encrypted", "tls")]
    {
        let mut connection = mesh.connect_inbound(1).await;
        connection.send([&client_hello(NAME)[..], behind].concat()).await;
        connection.read_to_end().await;
        mesh.wait_for_sum(&["inbound_tcp_errors_total", &format!("error=\"{error}\"")], 1).await;
        assert_eq!(counted(&mesh, "inbound", app.address, error).await, Some(1));
    }
    assert_eq!(app.requests(), 0);
}
