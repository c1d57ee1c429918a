//! `pods/[SCHEME:]NAME[:PORT]/proxy/...` and the same for Services: HTTP passed on to a pod.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meshgate_store::{GroupResource, Selectors, Status};
use rand::seq::IndexedRandom;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::handler::Call;
use crate::reply::{self, BodyError, Reply};

/// Headers that concern one connection only.
const HOP_BY_HOP: &[HeaderName] = &[CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// Passes the request on and the answer back, both streamed.
pub(crate) async fn answer(mut call: Call) -> Result<Reply, Status> {
    if call.path.rest.is_empty() {
        return redirect_into(&call);
    }
    let (name, port) = name_and_port(&call.path.name)?;
    let (ip, port) = match call.path.resource.as_str() {
        "pods" => of_pod(&call, name, port)?,
        _ => of_service(&call, name, port)?,
    };
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::new(503, "ServiceUnavailable", format!("error trying to reach service: dial tcp {ip}:{port}: {error}"))
    };
    let stream = TcpStream::connect((ip, port)).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection ended with an error");
        }
    });
    prepare(&mut call, ip, port)?;
    let answer = sender.send_request(call.request).await.map_err(|error| unreachable(&error))?;
    let mut answer = answer.map(|body| body.map_err(|error| Box::new(error) as BodyError).boxed_unsync());
    strip(answer.headers_mut());
    Ok(answer)
}

/// Relative links of what is proxied need the slash.
fn redirect_into(call: &Call) -> Result<Reply, Status> {
    let query = call.request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", call.request.uri().path());
    let mut reply = reply::text(StatusCode::MOVED_PERMANENTLY, "");
    let location = HeaderValue::try_from(location).map_err(|error| Status::bad_request(error.to_string()))?;
    reply.headers_mut().insert(LOCATION, location);
    Ok(reply)
}

/// Splits `[SCHEME:]NAME[:PORT]`. Only `http` is dialed.
fn name_and_port(text: &str) -> Result<(&str, &str), Status> {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [name] => Ok((name, "")),
        [name, port] | ["" | "http", name, port] => Ok((name, port)),
        _ => Err(Status::bad_request(format!("invalid proxy target {text:?}: expected [http:]NAME[:PORT]"))),
    }
}

/// The address of a pod; its first container port when none is given.
fn of_pod(call: &Call, name: &str, port: &str) -> Result<(IpAddr, u16), Status> {
    let pod = call.api.store.get(&GroupResource::new("", "pods"), &call.path.namespace, name)?;
    let first = || {
        let port = pod.pointer("/spec/containers/0/ports/0/containerPort").and_then(Value::as_u64)?;
        u16::try_from(port).ok()
    };
    let port = if port.is_empty() { first().or(Some(80)) } else { port.parse().ok() };
    let port = port.ok_or_else(|| Status::bad_request(format!("the proxy target of pod {name} has no valid port")))?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| Status::new(503, "ServiceUnavailable", format!("pod {name} has no IP address yet")))?;
    Ok((ip, port))
}

/// The address of one of a Service's ready endpoints.
fn of_service(call: &Call, name: &str, port: &str) -> Result<(IpAddr, u16), Status> {
    let store = &call.api.store;
    let service = store.get(&GroupResource::new("", "services"), &call.path.namespace, name)?;
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = ports.iter().find(|candidate| match port {
        "" => true,
        port => {
            candidate["name"].as_str() == Some(port)
                || (candidate["port"].is_u64() && candidate["port"].as_u64() == port.parse().ok())
        }
    });
    let unavailable =
        || Status::new(503, "ServiceUnavailable", format!("no endpoints available for service \"{}\"", call.path.name));
    let wanted = named.ok_or_else(unavailable)?["name"].as_str().unwrap_or_default();
    let selectors = Selectors { labels: format!("kubernetes.io/service-name={name}"), fields: String::new() };
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let mut candidates = Vec::new();
    for slice in store.list(&slices, Some(&call.path.namespace), &selectors)?.items {
        let port = array(&slice, "ports").iter().find(|port| port["name"].as_str().unwrap_or_default() == wanted);
        let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else { continue };
        let ready = array(&slice, "endpoints")
            .iter()
            .filter(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false));
        let ips = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok());
        candidates.extend(ips.map(|ip| (ip, port)));
    }
    candidates.choose(&mut rand::rng()).copied().ok_or_else(unavailable)
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Turns the request for the API server into one for the pod. The client's credentials stay here.
fn prepare(call: &mut Call, ip: IpAddr, port: u16) -> Result<(), Status> {
    let query = call.request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("{}{query}", call.path.rest);
    *call.request.uri_mut() = Uri::try_from(uri).map_err(|error| Status::bad_request(error.to_string()))?;
    // A request that came as HTTP/2 leaves as HTTP/1.1.
    *call.request.version_mut() = http::Version::HTTP_11;
    let headers = call.request.headers_mut();
    strip(headers);
    headers.remove(AUTHORIZATION);
    let host = HeaderValue::try_from(format!("{ip}:{port}")).map_err(|error| Status::internal(error.to_string()))?;
    headers.insert(HOST, host);
    Ok(())
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(name_and_port("web").unwrap(), ("web", ""));
        assert_eq!(name_and_port("web:80").unwrap(), ("web", "80"));
        assert_eq!(name_and_port("http:web:80").unwrap(), ("web", "80"));
        assert_eq!(name_and_port("http:web:").unwrap(), ("web", ""));
        assert_eq!(name_and_port("https:web:443").unwrap_err().code, 400);
    }
}
