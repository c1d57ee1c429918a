//! The webhook that validates objects before they are stored: `AdmissionReview` in, `AdmissionReview` out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Json, Router};
use kube::api::DynamicObject;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::objects::{Kind, Object};

/// Bytes of a review at most: two objects of the greatest size that an API server stores, and some.
const LONGEST_REVIEW: usize = 8 << 20;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a review may take to arrive and to be answered: longer than an API server waits.
const ANSWER: Duration = Duration::from_secs(35);

/// So many handshakes at once; others wait until one is over.
const HANDSHAKES: usize = 64;

/// How long accepting pauses after it failed: when there are no files left, that takes a while to pass.
const PAUSE: Duration = Duration::from_millis(10);

/// Where a controller is asked, and about what.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// What it judges. It answers no question about anything else.
    pub(crate) kind: Kind,
    /// `HOST:PORT`, where no host is every address.
    pub(crate) address: String,
    /// Files of PEM. They are read for every connection, for they may come later, and be others then.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Webhook {
    /// Listens, so that whoever finds the controller ready finds it here.
    pub(super) async fn listen(self) -> anyhow::Result<Listening> {
        let address =
            if self.address.starts_with(':') { format!("0.0.0.0{}", self.address) } else { self.address.clone() };
        let listener = TcpListener::bind(&address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address} for the webhook"))?;
        match self.acceptor() {
            Ok(_) => tracing::info!(address, "the validating webhook listens"),
            Err(error) => tracing::info!("the validating webhook waits for a certificate: {error:#}"),
        }
        Ok(Listening { kind: self.kind, connections: Https { webhook: self, listener, handshakes: JoinSet::new() } })
    }

    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        let certificate = read(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.with_context(|| self.certificate.display().to_string())?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).with_context(|| self.key.display().to_string())?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A review, and where its answer goes. Whoever asks in a way that cannot be answered is told why.
type Question = (Value, oneshot::Sender<Result<Value, String>>);

/// A webhook that listens.
pub(super) struct Listening {
    kind: Kind,
    connections: Https,
}

impl Listening {
    /// Answers until the server fails, and nobody before `begun`: then there is something to judge by.
    pub(super) async fn serve(
        self,
        begun: impl Future<Output = ()>,
        mut judge: impl FnMut(&Object) -> Result<(), String>,
    ) -> anyhow::Error {
        let Self { kind, connections } = self;
        // What judges stays on this side: the server's handlers have to outlive it, for all that they know.
        let (asks, mut asked) = mpsc::channel::<Question>(16);
        let router: Router = Router::new()
            .fallback(ask)
            .layer(DefaultBodyLimit::max(LONGEST_REVIEW))
            .layer(middleware::from_fn(in_time))
            .with_state(asks);
        let answers = async {
            begun.await;
            while let Some((review, answer)) = asked.recv().await {
                // Who has gone meanwhile needs no answer.
                let _ = answer.send(answered(kind, &review, &mut judge));
            }
            std::future::pending::<Infallible>().await
        };
        let server = async { axum::serve(connections, router).await };
        tokio::select! {
            ended = server => ended.err().map_or_else(|| anyhow!("the webhook has ended"), anyhow::Error::from),
            never = answers => match never {},
        }
    }
}

/// Ends what takes too long, such as a review that does not go on.
async fn in_time(request: Request, next: Next) -> Result<Response, StatusCode> {
    tokio::time::timeout(ANSWER, next.run(request)).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)
}

async fn ask(
    State(asks): State<mpsc::Sender<Question>>,
    Json(review): Json<Value>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let ends = || (StatusCode::INTERNAL_SERVER_ERROR, "the controller is about to end".to_owned());
    let (answer, answered) = oneshot::channel();
    asks.send((review, answer)).await.map_err(|_| ends())?;
    let answer = answered.await.map_err(|_| ends())?;
    answer.map(Json).map_err(|problem| (StatusCode::BAD_REQUEST, problem))
}

