//! The world of a cell: what has to run is applied and awaited, then what leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::Api;
use meshgate_clusters::linkerd::Linkerd;
use meshgate_clusters::{Backend, Cluster, Entrance, told};
use meshgate_fixtures::{Controller, Fixtures, Recipe};
use meshgate_inject as inject;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::blueprint::{self, Blueprint, Part};
use crate::cell::{Assignment, Spec, Teller};
use crate::convergence::converge;
use crate::injection::{self, Foreign};
use crate::kubernetes::Kubernetes;
use crate::matrix::Cell;
use crate::plan::{self, NAMESPACE, Plan, Route};
use crate::probe::{Prober, Request, Scheme};

mod artefacts;
mod readiness;

use readiness::{Silent, Unready};

/// How long Linkerd's own checks may wait: its Deployments are available when they are asked.
const CHECKS: Duration = Duration::from_secs(60);

/// How long a cluster may be away, several times as long where everything may take longer: a control plane that is upgraded is, for minutes.
const AWAY: Duration = Duration::from_secs(60);

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
    /// Of which cases something was not there when all others were ready, by their slugs.
    unready: BTreeMap<String, Unready>,
    /// Whether the cluster was away and did not come back in time.
    gone: Mutex<bool>,
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

/// The command line that runs a cell again, without a case.
pub fn repeat(spec: &Spec) -> String {
    let cell = &spec.cell;
    let mut line = format!("meshgate run --controllers {}@{}", cell.controller, cell.version);
    match &spec.recipe {
        Some(dir) => line += &format!(" --recipe {}", quoted(dir)),
        None => line += &format!(" --recipe {}", cell.recipe),
    }
    if let Some(dir) = &spec.fixtures {
        line += &format!(" --fixtures {}", quoted(dir));
    }
    if let Some(dialect) = cell.dialect {
        line += &format!(" --dialect {}", dialect.as_str());
    }
    line + &spec.where_to
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// No longer than anybody waits.
const EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

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
            unready: BTreeMap::new(),
            gone: Mutex::default(),
            report_dir: spec.report_dir.clone(),
            repeat: repeat(spec),
        };
        match world.bring_up(spec, fixtures, plans, Instant::now() + within.min(EVER), teller).await {
            Ok(()) => Ok(world),
            Err(error) => {
                let (folder, artefacts) = world.keep_setup_artefacts(&error).await;
                let error = anyhow!("{}\n  logs, events and pods: {folder}", told(error.as_ref()));
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
            for (manifest, refused) in self.kubernetes.apply_what_is_taken(&step.manifests).await? {
                // What the recipe makes of a route is for the case to judge, and everything else for nobody.
                let Some(case) = plan::case_of(&manifest.object) else { return Err(refused) };
                self.unready.entry(case.to_owned()).or_default().refused.push(format!("{refused:#}"));
            }
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
        let taken = || plans.values().filter(|plan| !self.unready.contains_key(plan.slug()));
        let awaited = readiness::awaited(taken());
        teller.progress(format!("awaiting {} routes", awaited.len()));
        let mut looks = vec![self.routes_ready(awaited, None, deadline)];
        for name in self.instances.keys() {
            let routes = readiness::awaited(taken().filter(|plan| plan.instances.contains_key(name)));
            looks.push(self.routes_ready(routes, Some(name), deadline));
        }
        let silent: Vec<(String, Silent)> = futures::future::join_all(looks).await.into_iter().flatten().collect();
        for (case, silent) in silent {
            self.unready.entry(case).or_default().silent.push(silent);
        }
        for told in self.unready.values().flat_map(Unready::told) {
            teller.note(told);
        }
        Ok(())
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

    /// The way to the cluster, which is waited for as in [`back`](Self::back).
    pub(crate) async fn way(&self) -> io::Result<u64> {
        match self.cluster.reached().await {
            Err(_) if self.back().await => self.cluster.reached().await,
            way => way,
        }
    }

    /// Why nobody knows what became of what was sent and asked since this was the way to the cluster; `None` if it still is.
    pub(crate) async fn away(&self, was: io::Result<u64>) -> Option<String> {
        match (was, self.cluster.reached().await) {
            (Ok(was), Ok(is)) if was == is => None,
            (Ok(_), Ok(_)) => Some("the connection to the cluster broke meanwhile".into()),
            (Err(why), _) | (_, Err(why)) => Some(format!("the cluster cannot be reached: {why}")),
        }
    }

    /// Waits until a cluster that was away is back, and says whether it is. Once it was not in time, it is not waited for again.
    pub(crate) async fn back(&self) -> bool {
        let mut gone = self.gone.lock().await;
        if !*gone {
            let reached = || async { self.cluster.reached().await.map_err(|error| error.to_string()) };
            *gone = converge(AWAY, reached).await.is_err();
        }
        !*gone
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        for (path, words) in [("own/a-b_1.0", "own/a-b_1.0"), ("own recipe", "'own recipe'"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(Path::new(path)), words);
        }
    }
}
