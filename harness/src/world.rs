//! The world of a cell: what has to run is applied and awaited, then what leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::Api;
use meshgate_clusters::{Cluster, Vantage};
use meshgate_fixtures::{Controller, Fixtures, Mode, Recipe, Template, Version};
use meshgate_inject as inject;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::time::Instant;

use crate::cell::{Assignment, Spec, Teller};
use crate::kubernetes::{Kubernetes, Manifest};
use crate::matrix::{Cell, Dialect};
use crate::plan::{self, NAMESPACE, Plan, Route};
use crate::probe::{self, Batch, Connection, Keep, Prober, Record, Request, Scheme};

mod artefacts;

/// A cell that is up: its cluster, the mesh, the controller and the apps.
pub struct World {
    /// The cell.
    pub cell: Cell,
    /// Its controller.
    pub controller: Controller,
    /// Its recipe.
    pub recipe: Recipe,
    /// The cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The cluster's API.
    pub kubernetes: Kubernetes,
    /// Sends requests from outside and from the node.
    pub prober: Prober,
    /// The external address of the controller.
    pub ingress: Ipv4Addr,
    /// The external addresses of its further instances, by workload name.
    pub instances: BTreeMap<String, Ipv4Addr>,
    /// How pods get their proxies: with identities of this cell's own.
    injection: inject::Options,
    report_dir: PathBuf,
    /// The command line that runs this cell again, without a case.
    repeat: String,
}

/// A cell that could not be set up, with what shows why.
pub struct Broken {
    /// Why.
    pub error: anyhow::Error,
    /// Files relative to the report folder.
    pub artefacts: Vec<String>,
}

/// The images that a controller's manifests name, besides Meshgate's own.
pub fn images(controller: &Controller, version: &Version) -> anyhow::Result<Vec<String>> {
    fn collect(value: &Value, images: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
                Value::String(image) if key == "image" => images.push(image.clone()),
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
/// certificate, which no client of a case is shown. `routes` is the label selector of what an instance has to read, empty for
/// everything.
fn values(
    controller: &Controller,
    version: &Version,
    workload: &str,
    routes: &str,
) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([format!("{}.test", controller.name)])?.self_signed(&key)?;
    Ok(BTreeMap::from([
        ("certificate", BASE64.encode(certificate.pem())),
        ("key", BASE64.encode(key.serialize_pem())),
        ("version", version.0.clone()),
        ("namespace", controller.namespace.clone()),
        ("routes", routes.to_owned()),
        ("workload", workload.to_owned()),
    ]))
}

/// The routes that have to answer before a cell is ready.
fn awaited<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<&'a Route> {
    plans.flat_map(|plan| plan.routes.values()).filter(|route| route.awaits.is_some()).collect()
}

/// The command line that runs a cell again, without a case.
pub fn repeat(spec: &Spec) -> String {
    let cell = &spec.cell;
    let mut line = format!("meshgate run --controllers {}@{}", cell.controller, cell.version);
    match &spec.recipe {
        Some(dir) => line += &format!(" --recipe {}", dir.display()),
        None => line += &format!(" --recipe {}", cell.recipe),
    }
    if let Some(dir) = &spec.fixtures {
        line += &format!(" --fixtures {}", dir.display());
    }
    if let Some(dialect) = cell.dialect {
        line += &format!(" --dialect {}", dialect.as_str());
    }
    line
}

/// Whether two manifests are of one object.
fn same(one: &Value, other: &Value) -> bool {
    ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"]
        .iter()
        .all(|at| one.pointer(at) == other.pointer(at))
}

fn from_file(template: &Template, objects: Vec<Value>) -> impl Iterator<Item = Manifest> + use<> {
    let file = template.path.clone();
    objects.into_iter().map(move |object| Manifest { object, file: Some(file.clone()) })
}

/// Proxies have identities, proven by the token that there was for that when the dialect was spoken.
fn injection(dialect: Option<Dialect>) -> anyhow::Result<inject::Options> {
    let options = inject::Options::default();
    let mut identity = inject::Identity::generate(&options.cluster_domain)?;
    if dialect == Some(Dialect::Documented) {
        identity.token = inject::Token::Mounted;
    }
    Ok(inject::Options { identity: Some(identity), ..options })
}

