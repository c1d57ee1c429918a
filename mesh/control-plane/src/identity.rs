//! `Identity.Certify`: a certificate for the service account that a token proves.
//!
//! As Linkerd's identity controller has it (`controller/identity/validator.go`, `pkg/identity/service.go`): the API server reviews the
//! token, the service account in it makes the identity's name, and a request for another name is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse, identity_server::Identity};
use parking_lot::Mutex;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use tonic::{Request, Response, Status};

use crate::IdentityDomain;

/// The audience of tokens that are made for this. A token for anybody is taken as well, as long as proxies use it.
const AUDIENCE: &str = "identity.l5d.io";

/// Metadata by which a proxy asks for a certificate that is valid for so many seconds at most, as a CertificateSigningRequest of Kubernetes
/// does by `expirationSeconds`. Meshgate's own.
const LIFETIME: &str = "meshgate-certificate-seconds";

/// When certificates are valid. The defaults are those of Linkerd's chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when they are issued.
    pub lifetime: Duration,
    /// How much longer at both ends, because clocks of a cluster differ.
    pub clock_skew: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(24 * 60 * 60), clock_skew: Duration::from_secs(20) }
    }
}

/// The service accounts that Linkerd's control plane has: the destination and policy services run under the first, the identity service
/// under the second. Proxies look for these names.
const OWN_ACCOUNTS: [&str; 2] = ["linkerd-destination", "linkerd-identity"];

struct Current {
    signer: Arc<Signer>,
    /// What was read after it and is of no use, so that it is looked at and told of once.
    refused: Option<[String; 2]>,
}

/// Issues certificates.
pub struct Authority {
    signer: Mutex<Current>,
    /// Where the signer was read from, if it may change there.
    folder: Option<PathBuf>,
    domain: IdentityDomain,
    validity: Validity,
    reviews: Api<TokenReview>,
}

/// Who signs certificates, as it was read.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's own certificate: a trust anchor, or signed by one.
    certificate: CertificateDer<'static>,
    /// When that certificate ends.
    until: SystemTime,
    /// The certificate and the key as PEM, in which a change shows.
    text: [String; 2],
}

impl Signer {
    fn parse(text: [String; 2]) -> anyhow::Result<Self> {
        let [certificate, key] = &text;
        let pair = KeyPair::from_pem(key).context("the issuer's key")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, pair).context("the issuer's certificate")?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).context("the issuer's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the issuer's key")?;
        // Of two files that change one after the other, each may be read without the other.
        let key = ring::sign::any_supported_type(&key).context("the issuer's key")?;
        CertifiedKey::new(vec![certificate.clone()], key).keys_match().context("the issuer's certificate and key")?;
        let until = ends(&certificate).context("expected X.509 as the issuer's certificate")?;
        Ok(Self { issuer, certificate, until, text })
    }

    /// The issuer's own certificate, which is between those that it issues and what proxies trust.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

/// When a certificate ends.
fn ends(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The certificate and the key in a folder.
fn texts(folder: &Path) -> anyhow::Result<[String; 2]> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("the issuer's {}", path.display()))
    };
    Ok([file("tls.crt")?, file("tls.key")?])
}

impl Authority {
    /// With the certificate and key in a folder, as a Secret of type `kubernetes.io/tls` is mounted.
    pub(crate) fn read(
        folder: &Path,
        domain: IdentityDomain,
        validity: Validity,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let [certificate, key] = texts(folder)?;
        let authority = Self::new(&certificate, &key, domain, validity, client)?;
        Ok(Self { folder: Some(folder.to_owned()), ..authority })
    }

    /// With a certificate and key as PEM.
    ///
    /// # Errors
    /// The two are no certificate and key, or not of each other.
    pub fn new(
        certificate: &str,
        key: &str,
        domain: IdentityDomain,
        validity: Validity,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let signer = Arc::new(Signer::parse([certificate.to_owned(), key.to_owned()])?);
        let signer = Mutex::new(Current { signer, refused: None });
        Ok(Self { signer, folder: None, domain, validity, reviews: Api::all(client) })
    }

