//! Who asks: bearer tokens and impersonation.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meshgate_store::{GroupResource, Status, Store};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::credentials::Credentials;
use crate::rbac::{self, Request};
use crate::reply;

/// Somebody, as RBAC and reviews see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// E.g. `kubernetes-admin`, `system:serviceaccount:demo:web`.
    pub name: String,
    /// Empty for users without one.
    pub uid: String,
    /// E.g. `system:authenticated`.
    pub groups: Vec<String>,
    /// Whatever else the credential says.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group that may do everything, whatever the roles say.
pub(crate) const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

impl User {
    /// The holder of the cluster's kubeconfig.
    pub(crate) fn admin() -> Self {
        Self::named("kubernetes-admin", &[MASTERS, AUTHENTICATED])
    }

    /// Somebody without credentials.
    pub(crate) fn anonymous() -> Self {
        Self::named("system:anonymous", &[UNAUTHENTICATED])
    }

    /// A ServiceAccount.
    pub(crate) fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let mut user = Self::named(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &of_namespace, AUTHENTICATED],
        );
        user.uid = uid.to_owned();
        user
    }

    fn named(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// As `userInfo` of reviews.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

/// The user of a request: the holder of its token or whom that one impersonates. Without a token it is
/// `system:anonymous`; with a wrong one it is a 401.
pub(crate) fn user(headers: &HeaderMap, credentials: &Credentials, store: &Store) -> Result<User, Status> {
    let user = match headers.get(AUTHORIZATION) {
        None => User::anonymous(),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(bearer)
            .and_then(|token| credentials.authenticate(token))
            .ok_or_else(unauthorized)?,
    };
    impersonated(headers, store, user)
}

/// 401, as Kubernetes words it.
fn unauthorized() -> Status {
    Status::new(401, "Unauthorized", "Unauthorized")
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Applies `Impersonate-*` headers (`kubectl --as`) after asking RBAC whether the user may.
fn impersonated(headers: &HeaderMap, store: &Store, user: User) -> Result<User, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let Some(name) = text("impersonate-user") else {
        let others = headers.keys().any(|key| key.as_str().starts_with("impersonate-"));
        return if others {
            Err(Status::internal("requested impersonation without impersonating a user"))
        } else {
            Ok(user)
        };
    };
    let mut target = match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            may_impersonate(store, &user, "", "serviceaccounts", namespace, account)?;
            User::service_account(namespace, account, "")
        }
        None => {
            may_impersonate(store, &user, "", "users", "", &name)?;
            User::named(&name, &[])
        }
    };
    if !groups.is_empty() {
        for group in &groups {
            may_impersonate(store, &user, "", "groups", "", group)?;
        }
        target.groups = groups;
    }
    let implied = if target.name == User::anonymous().name { UNAUTHENTICATED } else { AUTHENTICATED };
    if !target.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        target.groups.push(implied.to_owned());
    }
    target.uid = text("impersonate-uid").unwrap_or_default();
    for (key, value) in headers {
        if let (Some(key), Ok(value)) = (key.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            may_impersonate(store, &user, "authentication.k8s.io", "userextras", "", value)?;
            target.extra.entry(key).or_default().push(value.to_owned());
        }
    }
    Ok(target)
}

fn may_impersonate(
    store: &Store,
    user: &User,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let request = Request { verb: "impersonate", group, resource, subresource: "", namespace, name, path: None };
    if rbac::allowed(store, user, &request) {
        return Ok(());
    }
    Err(reply::forbidden(Some((&GroupResource::new(group, resource), name)), &rbac::denial(user, &request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn a_service_account_is_in_its_groups() {
        let user = User::service_account("demo", "web", "1");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:demo", "system:authenticated"]);
    }
}
