//! The world of a cell: what has to run is applied and awaited, then what leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::Api;
use meshgate_clusters::linkerd::Linkerd;
use meshgate_clusters::{Backend, Cluster, Entrance, Vantage};
use meshgate_fixtures::{Controller, Fixtures, Recipe};
use meshgate_inject as inject;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::blueprint::{self, Blueprint, Part};
use crate::cell::{Assignment, Spec, Teller};
use crate::injection::{self, Foreign};
use crate::kubernetes::Kubernetes;
use crate::matrix::Cell;
use crate::plan::{NAMESPACE, Plan, Route};
use crate::probe::{self, Batch, Connection, Keep, Prober, Record, Request, Scheme};

mod artefacts;

/// How long Linkerd's own checks may wait: its Deployments are available when they are asked.
const CHECKS: Duration = Duration::from_secs(60);

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
    /// Where clients reach the controller.
    pub ingress: Entrance,
    /// Where they reach its further instances, by workload name.
    pub instances: BTreeMap<String, Entrance>,
    /// How pods get their proxies: with identities of this cell's own.
    injection: inject::Options,
    /// What a mesh that is not Meshgate's own consists of.
    mesh: Option<Foreign>,
    publishes: bool,
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
    line + &spec.where_to
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
            kubernetes: Kubernetes::of(&*cluster),
            prober: Prober::new(Arc::clone(&cluster)),
            cluster,
            ingress: Entrance::of(Ipv4Addr::UNSPECIFIED),
            instances: BTreeMap::new(),
            injection: inject::Options::default(),
            mesh: None,
            publishes: spec.backend.publishes(),
            report_dir: spec.report_dir.clone(),
            repeat: repeat(spec),
        };
        match world.bring_up(spec, fixtures, plans, Instant::now() + within, teller).await {
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
        spec: &Spec,
        fixtures: &Fixtures,
        plans: &BTreeMap<&'static str, Plan>,
        deadline: Instant,
        teller: &Teller,
    ) -> anyhow::Result<()> {
        self.injection = blueprint::injection(self.cell.dialect)?;
        if let Some(path) = &spec.mesh {
            let text = std::fs::read(path).with_context(|| path.display().to_string())?;
            self.mesh = Some(serde_json::from_slice(&text).with_context(|| path.display().to_string())?);
        }
        let steps = self.blueprint().steps(fixtures, plans)?;
        let manifests = steps.iter().flat_map(|step| &step.manifests);
        self.kubernetes.nothing_in_the_way(manifests, &self.controller).await?;
        let mut warned = BTreeSet::new();
        for step in steps {
            teller.progress(step.what);
            self.kubernetes.apply_manifests(&step.manifests).await?;
            self.kubernetes.deployments_ready(deadline, |text| teller.progress(text)).await?;
            match (&self.mesh, step.part) {
                (Some(mesh), Part::Mesh) => {
                    self.mesh_checked(spec, deadline, &mut warned, teller).await?;
                    teller.progress("awaiting the mesh's injector");
                    injection::awaited(&self.kubernetes, &mesh.core).await?;
                }
                (_, Part::Extensions) => {
                    self.injected().await?;
                    self.mesh_checked(spec, deadline, &mut warned, teller).await?;
                }
                _ => self.injected().await?,
            }
        }
        teller.progress("awaiting the external address");
        self.ingress = self.entrance(&self.controller.namespace, &self.controller.workload, deadline).await?;
        for name in plans.values().flat_map(|plan| plan.instances.keys()) {
            let entrance = self.entrance(&self.controller.namespace, name, deadline).await?;
            self.instances.insert(name.clone(), entrance);
        }
        self.cluster.settled().await?;
        let routes = awaited(plans.values());
        teller.progress(format!("awaiting {} routes", routes.len()));
        let mut ready = vec![self.routes_ready(routes, &self.ingress, deadline)];
        for (name, entrance) in &self.instances {
            let routes = awaited(plans.values().filter(|plan| plan.instances.contains_key(name)));
            ready.push(self.routes_ready(routes, entrance, deadline));
        }
        futures::future::try_join_all(ready).await.map(drop)
    }

    /// Refuses to go on where a mesh that is not Meshgate's own left a pod without its proxy.
    ///
    /// # Errors
    /// Which pods, and what to do.
    pub async fn injected(&self) -> anyhow::Result<()> {
        match &self.mesh {
            Some(mesh) => injection::complete(&self.kubernetes, &mesh.core).await,
            None => Ok(()),
        }
    }

    /// Asks a mesh that is not Meshgate's own for its word that it works, as far as it is there. What it `warned` of is told once.
    async fn mesh_checked(
        &self,
        spec: &Spec,
        deadline: Instant,
        warned: &mut BTreeSet<String>,
        teller: &Teller,
    ) -> anyhow::Result<()> {
        let Backend::Remote(reach) = &spec.backend else { return Ok(()) };
        teller.progress("asking linkerd for its checks");
        let left = deadline.saturating_duration_since(Instant::now());
        for warning in Linkerd::new(reach, Vec::new()).check(left.min(CHECKS)).await? {
            if warned.insert(warning.to_string()) {
                teller.note(format!("linkerd check warns: {warning}"));
            }
        }
        Ok(())
    }

    /// Waits until every route has answered from its own backend, and then all of them again.
    async fn routes_ready(&self, routes: Vec<&Route>, at: &Entrance, deadline: Instant) -> anyhow::Result<()> {
        const CONNECTIONS: usize = 4;
        let mut pending = routes.clone();
        let mut again = false;
        loop {
            let requests = pending.iter().map(|route| self.request_to(route, at).on(Connection::PerWorker)).collect();
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

    /// A GET for a route, to one instance.
    pub fn request_to(&self, route: &Route, at: &Entrance) -> Request {
        let port = if route.is_https() { self.controller.ports.https } else { self.controller.ports.http };
        let scheme = if route.is_https() { Scheme::Https } else { Scheme::Http };
        let target = at.at(port).to_string();
        Request { scheme, ..Request::get(target, &route.path).host(&route.host) }
    }

    /// What the cell consists of.
    fn blueprint(&self) -> Blueprint<'_> {
        Blueprint {
            cell: &self.cell,
            controller: &self.controller,
            recipe: &self.recipe,
            injection: &self.injection,
            mesh: self.mesh.as_ref(),
            publishes: self.publishes,
        }
    }

    /// Injects the mesh proxy into an app, as [`Blueprint::inject_app`] does.
    pub fn inject_app(&self, object: &mut Value) {
        self.blueprint().inject_app(object);
    }

    /// The Deployment and Service of a further instance of the controller, which nobody has applied yet. It reads no routes.
    pub fn further_instance(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        self.blueprint().further_instance(name)
    }

    /// Injects the mesh proxy into an app as `meshgate inject --ingress` does.
    pub fn inject_with_flag(&self, object: &mut Value) {
        let options = inject::Options { mode: inject::Mode::Ingress, ..self.injection.clone() };
        inject::inject_object(object, &options);
    }

    /// Where clients outside reach a Service of type LoadBalancer.
    pub async fn entrance(&self, namespace: &str, service: &str, deadline: Instant) -> anyhow::Result<Entrance> {
        let api: Api<ServiceObject> = Api::namespaced(self.kubernetes.client(), namespace);
        // The embedded cluster gives one at once, a cloud in minutes.
        let mut pause = Duration::from_millis(10);
        loop {
            let object = api.get(service).await.with_context(|| format!("the Service {namespace}/{service}"))?;
            if let Some(entrance) = self.cluster.entrance(&object).await {
                return Ok(entrance);
            }
            if Instant::now() >= deadline {
                let balancer = object.status.and_then(|status| status.load_balancer);
                return Err(anyhow!(
                    "the Service {namespace}/{service} got no IPv4 address that clients can come by; its load balancer: {}",
                    json!(balancer)
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(1));
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
