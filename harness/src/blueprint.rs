//! What a cell consists of: every manifest, before anything is known of the cluster that it comes to.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use meshgate_clusters::kind::PUBLISHED;
use meshgate_fixtures::{Controller, Fixtures, Mode, Recipe, Template, Version};
use meshgate_inject as inject;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::injection::Foreign;
use crate::kubernetes::Manifest;
use crate::matrix::{Cell, Dialect};
use crate::plan::{self, Instance, NAMESPACE, Plan};

/// A cell's manifests, made on demand.
#[derive(Clone, Copy)]
pub struct Blueprint<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Its controller.
    pub controller: &'a Controller,
    /// Its recipe.
    pub recipe: &'a Recipe,
    /// How pods get their proxies.
    pub injection: &'a inject::Options,
    /// What a mesh that is not Meshgate's own consists of.
    pub mesh: Option<&'a Foreign>,
    /// Whether the controller has the node ports [`PUBLISHED`].
    pub publishes: bool,
}

/// What is applied at once, after all of the step before is ready.
pub struct Step {
    /// What is being done, for a person.
    pub what: &'static str,
    /// The manifests.
    pub manifests: Vec<Manifest>,
    /// What of the cell they are.
    pub part: Part,
}

/// What of a cell a step brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A mesh that is not Meshgate's own: what injects the pods of the further steps.
    Mesh,
    /// What runs in that mesh and belongs to it.
    Extensions,
    /// Everything else.
    Rest,
}

/// The images that a controller's manifests name, besides Meshgate's own, each once.
pub fn images(controller: &Controller, version: &Version) -> anyhow::Result<Vec<String>> {
    fn collect(value: &Value, images: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
                Value::String(image) if key == "image" => {
                    if !images.contains(image) {
                        images.push(image.clone());
                    }
                }
                value => collect(value, images),
            }),
            Value::Array(items) => items.iter().for_each(|item| collect(item, images)),
            _ => {}
        }
    }
    let mut images = Vec::new();
    let values = values(controller, version, &controller.workload, "")?;
    for template in controller.install.iter().chain([&controller.instance]) {
        for object in template.instantiate(&values)? {
            collect(&object, &mut images);
        }
    }
    Ok(images)
}

/// What the files in `install/` may ask for. `certificate` and `key` are those of a Secret's `data`: a controller's default
/// certificate, which no client of a case is shown; `webhook_certificate` and `webhook_key` those of its Service `WORKLOAD-admission`,
/// where the certificate is what the API server trusts as well, as the Job of a chart makes them. `routes` is the label selector of what
/// an instance has to read, empty for everything.
fn values(
    controller: &Controller,
    version: &Version,
    workload: &str,
    routes: &str,
) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let (certificate, key) = self_signed(format!("{}.test", controller.name))?;
    let (webhook_certificate, webhook_key) = self_signed(format!("{workload}-admission.{}.svc", controller.namespace))?;
    Ok(BTreeMap::from([
        ("certificate", certificate),
        ("key", key),
        ("webhook_certificate", webhook_certificate),
        ("webhook_key", webhook_key),
        ("version", version.0.clone()),
        ("namespace", controller.namespace.clone()),
        ("routes", routes.to_owned()),
        ("workload", workload.to_owned()),
    ]))
}

/// A certificate for a name and its key, as in a Secret's `data`.
fn self_signed(name: String) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name])?.self_signed(&key)?;
    Ok((BASE64.encode(certificate.pem()), BASE64.encode(key.serialize_pem())))
}

fn is_definition(object: &Value) -> bool {
    object["kind"] == "CustomResourceDefinition"
}

/// Whether two manifests are of one object.
pub fn same(one: &Value, other: &Value) -> bool {
    ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"]
        .iter()
        .all(|at| one.pointer(at) == other.pointer(at))
}

/// Gives the ports of the controller's Service, if it is that, the node ports that lead to this machine.
fn publish(object: &mut Value, controller: &Controller) {
    if object["kind"] != "Service" {
        return;
    }
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        for (one, node_port) in [controller.ports.http, controller.ports.https].into_iter().zip(PUBLISHED) {
            if port["port"] == one {
                port["nodePort"] = node_port.into();
            }
        }
    }
}

fn from_file(template: &Template, objects: Vec<Value>) -> impl Iterator<Item = Manifest> + use<> {
    let file = template.path.clone();
    objects.into_iter().map(move |object| Manifest { object, file: Some(file.clone()) })
}

/// Proxies have identities, proven by the token that there was for that when the dialect was spoken.
pub fn injection(dialect: Option<Dialect>) -> anyhow::Result<inject::Options> {
    let options = inject::Options::default();
    let mut identity = inject::Identity::generate(&options.cluster_domain)?;
    if dialect == Some(Dialect::Documented) {
        identity.token = inject::Token::Mounted;
    }
    // A real Linkerd wants Gateway API on the cluster as well.
    Ok(inject::Options { identity: Some(identity), gateway_api: true, ..options })
}

