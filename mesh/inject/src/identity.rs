//! Who a mesh's proxies are: the certificate authority, and the token by which a pod proves its service account.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, UnixTime};
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

/// Where a proxy may keep its key.
pub(crate) const END_ENTITY_DIR: &str = "/var/run/linkerd/identity/end-entity";
const END_ENTITY_VOLUME: &str = "linkerd-identity-end-entity";

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
pub enum IdentityError {
    /// None could be made.
    #[error("cannot make a certificate authority for the mesh: {0}")]
    Make(#[from] rcgen::Error),
    /// The trust anchors are no certificates.
    #[error("the trust anchors: expected certificates as PEM")]
    Anchors(#[from] pem::Error),
    /// The issuer's certificate and key are none.
    #[error("the issuer: expected the certificate of an authority and its private key as PEM")]
    Issuer(#[source] rcgen::Error),
    /// No proxy would trust what the issuer issues.
    #[error(
        "the issuer: expected a certificate that a trust anchor has signed, that is of the given key on the curve P-256 and has not ended; what \
         it issues is not trusted"
    )]
    NotTrusted(#[from] webpki::Error),
}

impl Identity {
    /// An authority that is there, as PEM: what every proxy is to trust, and an issuer that it leads to.
    ///
    /// # Errors
    /// [`IdentityError`] when a proxy would not trust what the issuer issues.
    pub fn of_issuer(trust_anchors: String, issuer: Issuer) -> Result<Self, IdentityError> {
        let anchors: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(trust_anchors.as_bytes()).collect::<Result<_, _>>()?;
        let anchors: Vec<_> = anchors.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<_, _>>()?;
        // Whatever may be wrong with the three shows in a certificate of theirs.
        let key = KeyPair::from_pem(&issuer.key).map_err(IdentityError::Issuer)?;
        let authority = rcgen::Issuer::from_ca_cert_pem(&issuer.certificate, key).map_err(IdentityError::Issuer)?;
        let leaf = CertificateParams::default().signed_by(&KeyPair::generate()?, &authority)?;
        let between = CertificateDer::from_pem_slice(issuer.certificate.as_bytes())?;
        webpki::EndEntityCert::try_from(leaf.der())?.verify_for_usage(
            &[webpki::ring::ECDSA_P256_SHA256],
            &anchors,
            &[between],
            UnixTime::now(),
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )?;
        Ok(Self { trust_anchors, issuer: Some(issuer), token: Token::default() })
    }

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

impl Identity {
    /// The volumes that the injector adds, each with where it is mounted.
    pub(crate) fn volumes(&self) -> Vec<(Value, Value)> {
        // In memory, so that no key comes to lie on a disk.
        let key = (
            json!({"name": END_ENTITY_VOLUME, "emptyDir": {"medium": "Memory"}}),
            json!({"name": END_ENTITY_VOLUME, "mountPath": END_ENTITY_DIR}),
        );
        [key].into_iter().chain(self.token.volume()).collect()
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

    fn volume(self) -> Option<(Value, Value)> {
        let token = json!({"path": TOKEN_VOLUME, "audience": TOKEN_AUDIENCE, "expirationSeconds": 86_400});
        let volume = json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}});
        (self == Self::Projected).then(|| (volume, json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trust anchor, and an issuer that it has signed.
    fn signed() -> (String, Issuer) {
        let authority = |name: &str, further| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(further));
            params
        };
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = authority("root", 1);
        let anchor = root.self_signed(&root_key).unwrap().pem();
        let certificate =
            authority("issuer", 0).signed_by(&key, &rcgen::Issuer::from_params(&root, &root_key)).unwrap();
        (anchor, Issuer { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    #[test]
    fn an_issuer_is_taken_if_proxies_will_trust_it() {
        let (anchor, issuer) = signed();
        let identity = Identity::of_issuer(anchor.clone(), issuer.clone()).unwrap();
        assert_eq!((identity.trust_anchors, identity.issuer), (anchor.clone(), Some(issuer.clone())));

        let (strange, other) = signed();
        // An anchor that did not sign it, among others that did, is no harm.
        Identity::of_issuer(format!("{strange}{anchor}"), issuer.clone()).unwrap();
        let refused = |anchors: &str, issuer: Issuer| Identity::of_issuer(anchors.to_owned(), issuer).unwrap_err();
        assert!(matches!(refused(&strange, issuer.clone()), IdentityError::NotTrusted(_)));
        let mixed = Issuer { key: other.key, ..issuer.clone() };
        assert!(matches!(refused(&anchor, mixed), IdentityError::NotTrusted(_)));
        assert!(matches!(refused("", issuer.clone()), IdentityError::NotTrusted(_)));
        let keyless = Issuer { key: String::new(), ..issuer };
        assert!(matches!(refused(&anchor, keyless), IdentityError::Issuer(_)));
    }

    #[test]
    fn what_was_generated_is_trusted_too() {
        let identity = Identity::generate("cluster.local").unwrap();
        Identity::of_issuer(identity.trust_anchors, identity.issuer.unwrap()).unwrap();
    }
}
