//! From a method and a path to what is asked for.

use http::Method;
use meshgate_store::GroupResource;
use percent_encoding::percent_decode_str;

use crate::query::Query;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A resource, an object or a subresource: `/api/v1/...`, `/apis/GROUP/VERSION/...`.
    Resource(ResourcePath),
    /// Anything else: discovery, health, OpenAPI.
    Other(String),
}

/// The parts of a resource path, as Kubernetes' `RequestInfo` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// API group, `""` for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Namespace, `""` for none. A Namespace object counts as being in itself, for RBAC.
    pub(crate) namespace: String,
    /// Plural.
    pub(crate) resource: String,
    /// Object, `""` for the collection.
    pub(crate) name: String,
    /// Subresource, `""` for none.
    pub(crate) subresource: String,
    /// What follows the subresource, still encoded (`proxy` only); `""` or begins with `/`.
    pub(crate) rest: String,
}

impl ResourcePath {
    /// Group and plural.
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    /// The namespace the store wants: none for Namespace objects, which live in none.
    pub(crate) fn store_namespace(&self) -> &str {
        if self.group.is_empty() && self.resource == "namespaces" { "" } else { &self.namespace }
    }

    /// `apps/v1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Parses a path.
pub(crate) fn target(path: &str) -> Target {
    resource_path(path).map_or_else(|| Target::Other(path.to_owned()), Target::Resource)
}

fn resource_path(path: &str) -> Option<ResourcePath> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let group = match segments.next()? {
        "api" => String::new(),
        "apis" => decoded(segments.next()?),
        _ => return None,
    };
    let version = decoded(segments.next()?);
    let raw: Vec<&str> = segments.collect();
    let mut target = ResourcePath { group, version, ..ResourcePath::default() };
    let mut parts = raw.as_slice();
    // A slash at the end means nothing, except to what a proxy leads to.
    if parts.last() == Some(&"") && !parts.contains(&"proxy") {
        parts = &parts[..parts.len() - 1];
    }
    // `namespaces/NS/status` and `/finalize` are subresources of the namespace; `namespaces/NS/x` is a resource in it.
    if let ["namespaces", namespace, rest @ ..] = parts {
        target.namespace = decoded(namespace);
        if !matches!(rest, [] | ["status" | "finalize"]) {
            parts = rest;
        }
    }
    let (resource, parts) = parts.split_first()?;
    target.resource = decoded(resource);
    target.name = parts.first().map(|name| decoded(name)).unwrap_or_default();
    target.subresource = parts.get(1).map(|name| decoded(name)).unwrap_or_default();
    if parts.len() > 2 {
        target.rest = format!("/{}", parts[2..].join("/"));
    }
    Some(target)
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The verb of a request, in RBAC's words; a lower-case method for methods that have none.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> String {
    let Target::Resource(path) = target else { return method.as_str().to_lowercase() };
    let collection = path.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if collection => if query.flag("watch") { "watch" } else { "list" }.to_owned(),
        Method::GET | Method::HEAD => "get".to_owned(),
        Method::POST => "create".to_owned(),
        Method::PUT => "update".to_owned(),
        Method::PATCH => "patch".to_owned(),
        Method::DELETE if collection => "deletecollection".to_owned(),
        Method::DELETE => "delete".to_owned(),
        _ => method.as_str().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match target(path) {
            Target::Resource(path) => path,
            Target::Other(path) => panic!("{path} is no resource path"),
        }
    }

    #[test]
    fn core_and_named_groups() {
        let pods = resource("/api/v1/namespaces/demo/pods/web-0/log");
        assert_eq!(
            (pods.group.as_str(), pods.namespace.as_str(), pods.resource.as_str(), pods.name.as_str()),
            ("", "demo", "pods", "web-0")
        );
        assert_eq!(pods.subresource, "log");
        let roles = resource("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!((roles.name.as_str(), roles.namespace.as_str()), ("system:node", ""));
        assert_eq!(roles.api_version(), "rbac.authorization.k8s.io/v1");
    }

    #[test]
    fn namespaces_are_objects_and_places() {
        let object = resource("/api/v1/namespaces/demo");
        assert_eq!(
            (object.resource.as_str(), object.name.as_str(), object.namespace.as_str()),
            ("namespaces", "demo", "demo")
        );
        assert_eq!(object.store_namespace(), "");
        let finalize = resource("/api/v1/namespaces/demo/finalize");
        assert_eq!((finalize.resource.as_str(), finalize.subresource.as_str()), ("namespaces", "finalize"));
        assert_eq!(resource("/api/v1/namespaces").resource, "namespaces");
        assert_eq!(resource("/api/v1/namespaces/demo/services/").resource, "services");
    }

    #[test]
    fn the_rest_belongs_to_the_proxy() {
        let proxy = resource("/api/v1/namespaces/demo/pods/web:80/proxy/a%20b/c/");
        assert_eq!(
            (proxy.name.as_str(), proxy.subresource.as_str(), proxy.rest.as_str()),
            ("web:80", "proxy", "/a%20b/c/")
        );
        assert_eq!(resource("/api/v1/namespaces/demo/services/web/proxy/").rest, "/");
    }

    #[test]
    fn discovery_is_no_resource() {
        for path in
            ["/", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "/version", "/openapi/v3/apis/apps/v1"]
        {
            assert!(matches!(target(path), Target::Other(_)), "{path}");
        }
    }

    #[test]
    fn verbs() {
        let verb = |method, path: &str, query| verb(&method, &target(path), &Query::parse(query));
        assert_eq!(verb(Method::GET, "/api/v1/pods", ""), "list");
        assert_eq!(verb(Method::GET, "/api/v1/pods", "watch=true"), "watch");
        assert_eq!(verb(Method::GET, "/api/v1/namespaces/a/pods/b", ""), "get");
        assert_eq!(verb(Method::GET, "/api/v1/namespaces/a/pods/b", "watch=true"), "get");
        assert_eq!(verb(Method::DELETE, "/api/v1/namespaces/a/pods", ""), "deletecollection");
        assert_eq!(verb(Method::GET, "/healthz", ""), "get");
    }
}
