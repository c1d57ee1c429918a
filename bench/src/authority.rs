//! A certificate authority with an identity service that believes everybody, and what a proxy needs on its disk to ask it.

use std::{fs, path::Path, sync::Arc, time::Duration, time::SystemTime};

use anyhow::Context;
use linkerd2_proxy_api::identity::{
    CertifyRequest, CertifyResponse,
    identity_server::{Identity, IdentityServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tonic::{Request, Response, Status};

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The authority.
#[derive(Clone)]
pub(crate) struct Authority {
    anchor: Arc<str>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl Authority {
    /// A fresh one.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = params.self_signed(&key)?.pem();
        let issuer = Issuer::from_ca_cert_pem(&anchor, key)?;
        Ok(Self { anchor: anchor.into(), issuer: Arc::new(issuer) })
    }

    /// Its certificate, as PEM.
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// The identity service.
    pub fn service(&self) -> IdentityServer<Self> {
        IdentityServer::new(self.clone())
    }

    fn certify(&self, request: &CertifyRequest) -> Result<CertifyResponse, rcgen::Error> {
        let mut csr =
            CertificateSigningRequestParams::from_der(&request.certificate_signing_request.as_slice().into())?;
        csr.params.subject_alt_names = CertificateParams::new([request.identity.clone()])?.subject_alt_names;
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(CertifyResponse {
            leaf_certificate: csr.signed_by(&self.issuer)?.der().to_vec(),
            intermediate_certificates: Vec::new(),
            valid_until: Some((SystemTime::now() + LIFETIME).into()),
        })
    }
}

#[tonic::async_trait]
impl Identity for Authority {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let certified = Self::certify(self, &request.into_inner());
        certified.map(Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// Writes a key with a request for its certificate, as Linkerd's proxy expects to find them, and a token.
pub(crate) fn write_identity(folder: &Path, name: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key)?;
    let files = [("key.p8", key.serialize_der()), ("csr.der", request.der().to_vec()), ("token", b"token".to_vec())];
    for (file, content) in files {
        let path = folder.join(file);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
