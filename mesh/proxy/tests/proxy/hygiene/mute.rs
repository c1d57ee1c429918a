//! Peers that have spoken HTTP/2 and are not there any more, of which nothing tells.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use linkerd2_proxy_api::destination::{Http2ClientParams, http2_client_params::KeepAlive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, OK, SETTINGS, Said, block, frame, pseudo};
use crate::support::{App, H2Body, Setup, client, endpoint, h2, with_http2};

const ACK: u8 = 1;

/// Peers are asked often, and have long enough that who is there can answer on a busy machine as well.
fn setup() -> Setup {
    let whom =
        ["LINKERD2_PROXY_INBOUND_SERVER_HTTP2", "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2", "MESHGATE_PROXY_CONNECT_HTTP2"];
    whom.into_iter().fold(Setup::new(), |setup, whom| {
        setup.with(&format!("{whom}_KEEP_ALIVE_INTERVAL"), "100ms").with(&format!("{whom}_KEEP_ALIVE_TIMEOUT"), "1s")
    })
}

async fn ask(sender: &mut SendRequest<H2Body>) -> StatusCode {
    let request = Request::get("http://a/").body(Full::default().boxed_unsync()).unwrap();
    sender.send_request(request).await.unwrap().status()
}

#[tokio::test]
async fn a_client_that_is_not_there_any_more_is_left() {
    let app = App::named("app").await;
    let mesh = setup().original(1, app.address).start().await;
    for (inbound, direction) in [(false, "outbound"), (true, "inbound")] {
        // The control: it asks for nothing for as long as the others.
        let address = if inbound { mesh.proxy.addresses().inbound } else { mesh.proxy.addresses().outbound[0] };
        let mut there = h2(client(1), address).await;
        assert_eq!(ask(&mut there).await, 200);

        let mut idle = Frames::open(&mesh, inbound).await;
        idle.request(1, &pseudo("/")).await;
        assert_eq!(idle.said(1).await, OK);
        // One that stops within a head could not even say that it is there.
        let mut within = Frames::open(&mesh, inbound).await;
        within.send(frame(HEADERS, END_STREAM, 1, &block(&pseudo("/")))).await;
        for gone in [&mut idle, &mut within] {
            while gone.said(0).await != Said::End {}
        }
        let accepted = format!("direction=\"{direction}\",peer=\"src\"");
        mesh.wait_for_sum(&["tcp_open_connections", &accepted], 1).await;
        assert_eq!(ask(&mut there).await, 200, "{direction}");
    }
}

/// Answers the first request of each connection, and from then on nothing.
async fn mute() -> App {
    App::tcp(|mut stream| async move {
        let mut read = Vec::new();
        while !has_head(&read) {
            if stream.read_buf(&mut read).await.unwrap() == 0 {
                return;
            }
        }
        let answer = [
            frame(SETTINGS, 0, 0, &[]),
            frame(SETTINGS, ACK, 0, &[]),
            // 200, by its number in the table.
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x88]),
        ];
        stream.write_all(&answer.concat()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

/// Whether there is a whole HEADERS frame behind the preface.
fn has_head(read: &[u8]) -> bool {
    let mut rest = read.get(24..).unwrap_or_default();
    while let [first, second, third, kind, _, _, _, _, _, behind @ ..] = rest {
        let length = u32::from_be_bytes([0, *first, *second, *third]) as usize;
        if *kind == HEADERS {
            return behind.len() >= length;
        }
        rest = behind.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_proxy_that_is_not_there_any_more_is_connected_to_anew() {
    let (proxy, application) = (mute().await, mute().await);
    let mesh = setup().original(1, proxy.address).original(2, application.address).start().await;
    // That it takes HTTP/1 over HTTP/2 is said of proxies only.
    mesh.control.set_profile(&proxy.address.to_string(), Ok(with_http2(endpoint(proxy.address))));
    let outbound = mesh.proxy.addresses().outbound[0];
    let open = |app: &App| format!("direction=\"outbound\",peer=\"dst\",target_addr=\"{}\"", app.address);

    // Its PINGs would be taken for an attack by many an application.
    let mut beside = h2(client(2), outbound).await;
    assert_eq!(ask(&mut beside).await, 200);
    let mut sender = h2(client(1), outbound).await;
    for connections in 1..=2 {
        assert_eq!(ask(&mut sender).await, 200);
        assert_eq!(proxy.requests(), connections);
        mesh.wait_for_sum(&["tcp_open_connections", &open(&proxy)], 0).await;
    }
    assert_eq!(mesh.sum(&["tcp_open_connections", &open(&application)]).await, 1);
}

/// The control plane says how: this proxy itself would never ask.
#[tokio::test]
async fn an_endpoint_is_asked_as_the_control_plane_says() {
    let (asked, unasked) = (mute().await, mute().await);
    let never = ("MESHGATE_PROXY_CONNECT_HTTP2_KEEP_ALIVE_INTERVAL", "0s");
    let mesh =
        Setup::new().with(never.0, never.1).original(1, asked.address).original(2, unasked.address).start().await;
    let duration = |millis| prost_types::Duration::try_from(Duration::from_millis(millis)).ok();
    let keep_alive = KeepAlive { interval: duration(50), timeout: duration(500), while_idle: true };
    for app in [&asked, &unasked] {
        let mut found = with_http2(endpoint(app.address));
        let keep_alive = (app.address == asked.address).then_some(keep_alive);
        found.endpoint.as_mut().unwrap().http2 = Some(Http2ClientParams { keep_alive, ..Default::default() });
        mesh.control.set_profile(&app.address.to_string(), Ok(found));
    }
    let outbound = mesh.proxy.addresses().outbound[0];
    let open = |app: &App| format!("direction=\"outbound\",peer=\"dst\",target_addr=\"{}\"", app.address);
    for n in [2, 1] {
        assert_eq!(ask(&mut h2(client(n), outbound).await).await, 200);
    }
    mesh.wait_for_sum(&["tcp_open_connections", &open(&asked)], 0).await;
    assert_eq!(mesh.sum(&["tcp_open_connections", &open(&unasked)]).await, 1);
}