impl Blueprint<'_> {
    /// Everything, in the order in which it has to be ready.
    ///
    /// # Errors
    /// A template that cannot be filled in.
    pub fn steps(&self, fixtures: &Fixtures, plans: &BTreeMap<&'static str, Plan>) -> anyhow::Result<Vec<Step>> {
        let workloads = self.workloads(fixtures, plans)?;
        let (definitions, paths): (Vec<_>, Vec<_>) =
            self.paths(plans)?.into_iter().partition(|manifest| is_definition(&manifest.object));
        let Foreign { core: mut mesh, mut extensions } = match self.mesh {
            Some(foreign) => foreign.clone(),
            None => Foreign { core: inject::control_plane_manifests(self.injection), extensions: Vec::new() },
        };
        // What a controller brings along, as of Gateway API, a mesh need not.
        for objects in [&mut mesh, &mut extensions] {
            objects.retain(|object| !definitions.iter().any(|manifest| same(object, &manifest.object)));
        }
        let mesh = definitions.into_iter().chain(mesh.into_iter().map(Manifest::from));
        let mut steps = match self.mesh {
            // Its webhook has to be there before the pods that it is to inject, those of its own extensions among them.
            Some(_) => {
                let extensions = extensions.into_iter().map(Manifest::from).collect();
                vec![
                    Step { what: "applying the mesh", manifests: mesh.collect(), part: Part::Mesh },
                    Step { what: "applying the mesh's extensions", manifests: extensions, part: Part::Extensions },
                    Step { what: "applying apps", manifests: workloads, part: Part::Rest },
                ]
            }
            // Proxies wait for their control plane by themselves.
            None => {
                let manifests = mesh.chain(workloads).collect();
                vec![Step { what: "applying mesh and apps", manifests, part: Part::Rest }]
            }
        };
        steps.retain(|step| !step.manifests.is_empty());
        // A hundred Services lead to the same few pods and every controller watches them all: applied after the pods, each step is
        // told once, and a controller reads its routes once.
        steps.push(Step { what: "applying Services, routes and the controller", manifests: paths, part: Part::Rest });
        Ok(steps)
    }

    /// The apps and the workloads of the cases.
    fn workloads(&self, fixtures: &Fixtures, plans: &BTreeMap<&'static str, Plan>) -> anyhow::Result<Vec<Manifest>> {
        let none = BTreeMap::new();
        let mut manifests = Vec::new();
        let mut apps: BTreeSet<&str> = plans.values().flat_map(|plan| &plan.apps).copied().collect();
        if !self.recipe.manifests.is_empty() {
            // What a recipe applies as it is was written for them.
            apps.extend(self.recipe.apps.iter().map(String::as_str));
        }
        for app in apps.into_iter().chain(["echo"]) {
            let template = fixtures.app(app)?;
            let mut app = template.instantiate(&none)?;
            app.iter_mut().for_each(|object| self.inject_app(object));
            manifests.extend(from_file(template, app));
        }
        for workload in plans.values().flat_map(|plan| &plan.workloads) {
            let mut workload = workload.clone();
            self.inject_app(&mut workload);
            manifests.push(workload.into());
        }
        Ok(manifests)
    }

    /// The controller, the recipe's own manifests, and the Services, routes and further objects of the cases.
    fn paths(&self, plans: &BTreeMap<&'static str, Plan>) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        let values = values(self.controller, &self.cell.version, &self.controller.workload, "")?;
        let without = |template: &&Template, name: &String| template.path.ends_with(&format!("/{name}"));
        for name in &self.recipe.without {
            if !self.controller.install.iter().any(|template| without(&template, name)) {
                anyhow::bail!("without: expected a file of the controller's install/, found {name:?}");
            }
        }
        let installed = |template: &&Template| !self.recipe.without.iter().any(|name| without(template, name));
        for template in self.controller.install.iter().filter(installed) {
            manifests.extend(from_file(template, template.instantiate(&values)?));
        }
        for template in &self.recipe.install {
            let objects = template.instantiate(&values)?;
            manifests.retain(|manifest: &Manifest| !objects.iter().any(|object| same(object, &manifest.object)));
            manifests.extend(from_file(template, objects));
        }
        for template in &self.recipe.manifests {
            manifests.extend(from_file(template, template.instantiate(&BTreeMap::new())?));
        }
        manifests.iter_mut().for_each(|manifest| plan::label(&mut manifest.object, plan::EVERY));
        manifests.extend(self.instance_manifests(&self.controller.workload, "", &Instance::default())?);
        // Cases that ask for the same instance share it.
        let instances: BTreeMap<_, _> = plans.values().flat_map(|plan| &plan.instances).collect();
        for (name, instance) in instances {
            let routes = plan::selector(plans.values().filter(|plan| plan.instances.contains_key(name)));
            manifests.extend(self.instance_manifests(name, &routes, instance)?);
        }
        for plan in plans.values() {
            manifests.extend(plan.services.values().map(|service| service.object(self.recipe).into()));
            manifests.extend(plan.objects.iter().cloned().map(Manifest::from));
            for route in plan.routes.values() {
                let file = route.file(self.recipe).map(str::to_owned);
                let objects = route.objects(self.recipe)?;
                manifests.extend(objects.into_iter().map(|object| Manifest { object, file: file.clone() }));
            }
        }
        Ok(manifests)
    }

    /// The Deployment and Service of an instance of the controller, its proxy in the cell's mode and dialect.
    ///
    /// # Errors
    /// A template that cannot be filled in, or no container that could take the recipe's arguments.
    fn instance_manifests(
        &self,
        workload: &str,
        routes: &str,
        further: &Instance,
    ) -> anyhow::Result<impl Iterator<Item = Manifest> + use<>> {
        let template = &self.controller.instance;
        let mut objects = template.instantiate(&values(self.controller, &self.cell.version, workload, routes)?)?;
        for object in &mut objects {
            if let Some(service) = &further.default_backend {
                self.give_default_backend(object, service)?;
            }
            self.inject_as(object, self.cell.mode.annotation(), &further.annotations);
            if self.publishes && workload == self.controller.workload {
                publish(object, self.controller);
            }
        }
        Ok(from_file(template, objects))
    }

    /// Makes a Service the default backend of the controller, if the object is its Deployment and the recipe knows how.
    fn give_default_backend(&self, object: &mut Value, service: &str) -> anyhow::Result<()> {
        let Some(own) = self.recipe.own_default_backend.as_ref().filter(|_| object["kind"] == "Deployment") else {
            return Ok(());
        };
        let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut().into_iter().flatten();
        let name = &self.controller.container;
        let arguments = containers
            .filter(|container| container["name"] == **name)
            .find_map(|container| container["args"].as_array_mut())
            .with_context(|| format!("own_default_backend: expected a container {name:?} with args, found none"))?;
        let filled = own
            .arguments
            .iter()
            .map(|argument| argument.replace("${namespace}", NAMESPACE).replace("${service}", service));
        arguments.extend(filled.map(Value::from));
        Ok(())
    }

    /// The objects of a further instance that reads no routes, as those of the first are.
    pub fn further_instance(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let manifests = self.instance_manifests(name, &plan::selector(std::iter::empty()), &Instance::default())?;
        Ok(manifests.map(|manifest| manifest.object).collect())
    }

    /// Injects the mesh proxy into an app. The probe's proxy runs in the cell's mode, if that is one of a proxy; the others in
    /// default mode.
    pub fn inject_app(&self, object: &mut Value) {
        let is_probe = object["metadata"]["name"] == "probe";
        let mode = if is_probe && self.cell.mode.has_proxy() { self.cell.mode } else { Mode::Default };
        self.inject_as(object, mode.annotation(), &BTreeMap::new());
    }

    fn inject_as(&self, object: &mut Value, mode: &str, further: &BTreeMap<String, String>) {
        if object["kind"] != "Deployment" {
            return;
        }
        let annotations = &mut object["spec"]["template"]["metadata"]["annotations"];
        if annotations.is_null() {
            *annotations = serde_json::json!({});
        }
        annotations[inject::INJECT] = mode.into();
        if let Some(dialect) = self.cell.dialect {
            annotations[inject::DIALECT] = dialect.as_str().into();
        }
        for (key, value) in further {
            annotations[key] = value.clone().into();
        }
        // Another mesh's webhook reads the annotations.
        if self.mesh.is_none() {
            inject::inject_object(object, self.injection);
        }
    }
}

