//! A certificate authority with an identity service that believes everybody.

use std::{
    io::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use linkerd2_proxy_api::identity::{
    CertifyRequest, CertifyResponse,
    identity_server::{Identity, IdentityServer},
};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A running identity service.
pub struct Authority {
    address: SocketAddr,
    anchor: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// For how many seconds the last certificate was asked for, by who said so.
    asked: Arc<Mutex<Option<String>>>,
    token: NamedTempFile,
    server: AbortHandle,
}

impl Authority {
    /// Its certificates say that they are valid for so long.
    pub async fn start(lifetime: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = params.self_signed(&key).unwrap().pem();
        let issuer = Arc::new(Issuer::from_ca_cert_pem(&anchor, key).unwrap());
        let asked = Arc::default();
        let service = Service { issuer: Arc::clone(&issuer), lifetime, asked: Arc::clone(&asked) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(IdentityServer::new(service));
        let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener))).abort_handle();
        let mut token = NamedTempFile::new().unwrap();
        token.write_all(b"token").unwrap();
        Self { address, anchor, issuer, asked, token, server }
    }

    /// A certificate for a name, and its key.
    pub fn certify(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &*self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// A certificate for a URI, with which one may be server or client, and its key.
    pub fn certify_uri(&self, uri: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &*self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    pub fn asked(&self) -> Option<String> {
        self.asked.lock().clone()
    }

    pub fn token_file(&self) -> &str {
        self.token.path().to_str().unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service {
    issuer: Arc<Issuer<'static, KeyPair>>,
    lifetime: Duration,
    asked: Arc<Mutex<Option<String>>>,
}

#[tonic::async_trait]
impl Identity for Service {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let asked = request.metadata().get("meshgate-certificate-seconds");
        *self.asked.lock() = asked.map(|seconds| seconds.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let mut csr =
            CertificateSigningRequestParams::from_der(&request.certificate_signing_request.as_slice().into()).unwrap();
        csr.params.subject_alt_names = CertificateParams::new([request.identity]).unwrap().subject_alt_names;
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(Response::new(CertifyResponse {
            leaf_certificate: csr.signed_by(&self.issuer).unwrap().der().to_vec(),
            intermediate_certificates: Vec::new(),
            valid_until: Some((SystemTime::now() + self.lifetime).into()),
        }))
    }
}