/// The answer to a review.
///
/// # Errors
/// It is no review, or of something else.
fn answered(
    kind: Kind,
    review: &Value,
    judge: &mut impl FnMut(&Object) -> Result<(), String>,
) -> Result<Value, String> {
    let request = &review["request"];
    let is_review = review["apiVersion"] == "admission.k8s.io/v1" && review["kind"] == "AdmissionReview";
    if !is_review || !request["uid"].is_string() {
        let (version, found) = (&review["apiVersion"], &review["kind"]);
        return Err(format!(
            "expected an AdmissionReview of admission.k8s.io/v1 with a request, found {version} {found}"
        ));
    }
    let of = &request["kind"];
    if of["group"] != kind.group || of["kind"] != kind.kind {
        return Err(format!("expected a review of {} of {}, found {of}", kind.kind, kind.group));
    }
    let object = serde_json::from_value::<DynamicObject>(request["object"].clone());
    let verdict = object.map_err(|error| error.to_string()).and_then(|mut object| {
        // What controllers create may have none of its own yet.
        let namespace = || request["namespace"].as_str().map(str::to_owned);
        object.metadata.namespace = object.metadata.namespace.take().or_else(namespace);
        judge(&Arc::new(object))
    });
    let mut response = json!({"uid": request["uid"], "allowed": verdict.is_ok()});
    if let Err(why) = verdict {
        tracing::warn!(namespace = %request["namespace"], name = %request["name"], "it is refused: {why}");
        response["status"] = json!({"status": "Failure", "code": 400, "reason": "BadRequest", "message": why});
    }
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

/// Connections in TLS as axum takes them, in the order in which they are ready: nobody waits for another one's handshake.
struct Https {
    webhook: Webhook,
    listener: TcpListener,
    handshakes: JoinSet<anyhow::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Https {
    fn begin(&mut self, stream: TcpStream, from: SocketAddr) {
        match self.webhook.acceptor() {
            Ok(acceptor) => {
                self.handshakes.spawn(async move {
                    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
                    Ok((stream, from))
                });
            }
            Err(error) => tracing::error!(%from, "the validating webhook has no certificate: {error:#}"),
        }
    }
}

impl axum::serve::Listener for Https {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES => match accepted {
                    Ok((stream, from)) => self.begin(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the webhook could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(begun) = self.handshakes.join_next() => match begun {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!("a client did not get as far as to ask: {error:#}"),
                    Err(error) => tracing::warn!(%error, "a handshake"),
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::objects::INGRESSES;
    use crate::secrets::examples::pair_for;

    fn review(object: &Value) -> Value {
        let kind = json!({"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"});
        let request = json!({"uid": "u", "kind": kind, "namespace": "shop", "name": "a", "object": object});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    }

    /// Takes what is of namespace `shop` and named `good`.
    fn judge(object: &Object) -> Result<(), String> {
        let metadata = &object.metadata;
        match (metadata.namespace.as_deref(), metadata.name.as_deref()) {
            (Some("shop"), Some("good")) => Ok(()),
            found => Err(format!("found {found:?}")),
        }
    }

    #[test]
    fn a_review_is_answered_with_the_verdict() {
        let answer =
            |name: &str| answered(INGRESSES, &review(&json!({"metadata": {"name": name}})), &mut judge).unwrap();
        assert_eq!(answer("good")["response"], json!({"uid": "u", "allowed": true}));
        let refused = answer("bad");
        let refusal = &refused["response"];
        assert_eq!(
            (&refusal["uid"], &refusal["allowed"], &refusal["status"]["code"]),
            (&json!("u"), &json!(false), &json!(400))
        );
        assert_eq!(refusal["status"]["message"], r#"found (Some("shop"), Some("bad"))"#);
    }

    #[test]
    fn what_is_no_review_of_the_kind_is_no_question() {
        let mut other = review(&json!({"metadata": {"name": "good"}}));
        other["request"]["kind"]["kind"] = json!("Pod");
        for (question, wanted) in
            [(json!({"kind": "Pod"}), "expected an AdmissionReview"), (other, "a review of Ingress")]
        {
            let error = answered(INGRESSES, &question, &mut judge).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    async fn posted(address: SocketAddr, certificate: &str, body: &str) -> anyhow::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("webhook.shop.svc")?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let head = "POST /networking/v1/ingresses?timeout=10s HTTP/1.1\r\nHost: webhook\r\nConnection: close";
        let length = body.len();
        let request = format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        // The end may come without a goodbye.
        let _ = stream.read_to_string(&mut answer).await;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_answers_over_tls_once_there_is_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pair_for("webhook.shop.svc");
        let webhook = Webhook {
            kind: INGRESSES,
            address: "127.0.0.1:0".to_owned(),
            certificate: folder.path().join("cert"),
            key: folder.path().join("key"),
        };
        let listening = webhook.listen().await.unwrap();
        let address = listening.connections.listener.local_addr().unwrap();
        let test = async {
            let body = review(&json!({"metadata": {"name": "bad"}})).to_string();
            posted(address, &certificate, &body).await.expect_err("there is no certificate yet");
            std::fs::write(folder.path().join("cert"), &certificate).unwrap();
            std::fs::write(folder.path().join("key"), &key).unwrap();
            let answer = posted(address, &certificate, &body).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("found (Some("), "{answer}");
            let answer = posted(address, &certificate, "{}").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        };
        tokio::select! {
            error = listening.serve(std::future::ready(()), judge) => panic!("{error}"),
            () = test => {}
        }
    }
}
