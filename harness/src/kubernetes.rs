//! Applying objects of any kind and waiting for workloads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::{StreamExt, TryStreamExt, future, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use meshgate_clusters::remote::OWNED;
use meshgate_clusters::{Cluster, Kind, told};
use meshgate_fixtures::Controller;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::refusal::{Refused, is_refusal, refuses};
use crate::tenancy::{Fate, Tenancy};
use crate::{adoption, definitions};

mod starts;

use starts::{LOOKS, Starts};

/// The field manager of everything that Meshgate applies.
pub const MANAGER: &str = "meshgate";

/// Writes under way at once. Each takes a connection to the API server, which costs both sides a TLS handshake.
const AT_ONCE: usize = 8;

const DEFINITION: &str = "CustomResourceDefinition";

/// How long a new kind may take to be served.
const ESTABLISHES: Duration = Duration::from_secs(30);

/// Between two looks at what an API server says that it serves.
const DISCOVERED: Duration = Duration::from_millis(100);

/// An object and the file that it was made from, for messages.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The object.
    pub object: Value,
    /// The file; `None` for an object that Meshgate makes itself.
    pub file: Option<String>,
}

impl From<Value> for Manifest {
    fn from(object: Value) -> Self {
        Self { object, file: None }
    }
}

/// A client that applies objects of any kind, looking each kind up once.
pub struct Kubernetes {
    client: kube::Client,
    kinds: Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>,
    tenancy: Option<Tenancy>,
}

impl Kubernetes {
    /// For a cluster: as its only user, or as a guest where it is not Meshgate's own.
    pub fn of(cluster: &dyn Cluster) -> Self {
        let tenancy = || Tenancy::new(cluster.image()).on(cluster.placement());
        let tenancy = (cluster.kind() != Kind::Embedded).then(tenancy);
        Self { client: cluster.client(), kinds: Mutex::default(), tenancy }
    }

    /// As a guest, before anything of Meshgate is there.
    pub fn guest(client: kube::Client, tenancy: Tenancy) -> Self {
        Self { client, kinds: Mutex::default(), tenancy: Some(tenancy) }
    }

