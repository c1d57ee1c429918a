//! The proxy's identity: a key, its own unless it is given one, and a certificate for it that the identity service issues for the pod's
//! token.
//!
//! A request goes out at the start and whenever 70 % of the certificate's time are over, as in Linkerd's proxy
//! (`linkerd/proxy/identity-client/src/certify.rs`). What comes back is believed if it is for this key and name and leads to a trust
//! anchor.

mod documents;

use std::{
    io,
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient};
use rand::Rng;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::{sync::watch, time};
use tonic::Request;
use tracing::{info, warn};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};

use crate::{
    IdentityConfig,
    connect::Connector,
    control::channel::{self, As, Channel},
    metrics::{ControlClient, ControlScope, Labels, Metrics},
    tls::{Credentials, Trust},
};

/// How much of a certificate's time passes until the next is asked for.
const REFRESH: f64 = 0.7;

/// Asks for a certificate that is valid for so many seconds at most. Meshgate's own: Linkerd's identity service does not look at it.
const LIFETIME: &str = "meshgate-certificate-seconds";

/// Between attempts. While there is no certificate yet nothing works, so it is not waited for long.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF_AT_START: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Why the proxy has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no token, or an empty one.
    #[error(
        "cannot read the token that proves the pod's service account, LINKERD2_PROXY_IDENTITY_TOKEN_FILE={}: {source}; a pod with \
         `automountServiceAccountToken: false` has none there: set it to true, or have the injector mount one for the proxy",
        path.display()
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The trust anchors are no certificates.
    #[error("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: expected certificates as PEM: {0}")]
    TrustAnchors(String),
    /// The key that the proxy is given is none that it can use.
    #[error(
        "cannot use {}: {problem}; LINKERD2_PROXY_IDENTITY_DIR holds the proxy's key, `key.p8` (ECDSA on P-256, PKCS #8 as DER), and the \
         request for its certificate, `csr.der`, or neither of them",
        path.display()
    )]
    Documents {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// No key, or no request for it.
    #[error("cannot make the request for a certificate for {name}: {problem}")]
    Request {
        /// The proxy's name.
        name: String,
        /// What went wrong.
        problem: String,
    },
    /// The address of the identity service is none.
    #[error("cannot make a client of the identity service: {0}")]
    Address(#[from] tonic::transport::Error),
}

/// Who the proxy is to other proxies: nobody, or whoever its latest certificate says.
#[derive(Clone)]
pub(crate) struct LocalIdentity(Option<Certified>);

/// Whom a proxy with an identity trusts, and its latest certificate.
#[derive(Clone)]
struct Certified {
    trust: Trust,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
}

impl LocalIdentity {
    /// Of a proxy that needs none: it speaks plaintext.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether the proxy is to have an identity.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Its latest certificate and what belongs to it.
    pub(crate) fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.as_ref().and_then(|certified| certified.credentials.borrow().clone())
    }

    /// Whom it trusts.
    pub(crate) fn trust(&self) -> Option<&Trust> {
        self.0.as_ref().map(|certified| &certified.trust)
    }

    /// Whether it has the certificate that it needs.
    pub(crate) fn is_certified(&self) -> bool {
        self.0.as_ref().is_none_or(|certified| certified.credentials.borrow().is_some())
    }

    /// Ends when it has.
    pub(crate) async fn certified(mut self) {
        if let Some(certified) = &mut self.0
            && certified.credentials.wait_for(Option::is_some).await.is_err()
        {
            // Nobody asks for one any more: the runtime ends.
            std::future::pending::<()>().await;
        }
    }
}

/// Asks for a certificate, and for the next in time, in the background.
pub(crate) fn start(
    config: &IdentityConfig,
    connector: &Connector,
    metrics: &Metrics,
) -> Result<LocalIdentity, IdentityError> {
    let identity = Identity::new(config, metrics.control.scope(&config.addr))?;
    identity.token()?;
    let (known, credentials) = watch::channel(None);
    let local = LocalIdentity(Some(Certified { trust: identity.trust.clone(), credentials }));
    let channel = channel::lazy(&config.addr, connector, &local, As::Anybody, ControlClient::Identity, metrics)?;
    let origin = channel.origin();
    tokio::spawn(identity.keep(IdentityClient::with_origin(channel, origin), known, metrics.clone()));
    Ok(local)
}

/// Who the proxy is.
struct Identity {
    name: String,
    token_file: PathBuf,
    lifetime: Option<Duration>,
    refresh: RangeInclusive<Duration>,
    trust: Trust,
    key: KeyPair,
    /// DER.
    request: Vec<u8>,
    /// Counts its calls.
    calls: ControlScope,
}