#[cfg(test)]
mod tests {
    use meshgate_fixtures::Fixtures;

    use super::*;
    use crate::matrix::{self, Place, Selection};

    #[test]
    fn an_instance_has_a_default_backend_of_its_own_where_the_recipe_knows_how() {
        let fixtures = Fixtures::built_in().unwrap();
        let controller = fixtures.controller("ingress-nginx").unwrap();
        let injection = inject::Options::default();
        let arguments = |recipe: &str, workload: &str| -> Vec<String> {
            let selection = Selection {
                controllers: vec![controller.name.clone()],
                recipes: vec![recipe.to_owned()],
                ..Selection::default()
            };
            let cells = matrix::cells(&fixtures, &selection, Place::USUAL).unwrap();
            let recipe = controller.recipe(recipe).unwrap();
            let blueprint =
                Blueprint { cell: &cells[0], controller, recipe, injection: &injection, mesh: None, publishes: false };
            let mut plan = Plan::new("case");
            plan.instance_with_default_backend("own", "fallback");
            let steps = blueprint.steps(&fixtures, &BTreeMap::from([("case", plan)])).unwrap();
            let mut objects = steps.into_iter().flat_map(|step| step.manifests).map(|manifest| manifest.object);
            let deployment = objects
                .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == workload)
                .expect("the Deployment");
            let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
            let own = containers.iter().find(|container| container["name"] == *controller.container);
            serde_json::from_value(own.expect("the controller's")["args"].clone()).expect("arguments")
        };
        let added = "--default-backend-service=workbench/case-fallback".to_owned();
        assert_eq!(arguments("custom-headers", "own").last(), Some(&added));
        assert!(!arguments("custom-headers", &controller.workload).contains(&added), "the first instance");
        assert!(!arguments("pod-ip", "own").contains(&added), "a recipe that does not know how");
    }
}
