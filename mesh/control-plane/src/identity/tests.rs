use std::{io, sync::Arc};

use meshgate_inject::Issuer as Pem;
use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateSigningRequestDer, ServerName, UnixTime},
};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::*;
use crate::Tls;

const HOUR: Duration = Duration::from_secs(3600);

const WEB: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";
const DESTINATION: &str = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";

/// By `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=NAME -addext subjectAltName=DNS:NAME`.
const OPENSSL: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBVTCB/QIBADBEMUIwQAYDVQQDDDl3ZWIuZGVmYXVsdC5zZXJ2aWNlYWNjb3Vu
dC5pZGVudGl0eS5saW5rZXJkLmNsdXN0ZXIubG9jYWwwWTATBgcqhkjOPQIBBggq
hkjOPQMBBwNCAASNjF+HIcM5rMn3WZiN/uK5fJo/TFfXnfwc9tfDxlI2X3PkNx+J
Rn6dxSTUIqty6gFBwS0xA7xNwYglb0tbH+aGoFcwVQYJKoZIhvcNAQkOMUgwRjBE
BgNVHREEPTA7gjl3ZWIuZGVmYXVsdC5zZXJ2aWNlYWNjb3VudC5pZGVudGl0eS5s
aW5rZXJkLmNsdXN0ZXIubG9jYWwwCgYIKoZIzj0EAwIDRwAwRAIgCwzGcUy24PmC
PBgCHQH8601ZqL9esLdX/+tXfH524BMCICRGcW+Fzf3p0CtGvAe5I/UgioYeCGHF
/a3RftfQhhQb
-----END CERTIFICATE REQUEST-----
";

fn pem() -> Pem {
    meshgate_inject::Identity::generate("cluster.local").unwrap().issuer.unwrap()
}

/// An issuer whose certificate ends then.
fn pem_until(until: SystemTime) -> Pem {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = until.into();
    Pem { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn der(pem: &Pem) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap()
}

fn domain() -> IdentityDomain {
    IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() }
}

/// Nobody's token is reviewed here.
fn nowhere() -> kube::Client {
    kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap()
}

fn authority(pem: &Pem) -> Authority {
    Authority::new(&pem.certificate, &pem.key, domain(), Validity::default(), nowhere()).unwrap()
}

/// A folder, as a Secret is mounted.
fn put(folder: &TempDir, certificate: &str, key: &str) {
    std::fs::write(folder.path().join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.path().join("tls.key"), key).unwrap();
}

fn request() -> CertificateSigningRequestDer<'static> {
    CertificateSigningRequestDer::from_pem_slice(OPENSSL.as_bytes()).unwrap()
}

fn issue(authority: &Authority, lifetime: Option<Duration>) -> Result<(Vec<u8>, SystemTime), Status> {
    authority.issue(&authority.signer(), WEB, &request(), lifetime)
}

/// Whether somebody who trusts an issuer takes a certificate for a name.
fn is_trusted(certificate: &[u8], issuer: &Pem, name: &'static str) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(der(issuer)).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(&CertificateDer::from(certificate), &[], &name, &[], UnixTime::now()).is_ok()
}

/// The point on P-256 that a request or a certificate is for.
fn public_key(der: &[u8]) -> &[u8] {
    // The name of the curve, and the head of a string of bits that is a point without compression.
    const BEFORE: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
    let start = der.windows(BEFORE.len()).position(|bytes| bytes == BEFORE).unwrap() + BEFORE.len();
    &der[start..start + 64]
}

