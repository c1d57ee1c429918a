//! `KongPlugin` and `KongClusterPlugin`, and `konghq.com/plugins`, which names them.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::tags;
use crate::objects::{INGRESSES, Kind, Object, Objects, SERVICES, annotation, items, text};
use crate::status::Complaint;

/// Of the kinds that are Kong's own.
pub(super) const GROUP: &str = "configuration.konghq.com";

pub(super) const PLUGINS: Kind = Kind::new(GROUP, "v1", "KongPlugin", "kongplugins");
pub(super) const CLUSTER_PLUGINS: Kind = Kind::new(GROUP, "v1", "KongClusterPlugin", "kongclusterplugins");

/// The reason of events about objects that lead to no configuration.
pub(super) const TRANSLATION_FAILED: &str = "KongConfigurationTranslationFailed";

/// The plugins that an Ingress or a Service names, as entities for the route or the service that `of` is.
pub(super) fn named(
    objects: &Objects,
    (kind, object): (Kind, &Object),
    of: (&str, &str),
    complaints: &mut BTreeSet<Complaint>,
) -> Vec<Value> {
    let mut complain = |message: String| {
        complaints.insert(Complaint::new(kind, object, TRANSLATION_FAILED, message));
    };
    let mut entities = Vec::new();
    let namespace = object.namespace().unwrap_or_default();
    for written in names(object) {
        match found(objects, &namespace, written) {
            Ok((kind, plugin)) => {
                let mut entity = entity(kind, plugin);
                entity[of.0] = json!(of.1);
                if !entities.contains(&entity) {
                    entities.push(entity);
                }
            }
            Err(why) => complain(why),
        }
    }
    entities
}

/// Those for every request.
pub(super) fn global(objects: &Objects) -> impl Iterator<Item = Value> {
    let global = |plugin: &&Object| plugin.labels().get("global").is_some_and(|value| value == "true");
    objects.all(CLUSTER_PLUGINS).filter(global).map(|plugin| entity(CLUSTER_PLUGINS, plugin))
}

/// The Ingresses that name a plugin, or a Service that does: without it they would stand open. KIC's fallback leaves out the same
/// (`internal/dataplane/fallback/graph_dependencies_common.go`).
pub(super) fn dependants(objects: &Objects, kind: Kind, object: &Object) -> Vec<Object> {
    let names_it = |user: &Object| {
        let namespace = user.namespace().unwrap_or_default();
        let mut named = names(user).filter_map(|name| found(objects, &namespace, name).ok());
        named.any(|(found, plugin)| found == kind && plugin.name_any() == object.name_any())
    };
    let depends = |ingress: &&Object| {
        let namespace = ingress.namespace().unwrap_or_default();
        let backends = items(&ingress.data, "/spec/rules").flat_map(|rule| items(rule, "/http/paths"));
        let backends = backends.map(|path| &path["backend"]).chain(ingress.data["spec"].get("defaultBackend"));
        let mut services =
            backends.filter_map(|backend| objects.get(SERVICES, &namespace, text(backend, "/service/name")));
        names_it(ingress)
            || services.any(|service| names_it(service) || kind == SERVICES && service.name_any() == object.name_any())
    };
    let within = |ingress: &&Object| object.namespace().is_none() || ingress.namespace() == object.namespace();
    objects.all(INGRESSES).filter(within).filter(depends).cloned().collect()
}

fn names(object: &Object) -> impl Iterator<Item = &str> {
    let names = annotation(object, "konghq.com/plugins").unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// The plugin of such a name, one of the namespace before one of the cluster.
fn found<'a>(objects: &'a Objects, namespace: &str, written: &str) -> Result<(Kind, &'a Object), String> {
    let (of, name) = written.split_once(':').unwrap_or((namespace, written));
    if of != namespace {
        // A ReferenceGrant could allow it; none is read here.
        return Err(format!(
            "no grant found to referenced \"{written}\" plugin in the requested remote KongPlugin bind"
        ));
    }
    let found = objects.get(PLUGINS, namespace, name).map(|plugin| (PLUGINS, plugin));
    let found = found.or_else(|| objects.get(CLUSTER_PLUGINS, "", name).map(|it| (CLUSTER_PLUGINS, it)));
    found.ok_or_else(|| format!("referenced KongPlugin or KongClusterPlugin \"{name}\" does not exist"))
}

fn entity(kind: Kind, plugin: &Object) -> Value {
    json!({
        "name": text(&plugin.data, "/plugin"),
        "config": if plugin.data["config"].is_object() { plugin.data["config"].clone() } else { json!({}) },
        "enabled": plugin.data["disabled"] != true,
        "tags": tags(kind, plugin),
    })
}
