//! What would be made on an existing cluster, and what is in the way there: `meshgate run --dry-run` tells it, and a run looks before
//! it begins.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use meshgate_clusters::remote::{Claim, NAMESPACE, Reach};
use meshgate_clusters::told;
use meshgate_fixtures::{Controller, Fixtures};
use meshgate_harness::cell;
use meshgate_harness::injection::Foreign;
use meshgate_harness::kubernetes::{Kubernetes, describe};
use meshgate_harness::matrix::Cell;
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

/// What a run would do, and where.
#[derive(Clone, Copy)]
pub struct Inquiry<'a> {
    pub reach: &'a Reach,
    pub plan: &'a Plan,
    pub fixtures: &'a Fixtures,
    pub charts: &'a Charts,
    /// What a mesh that is not Meshgate's own consists of.
    pub mesh: Option<&'a Foreign>,
}

/// What all cells want to have.
#[derive(Default)]
struct Wanted<'a> {
    /// By kind and name.
    objects: BTreeMap<String, Value>,
    controllers: BTreeMap<String, Cow<'a, Controller>>,
}

impl<'a> Inquiry<'a> {
    /// Asks the cluster what would be made there and what keeps a run from it; writes nothing.
    pub async fn outlook(self) -> anyhow::Result<Outlook> {
        match self.wanted() {
            (wanted, None) => self.all(&wanted).await,
            (_, Some(error)) => Err(error),
        }
    }

    /// Refuses to begin where somebody else's objects are in the way of any of the cells; what a run of Meshgate left is not. Writes
    /// nothing.
    ///
    /// # Errors
    /// All that is in the way.
    pub async fn admitted(self) -> anyhow::Result<()> {
        // A cell whose manifests cannot be made says so itself, and the others go on.
        let (wanted, _) = self.wanted();
        if self.objects(&wanted).await.is_ok_and(|outlook| !outlook.is_blocked()) {
            // The claim that comes next asks for the rest, and has the patience to see whether a Lease is still renewed.
            return Ok(());
        }
        let outlook = self.all(&wanted).await?;
        if outlook.is_blocked() {
            bail!("{}", outlook.refusal(&self.reach.context));
        }
        Ok(())
    }

    /// What the cells want that are set up, and why that is not known of one.
    fn wanted(self) -> (Wanted<'a>, Option<anyhow::Error>) {
        let mut wanted = Wanted::default();
        let mut unknown = None;
        for cell in &self.plan.cells {
            if let Err(error) = self.want(cell, &mut wanted) {
                unknown.get_or_insert(error);
            }
        }
        (wanted, unknown)
    }

    fn want(self, cell: &Cell, wanted: &mut Wanted<'a>) -> anyhow::Result<()> {
        let Self { plan, fixtures, charts, mesh, .. } = self;
        let controller = charts.controller(fixtures, cell)?;
        let recipe = plan.recipe(cell, &controller)?;
        if !plan.applies(cell, &recipe) {
            return Ok(());
        }
        for manifest in cell::manifests(cell, &controller, &recipe, fixtures, &plan.cases, mesh)? {
            wanted.objects.insert(describe(&manifest.object), manifest.object);
        }
        wanted.controllers.entry(controller.name.clone()).or_insert(controller);
        Ok(())
    }

    /// What becomes of the objects, and all that keeps a run from beginning.
    async fn all(self, wanted: &Wanted<'_>) -> anyhow::Result<Outlook> {
        let obstacles = Claim::obstacles(self.reach).await?;
        let mut obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        match self.objects(wanted).await {
            Ok(outlook) => {
                obstacles.extend(outlook.obstacles.iter().cloned());
                Ok(Outlook { obstacles, ..outlook })
            }
            // Whose rights do not suffice for a run may lack those to look as well.
            Err(error) if !obstacles.is_empty() => {
                obstacles.push(told(error.as_ref()));
                Ok(Outlook { obstacles, ..Outlook::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// What becomes of the objects, and what of others they would meet.
    async fn objects(self, wanted: &Wanted<'_>) -> anyhow::Result<Outlook> {
        let kubernetes = Kubernetes::guest(self.reach.client().await?, Tenancy::new(self.reach.image.clone()));
        let objects: Vec<&Value> = wanted.objects.values().collect();
        let controllers: Vec<&Controller> = wanted.controllers.values().map(AsRef::as_ref).collect();
        let obstacles = kubernetes.obstacles(&objects, &controllers).await?;
        let mut outlook = Outlook { obstacles, ..Outlook::default() };
        for (object, fate) in kubernetes.fates(objects.into_iter()).await? {
            outlook.take(object, &fate);
        }
        Ok(outlook)
    }
}

impl Outlook {
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
        text += &self.obstructions();
        text += match (self.is_blocked(), self.in_the_way.is_empty()) {
            (true, false) => "A run would not begin. Delete what is in the way, or use another cluster.\n",
            (true, true) => "A run would not begin.\n",
            (false, _) => "Nothing is in the way, and nothing was written.\n",
        };
        text
    }

    /// What is in the way, for a person.
    fn obstructions(&self) -> String {
        list("In the way, made by somebody else, and left alone:", &self.in_the_way)
            + &list("What else keeps a run from it:", &self.obstacles.iter().cloned().collect())
    }

    /// Why a run does not begin.
    fn refusal(&self, context: &str) -> String {
        let remedy = match self.in_the_way.is_empty() {
            true => "",
            false => " Delete what is in the way, or use another cluster.",
        };
        format!(
            "the run does not begin on the cluster of context \"{context}\"\n{}Nothing was written there.{remedy}",
            self.obstructions()
        )
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
        let linkerd = json!({"kind": "Namespace", "metadata": {"name": "linkerd"}});
        let text = outlook(&[(linkerd.clone(), Fate::InTheWay)]);
        assert!(text.contains("left alone:\n  Namespace linkerd\nA run would not begin."), "{text}");
        let mut outlook = Outlook { obstacles: vec!["rights are missing".into()], ..Outlook::default() };
        outlook.take(&linkerd, &Fate::InTheWay);
        assert_eq!(
            outlook.refusal("kind-a"),
            "the run does not begin on the cluster of context \"kind-a\"\n\
             In the way, made by somebody else, and left alone:\n  Namespace linkerd\n\
             What else keeps a run from it:\n  rights are missing\n\
             Nothing was written there. Delete what is in the way, or use another cluster."
        );
    }
}
