//! Whether an endpoint is who the control plane says it is.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use webpki::EndEntityCert;

/// Accepts the certificates that lead to a trust anchor and have one identity among their names, whatever the SNI was.
#[derive(Debug)]
pub(super) struct VerifyIdentity {
    id: Arc<str>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl VerifyIdentity {
    pub(super) fn new(id: Arc<str>, roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self { id, roots, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for VerifyIdentity {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        if names(certificate).any(|name| *name == *self.id) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from(self.id.to_string()).map_err(|_| CertificateError::NotValidForName)?,
            presented: names(certificate).map(str::to_owned).collect(),
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken between proxies".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The names that a certificate is for: DNS names first, then URIs.
pub(super) fn names<'a>(certificate: &'a CertificateDer<'_>) -> impl Iterator<Item = &'a str> {
    let parsed = EndEntityCert::try_from(certificate).ok();
    let names = parsed.map(|parsed| parsed.valid_dns_names().chain(parsed.valid_uri_names()).collect::<Vec<_>>());
    names.unwrap_or_default().into_iter()
}
