//! The certificate and key of a Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::objects::Object;

/// Why a Secret cannot be served.
#[derive(Debug)]
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

/// Chain and key, PEM, that belong together. A data plane that is given another pair refuses what it is part of: Envoy its listeners,
/// nginx and HAProxy their whole configuration.
pub(crate) fn pair(secret: &Object) -> Result<(String, String), Fault> {
    let part = |name| field(secret, name).ok_or(Fault::Lacks(name));
    let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
    usable(&certificate, &key).map_err(|why| Fault::Unusable(why.to_string()))
}

/// The pair without what else may stand in the two fields: a data plane may read more of that than was looked at here, such as a
/// second key.
fn usable(certificate: &str, key: &str) -> anyhow::Result<(String, String)> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut pem = String::new();
    for certificate in &chain {
        X509Certificate::from_der(certificate)?;
        pem += &block("CERTIFICATE", certificate);
    }
    let label = match &key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let key_pem = block(label, key.secret_der());
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    Ok((pem, key_pem))
}

/// DER as PEM.
fn block(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// Whether the first certificate of a chain is for a host, which may begin with `*.`: by its alternative names, or, where it has none
/// at all, by its common name.
pub(crate) fn covers(chain: &str, host: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(chain.as_bytes()) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
    let is_for = |name: &str| {
        let wildcard = name.strip_prefix("*.").zip(host.split_once('.'));
        name.eq_ignore_ascii_case(host) || wildcard.is_some_and(|(rest, (_, of))| rest.eq_ignore_ascii_case(of))
    };
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) => is_for(name),
            _ => false,
        }),
        Ok(None) => certificate.subject().iter_common_name().any(|name| name.as_str().is_ok_and(is_for)),
        Err(_) => false,
    }
}

/// A Secret `NAME` of namespace `shop` with this pair, as a further document of a manifest, and pairs for it.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    pub(crate) fn manifest(name: &str, (certificate, key): &(String, String)) -> String {
        let (certificate, key) = (BASE64.encode(certificate), BASE64.encode(key));
        format!(
            "---\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\n\
             data: {{tls.crt: {certificate}, tls.key: {key}}}\n"
        )
    }

    /// A self-signed certificate for a host, and its key.
    pub(crate) fn pair_for(host: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([host.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Pairs that no data plane can use, with what is wrong.
    pub(crate) fn unusable() -> Vec<(&'static str, (String, String))> {
        let (certificate, key) = pair_for("shop.test");
        vec![
            ("garbage", ("CRT".to_owned(), "KEY".to_owned())),
            ("garbage in PEM", (block("CERTIFICATE", b"garbage"), key.clone())),
            ("the key of another certificate", (certificate.clone(), pair_for("shop.test").1)),
            ("garbage behind the certificate", (certificate.clone() + &block("CERTIFICATE", b"x"), key)),
            ("no key", (certificate, "\n".to_owned())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_together_is_a_pair() {
        for (what, (certificate, key)) in examples::unusable() {
            assert!(usable(&certificate, &key).is_err(), "{what}");
        }
        let (certificate, key) = examples::pair_for("shop.test");
        let other = examples::pair_for("other.test").1;
        // Whoever reads the file would find the wrong key first.
        let (chain, own) = usable(&(other.clone() + &certificate), &(key.clone() + &other)).unwrap();
        assert_eq!(chain.matches("BEGIN").count() + own.matches("BEGIN").count(), 2, "{chain}{own}");
        let der = |pem: &str| PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec();
        assert_eq!(der(&own), der(&key));
        let leaf = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        assert_eq!(leaf(&chain), leaf(&certificate));
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_of_a_wildcard() {
        let chain = |host: &str| examples::pair_for(host).0;
        for (name, host, covered) in [
            ("shop.test", "shop.test", true),
            ("shop.test", "SHOP.test", true),
            ("shop.test", "a.shop.test", false),
            ("*.shop.test", "a.shop.test", true),
            ("*.shop.test", "a.b.shop.test", false),
            ("*.shop.test", "shop.test", false),
            ("*.shop.test", "*.shop.test", true),
            ("a.shop.test", "*.shop.test", false),
        ] {
            assert_eq!(covers(&chain(name), host), covered, "{name} for {host}");
        }
        let mut nameless = rcgen::CertificateParams::default();
        nameless.distinguished_name.push(rcgen::DnType::CommonName, "shop.test");
        let nameless = nameless.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        assert!(covers(&nameless, "shop.test") && !covers(&nameless, "other.test"));
    }
}
