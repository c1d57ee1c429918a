//! How a webhook is asked: one POST over TLS.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meshgate_store::{GroupResource, Status, Store};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::hooks::{Hook, Service};

/// Bytes of an answer that are read at most.
const LONGEST_ANSWER: usize = 8 << 20;

/// Why a webhook has not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Its Service is not there.
    #[error("{0}")]
    NoService(#[from] Status),
    /// Its Service leads nowhere.
    #[error("service {namespace:?}/{name:?} {problem}")]
    Service {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// What it lacks.
        problem: String,
    },
    /// The configuration says where it is in a way that cannot be dialled.
    #[error("invalid clientConfig.{field}: {problem}")]
    Config {
        /// `url`, `caBundle` or `service`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It did not answer, or not well.
    #[error("Post {url:?}: {problem}")]
    Post {
        /// What was asked.
        url: String,
        /// What happened.
        problem: String,
    },
}

/// Where a webhook is.
struct Target {
    /// What is dialled.
    host: String,
    port: u16,
    /// Whom its certificate has to name.
    name: String,
    /// Path and query.
    path: String,
}

/// Posts a review and answers with the body of a 200.
pub(crate) async fn post(store: &Store, hook: &Hook, body: Vec<u8>) -> Result<Vec<u8>, CallError> {
    let config = &hook.client_config;
    let target = match (&config.service, &config.url) {
        (Some(service), _) => of_service(store, service)?,
        (None, Some(url)) => of_url(url)?,
        (None, None) => {
            return Err(CallError::Config {
                field: "url",
                problem: "expected a url or a service, found neither".into(),
            });
        }
    };
    let connector = TlsConnector::from(trusting(&config.ca_bundle)?);
    let query = if target.path.contains('?') { '&' } else { '?' };
    let path = format!("{}{query}timeout={}s", target.path, hook.timeout_seconds);
    let url = format!("https://{}:{}{path}", target.name, target.port);
    let exchange = exchange(&target, connector, &path, body);
    match tokio::time::timeout(Duration::from_secs(hook.timeout_seconds), exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::Post { url, problem: error.to_string() }),
        Err(_) => Err(CallError::Post { url, problem: "context deadline exceeded".into() }),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(target: &Target, tls: TlsConnector, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let Target { host, port, name, .. } = target;
    let stream = TcpStream::connect((host.as_str(), *port)).await;
    let stream = stream.map_err(|error| format!("dial tcp {host}:{port}: {error}"))?;
    stream.set_nodelay(true)?;
    let stream = tls.connect(ServerName::try_from(name.clone())?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header(HOST, format!("{name}:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let code = answer.status();
    let bytes = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await?.to_bytes();
    connection.abort();
    if code != StatusCode::OK {
        return Err(format!("expected status 200, got {code}: {}", String::from_utf8_lossy(&bytes).trim()).into());
    }
    Ok(bytes.into())
}

/// A Service's cluster IP, or the name that it stands for.
fn of_service(store: &Store, wanted: &Service) -> Result<Target, CallError> {
    let service = store.get(&GroupResource::new("", "services"), &wanted.namespace, &wanted.name)?;
    let failed = |problem: String| CallError::Service {
        namespace: wanted.namespace.clone(),
        name: wanted.name.clone(),
        problem,
    };
    let text = |field: &str| service["spec"][field].as_str().unwrap_or_default();
    let host = match (text("type"), text("clusterIP")) {
        ("ExternalName", _) => text("externalName"),
        (_, "None" | "") => return Err(failed("has no cluster IP; expected one that is not headless".into())),
        (_, ip) => {
            let ports = service["spec"]["ports"].as_array();
            if !ports.into_iter().flatten().any(|port| port["port"].as_u64() == Some(wanted.port.into())) {
                return Err(failed(format!("has no port {}", wanted.port)));
            }
            ip
        }
    };
    let path = format!("/{}", wanted.path.trim_start_matches('/'));
    Ok(Target { host: host.into(), port: wanted.port, name: format!("{}.{}.svc", wanted.name, wanted.namespace), path })
}

fn of_url(url: &str) -> Result<Target, CallError> {
    let failed = |problem: String| CallError::Config { field: "url", problem };
    let uri: Uri = url.parse().map_err(|error| failed(format!("{url:?}: {error}")))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| failed(format!("expected https://HOST[:PORT]/PATH, found {url:?}")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Target { host: host.into(), port: uri.port_u16().unwrap_or(443), name: host.into(), path: path.into() })
}

/// TLS that trusts a bundle (PEM in base64) and nothing else.
fn trusting(bundle: &str) -> Result<Arc<ClientConfig>, CallError> {
    let failed = |error: &dyn std::fmt::Display| CallError::Config { field: "caBundle", problem: error.to_string() };
    let pem = STANDARD.decode(bundle).map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
