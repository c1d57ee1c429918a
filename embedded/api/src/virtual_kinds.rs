//! Resources and subresources that are served but not stored: reviews, bindings, tokens, logs.

/// A resource without objects: it is only ever created, and the answer is the point of it.
pub(crate) struct VirtualKind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const fn kind(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> VirtualKind {
    VirtualKind { group, version: "v1", plural, singular, kind, namespaced }
}

/// All of them.
pub(crate) const KINDS: &[VirtualKind] = &[
    kind("", "bindings", "binding", "Binding", true),
    kind("authentication.k8s.io", "tokenreviews", "tokenreview", "TokenReview", false),
    kind("authentication.k8s.io", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", false),
    kind(
        "authorization.k8s.io",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "LocalSubjectAccessReview",
        true,
    ),
    kind(
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
        false,
    ),
    kind("authorization.k8s.io", "selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview", false),
    kind("authorization.k8s.io", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", false),
];

/// A subresource beyond `status` and `scale`, as discovery lists it.
pub(crate) struct VirtualSubresource {
    /// Of a resource of the core group.
    pub(crate) of: &'static str,
    pub(crate) name: &'static str,
    /// Group, version and kind of what it takes and gives.
    pub(crate) kind: (&'static str, &'static str, &'static str),
    pub(crate) verbs: &'static [&'static str],
}

const STREAM: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// All of them.
pub(crate) const SUBRESOURCES: &[VirtualSubresource] = &[
    VirtualSubresource { of: "namespaces", name: "finalize", kind: ("", "v1", "Namespace"), verbs: &["update"] },
    VirtualSubresource { of: "pods", name: "binding", kind: ("", "v1", "Binding"), verbs: &["create"] },
    VirtualSubresource { of: "pods", name: "eviction", kind: ("policy", "v1", "Eviction"), verbs: &["create"] },
    VirtualSubresource { of: "pods", name: "exec", kind: ("", "v1", "PodExecOptions"), verbs: STREAM },
    VirtualSubresource { of: "pods", name: "log", kind: ("", "v1", "Pod"), verbs: &["get"] },
    VirtualSubresource { of: "pods", name: "portforward", kind: ("", "v1", "PodPortForwardOptions"), verbs: STREAM },
    VirtualSubresource { of: "pods", name: "proxy", kind: ("", "v1", "PodProxyOptions"), verbs: PROXY },
    VirtualSubresource {
        of: "serviceaccounts",
        name: "token",
        kind: ("authentication.k8s.io", "v1", "TokenRequest"),
        verbs: &["create"],
    },
    VirtualSubresource { of: "services", name: "proxy", kind: ("", "v1", "ServiceProxyOptions"), verbs: PROXY },
];

/// A resource without objects, by group, version and plural.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static VirtualKind> {
    KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}
