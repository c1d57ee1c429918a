//! What probes and lifecycle hooks do: an HTTP request, a TCP connection, a gRPC health check, a command.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pod::PodContext;
use crate::slot::Slot;

/// Bytes of an answer that a message quotes.
const QUOTED: usize = 10 * 1024;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// `httpGet`: any status from 200 to 399.
    Http(&'a HTTPGetAction),
    /// `tcpSocket`: a connection.
    Tcp(&'a TCPSocketAction),
    /// `grpc`: `SERVING`.
    Grpc(&'a GRPCAction),
    /// `exec`: exit code 0.
    Exec(&'a ExecAction),
    /// `sleep`, seconds.
    Sleep(i64),
}

impl<'a> Action<'a> {
    /// What a probe does; `None` for one that says nothing.
    pub(crate) fn of_probe(probe: &'a Probe) -> Option<Self> {
        let http = probe.http_get.as_ref().map(Action::Http);
        http.or(probe.tcp_socket.as_ref().map(Action::Tcp))
            .or(probe.grpc.as_ref().map(Action::Grpc))
            .or(probe.exec.as_ref().map(Action::Exec))
    }

    /// What a lifecycle hook does.
    pub(crate) fn of_hook(hook: &'a LifecycleHandler) -> Option<Self> {
        let exec = hook.exec.as_ref().map(Action::Exec);
        exec.or(hook.http_get.as_ref().map(Action::Http))
            .or(hook.tcp_socket.as_ref().map(Action::Tcp))
            .or(hook.sleep.as_ref().map(|sleep| Action::Sleep(sleep.seconds)))
    }
}

/// Does it, from the node as the kubelet does, and tells why it failed in the kubelet's words.
pub(crate) async fn check(
    pod: &Arc<PodContext>,
    slot: &Slot,
    action: &Action<'_>,
    limit: Duration,
) -> Result<(), String> {
    let ip = pod.ip().ok_or("the pod has no address")?;
    match action {
        Action::Http(get) => {
            let (address, url) = target(get, &slot.spec, ip)?;
            let answer = timeout(limit, request(get, address, &url)).await;
            match answer {
                Err(_) => Err(format!(
                    "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )),
                Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
                Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Ok(()),
                Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
            }
        }
        Action::Tcp(socket) => {
            let address = address(socket.host.as_deref(), &socket.port, &slot.spec, ip)?;
            connect(address, limit).await.map(drop)
        }
        Action::Grpc(grpc) => {
            let port = u16::try_from(grpc.port).map_err(|_| format!("{} is not a port", grpc.port))?;
            let asked = health((ip, port).into(), grpc.service.as_deref().unwrap_or_default(), limit);
            timeout(limit, asked).await.unwrap_or_else(|_| {
                Err(format!("timeout: failed to connect service \"{ip}:{port}\" within {}s", limit.as_secs()))
            })
        }
        Action::Exec(exec) => {
            let command = exec.command.clone().unwrap_or_default();
            let run = pod.run_in(slot, command.clone());
            match timeout(limit, run).await {
                Err(_) => Err(format!("command timed out: {command:?} timed out after {}s", limit.as_secs())),
                Ok(Err(error)) => Err(error.to_string()),
                Ok(Ok((0, _))) => Ok(()),
                Ok(Ok((code, output))) if output.is_empty() => Err(format!("command exited with {code}")),
                Ok(Ok((_, output))) => Err(String::from_utf8_lossy(&output[..output.len().min(QUOTED)]).into_owned()),
            }
        }
        Action::Sleep(seconds) => {
            tokio::time::sleep(Duration::from_secs(u64::try_from(*seconds).unwrap_or(0))).await;
            Ok(())
        }
    }
}

/// The number of a port given by number or by a container port's name.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {port:?} in container {}", container.name))?;
    u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
}

fn address(
    host: Option<&str>,
    wanted: &IntOrString,
    container: &Container,
    ip: Ipv4Addr,
) -> Result<SocketAddr, String> {
    let port = port(wanted, container)?;
    let host = host.filter(|host| !host.is_empty()).map_or(Ok(IpAddr::V4(ip)), str::parse);
    let host =
        host.map_err(|_| "probes connect to the pod's address; `host` has to be an IP address here".to_owned())?;
    Ok(SocketAddr::new(host, port))
}

fn target(get: &HTTPGetAction, container: &Container, ip: Ipv4Addr) -> Result<(SocketAddr, String), String> {
    let address = address(get.host.as_deref(), &get.port, container, ip)?;
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    match get.scheme.as_deref().unwrap_or("HTTP") {
        "HTTP" => Ok((address, format!("http://{address}{slash}{path}"))),
        other => Err(format!("probes of scheme {other} are not done on the embedded node; use HTTP or tcpSocket")),
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, String> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {address}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {error}")),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

async fn request(get: &HTTPGetAction, address: SocketAddr, url: &str) -> Result<StatusCode, String> {
    let stream = connect(address, Duration::from_secs(30)).await?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let path = url.strip_prefix(&format!("http://{address}")).unwrap_or("/");
    let mut builder = Request::get(path).header("connection", "close");
    let given = |name: &str| get.http_headers.iter().flatten().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in
        [("host", address.to_string()), ("user-agent", "kube-probe/1.37".into()), ("accept", "*/*".into())]
    {
        if !given(name) {
            builder = builder.header(name, value);
        }
    }
    for header in get.http_headers.iter().flatten() {
        builder = builder.header(&header.name, &header.value);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let exchange = async { sender.send_request(request).await.map_err(text) };
    beside(exchange, connection).await.map(|response| response.status())
}

/// An exchange on a connection that needs driving. The connection may end first, with the answer already in.
async fn beside<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => return answer,
        _ = connection => {}
    }
    exchange.await
}

/// `grpc.health.v1.Health/Check`. The messages are small enough to write by hand: one string, one enum.
async fn health(address: SocketAddr, service: &str, limit: Duration) -> Result<(), String> {
    let stream = connect(address, limit).await?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 0x80);
    let length = length.ok_or("the service's name is too long for a health check")?;
    // Field 1, length-delimited (tag 0x0a), inside a gRPC frame: flag, big-endian length, message.
    let message = if length == 0 { Vec::new() } else { [&[0x0a, length], service.as_bytes()].concat() };
    let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(0)], message.as_slice()].concat();
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let body = Limited::new(response.into_body(), QUOTED).collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(body.to_bytes())
    };
    let answer = beside(exchange, connection).await?;
    // Field 1, varint (tag 0x08): 1 is SERVING.
    if answer.get(5..7) == Some(&[0x08, 0x01]) {
        Ok(())
    } else {
        Err("service unhealthy (responded with \"NOT_SERVING\")".into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn ports_by_name_and_number() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::Int(90), &container), Ok(90));
        assert!(port(&IntOrString::String("other".into()), &container).is_err());
        assert!(port(&IntOrString::Int(70_000), &container).is_err());
    }

    #[tokio::test]
    async fn a_request_carries_the_probe_s_headers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        let get: HTTPGetAction = serde_json::from_value(json!({
            "port": address.port(), "path": "/ready?x=1", "httpHeaders": [{"name": "Host", "value": "web.example"}],
        }))
        .unwrap();
        let url = format!("http://{address}/ready?x=1");
        assert_eq!(request(&get, address, &url).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        let seen = server.await.unwrap().to_lowercase();
        assert!(seen.starts_with("get /ready?x=1 http/1.1\r\n"), "{seen}");
        assert!(seen.contains("host: web.example\r\n") && seen.contains("user-agent: kube-probe/1.37"), "{seen}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_as_the_kubelet_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(address, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error, format!("dial tcp {address}: connect: connection refused"));
    }
}
