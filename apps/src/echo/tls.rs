//! A certificate of its own for the HTTPS port.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A name is none that a certificate can have.
    #[error("cannot make a certificate for the service's names: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refuses it.
    #[error("cannot set up TLS with the certificate just made: {0}")]
    Tls(#[from] rustls::Error),
}

/// Self-signed for these names, the first of which is its subject; offers HTTP/2 and HTTP/1.1.
pub(super) fn acceptor(names: &[String]) -> Result<TlsAcceptor, Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names)?;
    if let Some(name) = names.first() {
        parameters.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    let certificate = parameters.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
