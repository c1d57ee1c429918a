//! What a case needs to exist before the cell is ready.
//!
//! Cases declare; the cell applies what all its cases declare together and waits for it once. Names get the case's slug
//! as a prefix, so cases cannot meet: Service `web` of `routing/host` is `routing-host-web`, its route `main` answers to
//! the host `main.routing-host.test`.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_fixtures::{Recipe, TemplateError};
use serde_json::{Value, json};

/// The namespace in which backends, Services and routes of the cases live.
pub const NAMESPACE: &str = "workbench";

/// The port of Services that routes lead to, unless they say another.
const PORT: u16 = 80;

/// The shared backends of `fixtures/apps/echo.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `echo-a`, two pods.
    A,
    /// `echo-b`, one pod.
    B,
    /// No pod at all.
    Nothing,
}

impl Backend {
    /// The Deployment's name, which is also its `app` label and what its pods call themselves.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "echo-a",
            Self::B => "echo-b",
            Self::Nothing => "nothing",
        }
    }
}

/// A Service of a case.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its whole name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The `app` label that it selects.
    pub app: String,
    ports: Vec<(String, u16, Value)>,
    grpc: bool,
}

/// A route through the controller.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name of its objects.
    pub name: String,
    /// The host it answers to.
    pub host: String,
    /// The path prefix.
    pub path: String,
    /// The Service's whole name.
    pub service: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's port.
    pub port: u16,
    /// Which template it is made from.
    pub template: String,
    /// Who has to answer before the cell is ready; `None` for a route that is not awaited.
    pub awaits: Option<String>,
    pub(crate) case: String,
    values: BTreeMap<&'static str, String>,
    /// The case asked for this very host.
    own_host: bool,
}

impl Route {
    /// The value of `l5d-dst-override` for it: `service.namespace.svc.cluster.local:port`.
    pub fn authority(&self) -> String {
        format!("{}.{}.svc.cluster.local:{}", self.service, self.namespace, self.port)
    }

    /// Sets the host.
    pub fn host(&mut self, host: &str) -> &mut Self {
        host.clone_into(&mut self.host);
        self.own_host = true;
        self
    }

    /// Sets the path prefix (`/` otherwise).
    pub fn path(&mut self, path: &str) -> &mut Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Sets the Service's port (80 otherwise).
    pub fn port(&mut self, port: u16) -> &mut Self {
        self.port = port;
        self
    }

    /// Makes it from another template than `route`.
    pub fn template(&mut self, template: &str) -> &mut Self {
        template.clone_into(&mut self.template);
        self
    }

    /// Gives the template a further value, or another one than usual.
    pub fn value(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        self.values.insert(name, value.into());
        self
    }

    /// Does not wait for an answer: the route is expected not to answer as others do.
    pub fn unawaited(&mut self) -> &mut Self {
        self.awaits = None;
        self
    }

    /// Whether the controller terminates TLS for it, or passes it through.
    pub fn is_https(&self) -> bool {
        self.template.starts_with("tls")
    }

    /// The file that it is made from.
    pub fn file<'a>(&self, recipe: &'a Recipe) -> Option<&'a str> {
        recipe.templates.get(&self.template).map(|template| template.path.as_str())
    }

    /// The objects of the route.
    pub fn objects(&self, recipe: &Recipe) -> Result<Vec<Value>, TemplateError> {
        let Some(template) = recipe.templates.get(&self.template) else {
            return Ok(Vec::new());
        };
        let mut values = BTreeMap::from([
            ("name", self.name.clone()),
            ("namespace", self.namespace.clone()),
            ("host", self.host.clone()),
            ("path", self.path.clone()),
            ("service", self.service.clone()),
            ("port", self.port.to_string()),
            ("override", self.authority()),
        ]);
        values.extend(self.values.iter().map(|(key, value)| (*key, value.clone())));
        let mut objects = template.instantiate(&values)?;
        objects.iter_mut().for_each(|object| label(object, &self.case));
        Ok(objects)
    }
}

/// The label that says which case an object of a route is for.
const CASE: &str = "meshgate.dev/case";

/// Its value on what is for every case.
pub(crate) const EVERY: &str = "every";

/// Says which case an object is for. One whose metadata makes no sense stays as it is: that is for the API server to say.
pub(crate) fn label(object: &mut Value, case: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(labels) = metadata.entry("labels").or_insert_with(|| json!({})).as_object_mut() {
        labels.insert(CASE.to_owned(), case.into());
    }
}

/// The slug of the case that an object is for; `None` if it is for every case, or was made from no route.
pub(crate) fn case_of(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][CASE].as_str().filter(|case| *case != EVERY)
}