impl World {
    /// Applies mesh, controller, apps and the plans of all cases, and waits until all of it is ready.
    pub async fn set_up(
        assignment: &Assignment<'_>,
        cluster: Arc<dyn Cluster>,
        plans: &BTreeMap<&'static str, Plan>,
        within: Duration,
        teller: &Teller,
    ) -> Result<Self, Broken> {
        let Assignment { spec, fixtures, controller, recipe } = *assignment;
        let mut world = Self {
            cell: spec.cell.clone(),
            controller: controller.clone(),
            recipe: recipe.clone(),
            kubernetes: Kubernetes::new(cluster.client()),
            prober: Prober::new(Arc::clone(&cluster)),
            cluster,
            ingress: Ipv4Addr::UNSPECIFIED,
            instances: BTreeMap::new(),
            injection: inject::Options::default(),
            report_dir: spec.report_dir.clone(),
            repeat: repeat(spec),
        };
        match world.bring_up(fixtures, plans, Instant::now() + within, teller).await {
            Ok(()) => Ok(world),
            Err(error) => {
                let (folder, artefacts) = world.keep_setup_artefacts(&error).await;
                let error = anyhow!("{error:#}\n  logs, events and pods: {folder}");
                Err(Broken { error, artefacts })
            }
        }
    }

    async fn bring_up(
        &mut self,
        fixtures: &Fixtures,
        plans: &BTreeMap<&'static str, Plan>,
        deadline: Instant,
        teller: &Teller,
    ) -> anyhow::Result<()> {
        self.injection = injection(self.cell.dialect)?;
        teller.progress("applying mesh and apps");
        self.kubernetes.apply_manifests(&self.workloads(fixtures, plans)?).await?;
        self.kubernetes.deployments_ready(deadline, |text| teller.progress(text)).await?;
        // A hundred Services lead to the same few pods and every controller watches them all: applied in this order, each step is
        // told once, and a controller reads its routes once.
        teller.progress("applying Services, routes and the controller");
        self.kubernetes.apply_manifests(&self.paths(plans)?).await?;
        self.kubernetes.deployments_ready(deadline, |text| teller.progress(text)).await?;
        teller.progress("awaiting the external address");
        self.ingress = self.external_address(&self.controller.namespace, &self.controller.workload, deadline).await?;
        for name in plans.values().flat_map(|plan| plan.instances.keys()) {
            let address = self.external_address(&self.controller.namespace, name, deadline).await?;
            self.instances.insert(name.clone(), address);
        }
        self.cluster.settled().await;
        let routes = awaited(plans.values());
        teller.progress(format!("awaiting {} routes", routes.len()));
        let mut ready = vec![self.routes_ready(routes, self.ingress, deadline)];
        for (name, address) in &self.instances {
            let routes = awaited(plans.values().filter(|plan| plan.instances.contains_key(name)));
            ready.push(self.routes_ready(routes, *address, deadline));
        }
        futures::future::try_join_all(ready).await.map(drop)
    }

