//! `meshgate run --dry-run`: what would be made on an existing cluster.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_clusters::remote::{Claim, NAMESPACE, Reach};
use meshgate_fixtures::Fixtures;
use meshgate_harness::cell;
use meshgate_harness::injection::Foreign;
use meshgate_harness::kubernetes::{Kubernetes, describe};
use meshgate_harness::tenancy::{Fate, Tenancy};
use serde_json::Value;

use super::Plan;
use crate::charts::Charts;

/// What would become of the objects of all cells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Namespaces that would be made, with the kinds and numbers of what goes into each.
    namespaces: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Objects that are in no namespace, and would be made.
    everywhere: BTreeSet<String>,
    /// Definitions that are there already.
    used: BTreeSet<String>,
    /// What is in the way.
    in_the_way: BTreeSet<String>,
}

impl Outlook {
    /// Asks the cluster; writes nothing.
    pub async fn of(
        reach: &Reach,
        plan: &Plan,
        fixtures: &Fixtures,
        charts: &Charts,
        mesh: Option<&Foreign>,
    ) -> anyhow::Result<Self> {
        let kubernetes = Kubernetes::guest(reach.client().await?, Tenancy::new(reach.image.clone()));
        let mut objects: BTreeMap<String, Value> = BTreeMap::new();
        for cell in &plan.cells {
            let controller = charts.controller(fixtures, cell)?;
            let recipe = plan.recipe(cell, &controller)?;
            for manifest in cell::manifests(cell, &controller, &recipe, fixtures, &plan.cases, mesh)? {
                objects.insert(describe(&manifest.object), manifest.object);
            }
        }
        let mut outlook = Self::default();
        for (object, fate) in kubernetes.fates(objects.values()).await? {
            outlook.take(object, &fate);
        }
        Ok(outlook)
    }

    fn take(&mut self, object: &Value, fate: &Fate) {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        match (fate, object["metadata"]["namespace"].as_str()) {
            (Fate::Used, _) => drop(self.used.insert(describe(object))),
            (Fate::InTheWay, _) => drop(self.in_the_way.insert(describe(object))),
            (Fate::Made, Some(namespace)) => {
                let kinds = self.namespaces.entry(namespace.to_owned()).or_default();
                kinds.entry(kind).or_default().insert(name);
            }
            (Fate::Made, None) if kind == "Namespace" => drop(self.namespaces.entry(name).or_default()),
            (Fate::Made, None) => drop(self.everywhere.insert(describe(object))),
        }
    }

    /// Whether a run would not get anywhere.
    pub fn is_blocked(&self) -> bool {
        !self.in_the_way.is_empty()
    }

    /// For a person.
    pub fn render(&self, context: &str) -> String {
        let mut text = format!(
            "On the cluster of context \"{context}\" a run would, one cell after the other, make and delete again:\n"
        );
        text += &format!("  in namespace {NAMESPACE}: 1 Lease, 3 Pods, 1 ServiceAccount (requests start there)\n");
        for (namespace, kinds) in &self.namespaces {
            let kinds: Vec<String> = kinds.iter().map(|(kind, names)| format!("{} {kind}", names.len())).collect();
            text += &format!("  in namespace {namespace}: {}\n", kinds.join(", "));
        }
        text += &list("  in no namespace:", &self.everywhere);
        text += &list("It would use, and leave as it is:", &self.used);
        text += &list("In the way, made by somebody else, and left alone:", &self.in_the_way);
        text += match self.is_blocked() {
            true => "A run would not begin. Delete what is in the way, or use another cluster.\n",
            false => "Nothing is in the way, and nothing was written.\n",
        };
        text
    }
}

fn list(title: &str, lines: &BTreeSet<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let indent = title.len() - title.trim_start().len() + 2;
    let lines: String = lines.iter().map(|line| format!("{:indent$}{line}\n", "")).collect();
    format!("{title}\n{lines}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outlook(objects: &[(Value, Fate)]) -> String {
        let mut outlook = Outlook::default();
        objects.iter().for_each(|(object, fate)| outlook.take(object, fate));
        outlook.render("kind-a")
    }

    #[test]
    fn it_says_what_would_be_made_where() {
        let text = outlook(&[
            (json!({"kind": "Namespace", "metadata": {"name": "traefik"}}), Fate::Made),
            (json!({"kind": "Service", "metadata": {"name": "a", "namespace": "traefik"}}), Fate::Made),
            (json!({"kind": "Service", "metadata": {"name": "b", "namespace": "traefik"}}), Fate::Made),
            (json!({"kind": "ClusterRole", "metadata": {"name": "traefik"}}), Fate::Made),
            (json!({"kind": "CustomResourceDefinition", "metadata": {"name": "x.y"}}), Fate::Used),
        ]);
        assert_eq!(
            text,
            "On the cluster of context \"kind-a\" a run would, one cell after the other, make and delete again:\n  \
             in namespace meshgate: 1 Lease, 3 Pods, 1 ServiceAccount (requests start there)\n  \
             in namespace traefik: 2 Service\n  \
             in no namespace:\n    ClusterRole traefik\n\
             It would use, and leave as it is:\n  CustomResourceDefinition x.y\n\
             Nothing is in the way, and nothing was written.\n"
        );
    }

    #[test]
    fn it_says_what_is_in_the_way() {
        let text = outlook(&[(json!({"kind": "Namespace", "metadata": {"name": "linkerd"}}), Fate::InTheWay)]);
        assert!(text.contains("left alone:\n  Namespace linkerd\nA run would not begin."), "{text}");
    }
}
