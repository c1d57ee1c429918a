//! TLS of the control plane itself, as a proxy of Linkerd's beside it would end it.
//!
//! TLS 1.3 only and without resumption, with a certificate of the control plane's names. A client is asked for its certificate and may have
//! none: whoever asks for the first has not.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;

use crate::{Authority, identity::Signer};

/// How much of a certificate's time passes until it is replaced, as with those of proxies.
const REFRESH: f64 = 0.7;

/// Ends TLS under the names of the control plane, with certificates that an [`Authority`] issues.
#[derive(Clone)]
pub struct Tls(Arc<Acceptors>);

enum Acceptors {
    /// One for ever.
    Fixed(TlsAcceptor),
    /// One for each issuer that the authority has in turn.
    Issued { authority: Arc<Authority>, current: Mutex<Current> },
}

struct Current {
    signer: Arc<Signer>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// With the first certificate.
    ///
    /// # Errors
    /// The authority cannot issue it, or is none.
    pub fn new(authority: Arc<Authority>) -> anyhow::Result<Self> {
        let signer = authority.signer();
        let acceptor = issued_by(&authority, &signer, None)?;
        Ok(Self(Arc::new(Acceptors::Issued { authority, current: Mutex::new(Current { signer, acceptor }) })))
    }

    /// With a certificate and key of files, which are read once; clients are asked for none.
    ///
    /// # Errors
    /// The files cannot be read, or are no certificate and key.
    pub(crate) fn of_files(folder: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let chain = CertificateDer::pem_file_iter(&certificate)
            .and_then(Iterator::collect)
            .with_context(|| format!("expected certificates as PEM in {}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(&key)
            .with_context(|| format!("expected a private key as PEM in {}", key.display()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(Acceptors::Fixed(TlsAcceptor::from(Arc::new(config))))))
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let (authority, current) = match &*self.0 {
            Acceptors::Fixed(acceptor) => return acceptor.clone(),
            Acceptors::Issued { authority, current } => (authority, current),
        };
        let signer = authority.signer();
        let mut current = current.lock();
        if !Arc::ptr_eq(&signer, &current.signer) {
            match issued_by(authority, &signer, Some(&current.signer)) {
                Ok(acceptor) => *current = Current { signer, acceptor },
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "no certificate of the new issuer for the control plane itself"
                    );
                }
            }
        }
        current.acceptor.clone()
    }
}

/// Shows certificates that a signer issues, and takes those of clients that it has issued, or the one `before` it.
fn issued_by(
    authority: &Arc<Authority>,
    signer: &Arc<Signer>,
    before: Option<&Arc<Signer>>,
) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    // Proxies have certificates of this issuer, wherever it got its own, and until they ask for the next, of the one before.
    for signer in before.into_iter().chain([signer]) {
        roots.add(signer.certificate().clone())?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let clients = clients.allow_unauthenticated().build()?;
    let certificate = OwnCertificate {
        current: Mutex::new(Issued::by(authority, signer)?),
        authority: Arc::clone(authority),
        signer: Arc::clone(signer),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificate));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificate that connections are shown. It is replaced when one comes in the last part of its time: nobody sees it in between.
struct OwnCertificate {
    authority: Arc<Authority>,
    signer: Arc<Signer>,
    current: Mutex<Issued>,
}

struct Issued {
    key: Arc<CertifiedKey>,
    replace_at: SystemTime,
}

impl Issued {
    fn by(authority: &Authority, signer: &Signer) -> anyhow::Result<Self> {
        let (certificate, key, until) = authority.issue_own(signer)?;
        let key = CertifiedKey::new(
            vec![certificate, signer.certificate().clone()],
            ring::sign::any_ecdsa_type(&key.into())?,
        );
        let now = SystemTime::now();
        // Once the issuer has ended there is nothing to be had that lasts, and not at every connection.
        let lasts = until.duration_since(now).unwrap_or_default().mul_f64(REFRESH).max(Duration::from_secs(1));
        let replace_at = now + lasts;
        Ok(Self { key: Arc::new(key), replace_at })
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        if SystemTime::now() >= current.replace_at {
            match Issued::by(&self.authority, &self.signer) {
                Ok(next) => *current = next,
                // The last one may be valid for a while yet.
                Err(error) => tracing::warn!(%error, "no new certificate for the control plane itself"),
            }
        }
        Some(Arc::clone(&current.key))
    }
}