    /// Waits until every route has answered from its own backend, and then all of them again.
    async fn routes_ready(&self, routes: Vec<&Route>, address: Ipv4Addr, deadline: Instant) -> anyhow::Result<()> {
        const CONNECTIONS: usize = 4;
        let mut pending = routes.clone();
        let mut again = false;
        loop {
            let requests =
                pending.iter().map(|route| self.request_to(route, address).on(Connection::PerWorker)).collect();
            let batch = Batch { requests, concurrency: CONNECTIONS, repeat: None, keep: Keep::All };
            let records = self.prober.run(Vantage::Outside(0), &batch).await;
            let not_yet: Vec<(&Route, Record)> = pending
                .into_iter()
                .zip(records)
                .filter(|(route, record)| !(record.is(200) && record.service() == route.awaits.as_deref()))
                .collect();
            if not_yet.is_empty() && again {
                return Ok(());
            }
            again = not_yet.is_empty();
            if let Some((route, record)) = not_yet.first().filter(|_| Instant::now() >= deadline) {
                return Err(anyhow!(
                    "the route {} ({}{}) and {} more did not answer from {}: {}",
                    route.name,
                    route.host,
                    route.path,
                    not_yet.len() - 1,
                    route.awaits.as_deref().unwrap_or_default(),
                    probe::outcome(record)
                ));
            }
            pending = if again { routes.clone() } else { not_yet.into_iter().map(|(route, _)| route).collect() };
            if !again {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }

    /// A GET for a route, to one instance's address.
    pub fn request_to(&self, route: &Route, address: Ipv4Addr) -> Request {
        let port = if route.is_https() { self.controller.ports.https } else { self.controller.ports.http };
        let scheme = if route.is_https() { Scheme::Https } else { Scheme::Http };
        let target = SocketAddr::from((address, port)).to_string();
        Request { scheme, ..Request::get(target, &route.path).host(&route.host) }
    }

    /// The mesh, the apps and the workloads of the cases.
    fn workloads(&self, fixtures: &Fixtures, plans: &BTreeMap<&'static str, Plan>) -> anyhow::Result<Vec<Manifest>> {
        let none = BTreeMap::new();
        let own = inject::control_plane_manifests(&self.injection);
        let mut manifests: Vec<Manifest> = own.into_iter().map(Manifest::from).collect();
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
        let values = values(&self.controller, &self.cell.version, &self.controller.workload, "")?;
        for template in &self.controller.install {
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
        manifests.extend(self.instance_manifests(&self.controller.workload, "", &BTreeMap::new())?);
        // Cases that ask for the same instance share it.
        let instances: BTreeMap<_, _> = plans.values().flat_map(|plan| &plan.instances).collect();
        for (name, annotations) in instances {
            let routes = plan::selector(plans.values().filter(|plan| plan.instances.contains_key(name)));
            manifests.extend(self.instance_manifests(name, &routes, annotations)?);
        }
        for plan in plans.values() {
            manifests.extend(plan.services.values().map(|service| service.object(&self.recipe).into()));
            manifests.extend(plan.objects.iter().cloned().map(Manifest::from));
            for route in plan.routes.values() {
                let file = route.file(&self.recipe).map(str::to_owned);
                let objects = route.objects(&self.recipe)?;
                manifests.extend(objects.into_iter().map(|object| Manifest { object, file: file.clone() }));
            }
        }
        Ok(manifests)
    }

    /// The Deployment and Service of an instance of the controller, its proxy in the cell's mode and dialect.
    fn instance_manifests(
        &self,
        workload: &str,
        routes: &str,
        further: &BTreeMap<String, String>,
    ) -> anyhow::Result<impl Iterator<Item = Manifest> + use<>> {
        let template = &self.controller.instance;
        let mut objects = template.instantiate(&values(&self.controller, &self.cell.version, workload, routes)?)?;
        for object in &mut objects {
            self.inject_as(object, self.cell.mode.annotation(), further);
        }
        Ok(from_file(template, objects))
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
        inject::inject_object(object, &self.injection);
    }

    /// The address that a Service of type LoadBalancer gets.
    pub async fn external_address(
        &self,
        namespace: &str,
        service: &str,
        deadline: Instant,
    ) -> anyhow::Result<Ipv4Addr> {
        let api: Api<ServiceObject> = Api::namespaced(self.kubernetes.client(), namespace);
        loop {
            let object = api.get(service).await.with_context(|| format!("the Service {namespace}/{service}"))?;
            let address = object
                .status
                .and_then(|status| status.load_balancer?.ingress?.into_iter().next()?.ip)
                .and_then(|address| address.parse().ok());
            if let Some(address) = address {
                return Ok(address);
            }
            if Instant::now() >= deadline {
                return Err(anyhow!("the Service {namespace}/{service} got no external address"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The address of the only pod with this `app` label.
    pub async fn pod_address(&self, app: &str) -> anyhow::Result<Ipv4Addr> {
        self.address_of(NAMESPACE, &format!("app={app}")).await
    }

    /// The address of the running pod of a label selector.
    pub async fn address_of(&self, namespace: &str, labels: &str) -> anyhow::Result<Ipv4Addr> {
        self.kubernetes
            .pods(namespace, labels)
            .await?
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .find_map(|pod| pod.status?.pod_ip?.parse().ok())
            .ok_or_else(|| anyhow!("no pod with an address in {namespace} for {labels}"))
    }

    /// The address of the pod of an instance of the controller.
    pub async fn controller_pod(&self, workload: &str) -> anyhow::Result<Ipv4Addr> {
        self.address_of(&self.controller.namespace, &format!("app.kubernetes.io/instance={workload}")).await
    }
}