/// The label selector of what an instance of the controller needs to read, when only these cases ask for it.
pub(crate) fn selector<'a>(cases: impl Iterator<Item = &'a Plan>) -> String {
    let slugs: Vec<&str> = std::iter::once(EVERY).chain(cases.map(|plan| plan.slug.as_str())).collect();
    format!("{CASE} in ({})", slugs.join(","))
}

/// What a further instance of the controller has that the first has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Annotations for its proxy.
    pub annotations: BTreeMap<String, String>,
    /// The whole name of the Service that is its own default backend, as the recipe makes it one.
    pub default_backend: Option<String>,
}

/// The declarations of one case.
#[derive(Clone, Debug)]
pub struct Plan {
    slug: String,
    /// Services by their short names.
    pub services: BTreeMap<String, Service>,
    /// Routes by their short names.
    pub routes: BTreeMap<String, Route>,
    /// Further objects.
    pub objects: Vec<Value>,
    /// Workloads of its own: injected like the shared ones and awaited.
    pub workloads: Vec<Value>,
    /// The applications that have to run, besides the echo backends.
    pub apps: BTreeSet<&'static str>,
    /// Further instances of the controller, by their workload names.
    pub instances: BTreeMap<String, Instance>,
}

impl Plan {
    /// The empty plan of a case.
    pub fn new(slug: impl Into<String>) -> Self {
        Self {
            slug: slug.into(),
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            objects: Vec::new(),
            workloads: Vec::new(),
            apps: BTreeSet::new(),
            instances: BTreeMap::new(),
        }
    }

    /// What the case is called in names of objects.
    pub(crate) fn slug(&self) -> &str {
        &self.slug
    }

