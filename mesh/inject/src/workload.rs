//! One object: where its pod template lies, whether it may be injected, and the injection itself.

use serde_json::{Map, Value, json};

use crate::{
    Entry, Identity, Mode, Options, Outcome, Scope, Skip, Token, Warning, annotations,
    containers::{self, INIT_CONTAINER, PROXY_CONTAINER, PodFacts},
    image::Image,
};

/// Injects one object in place.
///
/// Workloads get the init container, the proxy, labels and annotations in their pod template; injecting twice is the same
/// as injecting once. Lists are injected item by item. Any other object, and a workload for which [`Skip`] has a reason,
/// stays as it is.
pub fn inject_object(object: &mut Value, options: &Options) -> Outcome {
    if let Some(items) = list_items(object) {
        let entries = items.iter_mut().map(|item| {
            let outcome = inject_object(item, options);
            Entry::new(item, outcome)
        });
        return Outcome::List(entries.collect());
    }
    match inject_workload(object, options) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::Skipped(reason),
    }
}

fn list_items(object: &mut Value) -> Option<&mut Vec<Value>> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    if kind.ends_with("List") { object.get_mut("items").and_then(Value::as_array_mut) } else { None }
}

/// Where a kind keeps its pod template (an object with `metadata` and `spec`).
fn template_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn inject_workload(object: &mut Value, options: &Options) -> Result<Outcome, Skip> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let kind = text("/kind").unwrap_or_default();
    let name = text("/metadata/name").unwrap_or_default();
    let pointer = template_pointer(&kind).ok_or(Skip::NoPods)?;
    let namespace = text("/metadata/namespace")
        .or_else(|| object.pointer(&format!("{pointer}/metadata/namespace"))?.as_str().map(str::to_owned));
    let template = object.pointer_mut(pointer).ok_or_else(|| malformed(&kind, pointer, "an object"))?;

    let mode = choose_mode(template, namespace.as_deref(), options)?;
    let spec_pointer = format!("{pointer}/spec");
    let spec =
        template.get("spec").and_then(Value::as_object).ok_or_else(|| malformed(&kind, &spec_pointer, "an object"))?;
    let facts = PodFacts::read(template)
        .ok_or_else(|| malformed(&kind, &format!("{spec_pointer}/containers"), "a list with at least one container"))?;
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(Skip::HostNetwork);
    }
    if let Some(foreign) = containers_of(spec).find(|container| *container == "istio-proxy") {
        return Err(Skip::ForeignProxy(foreign.to_owned()));
    }

    let updated = containers_of(spec).any(|container| container == PROXY_CONTAINER);
    let mut warnings = Vec::new();
    let token = options.identity.as_ref().map(|identity| identity.token);
    if token == Some(Token::Mounted) && spec.get("automountServiceAccountToken") == Some(&Value::Bool(false)) {
        warnings.push(Warning::NoServiceAccountToken);
    }
    let image = Image::of_proxy(&facts, options);
    if !image.own && options.identity.is_none() {
        warnings.push(Warning::NoIdentity(image.reference.clone()));
    }
    if facts.udp {
        warnings.push(Warning::UdpPorts);
    }
    let (opaque_ports, unknown) = facts.opaque_ports();
    warnings.extend(unknown.into_iter().map(Warning::UnknownPortName));

    let init = containers::init_container(&facts, options);
    let proxy = containers::proxy_container(&facts, mode, &opaque_ports, options);
    put_metadata(template, &facts, &kind, &name, namespace.as_deref(), mode, options);
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        // It may have been where it is no longer wanted.
        remove(spec, "initContainers", PROXY_CONTAINER);
        remove(spec, "containers", PROXY_CONTAINER);
        if facts.native_sidecar(options) {
            put(spec, "initContainers", Place::First, PROXY_CONTAINER, proxy);
            put(spec, "initContainers", Place::First, INIT_CONTAINER, init);
        } else {
            put(spec, "initContainers", Place::Last, INIT_CONTAINER, init);
            put(spec, "containers", Place::First, PROXY_CONTAINER, proxy);
        }
        for (volume, _) in options.identity.iter().flat_map(Identity::volumes) {
            let name = volume["name"].as_str().unwrap_or_default().to_owned();
            put(spec, "volumes", Place::Last, &name, volume);
        }
    }
    Ok(if updated { Outcome::Updated { mode, warnings } } else { Outcome::Injected { mode, warnings } })
}