#[tokio::test]
async fn a_request_that_another_library_made_is_signed_for_its_key_and_its_name_alone() {
    let (pem, request) = (pem(), request());
    let authority = authority(&pem);
    let (certificate, until) = issue(&authority, None).unwrap();
    assert!(until > SystemTime::now() + HOUR);
    assert_eq!(public_key(&certificate), public_key(&request));
    assert!(is_trusted(&certificate, &pem, WEB));
    // The controls: another name, another issuer; then a request for another name, and one that somebody has changed.
    assert!(!is_trusted(&certificate, &pem, DESTINATION) && !is_trusted(&certificate, &self::pem(), WEB));
    let refused = |name: &str, request: &[u8]| authority.issue(&authority.signer(), name, request, None).unwrap_err();
    assert_eq!(refused(DESTINATION, &request).code(), tonic::Code::InvalidArgument);
    let mut changed = request.to_vec();
    let start = changed.windows(7).position(|bytes| bytes == b"default").unwrap();
    changed[start..start + 7].copy_from_slice(b"another");
    assert_eq!(refused(WEB, &changed).code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn no_certificate_outlives_its_issuer() {
    let ends = SystemTime::now() + HOUR;
    let minute = Duration::from_secs(60);
    let authority = authority(&pem_until(ends));
    // The second is the control: one that ends before that anyway.
    for (asked, latest) in [(None, ends), (Some(minute), SystemTime::now() + 2 * minute)] {
        let (certificate, until) = issue(&authority, asked).unwrap();
        assert!(until <= latest && until > latest - 2 * minute, "{asked:?}");
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let said = u64::try_from(parsed.validity().not_after.timestamp()).unwrap();
        assert_eq!(said, until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    }
    let (.., until) = authority.issue_own(&authority.signer()).unwrap();
    assert!(until <= ends);

    let ended = self::authority(&pem_until(SystemTime::now() - HOUR));
    assert_eq!(issue(&ended, None).unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn an_issuer_that_changes_is_read_again() {
    let (folder, first, second) = (TempDir::new().unwrap(), pem(), pem());
    put(&folder, &first.certificate, &first.key);
    let authority = Authority::read(folder.path(), domain(), Validity::default(), nowhere()).unwrap();
    let unchanged = authority.signer();
    assert!(Arc::ptr_eq(&unchanged, &authority.signer()), "what has not changed is no other issuer");
    // Half of a change, and what is no issuer.
    for (certificate, key) in [(&*second.certificate, &*first.key), (&*first.certificate, &*second.key), ("", "")] {
        put(&folder, certificate, key);
        assert!(is_trusted(&issue(&authority, None).unwrap().0, &first, WEB));
    }
    put(&folder, &second.certificate, &second.key);
    let certificate = issue(&authority, None).unwrap().0;
    assert_eq!(authority.signer().certificate(), &der(&second));
    assert!(is_trusted(&certificate, &second, WEB) && !is_trusted(&certificate, &first, WEB));
    assert!(Authority::new(&first.certificate, &second.key, domain(), Validity::default(), nowhere()).is_err());
}

/// Shakes hands with the control plane, trusting one issuer, with a certificate of another; what the control plane shows.
async fn shake(tls: &Tls, trusting: &Pem, own: &Pem) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut roots = RootCertStore::empty();
    roots.add(der(trusting)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&own.certificate, KeyPair::from_pem(&own.key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([WEB.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(DESTINATION).unwrap(), near);
    let (client, server) = tokio::join!(client, tls.acceptor().accept(far));
    server?;
    let client = client?;
    let shown = client.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(shown.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

#[tokio::test]
async fn a_new_issuer_is_shown_and_clients_of_the_one_before_are_taken() {
    let (folder, first, second) = (TempDir::new().unwrap(), pem(), pem());
    put(&folder, &first.certificate, &first.key);
    let authority = Authority::read(folder.path(), domain(), Validity::default(), nowhere()).unwrap();
    let tls = Tls::new(Arc::new(authority)).unwrap();
    assert_eq!(shake(&tls, &first, &first).await.unwrap()[1], der(&first));
    // The control: nobody has heard of the second yet.
    assert!(shake(&tls, &second, &first).await.is_err() && shake(&tls, &first, &second).await.is_err());

    put(&folder, &second.certificate, &second.key);
    for own in [&first, &second] {
        assert_eq!(shake(&tls, &second, own).await.unwrap()[1], der(&second));
    }
    assert!(shake(&tls, &second, &pem()).await.is_err());
    assert!(shake(&tls, &first, &first).await.is_err());
}