impl Identity {
    fn new(config: &IdentityConfig, calls: ControlScope) -> Result<Self, IdentityError> {
        let anchors: Result<Vec<_>, String> = CertificateDer::pem_slice_iter(config.trust_anchors.as_bytes())
            .map(|certificate| {
                let certificate = certificate.map_err(|error| error.to_string())?;
                anchor_from_trusted_cert(&certificate)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| error.to_string())
            })
            .collect();
        let anchors = anchors.map_err(IdentityError::TrustAnchors)?;
        if anchors.is_empty() {
            return Err(IdentityError::TrustAnchors("there is none".to_owned()));
        }
        let name = config.local_name.clone();
        let problem = |error: rcgen::Error| IdentityError::Request { name: name.clone(), problem: error.to_string() };
        let (key, request) = match config.dir.as_deref().map(documents::read).transpose()?.flatten() {
            Some(documents) => documents,
            None => documents::make(&name).map_err(problem)?,
        };
        let refresh = config.min_refresh..=config.max_refresh.max(config.min_refresh);
        let (token_file, lifetime) = (config.token_file.clone(), config.lifetime);
        Ok(Self { name, token_file, lifetime, refresh, trust: Trust::new(anchors), key, request, calls })
    }

    /// The token as it is now: it is replaced before it ends.
    fn token(&self) -> Result<Vec<u8>, IdentityError> {
        let empty = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty");
        let token = std::fs::read(&self.token_file);
        let token = token.and_then(|token| if token.is_empty() { Err(empty()) } else { Ok(token) });
        token.map_err(|source| IdentityError::Token { path: self.token_file.clone(), source })
    }

    async fn keep(
        self,
        mut client: IdentityClient<Channel>,
        known: watch::Sender<Option<Arc<Credentials>>>,
        metrics: Metrics,
    ) {
        let refreshes = |result| metrics.certificate_refreshes.hold(&Labels::new().with("result", result));
        let (succeeded, failed) = (refreshes("ok"), refreshes("error"));
        let none = Labels::new();
        let (refreshed, expires) = (metrics.certificate_refreshed.hold(&none), metrics.certificate_expires.hold(&none));
        let (mut backoff, mut attempts) = (MIN_BACKOFF, 1_u32);
        loop {
            match self.certify(&mut client).await {
                Ok((credentials, until)) => {
                    attempts = 1;
                    succeeded.increment();
                    let now = SystemTime::now();
                    refreshed.set(now.duration_since(UNIX_EPOCH).unwrap_or_default());
                    expires.set(until.duration_since(UNIX_EPOCH).unwrap_or_default());
                    if known.send_replace(Some(Arc::new(credentials))).is_none() {
                        info!(name = self.name, "certified");
                    }
                    backoff = MIN_BACKOFF;
                    time::sleep(self.refresh_after(until.duration_since(now).unwrap_or_default())).await;
                }
                Err(problem) => {
                    failed.increment();
                    // While the control plane starts, too, this is said over and over.
                    if attempts.is_power_of_two() && attempts >= 16 {
                        warn!(name = self.name, %problem, "no certificate; trying again");
                    }
                    attempts += 1;
                    let jitter = 1.0 + 0.1 * rand::rng().random::<f64>();
                    time::sleep(backoff.mul_f64(jitter)).await;
                    let most = if known.borrow().is_some() { MAX_BACKOFF } else { MAX_BACKOFF_AT_START };
                    backoff = (backoff * 2).min(most);
                }
            }
        }
    }

    /// Asks for one certificate: what it gives, and until when it is valid.
    async fn certify(&self, client: &mut IdentityClient<Channel>) -> Result<(Credentials, SystemTime), String> {
        let mut request = Request::new(CertifyRequest {
            identity: self.name.clone(),
            token: self.token().map_err(|error| error.to_string())?,
            certificate_signing_request: self.request.clone(),
        });
        if let Some(lifetime) = self.lifetime {
            request.metadata_mut().insert(LIFETIME, lifetime.as_secs().max(1).into());
        }
        let call = self.calls.begin();
        let response = client.certify(request).await;
        call.end(response.as_ref().err());
        self.believe(response.map_err(|status| status.to_string())?.into_inner())
    }

    /// Whether the certificate is what was asked for, and trusted.
    fn believe(&self, response: CertifyResponse) -> Result<(Credentials, SystemTime), String> {
        let until = response.valid_until.ok_or("the answer does not say until when the certificate is valid")?;
        let until = SystemTime::try_from(until).map_err(|error| error.to_string())?;
        let leaf = CertificateDer::from(response.leaf_certificate);
        let between: Vec<_> = response.intermediate_certificates.into_iter().map(CertificateDer::from).collect();
        let certificate = EndEntityCert::try_from(&leaf).map_err(|error| format!("the certificate: {error}"))?;
        if certificate.subject_public_key_info().as_ref() != self.key.subject_public_key_info() {
            return Err("the certificate is for another key".to_owned());
        }
        let name = ServerName::try_from(self.name.as_str()).map_err(|error| error.to_string())?;
        certificate
            .verify_is_valid_for_subject_name(&name)
            .and_then(|()| {
                let (now, usage) = (UnixTime::now(), KeyUsage::server_auth());
                let algorithms = &[ring::ECDSA_P256_SHA256, ring::ECDSA_P256_SHA384, ring::ECDSA_P384_SHA384];
                certificate
                    .verify_for_usage(algorithms, self.trust.anchors(), &between, now, usage, None, None)
                    .map(|_| ())
            })
            .map_err(|error| format!("the certificate for {} is not trusted: {error}", self.name))?;
        let chain = std::iter::once(leaf.clone()).chain(between.iter().cloned()).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let credentials = Credentials::new(self.name.as_str().into(), chain, until, key, self.trust.clone());
        Ok((credentials.map_err(|error| error.to_string())?, until))
    }

    fn refresh_after(&self, lifetime: Duration) -> Duration {
        lifetime.mul_f64(REFRESH).clamp(*self.refresh.start(), *self.refresh.end())
    }
}

#[cfg(test)]
mod tests;
