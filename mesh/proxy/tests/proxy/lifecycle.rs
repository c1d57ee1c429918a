//! Starting, stopping, and living with a control plane that comes and goes.

use std::{sync::Arc, time::Duration};

use meshgate_proxy::{Config, OriginalDst, Proxy, StartError};
use tokio::sync::Semaphore;

use crate::support::{App, Setup, served_by, text};

#[tokio::test]
async fn requests_in_flight_are_answered_before_the_proxy_stops() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let app = App::http(move |_| {
        let gate = Arc::clone(&waiting);
        async move {
            gate.acquire().await.unwrap().forget();
            text(200, "late")
        }
    })
    .await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut busy = mesh.connect(1).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    mesh.wait_for_sum(&["request_total{direction=\"outbound\""], 1).await;

    let outbound = mesh.proxy.addresses().outbound[0];
    let stop = tokio::spawn(mesh.proxy.stop(Duration::from_secs(30)));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(outbound).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "the proxy still accepts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!stop.is_finished(), "a request is in flight");
    gate.add_permits(1);
    assert_eq!(busy.reply().await.body, "late");
    assert!(stop.await.unwrap());
}

#[tokio::test]
async fn the_grace_period_ends() {
    let app = App::http(|_| std::future::pending()).await;
    let mesh = Setup::new().original(1, app.address).start().await;
    let mut busy = mesh.connect(1).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    mesh.wait_for_sum(&["request_total{direction=\"outbound\""], 1).await;
    assert!(!mesh.proxy.stop(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_control_plane_that_goes_away_is_not_missed_and_then_found_again() {
    let (old, new) = (App::named("old").await, App::named("new").await);
    let cluster_ip = ([10, 96, 0, 1], 80).into();
    let mut mesh = Setup::new().original(1, cluster_ip).start().await;
    mesh.control.service("web", cluster_ip, &[old.address]);
    assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "old");

    mesh.control.stop();
    assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "old");
    mesh.control.set_endpoints("web.ns.svc.cluster.local:80", &[new.address]);
    mesh.control.restart().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while served_by(&mesh.connect(1).await.get("/", &[]).await.body) != "new" {
        assert!(std::time::Instant::now() < deadline, "{:?}", mesh.control.calls());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _taken = tokio::net::TcpListener::bind(taken).await.unwrap();
    let variables = [
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "127.0.0.1:1".to_owned()),
        ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", taken.to_string()),
    ];
    let variables: std::collections::HashMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = Config::from_strings(&variables).unwrap();
    let Err(error) = Proxy::start(config, OriginalDst::Socket, None).await else { panic!("it started") };
    assert!(matches!(error, StartError::Listen { address, .. } if address == taken), "{error}");
}
