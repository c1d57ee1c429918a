//! Who gets a certificate.

use std::{sync::Arc, time::Duration};

use linkerd2_proxy_api::identity::{CertifyRequest, identity_client::IdentityClient};
use meshgate_control_plane::{Authority, IdentityDomain, Tls, Validity, serve_identity};
use meshgate_store::Store;
use serde_json::json;
use tonic::Code;

use crate::{
    apply,
    cluster::{api_server, client, kubeconfig},
    listening,
};

#[tokio::test]
async fn a_token_entitles_to_a_certificate_for_its_service_account_and_no_other() {
    let server = api_server(Store::new()).await;
    let identity = meshgate_inject::Identity::generate("cluster.local").unwrap();
    let issuer = identity.issuer.clone().unwrap();
    let options = meshgate_inject::Options { identity: Some(identity), ..meshgate_inject::Options::default() };
    let admin = client(kubeconfig(&server, None)).await;
    for manifest in meshgate_inject::control_plane_manifests(&options) {
        apply(&admin, &manifest).await;
    }
    let issue = |namespace: &str, account: &str, audiences: &[String]| {
        server.tokens().issue(namespace, account, audiences, Duration::from_secs(3600)).unwrap().token
    };
    // With the rights of the manifests.
    let own = issue("linkerd", "linkerd-destination", &[]);
    let domain = "serviceaccount.identity.linkerd.cluster.local";
    let names = IdentityDomain { control_plane_namespace: "linkerd".into(), trust_domain: "cluster.local".into() };
    let day = Duration::from_secs(86_400);
    let client = client(kubeconfig(&server, Some(own))).await;
    let authority = Authority::new(&issuer.certificate, &issuer.key, names, Validity::default(), client).unwrap();
    let authority = Arc::new(authority);
    let tls = Tls::new(Arc::clone(&authority)).unwrap();
    let (listener, uri) = listening().await;
    tokio::spawn(serve_identity(authority, tls, listener));
    let mut service = IdentityClient::connect(uri).await.unwrap();

    apply(
        &admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "default"}}),
    )
    .await;
    let audience = [meshgate_inject::TOKEN_AUDIENCE.to_owned()];
    let name = format!("web.default.{domain}");
    let request = |identity: &str, token: &str, asked: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([asked.to_owned()]).unwrap();
        CertifyRequest {
            identity: identity.into(),
            token: token.into(),
            certificate_signing_request: params.serialize_request(&key).unwrap().der().to_vec(),
        }
    };
    // The token that is made for this, and the one that Kubernetes mounts.
    for audiences in [audience.as_slice(), &[]] {
        let token = issue("default", "web", audiences);
        let answer = service.certify(request(&name, &token, &name)).await.unwrap().into_inner();
        assert!(!answer.leaf_certificate.is_empty());
        let until = std::time::SystemTime::try_from(answer.valid_until.unwrap()).unwrap();
        let lifetime = until.duration_since(std::time::SystemTime::now()).unwrap();
        assert!(lifetime >= day - Duration::from_secs(60) && lifetime <= day + Duration::from_secs(60), "{lifetime:?}");
    }
    let token = issue("default", "web", &audience);
    // A shorter time is kept to, a longer one is not.
    for (asked, given) in [("60", 60), ("100000000", 86_400)] {
        let mut request = tonic::Request::new(request(&name, &token, &name));
        request.metadata_mut().insert("meshgate-certificate-seconds", asked.parse().unwrap());
        let before = std::time::SystemTime::now();
        let answer = service.certify(request).await.unwrap().into_inner();
        let until = std::time::SystemTime::try_from(answer.valid_until.unwrap()).unwrap();
        let (given, lifetime) = (Duration::from_secs(given), until.duration_since(before).unwrap());
        assert!(lifetime >= given && lifetime <= given + Duration::from_secs(60), "{asked}: {lifetime:?}");
    }
    let other = format!("other.default.{domain}");
    for (request, code, problem) in [
        (request(&other, &token, &other), Code::FailedPrecondition, "did not match"),
        (request(&name, &token, &other), Code::InvalidArgument, "expected the one DNS name"),
        (request(&name, "no token", &name), Code::FailedPrecondition, "proves nothing"),
        (request(&name, "", &name), Code::InvalidArgument, "a token"),
        (
            CertifyRequest { certificate_signing_request: vec![1, 2], ..request(&name, &token, &name) },
            Code::InvalidArgument,
            "signing request",
        ),
    ] {
        let status = service.certify(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(problem), "{status}");
    }
}