fn malformed(kind: &str, pointer: &str, expected: &str) -> Skip {
    let path = pointer.trim_start_matches('/').replace('/', ".");
    Skip::Malformed(format!("expected {expected} at `{path}` of a {kind}, found none; complete the manifest"))
}

fn choose_mode(template: &Value, namespace: Option<&str>, options: &Options) -> Result<Mode, Skip> {
    if let Some(namespace) = namespace.filter(|name| options.skipped_namespaces.iter().any(|skipped| skipped == name)) {
        return Err(Skip::Namespace(namespace.to_owned()));
    }
    let annotation =
        template.get("metadata").and_then(|metadata| metadata.get("annotations")?.get(annotations::INJECT));
    match (annotation.map(|value| value.as_str().unwrap_or_default()), options.scope) {
        (Some("disabled"), _) => Err(Skip::Disabled),
        (Some(value), _) => match value.parse() {
            Ok(Mode::Enabled) => Ok(options.mode),
            Ok(Mode::Ingress) => Ok(Mode::Ingress),
            Err(()) => Err(Skip::UnknownAnnotation(value.to_owned())),
        },
        (None, Scope::All) => Ok(options.mode),
        (None, Scope::Annotated) => Err(Skip::NotAnnotated),
    }
}

fn containers_of(spec: &Map<String, Value>) -> impl Iterator<Item = &str> {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| spec.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("name")?.as_str())
}

/// Where in its list a container goes.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The kubelet starts containers in order, so the proxy starts before what dials.
    First,
    /// Once connections are redirected and until a proxy among the containers runs, an init container has no network: redirect last.
    Last,
}

/// Takes the container of this name out of the list.
fn remove(spec: &mut Map<String, Value>, list: &str, name: &str) {
    if let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) {
        containers.retain(|existing| existing.get("name").and_then(Value::as_str) != Some(name));
    }
}

/// Puts `container` into the list, in place of one of the same name.
fn put(spec: &mut Map<String, Value>, list: &str, place: Place, name: &str, container: Value) {
    remove(spec, list, name);
    let entry = spec.entry(list).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    if let Some(containers) = entry.as_array_mut() {
        let index = match place {
            Place::First => 0,
            Place::Last => containers.len(),
        };
        containers.insert(index, container);
    }
}

fn put_metadata(
    template: &mut Value,
    facts: &PodFacts,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    mode: Mode,
    options: &Options,
) {
    let mut labels = vec![(annotations::CONTROL_PLANE_NS.to_owned(), options.control_plane_namespace.clone())];
    if kind != "Pod" {
        labels.push((format!("linkerd.io/proxy-{}", kind.to_lowercase()), name.to_owned()));
    }
    labels.extend(namespace.map(|namespace| (annotations::WORKLOAD_NS.to_owned(), namespace.to_owned())));
    let mut marks = vec![
        (annotations::INJECT.to_owned(), mode.to_string()),
        (annotations::PROXY_VERSION.to_owned(), Image::of_proxy(facts, options).version(options)),
        (annotations::CREATED_BY.to_owned(), format!("meshgate/inject {}", env!("CARGO_PKG_VERSION"))),
    ];
    // `kubectl logs` and `kubectl exec` should keep reaching the application, not the proxy in front of it.
    if facts.annotation(annotations::DEFAULT_CONTAINER).is_none() {
        marks.push((annotations::DEFAULT_CONTAINER.to_owned(), facts.first_container.clone()));
    }
    put_strings(template, "labels", labels);
    put_strings(template, "annotations", marks);
}

fn put_strings(template: &mut Value, map: &str, entries: Vec<(String, String)>) {
    let mut at = template;
    for key in ["metadata", map] {
        let Some(object) = at.as_object_mut() else { return };
        let next = object.entry(key).or_insert_with(|| json!({}));
        if next.is_null() {
            *next = json!({});
        }
        at = next;
    }
    if let Some(object) = at.as_object_mut() {
        object.extend(entries.into_iter().map(|(key, value)| (key, Value::String(value))));
    }
}

#[cfg(test)]
mod tests;
