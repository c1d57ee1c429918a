//! Gives Services of type LoadBalancer their addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use async_trait::async_trait;
use meshgate_store::{Selectors, Status, Store};
use serde_json::json;

use crate::events::{EventType, Recorder};
use crate::objects::{self, deleting, find, items, name, namespace, resources, str_at};
use crate::runner::{Controller, Key, Next, Seen, Watched};

/// The controller; its keys are Services.
pub(crate) struct LoadBalancers {
    store: Store,
    events: Recorder,
    first: Ipv4Addr,
    size: u32,
}

impl LoadBalancers {
    pub(crate) fn new(store: Store, first: Ipv4Addr, size: u32) -> Self {
        let events = Recorder::new(store.clone(), "service-controller");
        Self { store, events, first, size }
    }

    /// The lowest free address, or the one asked for if it is free.
    fn pick(&self, asked: &str, taken: &BTreeSet<String>) -> Option<String> {
        if !asked.is_empty() {
            return (!taken.contains(asked) && asked.parse::<Ipv4Addr>().is_ok()).then(|| asked.to_owned());
        }
        let first = u32::from(self.first);
        let pool = first..first.saturating_add(self.size);
        pool.map(|address| Ipv4Addr::from(address).to_string()).find(|address| !taken.contains(address))
    }

    /// Addresses of all Services but one.
    fn taken(&self, but: &str) -> Result<BTreeSet<String>, Status> {
        let services = self.store.list(&resources::services(), None, &Selectors::default())?.items;
        let others = services.iter().filter(|service| objects::uid(service) != but);
        Ok(others.flat_map(|service| addresses(service)).collect())
    }

    /// The Services that wait for an address.
    fn waiting(&self) -> Vec<Key> {
        let services = self.store.list(&resources::services(), None, &Selectors::default());
        let services = services.map(|list| list.items).unwrap_or_default();
        let waiting = services.iter().filter(|service| wants(service) && addresses(service).is_empty());
        waiting.map(|service| Key::new(resources::services(), namespace(service), name(service))).collect()
    }
}

fn addresses(service: &serde_json::Value) -> Vec<String> {
    let ingress = items(service, "/status/loadBalancer/ingress").iter();
    ingress.map(|ingress| str_at(ingress, "/ip").to_owned()).filter(|address| !address.is_empty()).collect()
}

fn wants(service: &serde_json::Value) -> bool {
    str_at(service, "/spec/type") == "LoadBalancer" && str_at(service, "/spec/loadBalancerClass").is_empty()
}

#[async_trait]
impl Controller for LoadBalancers {
    fn name(&self) -> &'static str {
        "loadbalancers"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::services()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        let own = Key::new(resources::services(), namespace(&seen.object), name(&seen.object));
        // An address given back may be what another one waits for.
        let freed = if seen.deleted || !wants(&seen.object) { self.waiting() } else { Vec::new() };
        freed.into_iter().chain([own]).collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(service) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        if deleting(&service) {
            return Ok(Next::Done);
        }
        let has = addresses(&service);
        if !wants(&service) {
            let of_a_class = str_at(&service, "/spec/type") == "LoadBalancer";
            if has.is_empty() || of_a_class {
                return Ok(Next::Done);
            }
            objects::set_status(&self.store, &key.resource, &service, &json!({"loadBalancer": {}}))?;
            return Ok(Next::Done);
        }
        let asked = str_at(&service, "/spec/loadBalancerIP");
        if has.iter().any(|address| asked.is_empty() || address == asked) {
            return Ok(Next::Done);
        }
        let Some(address) = self.pick(asked, &self.taken(objects::uid(&service))?) else {
            let message = match asked {
                "" => format!(
                    "all {} load balancer addresses from {} are in use; delete a Service of type LoadBalancer",
                    self.size, self.first
                ),
                asked => {
                    format!("the load balancer address {asked} is in use by another Service or is no IPv4 address")
                }
            };
            self.events.record(&service, EventType::Warning, "SyncLoadBalancerFailed", &message);
            return Ok(Next::Done);
        };
        let status = json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}});
        objects::set_status(&self.store, &key.resource, &service, &status)?;
        self.events.record(&service, EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer");
        Ok(Next::Done)
    }
}
