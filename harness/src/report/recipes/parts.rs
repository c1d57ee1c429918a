//! What a reader needs of a recipe's files: the objects to apply, and which of them say what.

use std::collections::BTreeMap;

use meshgate_fixtures::{Controller, Mode, Recipe, Template};

use super::EXTRAS;

/// Templates that are shown of every recipe whose routes answer, and not only of the one to use: in these the recipes of a controller differ.
const ALWAYS: [&str; 2] = ["weighted", "auth"];

/// Kinds of the installation that a chart brings along and that no recipe depends on.
const USUAL: [&str; 7] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "IngressClass",
    "Namespace",
    "Secret",
    "ServiceAccount",
];

/// YAML and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What stands above it; what has none is the recipe itself.
    pub title: Option<&'static str>,
    /// The text, with its placeholders.
    pub text: String,
}

impl Part {
    fn new(title: Option<&'static str>, text: &str) -> Self {
        Self { title, text: text.trim().to_owned() }
    }
}

/// What is shown of a recipe; `whole` with everything that it can express.
pub fn parts(recipe: &Recipe, whole: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    if !recipe.service_annotations.is_empty() {
        parts.push(Part::new(
            None,
            &service("A Service behind the controller needs this.", &recipe.service_annotations),
        ));
    }
    let own =
        recipe.install.iter().chain(recipe.templates.get("route")).chain(&recipe.manifests).chain(&recipe.refused);
    parts.extend(own.map(|template| Part::new(None, template.text())));
    if !recipe.grpc_service_annotations.is_empty() {
        let mut annotations = recipe.service_annotations.clone();
        annotations.extend(recipe.grpc_service_annotations.clone());
        parts.push(Part::new(Some("gRPC"), &service("A Service that speaks gRPC needs this.", &annotations)));
    }
    let extras = EXTRAS.iter().filter(|(name, _)| whole || ALWAYS.contains(name));
    let extras = extras.filter_map(|(name, title)| Some((*title, recipe.templates.get(*name)?)));
    parts.extend(extras.map(|(title, template)| Part::new(Some(title), template.text())));
    parts
}

/// What annotates a Service. Its ports and the like are its own business.
fn service(why: &str, annotations: &BTreeMap<String, String>) -> String {
    let quoted = |(key, value): (&String, &String)| format!("    {key}: {}\n", serde_json::Value::from(value.as_str()));
    format!(
        "# {why}\napiVersion: v1\nkind: Service\nmetadata:\n  name: ${{service}}\n  namespace: ${{namespace}}\n  annotations:\n{}",
        annotations.iter().map(quoted).collect::<String>()
    )
}

/// The pod template that makes a controller run in this mode; `None` where no pod carries the traffic.
pub fn mode(controller: &Controller, mode: Mode) -> Option<String> {
    mode.has_proxy().then(|| {
        format!(
            "# The pod template of {}, in namespace {}.\nspec:\n  template:\n    metadata:\n      annotations:\n        linkerd.io/inject: {}",
            controller.workload,
            controller.namespace,
            mode.annotation()
        )
    })
}

/// The objects of an installation that are neither the controller itself nor what every installation has.
pub fn installed(controller: &Controller) -> Vec<Part> {
    let unusual = |template: &Template| {
        let documents = template.text().split("\n---\n").filter(|text| !USUAL.contains(&kind(text)));
        documents.map(str::trim).collect::<Vec<_>>().join("\n---\n")
    };
    let texts = controller.install.iter().map(unusual).filter(|text| !text.is_empty());
    texts.map(|text| Part::new(None, &text)).collect()
}

/// What kinds of objects a text has, in its order.
pub(super) fn kinds(text: &str) -> Vec<&str> {
    text.split("\n---\n").map(kind).collect()
}

fn kind(document: &str) -> &str {
    document.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default().trim()
}
