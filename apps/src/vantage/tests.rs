use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use tunnel::Tunnels;

/// The port of a vantage point.
async fn vantage() -> u16 {
    let vantage = Vantage::bind(Config { port: 0 }).await.unwrap();
    let port = vantage.address().unwrap().port();
    tokio::spawn(vantage.serve(CancellationToken::new()));
    port
}

async fn tunnels() -> Tunnels {
    Tunnels::over(TcpStream::connect((Ipv4Addr::LOCALHOST, vantage().await)).await.unwrap()).await.unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let (listener, address) = listener().await;
    let mut tunnels = tunnels().await;
    let (here, there) = tokio::join!(tunnels.connect(address), listener.accept());
    let (mut here, mut there) = (here.unwrap(), there.unwrap().0);

    // More than a window, so that flow control has to be told of what was read.
    let sent = vec![b'x'; 3 * tunnel::STREAM_WINDOW as usize];
    let mut arrived = Vec::new();
    let write = async {
        here.write_all(&sent).await.unwrap();
        here.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(write, there.read_to_end(&mut arrived));
    read.unwrap();
    assert!(arrived == sent, "{} bytes of {}", arrived.len(), sent.len());

    let mut answer = Vec::new();
    let answered = async {
        there.write_all(&sent).await.unwrap();
        drop(there);
    };
    let (_, read) = tokio::join!(answered, here.read_to_end(&mut answer));
    read.unwrap();
    assert!(answer == sent, "{} bytes of {}", answer.len(), sent.len());
}

#[tokio::test]
async fn refused_is_refused_and_the_next_tunnel_is_not() {
    let (listener, address) = listener().await;
    drop(listener);
    let mut tunnels = tunnels().await;
    let error = tunnels.connect(address).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");

    let listener = TcpListener::bind(address).await.unwrap();
    let (here, there) = tokio::join!(tunnels.connect(address), listener.accept());
    here.unwrap();
    there.unwrap();
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (listener, address) = listener().await;
    let mut tunnels = tunnels().await;
    let (here, there) = tokio::join!(tunnels.connect(address), listener.accept());
    let (mut here, there) = (here.unwrap(), there.unwrap().0);
    there.set_zero_linger().unwrap();
    drop(there);
    let error = here.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn a_dropped_tunnel_closes_its_connection() {
    let (listener, address) = listener().await;
    let mut tunnels = tunnels().await;
    let (here, there) = tokio::join!(tunnels.connect(address), listener.accept());
    drop(here.unwrap());
    let mut there = there.unwrap().0;
    let ended = tokio::time::timeout(Duration::from_secs(10), there.read_to_end(&mut Vec::new())).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test]
async fn a_vantage_point_that_is_gone_is_no_refused_connection() {
    let (listener, address) = listener().await;
    let connected = tokio::spawn(async move { Tunnels::over(TcpStream::connect(address).await.unwrap()).await });
    drop(listener.accept().await.unwrap());
    let mut tunnels = connected.await.unwrap().unwrap();
    let (_other, to) = self::listener().await;
    let error = tunnels.connect(to).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::Other, "{error}");
    assert!(tunnels.ready().await.is_err());
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_any_more_is_gone() {
    const SHORT: Duration = Duration::from_millis(20);
    let (listener, address) = listener().await;
    let connected =
        tokio::spawn(async move { Tunnels::tried(TcpStream::connect(address).await.unwrap(), SHORT, SHORT).await });
    // Somebody who listens and says nothing, as where a connection is forgotten in between.
    let (_silent, _) = listener.accept().await.unwrap();
    let mut tunnels = connected.await.unwrap().unwrap();
    let (_other, to) = self::listener().await;
    let waited = tokio::time::timeout(Duration::from_secs(10), tunnels.connect(to)).await;
    assert!(waited.expect("an end").is_err());

    // The control: where the other side answers, it lasts, although nothing passes.
    let point = TcpStream::connect((Ipv4Addr::LOCALHOST, vantage().await)).await.unwrap();
    let mut tunnels = Tunnels::tried(point, SHORT, Duration::from_secs(10)).await.unwrap();
    let (other, to) = self::listener().await;
    let (here, there) = tokio::join!(tunnels.connect(to), other.accept());
    let (mut here, _there) = (here.unwrap(), there.unwrap());
    assert!(tokio::time::timeout(10 * SHORT, here.read_u8()).await.is_err(), "it is not over");
}

#[tokio::test]
async fn a_name_has_the_address_that_it_has_there() {
    let mut tunnels = tunnels().await;
    assert_eq!(tunnels.look_up("localhost").await.unwrap(), Ipv4Addr::LOCALHOST);
    assert_eq!(tunnels.look_up("192.0.2.7").await.unwrap(), Ipv4Addr::new(192, 0, 2, 7));
    let error = tunnels.look_up("nowhere.invalid").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (io::ErrorKind::NotFound, "looking up nowhere.invalid from a pod: not-found")
    );
}
