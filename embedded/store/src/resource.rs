//! Resource types: what the discovery documents list, built in or from a CustomResourceDefinition.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A group and a plural, which together name a resource: `("apps", "deployments")`; the core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group, `""` for core.
    pub group: String,
    /// The plural, lower case.
    pub plural: String,
}

impl GroupResource {
    /// A group and a plural.
    pub fn new(group: impl Into<String>, plural: impl Into<String>) -> Self {
        Self { group: group.into(), plural: plural.into() }
    }
}

/// As kubectl writes it: `pods`, `deployments.apps`.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// A resource type as served: one per group and plural, with its served versions.
#[derive(Clone, Debug)]
pub struct ResourceType {
    /// Group and plural.
    pub resource: GroupResource,
    /// Kind, e.g. `Deployment`.
    pub kind: String,
    /// Singular, e.g. `deployment`.
    pub singular: String,
    /// Short names, e.g. `deploy`.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Served versions, preferred first. Objects are stored once and served with the asked version in `apiVersion`.
    pub versions: Vec<ResourceVersion>,
    /// Built in, or from a CRD (no strategic merge patch, no protobuf).
    pub builtin: bool,
}

/// One served version of a resource type.
#[derive(Clone, Debug)]
pub struct ResourceVersion {
    /// E.g. `v1`.
    pub name: String,
    /// Whether `/status` is a subresource of its own.
    pub status: bool,
    /// The scale subresource, as a CRD's `subresources.scale` (`specReplicasPath`, `statusReplicasPath`, `labelSelectorPath`).
    pub scale: Option<Value>,
    /// The OpenAPI v3 schema of a CRD version. Built-in kinds have theirs in `meshgate_machinery::schema`.
    pub schema: Option<Arc<Value>>,
    /// `additionalPrinterColumns` of a CRD version.
    pub columns: Vec<PrinterColumn>,
    /// `selectableFields` of a CRD version without the leading dot, e.g. `spec.host`.
    pub selectable: Vec<String>,
}

/// A column of `kubectl get`, as in `additionalPrinterColumns`.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    /// Title.
    pub name: String,
    /// `string`, `integer`, `date` ...
    pub kind: String,
    /// JSONPath into the object, e.g. `.spec.host`.
    pub json_path: String,
    /// 0 always shown, 1 with `-o wide`.
    pub priority: i64,
}
