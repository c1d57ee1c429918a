//! TLS and plaintext on the control plane's ports.
#![allow(clippy::unwrap_used)] // all of this file is test code, its helpers too

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, destination_client::DestinationClient};
use meshgate_control_plane::{Authority, Cluster, IdentityDomain, Index, Key, Kind, Server, Tls, Validity};
use meshgate_inject::{Identity, Issuer};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

const DESTINATION: &str = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";
const IDENTITY: &str = "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local";
const CLIENT: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

const ASKED: &str = "web.default.svc.cluster.local:80";

/// A control plane with the certificates of a mesh.
struct Mesh {
    issuer: Issuer,
    index: Index,
    address: SocketAddr,
}

impl Mesh {
    async fn start(validity: Validity) -> Self {
        let issuer = issuer();
        let names = IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
        // Nobody's token is reviewed here.
        let nowhere = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let authority = Authority::new(&issuer.certificate, &issuer.key, names, validity, nowhere).unwrap();
        let tls = Tls::new(Arc::new(authority)).unwrap();
        let index = Index::new(Cluster::default());
        index.mark_synced();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Server::new(index.clone()).with_tls(Some(tls)).serve_destination(listener));
        Self { issuer, index, address }
    }

    fn apply_service(&self) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80, "targetPort": 8080}]},
        });
        self.index.apply(&service).unwrap();
    }

    fn delete_service(&self) {
        self.index.delete(Kind::Service, &Key::new("default", "web"));
    }
}

fn issuer() -> Issuer {
    Identity::generate("cluster.local").unwrap().issuer.unwrap()
}

/// A client's certificate, and its key.
fn certificate(issuer: &Issuer) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let authority = KeyPair::from_pem(&issuer.key).unwrap();
    let authority = rcgen::Issuer::from_ca_cert_pem(&issuer.certificate, authority).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([CLIENT.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Shakes hands: `trusting` these certificates, as whoever has `own`, with whom it expects to be `name`.
async fn shake(
    address: SocketAddr,
    trusting: &Issuer,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    name: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    shake_in(rustls::DEFAULT_VERSIONS, address, trusting, own, name).await
}

/// The same in one of these versions.
async fn shake_in(
    versions: &[&'static SupportedProtocolVersion],
    address: SocketAddr,
    trusting: &Issuer,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    name: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusting.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from(name).unwrap(), stream).await
}

/// Speaks gRPC over a connection, and over no other.
async fn over(stream: TlsStream<TcpStream>) -> Result<DestinationClient<Channel>, tonic::transport::Error> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://control-plane").connect_with_connector(connector).await?;
    Ok(DestinationClient::new(channel))
}

async fn plaintext(address: SocketAddr) -> DestinationClient<Channel> {
    DestinationClient::connect(format!("http://{address}")).await.unwrap()
}

async fn ask(client: &mut DestinationClient<Channel>) -> Result<Streaming<DestinationProfile>, tonic::Status> {
    let question = GetDestination { path: ASKED.into(), ..Default::default() };
    Ok(client.get_profile(question).await?.into_inner())
}

/// The name in the next answer: empty while there is no Service.
async fn next(stream: &mut Streaming<DestinationProfile>) -> String {
    let answer = timeout(DEADLINE, stream.message()).await.expect("an answer in time");
    answer.unwrap().expect("an open stream").fully_qualified_name
}

/// Passes one connection on to `to`, and keeps what its client sent.
async fn tap(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = listener.accept().await.unwrap().0.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            keep.lock().extend_from_slice(&buffer[..read]);
            to_server.write_all(&buffer[..read]).await.unwrap();
        }
    });
    (address, seen)
}

