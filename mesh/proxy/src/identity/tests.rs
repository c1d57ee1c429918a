use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
};

use super::*;
use crate::ControlAddr;

const NAME: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

/// A certificate authority: its certificate as PEM, and itself.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::from_ca_cert_pem(&certificate, key).unwrap();
    (certificate, issuer)
}

fn identity(trust_anchors: &str) -> Result<Identity, IdentityError> {
    identity_in(None, trust_anchors)
}

fn identity_in(dir: Option<PathBuf>, trust_anchors: &str) -> Result<Identity, IdentityError> {
    let config = IdentityConfig {
        addr: ControlAddr { authority: "localhost:1".into(), name: None },
        local_name: NAME.into(),
        token_file: "/no/such/token".into(),
        dir,
        trust_anchors: trust_anchors.into(),
        lifetime: None,
        min_refresh: Duration::from_secs(10),
        max_refresh: Duration::from_secs(24 * 60 * 60),
    };
    let calls = Metrics::new().control.scope(&config.addr);
    Identity::new(&config, calls)
}

fn answer(request: &[u8], issuer: &Issuer<'static, KeyPair>, name: &str) -> CertifyResponse {
    let mut request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    request.params.subject_alt_names = CertificateParams::new([name.to_owned()]).unwrap().subject_alt_names;
    request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    CertifyResponse {
        leaf_certificate: request.signed_by(issuer).unwrap().der().to_vec(),
        intermediate_certificates: Vec::new(),
        valid_until: Some((SystemTime::now() + Duration::from_secs(60)).into()),
    }
}

#[test]
fn a_certificate_is_believed_if_it_is_for_this_key_and_name_and_trusted() {
    let (anchor, issuer) = authority();
    let (_, stranger) = authority();
    let it = identity(&anchor).unwrap();
    assert!(it.believe(answer(&it.request, &issuer, NAME)).is_ok());
    let other = identity(&anchor).unwrap();
    for (response, problem) in [
        (answer(&it.request, &stranger, NAME), "not trusted"),
        (answer(&it.request, &issuer, "other.default"), "not trusted"),
        (answer(&other.request, &issuer, NAME), "another key"),
        (CertifyResponse { valid_until: None, ..answer(&it.request, &issuer, NAME) }, "until when"),
        (CertifyResponse { leaf_certificate: vec![1], ..answer(&it.request, &issuer, NAME) }, "the certificate"),
    ] {
        let said = it.believe(response).err().unwrap();
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_key_that_is_given_is_the_one_that_is_certified() {
    let (anchor, issuer) = authority();
    let dir = tempfile::tempdir().unwrap();
    let (key, request) = documents::make(NAME).unwrap();
    std::fs::write(dir.path().join("key.p8"), key.serialize_der()).unwrap();
    std::fs::write(dir.path().join("csr.der"), &request).unwrap();
    let it = identity_in(Some(dir.path().to_owned()), &anchor).unwrap();
    assert_eq!(it.request, request);
    assert!(it.believe(answer(&request, &issuer, NAME)).is_ok());
    // The control: who has a key of its own believes no certificate for this one.
    let own = identity_in(Some(dir.path().join("empty")), &anchor).unwrap();
    assert_eq!(own.believe(answer(&request, &issuer, NAME)).err().unwrap(), "the certificate is for another key");
}

#[test]
fn what_is_missing_is_told_with_a_way_out() {
    let (anchor, _) = authority();
    let said = identity(&anchor).unwrap().token().unwrap_err().to_string();
    for part in ["/no/such/token", "No such file", "automountServiceAccountToken"] {
        assert!(said.contains(part), "{said}");
    }
    for wrong in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(identity(wrong), Err(IdentityError::TrustAnchors(_))), "{wrong}");
    }
}

#[test]
fn the_next_certificate_is_asked_for_in_time() {
    let it = identity(&authority().0).unwrap();
    let after = |seconds| it.refresh_after(Duration::from_secs(seconds)).as_secs();
    assert_eq!((after(86_400), after(5), after(10_000_000)), (60_480, 10, 86_400));
}