    /// The whole name of something that the case calls `name`.
    pub fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.slug)
    }

    /// A Service `name` before a shared backend: port 80 (`http`) to 8080, port 8081 (`alt`) to 8081.
    pub fn service(&mut self, name: &str, backend: Backend) -> &mut Service {
        self.service_for(name, backend.name())
    }

    /// A Service before the pods labelled `app`.
    pub fn service_for(&mut self, name: &str, app: &str) -> &mut Service {
        let service = Service {
            name: self.full(name),
            namespace: NAMESPACE.to_owned(),
            app: app.to_owned(),
            ports: vec![("http".into(), 80, json!("http")), ("alt".into(), 8081, json!("alt"))],
            grpc: false,
        };
        self.services.entry(name.to_owned()).or_insert(service)
    }

    /// A route `name` to a Service of this plan.
    ///
    /// The host is `NAME.SLUG.test`, the path `/`, the port 80, the template `route`; the cell waits until the
    /// Service's backend answers on it.
    pub fn route(&mut self, name: &str, service: &str) -> &mut Route {
        let (full, awaits) = match self.services.get(service) {
            Some(service) => {
                (service.name.clone(), (service.app != Backend::Nothing.name()).then(|| service.app.clone()))
            }
            None => (self.full(service), None),
        };
        let route = Route {
            name: self.full(name),
            host: format!("{name}.{}.test", self.slug),
            path: "/".to_owned(),
            service: full,
            namespace: NAMESPACE.to_owned(),
            port: PORT,
            template: "route".to_owned(),
            awaits,
            case: self.slug.clone(),
            values: BTreeMap::new(),
            own_host: false,
        };
        self.routes.entry(name.to_owned()).or_insert(route)
    }

    /// What routes of the plan ask for and those of the recipe leave no choice of.
    pub fn inexpressible(&self, recipe: &Recipe) -> Option<String> {
        self.routes.values().find_map(|route| {
            let template = recipe.templates.get(&route.template)?;
            let host = recipe.host.as_ref().filter(|_| route.own_host);
            let host = host.map(|form| format!("the recipe's hosts have to be {form}, the case wants {}", route.host));
            let port = route.port != PORT && !template.takes("port");
            host.or_else(|| {
                port.then(|| format!("the recipe's routes lead to port {PORT}, the case wants {}", route.port))
            })
        })
    }

    /// Gives routes the hosts that a recipe wants: `${service}` and `${namespace}` in `form` are the route's. A host that the case
    /// asked for stays.
    pub fn hosts(&mut self, form: &str) {
        for route in self.routes.values_mut().filter(|route| !route.own_host) {
            route.host = form.replace("${service}", &route.service).replace("${namespace}", &route.namespace);
        }
    }

    /// A Service before a shared backend and a route to it, both called `name`.
    pub fn serve(&mut self, name: &str, backend: Backend) -> &mut Route {
        self.service(name, backend);
        self.route(name, name)
    }

    /// An application that has to run: `emojivoto`, `books`.
    pub fn app(&mut self, name: &'static str) {
        self.apps.insert(name);
    }

    /// A route to a Service that the plan does not make, such as emojivoto's `web-svc`.
    pub fn route_to(&mut self, name: &str, namespace: &str, service: &str) -> &mut Route {
        let route = self.route(name, service);
        service.clone_into(&mut route.service);
        namespace.clone_into(&mut route.namespace);
        route
    }

    /// A ServiceProfile for a Service of this plan; `spec` as in `linkerd.io/v1alpha2`.
    pub fn profile(&mut self, service: &str, spec: Value) {
        let name = format!("{}.{NAMESPACE}.svc.cluster.local", self.full(service));
        self.objects.push(json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        }));
    }

    /// An SMI TrafficSplit with integer weights: the apex and the leaves are Services of this plan.
    pub fn split(&mut self, apex: &str, leaves: &[(&str, u32)]) {
        let object = self.split_object(apex, leaves);
        self.objects.push(object);
    }

    /// The TrafficSplit of [`Plan::split`], to be applied later.
    pub fn split_object(&self, apex: &str, leaves: &[(&str, u32)]) -> Value {
        let backends: Vec<Value> =
            leaves.iter().map(|(leaf, weight)| json!({"service": self.full(leaf), "weight": weight})).collect();
        json!({
            "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
            "metadata": {"name": self.full(apex), "namespace": NAMESPACE},
            "spec": {"service": self.full(apex), "backends": backends},
        })
    }

    /// Any object, as it is.
    pub fn object(&mut self, object: Value) {
        self.objects.push(object);
    }

    /// An echo backend of the case's own (to be scaled, killed, broken): a meshed Deployment and the label `app` of its pods
    /// is its whole name. `environment` goes to the container.
    pub fn backend(&mut self, name: &str, replicas: u32, environment: &[(&str, &str)]) -> String {
        let full = self.full(name);
        self.workloads.push(Self::echo(&full, replicas, environment));
        full
    }

    /// An echo backend of the case's own, one pod without a proxy, and the label `app` of that pod.
    pub fn unmeshed_backend(&mut self, name: &str) -> String {
        let full = self.full(name);
        let mut deployment = Self::echo(&full, 1, &[]);
        deployment["spec"]["template"]["metadata"]["annotations"] = json!({"linkerd.io/inject": "disabled"});
        self.objects.push(deployment);
        full
    }

    fn echo(full: &str, replicas: u32, environment: &[(&str, &str)]) -> Value {
        let mut env = vec![
            json!({"name": "NAME", "value": full}),
            json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        ];
        env.extend(environment.iter().map(|(name, value)| json!({"name": name, "value": value})));
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": full, "namespace": NAMESPACE},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": full}},
                "template": {
                    "metadata": {"labels": {"app": full}},
                    "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                        "name": "echo", "image": meshgate_clusters::IMAGE, "args": ["app", "echo"], "env": env,
                        "ports": [{"name": "http", "containerPort": 8080}, {"name": "alt", "containerPort": 8081},
                                  {"name": "tcp", "containerPort": 9000}, {"name": "https", "containerPort": 8443}],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 3},
                    }]},
                },
            },
        })
    }

    /// Another instance of the controller, whose proxy gets these annotations. It serves this plan's routes, and perhaps others, at
    /// an address of its own.
    pub fn instance(&mut self, name: &str, annotations: &[(&str, &str)]) {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.instances.insert(name.to_owned(), Instance { annotations, default_backend: None });
    }

    /// Another instance of the controller, whose own default backend is a Service of this plan, where the recipe knows how.
    pub fn instance_with_default_backend(&mut self, name: &str, service: &str) {
        let default_backend = Some(self.full(service));
        self.instances.insert(name.to_owned(), Instance { default_backend, ..Instance::default() });
    }
}

impl Service {
    /// The Service speaks gRPC: it gets the annotations that the recipe needs for that.
    pub fn grpc(&mut self) -> &mut Self {
        self.grpc = true;
        self
    }

    /// A further port.
    pub fn port(&mut self, name: &str, port: u16, target: impl Into<Value>) -> &mut Self {
        self.ports.push((name.to_owned(), port, target.into()));
        self
    }

    /// The object.
    pub fn object(&self, recipe: &Recipe) -> Value {
        let mut annotations = recipe.service_annotations.clone();
        if self.grpc {
            annotations.extend(recipe.grpc_service_annotations.clone());
        }
        annotations.values_mut().for_each(|value| *value = value.replace("${service}", &self.name));
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target}))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": annotations},
            "spec": {"selector": {"app": self.app}, "ports": ports},
        })
    }
}

#[cfg(test)]
mod tests;