fn has(seen: &Mutex<Vec<u8>>, text: &str) -> bool {
    seen.lock().windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn one_port_takes_tls_that_nobody_reads_and_plaintext_as_before() {
    let mesh = Mesh::start(Validity::default()).await;
    mesh.apply_service();
    let (secret, open) = (tap(mesh.address).await, tap(mesh.address).await);
    let mut in_tls = over(shake(secret.0, &mesh.issuer, None, DESTINATION).await.unwrap()).await.unwrap();
    for client in [&mut in_tls, &mut plaintext(open.0).await] {
        assert_eq!(next(&mut ask(client).await.unwrap()).await, "web.default.svc.cluster.local");
    }
    // The control: what is said in plaintext can be read.
    assert!(!has(&secret.1, ASKED) && has(&open.1, ASKED));
}

#[tokio::test]
async fn its_names_are_those_of_linkerds_services_and_no_others() {
    let mesh = Mesh::start(Validity::default()).await;
    for name in [DESTINATION, IDENTITY] {
        let stream = shake(mesh.address, &mesh.issuer, None, name).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    for (trusting, name) in [(&mesh.issuer, CLIENT), (&issuer(), DESTINATION)] {
        let error = shake(mesh.address, trusting, None, name).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn a_client_without_tls_1_3_is_refused() {
    let mesh = Mesh::start(Validity::default()).await;
    let error = shake_in(&[&TLS12], mesh.address, &mesh.issuer, None, DESTINATION).await.unwrap_err();
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    assert_eq!(reason, Some(&rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)), "{error}");
    // The control: the same client with the version that is spoken.
    shake_in(&[&TLS13], mesh.address, &mesh.issuer, None, DESTINATION).await.unwrap();
}

#[tokio::test]
async fn a_client_may_have_no_certificate_and_must_not_have_a_wrong_one() {
    let mesh = Mesh::start(Validity::default()).await;
    let stranger = issuer();
    for (own, served) in [(None, true), (Some(certificate(&mesh.issuer)), true), (Some(certificate(&stranger)), false)]
    {
        // A client learns that its certificate was refused when it reads.
        let stream = shake(mesh.address, &mesh.issuer, own, DESTINATION).await.unwrap();
        let asked = async { ask(&mut over(stream).await.ok()?).await.ok() };
        assert_eq!(timeout(DEADLINE, asked).await.expect("an end").is_some(), served);
    }
}

/// Somebody who begins and says no more is in nobody's way.
#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_hello_holds_nobody_up() {
    let mesh = Mesh::start(Validity::default()).await;
    let mut silent = Vec::new();
    for beginning in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        silent.push(stream);
    }
    let mut client = over(shake(mesh.address, &mesh.issuer, None, DESTINATION).await.unwrap()).await.unwrap();
    assert_eq!(next(&mut ask(&mut client).await.unwrap()).await, "");
}

#[tokio::test]
async fn a_new_certificate_is_shown_in_time_and_leaves_streams_alone() {
    let mesh = Mesh::start(Validity { lifetime: Duration::from_secs(1), clock_skew: Duration::ZERO }).await;
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let began = Instant::now();
    // On a busy machine a certificate may be over by the time that it arrives.
    let connected = async || loop {
        match shake(mesh.address, &mesh.issuer, None, DESTINATION).await {
            Ok(stream) => return stream,
            Err(error) => assert!(began.elapsed() < DEADLINE, "{error}"),
        }
    };
    let stream = connected().await;
    let mut certificates = vec![shown(&stream)];
    let mut client = over(stream).await.unwrap();
    let mut answers = ask(&mut client).await.unwrap();
    assert_eq!(next(&mut answers).await, "");
    while certificates.len() < 3 {
        assert!(began.elapsed() < DEADLINE, "the certificate was replaced {} times", certificates.len() - 1);
        let now = shown(&connected().await);
        if certificates.last() != Some(&now) {
            certificates.push(now);
            // The stream began under the first.
            mesh.apply_service();
            assert_eq!(next(&mut answers).await, "web.default.svc.cluster.local");
            mesh.delete_service();
            assert_eq!(next(&mut answers).await, "");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The control of the test above: a certificate that is not old stays.
#[tokio::test]
async fn a_certificate_is_not_replaced_before_its_time() {
    let mesh = Mesh::start(Validity::default()).await;
    let mut shown = Vec::new();
    for _ in 0..2 {
        let stream = shake(mesh.address, &mesh.issuer, None, DESTINATION).await.unwrap();
        shown.push(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned());
    }
    assert_eq!(shown[0], shown[1]);
}
