//! Emissary-ingress 4.1 in front of Envoy.
//!
//! ```text
//! Ingresses ─ ingresses ─┐
//! Mappings ──────────────┼─ mappings ─ groups ──┐
//! Hosts ─────────────────┴─ hosts ──────────────┼─> envoy::model ─> Envoy
//! Listeners ─ listeners ────────────────────────┤
//! Services, EndpointSlices, resolvers ─ backends┘
//! ```
//!
//! How Mappings become routes follows `irhttpmapping.py`, `irhttpmappinggroup.py` and `v3route.py`, what Hosts and Listeners are for
//! `irhost.py`, `irlistener.py` and `v3listener.py`, how a `service` is read `irbasemapping.py` and `irserviceresolver.py`, all below
//! `python/ambassador`. The real one watches Endpoints, this one their slices. What it cannot use it says in its log; no event and,
//! unless the environment asks for it, no status of a Mapping tells of it.
//!
//! Regular expressions it hands on unseen (issue 3911), and values of headers (issue 3913). Before `diagd` takes a configuration it has Envoy validate it, and takes nothing
//! newer while that fails (`_load_ir` and `validate_envoy_config` in `python/ambassador_diag/diagd.py`; issues 1519 and 4369). One that
//! starts then has nothing to serve and does not become ready (issue 3768).
//!
//! Left out: TCPMappings (with a host they end TLS, too, so that none passes it through on a port of HTTPS), Consul, Knative, TLS to
//! backends, filters (authentication, which is one and the same for all Mappings, and rate limits), retries, shadows, query parameters, regular expressions in place of a prefix to
//! rewrite, more than one Listener of a protocol, plain HTTP on the port of HTTPS, the certificate that it falls back on, and endpoints
//! that change while everything else is held back.

mod backends;
mod groups;
mod hosts;
mod ingresses;
mod listeners;
mod mappings;
mod module;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::envoy::{self, Envoy, model::Config};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES};
use crate::run::{Controller, Held, Translation, run};
use crate::services;
use crate::status::{Complaint, StatusUpdate};
use backends::Backends;
use listeners::Listeners;
use mappings::Mapping;
use module::Module;

const GROUP: &str = "getambassador.io";
const VERSION: &str = "v3alpha1";
const HOSTS: Kind = Kind::new(GROUP, VERSION, "Host", "hosts");
const LISTENERS: Kind = Kind::new(GROUP, VERSION, "Listener", "listeners");
const MAPPINGS: Kind = Kind::new(GROUP, VERSION, "Mapping", "mappings");
const MODULES: Kind = Kind::new(GROUP, VERSION, "Module", "modules");
const ENDPOINT_RESOLVERS: Kind = Kind::new(GROUP, VERSION, "KubernetesEndpointResolver", "kubernetesendpointresolvers");
const SERVICE_RESOLVERS: Kind = Kind::new(GROUP, VERSION, "KubernetesServiceResolver", "kubernetesserviceresolvers");

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let emissary = Emissary {
        id: variable("AMBASSADOR_ID", "default"),
        namespace: variable("AMBASSADOR_NAMESPACE", "default"),
        mapping_status: variable("AMBASSADOR_UPDATE_MAPPING_STATUS", "false").eq_ignore_ascii_case("true"),
    };
    run("emissary", emissary, Envoy::new()?, flags.number("health-port", 8877), None).await
}

struct Emissary {
    /// Objects that name other ids than this one are another instance's.
    id: String,
    /// Its own.
    namespace: String,
    /// Whether Mappings get a status.
    mapping_status: bool,
}

/// A Mapping or a Host: one of the API server's, or one that an Ingress stands for.
#[derive(Clone, Debug)]
struct Resource {
    /// Of `origin`.
    kind: Kind,
    origin: Object,
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    spec: Value,
}

impl Resource {
    fn of(kind: Kind, origin: &Object) -> Self {
        Self {
            kind,
            origin: origin.clone(),
            namespace: origin.namespace().unwrap_or_default(),
            name: origin.name_any(),
            labels: origin.labels().clone(),
            spec: origin.data["spec"].clone(),
        }
    }

    /// What decides the order in which resources are read.
    fn key(&self) -> (String, String) {
        (self.name.clone(), self.namespace.clone())
    }

    fn complaint(&self, message: impl Into<String>) -> Complaint {
        Complaint::logged(self.kind, &self.origin, message)
    }
}

