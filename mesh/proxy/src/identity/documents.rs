//! The key of the proxy, and the request for a certificate for it.

use std::{fs, io, path::Path};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::IdentityError;

const KEY: &str = "key.p8";
const REQUEST: &str = "csr.der";

/// A key and a request, as DER.
type Documents = (KeyPair, Vec<u8>);

/// Those that somebody has put into this directory: Linkerd's image does so before its proxy starts (`proxy-identity/main.go`). None if
/// neither file is there.
pub(super) fn read(dir: &Path) -> Result<Option<Documents>, IdentityError> {
    let fail = |file, problem: String| IdentityError::Documents { path: dir.join(file), problem };
    let bytes = |file| match fs::read(dir.join(file)) {
        Ok(bytes) if bytes.is_empty() => Err(fail(file, "the file is empty".to_owned())),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(file, error.to_string())),
    };
    let (key, request) = match (bytes(KEY)?, bytes(REQUEST)?) {
        (Some(key), Some(request)) => (key, request),
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(fail(REQUEST, format!("there is none beside {KEY}"))),
        (None, Some(_)) => return Err(fail(KEY, format!("there is none beside {REQUEST}"))),
    };
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ECDSA_P256_SHA256)
        .map_err(|error| fail(KEY, error.to_string()))?;
    Ok(Some((key, request)))
}

/// New ones, for a certificate with this name.
pub(super) fn make(name: &str) -> Result<Documents, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_taken_from_the_directory_or_neither() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        assert!(read(&dir.path().join("not-there")).unwrap().is_none());

        let (key, request) = make("web.ns").unwrap();
        let fails = || read(dir.path()).err().unwrap().to_string();
        fs::write(dir.path().join(KEY), key.serialize_der()).unwrap();
        let error = fails();
        assert!(error.contains("csr.der: there is none beside key.p8"), "{error}");
        fs::write(dir.path().join(REQUEST), &request).unwrap();
        let (found, asked) = read(dir.path()).unwrap().unwrap();
        assert_eq!((found.serialize_der(), asked), (key.serialize_der(), request));

        fs::write(dir.path().join(KEY), "PEM").unwrap();
        let error = fails();
        assert!(error.contains("key.p8: ") && error.contains("PKCS #8 as DER"), "{error}");
        fs::write(dir.path().join(KEY), "").unwrap();
        assert!(fails().contains("the file is empty"));
    }
}
