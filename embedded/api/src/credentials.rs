//! What the cluster's clients trust and are trusted by: the CA, the administrator's token, ServiceAccount tokens.

use std::sync::Arc;

use meshgate_store::Store;
use serde_json::json;

use crate::authn::User;
use crate::server::Error;
use crate::tls::Authority;
use crate::tokens::{Tokens, random_secret};

/// The credentials of one cluster, made fresh for it. Cheap to clone.
///
/// They come before the server, because the node needs them too: [`Credentials::ca_pem`] and
/// [`Credentials::tokens`] are what it projects into pods.
#[derive(Clone)]
pub struct Credentials {
    authority: Arc<Authority>,
    tokens: Tokens,
    admin_token: Arc<str>,
}

impl Credentials {
    /// A new CA (ECDSA P-256), a new administrator's token, and a new key for ServiceAccount tokens.
    pub fn generate(store: &Store) -> Result<Self, Error> {
        Ok(Self {
            authority: Arc::new(Authority::generate()?),
            tokens: Tokens::new(store.clone())?,
            admin_token: random_secret()?.into(),
        })
    }

    /// The CA's certificate as PEM: `ca.crt` of pods, `certificate-authority-data` of a kubeconfig.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The tokens of ServiceAccounts.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The bearer token of `kubernetes-admin`, who is in `system:masters`.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A kubeconfig (YAML) with the CA and the administrator's token for a server URL such as `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "meshgate", "cluster": {"server": server_url, "certificate-authority-data": ca}}],
            "users": [{"name": "kubernetes-admin", "user": {"token": self.admin_token()}}],
            "contexts": [{"name": "meshgate", "context": {"cluster": "meshgate", "user": "kubernetes-admin", "namespace": "default"}}],
            "current-context": "meshgate",
        });
        // JSON is YAML, and a map of strings cannot fail to be written.
        serde_yaml::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The user behind a bearer token of this cluster, if there is one.
    pub(crate) fn authenticate(&self, token: &str) -> Option<User> {
        if self.tokens.is_same_secret(token, &self.admin_token) {
            return Some(User::admin());
        }
        self.tokens.authenticate(token)
    }
}