    /// The client itself.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Server-side applies an object. A field that its kind does not have is refused, for it would do nothing in silence.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (api, name) = self.api_of(object).await?;
        let params = PatchParams::apply(MANAGER).force().validation_strict();
        let applied = match &self.tenancy {
            None => api.patch(&name, &params, &Patch::Apply(object)).await,
            Some(tenancy) if tenancy.admits(&self.client, &api, object).await? => {
                api.patch(&name, &params, &Patch::Apply(tenancy.adapted(object))).await
            }
            Some(_) => api.get(&name).await,
        };
        applied.map_err(|error| {
            let what = describe(object);
            match &error {
                kube::Error::Api(status) if refuses(status) => Refused { what, message: status.message.clone() }.into(),
                kube::Error::Api(status) => anyhow!("cannot apply {what}: {}", status.message),
                error => anyhow!("cannot apply {what}: {}", told(error)),
            }
        })
    }

    /// An object as it is now.
    pub async fn get(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (api, name) = self.api_of(object).await?;
        api.get(&name).await.with_context(|| format!("cannot get {}", describe(object)))
    }

    /// Applies many objects: definitions and namespaces first, then the rest at once.
    pub async fn apply_all(&self, objects: &[Value]) -> anyhow::Result<()> {
        let manifests: Vec<Manifest> = objects.iter().cloned().map(Manifest::from).collect();
        self.apply_manifests(&manifests).await
    }

    /// Applies many objects in the order of [`Kubernetes::apply_all`]; an error names the file of the object.
    pub async fn apply_manifests(&self, manifests: &[Manifest]) -> anyhow::Result<()> {
        match self.apply_what_is_taken(manifests).await?.into_iter().next() {
            Some((_, refused)) => Err(refused),
            None => Ok(()),
        }
    }

    /// Applies many objects as [`Kubernetes::apply_manifests`], but goes on where the API server does not take one for what it says: those are
    /// returned, each with why.
    ///
    /// # Errors
    /// Whatever else goes wrong.
    pub async fn apply_what_is_taken<'m>(
        &self,
        manifests: &'m [Manifest],
    ) -> anyhow::Result<Vec<(&'m Manifest, anyhow::Error)>> {
        let mut refused = Vec::new();
        let rank = |object: &Value| match object["kind"].as_str() {
            Some("CustomResourceDefinition" | "Namespace") => 0,
            Some(
                "ServiceAccount" | "ClusterRole" | "Role" | "ClusterRoleBinding" | "RoleBinding" | "ConfigMap"
                | "Secret",
            ) => 1,
            Some("Deployment" | "DaemonSet" | "Job" | "Pod") => 3,
            _ => 2,
        };
        for wave in 0..=3 {
            let of_wave = manifests.iter().filter(|manifest| rank(&manifest.object) == wave);
            let applied: Vec<_> = of_wave
                .map(|manifest| async move {
                    match self.apply_manifest(manifest).await {
                        Ok(()) => Ok(None),
                        Err(error) if is_refusal(&error) => Ok(Some((manifest, error))),
                        Err(error) => Err(error),
                    }
                })
                .collect();
            let mut applied = stream::iter(applied).buffer_unordered(AT_ONCE);
            while let Some(outcome) = applied.try_next().await? {
                refused.extend(outcome);
            }
            if wave == 0 && self.tenancy.is_some() {
                // The embedded cluster serves a kind once its definition is stored; others take a moment.
                let definitions =
                    manifests.iter().map(|manifest| &manifest.object).filter(|object| object["kind"] == DEFINITION);
                future::try_join_all(definitions.map(|definition| self.established(definition))).await?;
            }
        }
        Ok(refused)
    }

    /// Waits until a kind is served in all its versions: it is established a moment before an API server knows it among what it serves.
    async fn established(&self, definition: &Value) -> anyhow::Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let late = |what: &str| anyhow!("{} is not {what} after {} s", describe(definition), ESTABLISHES.as_secs());
        let deadline = Instant::now() + ESTABLISHES;
        let condition = await_condition(api, name, conditions::is_crd_established());
        let established = timeout_at(deadline, condition).await.map_err(|_| late("established"))??;
        let Some(spec) = established.map(|definition| definition.spec) else { return Ok(()) };
        for version in spec.versions.iter().filter(|version| version.served) {
            let gvk = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
            while let Err(error) = discovery::pinned_kind(&self.client, &gvk).await {
                if Instant::now() >= deadline {
                    return Err(anyhow::Error::new(error).context(late(&format!("served as {}", version.name))));
                }
                tokio::time::sleep(DISCOVERED).await;
            }
        }
        Ok(())
    }

    /// What would become of each of these objects on a cluster where Meshgate is a guest; on its own, each would be made.
    pub async fn fates<'a>(&self, objects: impl Iterator<Item = &'a Value>) -> anyhow::Result<Vec<(&'a Value, Fate)>> {
        let mut fates = Vec::new();
        for object in objects {
            let Some(tenancy) = &self.tenancy else {
                fates.push((object, Fate::Made));
                continue;
            };
            // A kind that is not served yet is that of a definition that would be made.
            let found = self.api_of(object).await.ok();
            let api = found.as_ref().map(|(api, _)| api);
            fates.push((object, tenancy.fate(&self.client, api, object).await?));
        }
        Ok(fates)
    }

    /// Where Meshgate is a guest: what of others is not in the place of these objects and keeps them from being used all the same, and what of
    /// others the mesh or these controllers would take, a sentence each.
    pub async fn obstacles(&self, objects: &[&Value], controllers: &[&Controller]) -> anyhow::Result<Vec<String>> {
        if self.tenancy.is_none() {
            return Ok(Vec::new());
        }
        let mut found = definitions::unsuitable(&self.client, objects).await?;
        found.extend(adoption::told(&self.client, "the mesh", &adoption::of_the_mesh()).await?);
        for controller in controllers {
            found.extend(adoption::told(&self.client, &controller.name, &controller.takes).await?);
        }
        Ok(found)
    }

    /// Where Meshgate is a guest: refuses to begin when somebody else's objects have the places of these, or would be this controller's.
    ///
    /// # Errors
    /// All that is in the way.
    pub async fn nothing_in_the_way(
        &self,
        manifests: impl Iterator<Item = &Manifest>,
        controller: &Controller,
    ) -> anyhow::Result<()> {
        if self.tenancy.is_none() {
            return Ok(());
        }
        let objects: Vec<&Value> = manifests.map(|manifest| &manifest.object).collect();
        let obstacles = self.obstacles(&objects, &[controller]).await?;
        if let Some(first) = obstacles.first() {
            let more =
                if obstacles.len() == 1 { String::new() } else { format!(" (and {} more)", obstacles.len() - 1) };
            return Err(anyhow!("{first}{more}"));
        }
        let fates = self.fates(objects.into_iter()).await?;
        let blocked = fates.into_iter().filter(|(_, fate)| *fate == Fate::InTheWay);
        let blocked: Vec<String> = blocked.map(|(object, _)| describe(object)).collect();
        if blocked.is_empty() {
            return Ok(());
        }
        Err(anyhow!(
            "on the cluster already, not made by Meshgate, and so left alone: {}; delete what is in the way, or use another cluster",
            blocked.join(", ")
        ))
    }

    /// Whether an object in this namespace may be Meshgate's: all are, where nobody else is.
    async fn may_own(&self, namespace: Option<&str>) -> bool {
        match (&self.tenancy, namespace) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(tenancy), Some(namespace)) => tenancy.owns(&self.client, namespace).await.unwrap_or(false),
        }
    }

    /// All pods that Meshgate made, also those in namespaces of others.
    pub async fn all_pods(&self) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let all = ListParams::default();
        let ours = if self.tenancy.is_some() { all.labels(&format!("{OWNED}=true")) } else { all };
        Ok(api.list(&ours).await?.items)
    }

    async fn apply_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        match (self.apply(&manifest.object).await, &manifest.file) {
            (Err(error), Some(file)) => Err(error.context(file.clone())),
            (applied, _) => applied.map(drop),
        }
    }

    /// Deletes an object if it is there.
    pub async fn delete(&self, object: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api_of(object).await?;
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete {}", describe(object))),
        }
    }

    /// Deletes many objects, those that are there.
    pub async fn delete_all(&self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            self.delete(object).await?;
        }
        Ok(())
    }

    async fn api_of(&self, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let api_version =
            text(&object["apiVersion"]).ok_or_else(|| anyhow!("an object without apiVersion: {object}"))?;
        let kind = text(&object["kind"]).ok_or_else(|| anyhow!("an object without kind: {object}"))?;
        let name = text(&object["metadata"]["name"]).ok_or_else(|| anyhow!("a {kind} without metadata.name"))?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        let known = self.kinds.lock().get(&gvk).cloned();
        let (resource, scope) = match known {
            Some(known) => known,
            None => {
                let (resource, capabilities) = discovery::pinned_kind(&self.client, &gvk)
                    .await
                    .with_context(|| format!("the cluster does not serve {api_version} {kind}"))?;
                self.kinds.lock().insert(gvk, (resource.clone(), capabilities.scope.clone()));
                (resource, capabilities.scope)
            }
        };
        let api = match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        };
        Ok((api, name))
    }

    /// Waits until every Deployment in the cluster has all its replicas available and none of an older template.
    ///
    /// `progress` hears what is awaited each time that changes, and what keeps it from starting. Ends with an error at the deadline, or where
    /// a container will not start any more, which says which Deployment is not ready and what its pods say.
    pub async fn deployments_ready(&self, deadline: Instant, mut progress: impl FnMut(&str)) -> anyhow::Result<()> {
        let api: Api<Deployment> = Api::all(self.client.clone());
        let ours = watcher::Config::default();
        let ours = if self.tenancy.is_some() { ours.labels(&format!("{OWNED}=true")) } else { ours };
        let mut changes = pin!(watcher(api, ours).default_backoff());
        // By namespace and name; what is ready says nothing.
        let mut deployments: BTreeMap<String, Option<String>> = BTreeMap::new();
        let (mut listed, mut told) = (false, String::new());
        let mut trouble = None;
        let (mut starts, mut look) = (Starts::default(), Instant::now() + LOOKS);
        loop {
            match timeout_at(deadline.min(look), changes.next()).await {
                // Whatever is there is listed anew; until that is done, none of it is known to be ready.
                Ok(Some(Ok(watcher::Event::Init))) => {
                    deployments.clear();
                    listed = false;
                }
                Ok(Some(Ok(watcher::Event::InitDone))) => listed = true,
                Ok(Some(Ok(watcher::Event::InitApply(deployment) | watcher::Event::Apply(deployment)))) => {
                    deployments.insert(key(&deployment), not_ready(&deployment));
                }
                Ok(Some(Ok(watcher::Event::Delete(deployment)))) => {
                    deployments.remove(&key(&deployment));
                }
                // The watch begins again by itself.
                Ok(Some(Err(error))) => trouble = Some(error),
                Err(_) if Instant::now() < deadline => {
                    // Where they cannot be had, the watch tells why.
                    if let Ok(Ok(pods)) = timeout_at(deadline, self.all_pods()).await {
                        let awaited = deployments.iter().filter(|(_, waits)| waits.is_some());
                        let awaited: BTreeSet<&str> = awaited.map(|(name, _)| name.as_str()).collect();
                        starts.look(&pods, &awaited, Instant::now());
                    }
                    look = Instant::now() + LOOKS;
                    if let Some(why) = starts.hopeless() {
                        return Err(self.unready("will not become ready", &deployments, &format!("; {why}")).await);
                    }
                }
                Ok(None) | Err(_) => {
                    let trouble = trouble.filter(|_| !listed).map(|error| format!(" (watching: {error})"));
                    let why = trouble.or_else(|| Some(format!("; {}", starts.told()?))).unwrap_or_default();
                    return Err(self.unready("not ready within the deadline", &deployments, &why).await);
                }
            }
            if !listed {
                continue;
            }
            let waiting: Vec<&str> = deployments.values().flatten().map(String::as_str).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let (told_of, more) = waiting.split_at(waiting.len().min(3));
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            let why = starts.told().map(|why| format!("; {why}")).unwrap_or_default();
            let text = format!("awaiting {}{more}{why}", told_of.join(", "));
            if text != told {
                progress(&text);
                told = text;
            }
        }
    }

    /// What is said of Deployments, those of them that are not ready, and what all pods say that are not.
    async fn unready(&self, what: &str, deployments: &BTreeMap<String, Option<String>>, why: &str) -> anyhow::Error {
        let waiting: Vec<&str> = deployments.values().flatten().map(String::as_str).collect();
        let pods = self.pod_troubles().await.unwrap_or_else(|error| error.to_string());
        anyhow!("{what}: {}{why}\n{pods}", waiting.join(", "))
    }

    /// The pods of a label selector, in one namespace.
    pub async fn pods(&self, namespace: &str, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.list(&ListParams::default().labels(labels)).await?.items)
    }

    /// What the pods that are not ready say of themselves.
    pub async fn pod_troubles(&self) -> anyhow::Result<String> {
        let mut lines = Vec::new();
        for pod in self.all_pods().await? {
            let containers = troubles(&pod.status.unwrap_or_default());
            if !containers.is_empty() {
                let name = pod.metadata.name.unwrap_or_default();
                lines.push(format!(
                    "  pod {}/{name}: {}",
                    pod.metadata.namespace.unwrap_or_default(),
                    containers.join("; ")
                ));
            }
        }
        Ok(lines.join("\n"))
    }

    /// The cluster's events, oldest first, a line each.
    pub async fn events(&self) -> anyhow::Result<Vec<String>> {
        let api: Api<Event> = Api::all(self.client.clone());
        let mut events = Vec::new();
        for event in api.list(&ListParams::default()).await?.items {
            if self.may_own(event.metadata.namespace.as_deref()).await {
                events.push(event);
            }
        }
        events.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
        Ok(events
            .into_iter()
            .map(|event| {
                let object = event.involved_object;
                format!(
                    "{} {}/{} {}: {}",
                    event.type_.unwrap_or_default(),
                    object.kind.unwrap_or_default(),
                    object.name.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    event.message.unwrap_or_default()
                )
            })
            .collect())
    }

    /// The log of a container of a pod.
    pub async fn logs(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(api.logs(pod, &params).await?)
    }

    /// The logs of all pods that a selector chooses, of those containers that are wanted. A pod that is going may have none any more.
    pub async fn logs_of(
        &self,
        namespace: &str,
        selector: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let mut all = String::new();
        for pod in self.pods(namespace, selector).await? {
            let goes = pod.metadata.deletion_timestamp.is_some();
            let name = pod.metadata.name.unwrap_or_default();
            for container in pod.spec.map(|spec| spec.containers).unwrap_or_default() {
                if wanted(&container.name) {
                    match self.logs(namespace, &name, &container.name).await {
                        Err(_) if goes => {}
                        log => all += &log?,
                    }
                }
            }
        }
        Ok(all)
    }
}