/// `matchLabels` of a selector, all of which have to be there. Without any it selects everything.
fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    wanted.into_iter().all(|(name, value)| labels.get(name).map(String::as_str) == value.as_str())
}

impl Emissary {
    fn is_ours(&self, object: &Object) -> bool {
        match object.data["spec"]["ambassador_id"].as_array() {
            Some(ids) => ids.iter().any(|id| *id == self.id.as_str()),
            None => self.id == "default",
        }
    }

    /// Those of a kind in the order in which they are read: where two say different things the later one's is taken.
    fn resources(&self, objects: &Objects, kind: Kind) -> Vec<Resource> {
        let ours = objects.all(kind).filter(|object| self.is_ours(object));
        let mut found: Vec<Resource> = ours.map(|object| Resource::of(kind, object)).collect();
        found.sort_by_key(Resource::key);
        found
    }

    /// The status of Ingresses: that of the Service which the chart marks as the one in front.
    fn addresses(&self, objects: &Objects) -> Option<Value> {
        let marked = |service: &&Object| {
            service.labels().get("app.kubernetes.io/component").map(String::as_str) == Some("ambassador-service")
        };
        let own = |service: &&Object| service.namespace().as_deref() == Some(self.namespace.as_str());
        let service = objects.all(SERVICES).filter(own).find(marked)?;
        Some(services::ingress_status(&services::published(objects, &self.namespace, &service.name_any())))
    }
}

impl Controller for Emissary {
    fn kinds(&self) -> Vec<Kind> {
        vec![
            ENDPOINT_SLICES,
            ENDPOINT_RESOLVERS,
            HOSTS,
            INGRESSES,
            INGRESS_CLASSES,
            LISTENERS,
            MAPPINGS,
            MODULES,
            SECRETS,
            SERVICES,
            SERVICE_RESOLVERS,
        ]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut complaints = BTreeSet::new();
        let module = Module::read(&self.resources(objects, MODULES));
        let ingresses = ingresses::taken(objects);
        let (mut of_ingresses, mut hosts) = (ingresses::mappings(objects, &ingresses), ingresses::hosts(&ingresses));
        hosts.extend(self.resources(objects, HOSTS));
        hosts.sort_by_key(Resource::key);
        let hosts = hosts::read(objects, &hosts, &mut complaints);

        let mut resources = self.resources(objects, MAPPINGS);
        resources.append(&mut of_ingresses);
        resources.sort_by_key(Resource::key);
        let mut backends = Backends::new(objects, self, &module);
        let mut statuses = Vec::new();
        let mut mappings = Vec::new();
        for resource in &resources {
            let found = Mapping::read(resource, &module, &hosts, &mut backends);
            if resource.kind == MAPPINGS && self.mapping_status {
                let status = match &found {
                    Ok(_) => json!({"state": "Running"}),
                    Err(reason) => json!({"state": "Inactive", "reason": reason}),
                };
                statuses.extend(StatusUpdate::unless_there(MAPPINGS, &resource.origin, status));
            }
            match found {
                Ok(mapping) => mappings.push(mapping),
                Err(reason) => _ = complaints.insert(resource.complaint(reason)),
            }
        }
        if let Some(status) = self.addresses(objects) {
            let update = |ingress: &&Object| StatusUpdate::unless_there(INGRESSES, ingress, status.clone());
            statuses.extend(ingresses.iter().filter_map(update));
        }

        let mut config = Config {
            keep_slashes: !module.merge_slashes,
            keep_request_id: module.preserve_external_request_id,
            ..Config::default()
        };
        let groups = groups::form(&mappings, &mut complaints);
        let listeners = self.resources(objects, LISTENERS);
        Listeners::read(&listeners, &mut complaints).serve(&hosts, &groups, &mut config, &mut complaints);
        config.clusters = backends.clusters;
        let held: Vec<Held> = envoy::refusal(&config).map(invalid).into_iter().collect();
        if !held.is_empty() {
            // They are written once the configuration is taken.
            statuses.clear();
        }
        Translation { files: envoy::files(&config), statuses, complaints, held }
    }
}

/// What `diagd` logs of a configuration that Envoy finds invalid, with its default of `--validation-retries`. It does not say whose fault
/// that is.
fn invalid(why: String) -> Held {
    Held::whole(format!(
        "could not validate the envoy configuration above after 5 retries, failed with error {why}; Aborting update... no update \
         performed (invalid envoy configuration generated), continuing with current configuration..."
    ))
}

#[cfg(test)]
mod tests;
