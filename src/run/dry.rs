//! `meshgate run --dry-run`: what would be made on an existing cluster.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_clusters::remote::{Claim, NAMESPACE, Reach};
use meshgate_fixtures::{Controller, Fixtures};
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
    /// Namespaces that would be made, with the kinds and names of what goes into each.
    namespaces: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Objects that are in no namespace, and would be made.
    everywhere: BTreeSet<String>,
    /// Definitions that are there already.
    used: BTreeSet<String>,
    /// What is in the way.
    in_the_way: BTreeSet<String>,
    /// What else would keep a run from beginning.
    obstacles: Vec<String>,
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
        let mut controllers = BTreeMap::new();
        for cell in &plan.cells {
            let controller = charts.controller(fixtures, cell)?;
            let recipe = plan.recipe(cell, &controller)?;
            for manifest in cell::manifests(cell, &controller, &recipe, fixtures, &plan.cases, mesh)? {
                objects.insert(describe(&manifest.object), manifest.object);
            }
            controllers.entry(controller.name.clone()).or_insert(controller);
        }
        let obstacles = Claim::obstacles(reach).await?;
        let obstacles = obstacles.iter().map(ToString::to_string).collect();
        let mut outlook = Self { obstacles, ..Self::default() };
        let all: Vec<&Value> = objects.values().collect();
        let controllers: Vec<&Controller> = controllers.values().map(AsRef::as_ref).collect();
        let asked = async {
            let obstacles = kubernetes.obstacles(&all, &controllers).await?;
            anyhow::Ok((kubernetes.fates(objects.values()).await?, obstacles))
        };
        match asked.await {
            Ok((fates, obstacles)) => {
                fates.iter().for_each(|(object, fate)| outlook.take(object, fate));
                outlook.obstacles.extend(obstacles);
            }
            // Whose rights do not suffice for a run may lack those to look as well.
            Err(error) if !outlook.obstacles.is_empty() => outlook.obstacles.push(format!("{error:#}")),
            Err(error) => return Err(error),
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
        !self.in_the_way.is_empty() || !self.obstacles.is_empty()
    }

    /// For a person.
    pub fn render(&self, context: &str) -> String {
        let mut text = format!(
            "On the cluster of context \"{context}\" a run would, one cell after the other, make and delete again:\n"
        );
        text += &format!("  in namespace {NAMESPACE} (requests start there): 1 Lease, 3 Pods, 1 ServiceAccount\n");
        for (namespace, kinds) in &self.namespaces {
            text += &format!("  in namespace {namespace}:\n");
            for (kind, names) in kinds {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                text += &format!("    {} {kind}: {}\n", names.len(), names.join(", "));
            }
        }
        text += &list("  in no namespace:", &self.everywhere);
        text += &format!(
            "  in these namespaces, while cases run, and for no longer: routes as those above, {}, and a Service or a Pod where one is deleted \
             and comes again\n",
            meshgate_suites::MADE_WHILE_RUNNING.join(", ")
        );
        text += &list("It would use, and leave as it is:", &self.used);
        text += &list("In the way, made by somebody else, and left alone:", &self.in_the_way);
        text += &list("What else keeps a run from it:", &self.obstacles.iter().cloned().collect());
        text += match (self.is_blocked(), self.in_the_way.is_empty()) {
            (true, false) => "A run would not begin. Delete what is in the way, or use another cluster.\n",
            (true, true) => "A run would not begin.\n",
            (false, _) => "Nothing is in the way, and nothing was written.\n",
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
             in namespace meshgate (requests start there): 1 Lease, 3 Pods, 1 ServiceAccount\n  \
             in namespace traefik:\n    2 Service: a, b\n  \
             in no namespace:\n    ClusterRole traefik\n  \
             in these namespaces, while cases run, and for no longer: routes as those above, AuthorizationPolicy, Deployment, GRPCRoute, \
             MeshTLSAuthentication, ServiceProfile, TrafficSplit, and a Service or a Pod where one is deleted and comes again\n\
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
