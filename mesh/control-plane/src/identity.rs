//! `Identity.Certify`: a certificate for the service account that a token proves.
//!
//! As Linkerd's identity controller has it (`controller/identity/validator.go`, `pkg/identity/service.go`): the API server reviews the
//! token, the service account in it makes the identity's name, and a request for another name is refused.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse, identity_server::Identity};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
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

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's own certificate: a trust anchor, or signed by one.
    certificate: CertificateDer<'static>,
    domain: IdentityDomain,
    validity: Validity,
    reviews: Api<TokenReview>,
}

impl Authority {
    /// With the certificate and key in a folder, as a Secret of type `kubernetes.io/tls` is mounted.
    pub(crate) fn read(
        folder: &Path,
        domain: IdentityDomain,
        validity: Validity,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("the issuer's {}", path.display()))
        };
        Self::new(&file("tls.crt")?, &file("tls.key")?, domain, validity, client)
    }

    /// With a certificate and key as PEM.
    ///
    /// # Errors
    /// The two are no certificate and key.
    pub fn new(
        certificate: &str,
        key: &str,
        domain: IdentityDomain,
        validity: Validity,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key).context("the issuer's key")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).context("the issuer's certificate")?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).context("the issuer's certificate")?;
        Ok(Self { issuer, certificate, domain, validity, reviews: Api::all(client) })
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
    fn issue(&self, name: &str, request: &[u8], lifetime: Option<Duration>) -> Result<(Vec<u8>, SystemTime), Status> {
        let invalid = |problem: String| Status::invalid_argument(format!("the certificate signing request: {problem}"));
        let mut request =
            CertificateSigningRequestParams::from_der(&request.into()).map_err(|error| invalid(error.to_string()))?;
        let asked = Ia5String::try_from(name).map_err(|error| invalid(error.to_string()))?;
        if request.params.subject_alt_names != [SanType::DnsName(asked)] {
            let found = &request.params.subject_alt_names;
            return Err(invalid(format!("expected the one DNS name {name}, found {found:?}")));
        }
        let until = self.describe(&mut request.params, name, lifetime);
        let certificate = request.signed_by(&self.issuer);
        let certificate = certificate.map_err(|error| Status::internal(format!("signing: {error}")))?;
        Ok((certificate.der().to_vec(), until))
    }

    /// A certificate for the control plane itself, with a key that is as new, and until when it is valid.
    pub(crate) fn issue_own(
        &self,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>, SystemTime), rcgen::Error> {
        let names = OWN_ACCOUNTS
            .map(|account| format!("{account}.{}.{}", self.domain.control_plane_namespace, self.domain.suffix()));
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.as_slice())?;
        let until = self.describe(&mut params, &names[0], None);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().clone(), key.serialize_der().into(), until))
    }

    /// What every certificate says besides its names and its key. It is valid until the time that is returned.
    fn describe(&self, params: &mut CertificateParams, name: &str, asked: Option<Duration>) -> SystemTime {
        let now = SystemTime::now();
        let Validity { lifetime, clock_skew } = self.validity;
        let until = now + asked.filter(|asked| *asked < lifetime).unwrap_or(lifetime + clock_skew);
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

    /// The issuer's own certificate, which is between those that it issues and what proxies trust.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
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
        let (leaf_certificate, until) =
            self.issue(&identity, &certificate_signing_request, asked.map(Duration::from_secs))?;
        tracing::info!(identity, "a certificate was issued");
        Ok(Response::new(CertifyResponse {
            leaf_certificate,
            intermediate_certificates: vec![self.certificate.to_vec()],
            valid_until: Some(until.into()),
        }))
    }
}
