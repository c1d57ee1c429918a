//! Who a mesh's proxies are: the certificate authority, and the token by which a pod proves its service account.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The audience of the tokens that are mounted for proxies.
pub const TOKEN_AUDIENCE: &str = "identity.l5d.io";

/// The Service of the identity service, and its port.
pub(crate) const SERVICE: &str = "linkerd-identity";
pub(crate) const PORT: u16 = 8080;

/// The Secret with the issuer's certificate and key.
pub(crate) const ISSUER_SECRET: &str = "linkerd-identity-issuer";

/// Where the control plane has it.
pub(crate) const ISSUER_DIR: &str = "/var/run/linkerd/identity/issuer";

const TOKEN_VOLUME: &str = "linkerd-identity-token";
const TOKEN_DIR: &str = "/var/run/secrets/tokens";

/// Where Kubernetes mounts the token of every pod that does not refuse it.
const MOUNTED_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The identities of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// What every proxy trusts: certificates, as PEM.
    pub trust_anchors: String,
    /// Who issues certificates. Only the control plane's own manifests need it.
    pub issuer: Option<Issuer>,
    /// Which token proxies prove themselves with.
    pub token: Token,
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// Its certificate, as PEM.
    pub certificate: String,
    /// Its key, as PEM.
    pub key: String,
}

/// The token by which a proxy proves which service account its pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Token {
    /// One of its own, in a volume that the injector adds (`identity.serviceAccountTokenProjection` of Linkerd's chart, the default
    /// since edge-21.11.1).
    #[default]
    Projected,
    /// The one that Kubernetes mounts for the application: there is none where `automountServiceAccountToken` is false, and the
    /// proxy does not start.
    Mounted,
}

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate authority for the mesh: {0}")]
pub struct IdentityError(#[from] rcgen::Error);

impl Identity {
    /// A new authority, which is its own trust anchor, as `linkerd install` makes one when it is given none.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(cluster_domain: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("root.linkerd.{cluster_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let issuer = Issuer { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok(Self { trust_anchors: certificate, issuer: Some(issuer), token: Token::default() })
    }
}

impl Token {
    /// The file in which a proxy finds it.
    pub(crate) fn file(self) -> String {
        match self {
            Self::Projected => format!("{TOKEN_DIR}/{TOKEN_VOLUME}"),
            Self::Mounted => MOUNTED_TOKEN.to_owned(),
        }
    }

    /// The volume that the injector adds, and where it is mounted.
    pub(crate) fn volume(self) -> Option<(Value, Value)> {
        let token = json!({"path": TOKEN_VOLUME, "audience": TOKEN_AUDIENCE, "expirationSeconds": 86_400});
        let volume = json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}});
        (self == Self::Projected).then(|| (volume, json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR})))
    }
}
