//! The certificate and key of a Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::objects::Object;

/// Why a Secret cannot be served.
pub(crate) enum Fault {
    /// It lacks this field.
    Lacks(&'static str),
    /// The two are no pair.
    Unusable(String),
}

/// A field, decoded.
pub(crate) fn field(secret: &Object, name: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(secret.data["data"][name].as_str()?).ok()?).ok()
}

/// Chain and key, PEM, that belong together: Envoy would refuse its listeners, all of them, for a pair that it cannot use.
pub(crate) fn pair(secret: &Object) -> Result<(String, String), Fault> {
    let part = |name| field(secret, name).ok_or(Fault::Lacks(name));
    let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
    usable(&certificate, &key).map_err(|why| Fault::Unusable(why.to_string()))?;
    Ok((certificate, key))
}

fn usable(certificate: &str, key: &str) -> anyhow::Result<()> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    Ok(())
}