/// What the containers of a pod that are not ready say of themselves.
pub(crate) fn troubles(status: &PodStatus) -> Vec<String> {
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers
        .filter(|container| !container.ready)
        .filter_map(|container| {
            let state = container.state.as_ref()?;
            let (reason, message) = match (&state.waiting, &state.terminated) {
                (Some(waiting), _) => (waiting.reason.clone(), waiting.message.clone()),
                (_, Some(ended)) if ended.exit_code != 0 => (ended.reason.clone(), ended.message.clone()),
                (None, None) => (Some("not ready".to_owned()), None),
                _ => return None,
            };
            let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
            Some(format!("{}: {reason} {message}", container.name))
        })
        .collect()
}

/// `kind namespace/name`, for messages.
pub fn describe(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let metadata = &object["metadata"];
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{} {namespace}/{}", text(&object["kind"]), text(&metadata["name"])),
        None => format!("{} {}", text(&object["kind"]), text(&metadata["name"])),
    }
}

fn key(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
}

/// `namespace/name 0/1` of a Deployment that is not fully rolled out, with the reason where its pods are refused: there is no pod then to tell it.
fn not_ready(deployment: &Deployment) -> Option<String> {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let current = status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && available == wanted;
    let refused = status.conditions.iter().flatten().find(|condition| {
        // What a ReplicaSet's event FailedCreate says, brought up by its Deployment.
        condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
    });
    let why = refused.and_then(|condition| condition.message.as_deref()).map(|message| format!(" ({message})"));
    (!current).then(|| format!("{} {available}/{wanted}{}", key(deployment), why.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
