//! `KongPlugin` and `KongClusterPlugin`, and `konghq.com/plugins`, which names them.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::Value;

use super::transform::{Refused, Transformer};
use crate::objects::{Kind, Object, Objects, annotation, text};
use crate::status::Complaint;

/// Of the kinds that are Kong's own.
pub(crate) const GROUP: &str = "configuration.konghq.com";

pub(crate) const PLUGINS: Kind = Kind::new(GROUP, "v1", "KongPlugin", "kongplugins");
pub(crate) const CLUSTER_PLUGINS: Kind = Kind::new(GROUP, "v1", "KongClusterPlugin", "kongclusterplugins");

/// The reason of events about objects that lead to no configuration.
pub(crate) const TRANSLATION_FAILED: &str = "KongConfigurationTranslationFailed";
/// The reason of events about configuration that the gateway refuses.
pub(crate) const APPLY_FAILED: &str = "KongConfigurationApplyFailed";

/// The plugin that is played.
const REQUEST_TRANSFORMER: &str = "request-transformer";

/// What the plugins of an object come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plugins {
    /// `NAMESPACE/NAME` and what it does.
    pub(crate) transformer: Option<(String, Transformer)>,
    /// The gateway refuses one of them.
    pub(crate) invalid: bool,
    /// There is one that this stand-in cannot play.
    pub(crate) unplayable: bool,
}

impl Plugins {
    /// Those that an Ingress or a Service names.
    pub(crate) fn of(objects: &Objects, kind: Kind, object: &Object, complaints: &mut BTreeSet<Complaint>) -> Self {
        let mut plugins = Self::default();
        let namespace = object.namespace().unwrap_or_default();
        let names = annotation(object, "konghq.com/plugins").unwrap_or_default();
        for written in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let (of, name) = written.split_once(':').unwrap_or((namespace.as_str(), written));
            if of != namespace {
                // A ReferenceGrant could allow it; none is read here.
                let message = format!(
                    "no grant found to referenced \"{written}\" plugin in the requested remote KongPlugin bind"
                );
                complaints.insert(Complaint::new(kind, object, TRANSLATION_FAILED, message));
                continue;
            }
            let found = objects.get(PLUGINS, &namespace, name).map(|plugin| (PLUGINS, plugin));
            let found = found.or_else(|| objects.get(CLUSTER_PLUGINS, "", name).map(|it| (CLUSTER_PLUGINS, it)));
            match found {
                Some((kind, plugin)) => plugins.take(kind, plugin, complaints),
                None => {
                    let message = format!("referenced KongPlugin or KongClusterPlugin \"{name}\" does not exist");
                    complaints.insert(Complaint::new(kind, object, TRANSLATION_FAILED, message));
                }
            }
        }
        plugins
    }

    /// Those for every request.
    pub(crate) fn global(objects: &Objects, complaints: &mut BTreeSet<Complaint>) -> Self {
        let mut plugins = Self::default();
        let global = |plugin: &&Object| plugin.labels().get("global").is_some_and(|value| value == "true");
        for plugin in objects.all(CLUSTER_PLUGINS).filter(global) {
            plugins.take(CLUSTER_PLUGINS, plugin, complaints);
        }
        plugins
    }

    /// Of several instances of a plugin the most specific runs: the route's, then the Service's, then the global one.
    pub(crate) fn or(self, wider: &Self) -> Self {
        Self {
            transformer: self.transformer.or_else(|| wider.transformer.clone()),
            invalid: self.invalid || wider.invalid,
            unplayable: self.unplayable || wider.unplayable,
        }
    }

    fn take(&mut self, kind: Kind, plugin: &Object, complaints: &mut BTreeSet<Complaint>) {
        if plugin.data["disabled"] == Value::Bool(true) {
            return;
        }
        let mut complain = |reason, message: String| {
            complaints.insert(Complaint::new(kind, plugin, reason, message));
        };
        match text(&plugin.data, "/plugin") {
            "" => {
                complain(TRANSLATION_FAILED, "plugin without a name in its field plugin".to_owned());
                self.invalid = true;
            }
            REQUEST_TRANSFORMER => match Transformer::read(&plugin.data["config"]) {
                // Kong allows one instance for each route.
                Ok(_) if self.transformer.is_some() => {
                    complain(APPLY_FAILED, format!("a second {REQUEST_TRANSFORMER} for one object"));
                    self.invalid = true;
                }
                Ok(transformer) => {
                    let key = format!("{}/{}", plugin.namespace().unwrap_or_default(), plugin.name_any());
                    self.transformer = Some((key, transformer));
                }
                Err(Refused::Invalid(message)) => {
                    complain(APPLY_FAILED, message);
                    self.invalid = true;
                }
                Err(Refused::Unplayable(what)) => {
                    complain(APPLY_FAILED, format!("{what} is not played here; its routes answer 500"));
                    self.unplayable = true;
                }
            },
            name => {
                complain(APPLY_FAILED, format!("the plugin {name} is not played here; its routes answer 500"));
                self.unplayable = true;
            }
        }
    }
}
