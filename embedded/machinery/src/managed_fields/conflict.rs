//! What can go wrong in an apply.

use std::collections::BTreeMap;

/// A field that another manager owns and the applied configuration would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager as messages name it: `"hpa" with subresource "scale" using apps/v1`.
    pub owner: String,
    /// The field, e.g. `.spec.replicas`.
    pub field: String,
}

impl Conflict {
    /// The message of the `FieldManagerConflict` cause: `conflict with "other" using apps/v1`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.owner)
    }
}

/// Why a configuration could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields it would change: 409 with a cause per conflict. The text is Kubernetes'.
    #[error("{}", describe(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration itself is wrong: no object of its type can be made of it.
    #[error("{path}: {problem}")]
    Malformed {
        /// The list or field, e.g. `.spec.ports`.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn describe(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field);
    }
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        owners.entry(&conflict.owner).or_default().push(&conflict.field);
    }
    let mut lines = Vec::new();
    for (owner, fields) in owners {
        lines.push(format!("conflicts with {owner}:"));
        lines.extend(fields.iter().map(|field| format!("- {field}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
