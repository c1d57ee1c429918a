//! Logs, exec, port-forward and the proxies, with kubectl.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Cluster, PATIENCE};

/// A server that sends back what it gets; its port.
pub async fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

/// An HTTP server that answers with the first line of the request and its host; its port.
async fn http_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).await.unwrap_or(0) > 0 {}
                let body = format!(
                    "{}\nauthorization: {}\n",
                    head.lines().next().unwrap_or_default(),
                    head.to_lowercase().contains("authorization:")
                );
                let reply =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                let _ = lines.get_mut().write_all(reply.as_bytes()).await;
            });
        }
    });
    port
}

/// Sends more than one frame's worth and wants it back.
pub async fn expect_echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let sent: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let mut got = vec![0; sent.len()];
    let (mut read, mut write) = tokio::io::split(stream);
    let exchange = async {
        tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.flush().await.unwrap();
            },
            async { read.read_exact(&mut got).await.unwrap() }
        );
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("the echo comes in time");
    assert!(got == sent, "the echo differs");
}

#[tokio::test]
async fn logs() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    assert_eq!(cluster.kubectl("logs web --tail=2").await, "web/main line 9\nweb/main line 10\n");
    assert_eq!(cluster.kubectl("logs web").await.lines().count(), 10);
    assert_eq!(cluster.kubectl("logs web --limit-bytes=8").await, "web/main");
    assert!(cluster.refused("logs web -c nope").await.contains("container nope is not valid for pod web"));
    assert!(cluster.refused("logs nope").await.contains("pods \"nope\" not found"));

    let mut follow = cluster.command(&["logs", "-f", "web", "--tail=1"]).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    for wanted in ["web/main line 10", "following"] {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
        assert_eq!(line.as_deref(), Some(wanted));
    }
    assert!(follow.try_wait().unwrap().is_none(), "kubectl logs -f should still be following");
}

#[tokio::test]
async fn exec() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    assert_eq!(cluster.kubectl("exec web -- echo one two").await, "one two\n");
    let said = cluster.run(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], "").await;
    assert_eq!(said.out, "out\n");
    assert!(said.err.starts_with("err\n"), "{}", said.err);
    assert!(said.err.contains("exit code 3"), "{}", said.err);
    let said = cluster.run(&["exec", "-i", "web", "--", "cat"], "some input\n").await;
    assert_eq!((said.out.as_str(), said.ok), ("some input\n", true), "{}", said.err);
    assert!(cluster.refused("exec nope -- true").await.contains("pods \"nope\" not found"));
}

#[tokio::test]
async fn port_forward() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    let echo = echo_server().await;
    let mapping = format!(":{echo}");
    let mut forward = cluster.command(&["port-forward", "pod/web", &mapping]).spawn().unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
    let line = line.expect("kubectl says where it listens");
    let port: u16 = line.split([':', ' ']).filter_map(|part| part.parse().ok()).next().unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        expect_echo(&mut stream).await;
        // Half closed: the echo server sees the end and closes, and so must we.
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert_eq!(ended.expect("the end of a connection is forwarded").unwrap(), 0);
    }
}

#[tokio::test]
async fn port_forward_says_why_a_port_does_not_answer() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mapping = format!(":{unused}");
    let mut forward = cluster.command(&["port-forward", "pod/web", &mapping]).spawn().unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
    let line = line.expect("kubectl says where it listens");
    let port: u16 = line.split([':', ' ']).filter_map(|part| part.parse().ok()).next().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time");
    let mut errors = BufReader::new(forward.stderr.take().unwrap()).lines();
    let error = tokio::time::timeout(PATIENCE, errors.next_line()).await.expect("an error in time").unwrap();
    assert!(error.as_deref().unwrap_or_default().contains("failed to connect"), "{error:?}");
}

#[tokio::test]
async fn proxies_to_pods_and_services() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    let port = http_server().await;
    let pod = cluster.kubectl(&format!("get --raw /api/v1/namespaces/default/pods/web:{port}/proxy/a/b?c=d")).await;
    assert_eq!(pod, "GET /a/b?c=d HTTP/1.1\nauthorization: false\n", "the client's token must not reach the pod");
    cluster
        .feed(
            "apply",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
                 addressType: IPv4\nendpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\nports: [{{name: http, port: {port}}}]\n"
            ),
        )
        .await;
    for target in ["web:http", "web:80", "web", "http:web:80"] {
        let path = format!("get --raw /api/v1/namespaces/default/services/{target}/proxy/x");
        assert!(cluster.kubectl(&path).await.starts_with("GET /x HTTP/1.1\n"), "{target}");
    }
    let error = cluster.refused("get --raw /api/v1/namespaces/default/services/web:81/proxy/x").await;
    assert!(error.contains("no endpoints available"), "{error}");
}
