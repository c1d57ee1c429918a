//! TLS with anybody: every certificate is accepted, and told.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

use super::Stream;
use super::failure::{ErrorKind, Failure};

/// Whom a TLS session is with, by the certificate it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The common name of its subject; none when it has none.
    pub common_name: Option<String>,
    /// The DNS names that it is for.
    pub names: Vec<String>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
}

/// Starts TLS on a stream. An IP address is no name to ask for, so it asks for none then, as clients do.
pub async fn secure(stream: Stream, server_name: &str, alpn: &[&str]) -> Result<(Stream, Peer), Failure> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
        Failure::new(ErrorKind::Invalid, format!("expected a DNS name or IP address, found {server_name:?}"))
    })?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(ErrorKind::Tls, error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let failure = Failure::from(error);
        // A peer that hangs up in the handshake refuses TLS, whatever the socket calls it.
        Failure::new(ErrorKind::Tls, failure.text)
    })?;
    let (_, session) = stream.get_ref();
    let mut peer = session.peer_certificates().and_then(|chain| chain.first()).map(identity).unwrap_or_default();
    peer.alpn = session.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
    Ok((Box::pin(stream), peer))
}

fn identity(certificate: &CertificateDer<'_>) -> Peer {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Peer::default() };
    Peer {
        common_name: common_name(certificate.subject()),
        names: certificate.valid_dns_names().map(str::to_owned).collect(),
        alpn: None,
    }
}

/// The common name of a subject in DER: what follows the object id 2.5.4.3, a string with a length below 128.
fn common_name(subject: &[u8]) -> Option<String> {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let at = subject.windows(COMMON_NAME.len()).position(|window| window == COMMON_NAME)?;
    let [_tag, length, text @ ..] = &subject[at + COMMON_NAME.len()..] else { return None };
    text.get(..usize::from(*length)).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Accepts every certificate, and still checks that the peer owns it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
