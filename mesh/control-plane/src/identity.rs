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
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tonic::{Request, Response, Status};

/// The audience of tokens that are made for this. A token for anybody is taken as well, as long as proxies use it.
const AUDIENCE: &str = "identity.l5d.io";

/// Clocks of a cluster differ by so much; the default of Linkerd's chart.
const CLOCK_SKEW: Duration = Duration::from_secs(20);

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What follows `ACCOUNT.NAMESPACE.` in every name.
    domain: String,
    lifetime: Duration,
    reviews: Api<TokenReview>,
}

impl Authority {
    /// With the certificate and key in a folder, as a Secret of type `kubernetes.io/tls` is mounted.
    pub(crate) fn read(
        folder: &Path,
        domain: String,
        lifetime: Duration,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("the issuer's {}", path.display()))
        };
        Self::new(&file("tls.crt")?, &file("tls.key")?, domain, lifetime, client)
    }

    /// With a certificate and key as PEM. Names end with `domain`: `serviceaccount.identity.linkerd.cluster.local`.
    ///
    /// # Errors
    /// The two are no certificate and key.
    pub fn new(
        certificate: &str,
        key: &str,
        domain: String,
        lifetime: Duration,
        client: kube::Client,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key).context("the issuer's key")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).context("the issuer's certificate")?;
        Ok(Self { issuer, domain, lifetime, reviews: Api::all(client) })
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
                return Ok(format!("{name}.{namespace}.{}", self.domain));
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

    /// A certificate for `name` and the key of a request, and until when it is valid.
    fn issue(&self, name: &str, request: &[u8]) -> Result<(Vec<u8>, SystemTime), Status> {
        let invalid = |problem: String| Status::invalid_argument(format!("the certificate signing request: {problem}"));
        let mut request =
            CertificateSigningRequestParams::from_der(&request.into()).map_err(|error| invalid(error.to_string()))?;
        let asked = Ia5String::try_from(name).map_err(|error| invalid(error.to_string()))?;
        if request.params.subject_alt_names != [SanType::DnsName(asked)] {
            let found = &request.params.subject_alt_names;
            return Err(invalid(format!("expected the one DNS name {name}, found {found:?}")));
        }
        let now = SystemTime::now();
        let until = now + self.lifetime + CLOCK_SKEW;
        let params = &mut request.params;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = until.into();
        let certificate = request.signed_by(&self.issuer);
        let certificate = certificate.map_err(|error| Status::internal(format!("signing: {error}")))?;
        Ok((certificate.der().to_vec(), until))
    }
}

#[tonic::async_trait]
impl Identity for Authority {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
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
        let (leaf_certificate, until) = self.issue(&identity, &certificate_signing_request)?;
        tracing::info!(identity, "a certificate was issued");
        Ok(Response::new(CertifyResponse {
            leaf_certificate,
            // Proxies trust the issuer itself.
            intermediate_certificates: Vec::new(),
            valid_until: Some(until.into()),
        }))
    }
}