    /// Who signs now. A Secret that is mounted changes in its place, and who renews the issuer in it need not start anything anew.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        let mut current = self.signer.lock();
        let text = self.folder.as_deref().and_then(|folder| {
            texts(folder).inspect_err(|error| tracing::debug!("what there was is used: {error:#}")).ok()
        });
        let Some(text) = text.filter(|text| *text != current.signer.text && current.refused.as_ref() != Some(text))
        else {
            return Arc::clone(&current.signer);
        };
        match Signer::parse(text.clone()) {
            Ok(next) => {
                tracing::info!("the issuer has changed");
                *current = Current { signer: Arc::new(next), refused: None };
            }
            // It may be between two changes, and what there was may be valid for a while yet.
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "expected the issuer's certificate and key; those before are used"
                );
                current.refused = Some(text);
            }
        }
        Arc::clone(&current.signer)
    }

    /// The name that a token proves.
    async fn proven(&self, token: &str) -> Result<String, Status> {
        let mut problem = String::new();
        for audiences in [Some(vec![AUDIENCE.to_owned()]), None] {
            let status = self.review(token, audiences).await?;
            let user = status.user.and_then(|user| user.username).filter(|_| status.authenticated == Some(true));
            if let Some(user) = user {
                let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
                let (namespace, name) = account.ok_or_else(|| {
                    Status::failed_precondition(format!("the token is {user}'s, no service account's"))
                })?;
                return Ok(format!("{name}.{namespace}.{}", self.domain.suffix()));
            }
            problem = status.error.unwrap_or(problem);
        }
        Err(Status::failed_precondition(format!("the token proves nothing: {problem}")))
    }

    async fn review(&self, token: &str, audiences: Option<Vec<String>>) -> Result<TokenReviewStatus, Status> {
        let review =
            TokenReview { spec: TokenReviewSpec { token: token.to_owned(), audiences }, ..TokenReview::default() };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await;
        let reviewed =
            reviewed.map_err(|error| Status::unavailable(format!("the token could not be reviewed: {error}")))?;
        Ok(reviewed.status.unwrap_or_default())
    }

    /// A certificate for `name` and the key of a request, and until when it is valid: for `lifetime`, if that is shorter than usual.
    fn issue(
        &self,
        signer: &Signer,
        name: &str,
        request: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<(Vec<u8>, SystemTime), Status> {
        if signer.until <= SystemTime::now() {
            return Err(Status::unavailable("the issuer's certificate has ended: nobody would trust what it signs"));
        }
        let invalid = |problem: String| Status::invalid_argument(format!("the certificate signing request: {problem}"));
        let mut request =
            CertificateSigningRequestParams::from_der(&request.into()).map_err(|error| invalid(error.to_string()))?;
        let asked = Ia5String::try_from(name).map_err(|error| invalid(error.to_string()))?;
        if request.params.subject_alt_names != [SanType::DnsName(asked)] {
            let found = &request.params.subject_alt_names;
            return Err(invalid(format!("expected the one DNS name {name}, found {found:?}")));
        }
        let until = self.describe(signer, &mut request.params, name, lifetime);
        let certificate = request.signed_by(&signer.issuer);
        let certificate = certificate.map_err(|error| Status::internal(format!("signing: {error}")))?;
        Ok((certificate.der().to_vec(), until))
    }

    /// A certificate for the control plane itself, with a key that is as new, and until when it is valid.
    pub(crate) fn issue_own(
        &self,
        signer: &Signer,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>, SystemTime), rcgen::Error> {
        let names = OWN_ACCOUNTS
            .map(|account| format!("{account}.{}.{}", self.domain.control_plane_namespace, self.domain.suffix()));
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.as_slice())?;
        let until = self.describe(signer, &mut params, &names[0], None);
        let certificate = params.signed_by(&key, &signer.issuer)?;
        Ok((certificate.der().clone(), key.serialize_der().into(), until))
    }

    /// What every certificate says besides its names and its key. It is valid until the time that is returned.
    fn describe(
        &self,
        signer: &Signer,
        params: &mut CertificateParams,
        name: &str,
        asked: Option<Duration>,
    ) -> SystemTime {
        let now = SystemTime::now();
        let Validity { lifetime, clock_skew } = self.validity;
        let until = now + asked.filter(|asked| *asked < lifetime).unwrap_or(lifetime + clock_skew);
        // With the issuer's certificate ends the trust in what it has signed: whoever has one asks for the next before that.
        let until = until.min(signer.until);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - clock_skew).into();
        params.not_after = until.into();
        until
    }
}

#[tonic::async_trait]
impl Identity for Authority {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let asked = request.metadata().get(LIFETIME).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let CertifyRequest { identity, token, certificate_signing_request } = request.into_inner();
        let token = String::from_utf8(token).map_err(|_| Status::invalid_argument("the token is no text"))?;
        if identity.is_empty() || token.trim().is_empty() {
            return Err(Status::invalid_argument("expected an identity and a token"));
        }
        let proven = self.proven(token.trim()).await?;
        if proven != identity {
            let problem =
                format!("requested identity did not match provided token: requested={identity}; found={proven}");
            return Err(Status::failed_precondition(problem));
        }
        let signer = self.signer();
        let (leaf_certificate, until) =
            self.issue(&signer, &identity, &certificate_signing_request, asked.map(Duration::from_secs))?;
        tracing::info!(identity, "a certificate was issued");
        Ok(Response::new(CertifyResponse {
            leaf_certificate,
            intermediate_certificates: vec![signer.certificate.to_vec()],
            valid_until: Some(until.into()),
        }))
    }
}

#[cfg(test)]
mod tests;
