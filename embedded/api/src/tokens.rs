//! ServiceAccount tokens: signed, bound to the account's uid, good until they expire or the account is gone.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use meshgate_store::{GroupResource, Status, Store};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::authn::User;
use crate::server::Error;

/// The issuer of the tokens, and the audience of those that the API server itself accepts.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Issues and checks the tokens of one cluster. Cheap to clone.
///
/// A token has the shape and the claims of Kubernetes' bound tokens, so that clients which look into it find what
/// they look for. It is signed with a key (HMAC-SHA256) that only this value has.
#[derive(Clone)]
pub struct Tokens {
    inner: Arc<Inner>,
}

struct Inner {
    key: hmac::Key,
    store: Store,
}

/// A token and its end.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token: `header.claims.signature`.
    pub token: String,
    /// When it ceases to be accepted.
    pub expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Binding,
    nbf: i64,
    sub: String,
}

#[derive(Serialize, Deserialize)]
struct Binding {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    serviceaccount: Reference,
}

/// A name and a uid: what a token is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Tokens {
    /// Tokens for the ServiceAccounts of a store, with a key of their own.
    pub(crate) fn new(store: Store) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::Random)?;
        Ok(Self { inner: Arc::new(Inner { key, store }) })
    }

    /// Issues a token for a ServiceAccount. No audience means the API server. 404 when the account does not exist.
    pub fn issue(
        &self,
        namespace: &str,
        service_account: &str,
        audiences: &[String],
        expiry: Duration,
    ) -> Result<IssuedToken, Status> {
        self.issue_bound(namespace, service_account, audiences, expiry, None)
    }

    /// The same for a token that dies with a pod.
    pub(crate) fn issue_bound(
        &self,
        namespace: &str,
        service_account: &str,
        audiences: &[String],
        expiry: Duration,
        pod: Option<Reference>,
    ) -> Result<IssuedToken, Status> {
        let account = self.inner.store.get(&service_accounts(), namespace, service_account)?;
        let uid = account.pointer("/metadata/uid").and_then(|uid| uid.as_str()).unwrap_or_default().to_owned();
        let now = Timestamp::now();
        let expires = SignedDuration::try_from(expiry)
            .ok()
            .and_then(|expiry| now.checked_add(expiry).ok())
            .ok_or_else(|| Status::bad_request(format!("an expiry of {expiry:?} is out of range")))?;
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() };
        let claims = Claims {
            aud: audiences,
            exp: expires.as_second(),
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: random_secret().map_err(|error| Status::internal(error.to_string()))?,
            kubernetes: Binding {
                namespace: namespace.to_owned(),
                pod,
                serviceaccount: Reference { name: service_account.to_owned(), uid },
            },
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{namespace}:{service_account}"),
        };
        let claims = serde_json::to_vec(&claims).map_err(|error| Status::internal(error.to_string()))?;
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.inner.key, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(IssuedToken { token, expires })
    }

    /// The user behind a token for the API server. `None` when it was not issued here, has expired, is for somebody
    /// else, or what it is bound to is gone.
    pub(crate) fn authenticate(&self, token: &str) -> Option<User> {
        self.review(token, &[]).map(|(user, _)| user)
    }

    /// The same for any of some audiences (none: the API server), and which of them the token is for.
    pub(crate) fn review(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.inner.key, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        if claims.exp <= Timestamp::now().as_second() {
            return None;
        }
        let common: Vec<String> = if audiences.is_empty() {
            claims.aud.into_iter().filter(|audience| audience == ISSUER).collect()
        } else {
            claims.aud.into_iter().filter(|audience| audiences.contains(audience)).collect()
        };
        let Binding { namespace, pod, serviceaccount } = claims.kubernetes;
        let bound = |resource: &GroupResource, to: &Reference| {
            let object = self.inner.store.get(resource, &namespace, &to.name).ok()?;
            (object.pointer("/metadata/uid")?.as_str()? == to.uid).then_some(())
        };
        bound(&service_accounts(), &serviceaccount)?;
        if let Some(pod) = &pod {
            bound(&GroupResource::new("", "pods"), pod)?;
        }
        if common.is_empty() {
            return None;
        }
        let mut user = User::service_account(&namespace, &serviceaccount.name, &serviceaccount.uid);
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", claims.jti)]);
        if let Some(pod) = pod {
            user.extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.name]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod.uid]);
        }
        Some((user, common))
    }
}

impl Tokens {
    /// Compares two secrets in a time that tells nothing about them.
    pub(crate) fn is_same_secret(&self, presented: &str, secret: &str) -> bool {
        let tag = hmac::sign(&self.inner.key, secret.as_bytes());
        hmac::verify(&self.inner.key, presented.as_bytes(), tag.as_ref()).is_ok()
    }
}

fn service_accounts() -> GroupResource {
    GroupResource::new("", "serviceaccounts")
}

/// 256 random bits in text that a header can carry.
pub(crate) fn random_secret() -> Result<String, Error> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
