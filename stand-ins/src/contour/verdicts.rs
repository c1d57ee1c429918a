//! What the status of an HTTPProxy says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::HTTP_PROXIES;
use crate::objects::{Object, items};
use crate::status::StatusUpdate;

/// What was found wrong, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(BTreeMap<(String, String), Vec<Problem>>);

#[derive(Debug)]
struct Problem {
    /// Such as `ServiceError`.
    kind: &'static str,
    reason: &'static str,
    message: String,
}

const FAULTY: &str = "At least one error present, see Errors for details";

impl Verdicts {
    pub(crate) fn add(&mut self, proxy: &Object, kind: &'static str, reason: &'static str, message: impl Into<String>) {
        let message = message.into();
        self.0.entry(key(proxy)).or_default().push(Problem { kind, reason, message });
    }

    /// The status that an HTTPProxy should have; none when it has it.
    pub(crate) fn status(&self, proxy: &Object, addresses: &[Value]) -> Option<StatusUpdate> {
        let problems = self.0.get(&key(proxy)).map(Vec::as_slice).unwrap_or_default();
        let is_orphan = problems.iter().any(|problem| problem.reason == "Orphaned");
        let (status, description) = match problems {
            [] => ("valid", "Valid HTTPProxy"),
            [only] if is_orphan => ("orphaned", only.message.as_str()),
            _ => ("invalid", FAULTY),
        };
        let mut condition = json!({
            "type": "Valid",
            "status": if problems.is_empty() { "True" } else { "False" },
            "observedGeneration": proxy.metadata.generation.unwrap_or_default(),
            "reason": match status { "valid" => "Valid", "orphaned" => "Orphaned", _ => "ErrorPresent" },
            "message": description,
        });
        if !problems.is_empty() {
            let errors = problems.iter().map(|Problem { kind, reason, message }| {
                json!({"type": kind, "status": "True", "reason": reason, "message": message})
            });
            condition["errors"] = errors.collect();
        }
        // The time is that of the change: an unchanged condition keeps it.
        let former = items(&proxy.data, "/status/conditions").find(|former| former["type"] == "Valid");
        let time = |condition: &Value| condition["lastTransitionTime"].clone();
        let unchanged = former.filter(|former| {
            let mut former = (*former).clone();
            former.as_object_mut().map(|fields| fields.remove("lastTransitionTime"));
            former == condition
        });
        condition["lastTransitionTime"] = match unchanged {
            Some(former) => time(former),
            None => format!("{:.0}", Timestamp::now()).into(),
        };
        let status = json!({
            "currentStatus": status,
            "description": description,
            "conditions": [condition],
            "loadBalancer": {"ingress": addresses},
        });
        StatusUpdate::unless_there(HTTP_PROXIES, proxy, status)
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> Vec<String> {
        self.0.values().flatten().map(|problem| format!("{}: {}", problem.reason, problem.message)).collect()
    }
}

fn key(proxy: &Object) -> (String, String) {
    (proxy.namespace().unwrap_or_default(), proxy.name_any())
}
