//! The controllers of the embedded cluster: what turns a Deployment into pods, pods into endpoints, and a deleted
//! owner into deleted dependents.
//!
//! Every controller is one task. Events of the store's watches become keys in its work queue (`queue`), each key is
//! reconciled by a plain function that reads the store and writes what is missing (`runner`). Nothing polls: the next
//! step of every controller is some write of another one, of the node or of a client. The store is in this process, so a
//! reconciler reads its own writes and needs no expectations and no caches.
//!
//! [`start`] runs them all; [`Recorder`] writes the Events that `kubectl describe` shows, for the node too.

mod daemon_sets;
mod deployments;
mod endpoints;
mod events;
mod everything;
mod garbage;
mod jobs;
mod load_balancers;
mod namespaces;
mod objects;
mod pods;
mod queue;
mod replica_sets;
mod runner;
mod scheduler;
mod service_accounts;
mod stateful_sets;
mod time;

use std::net::Ipv4Addr;

use meshgate_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use events::{EventType, Recorder};

/// What the controllers need to know of the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The certificate (PEM) that pods trust the API by; published in every namespace as ConfigMap `kube-root-ca.crt`.
    pub ca_pem: String,
    /// The first address given to a Service of type LoadBalancer; later ones count up from it.
    pub load_balancer_pool_first: Ipv4Addr,
    /// How many addresses the pool has.
    pub load_balancer_pool_size: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ca_pem: String::new(),
            load_balancer_pool_first: Ipv4Addr::new(203, 0, 113, 10),
            load_balancer_pool_size: 200,
        }
    }
}

/// Starts all controllers on the current tokio runtime. They end when `shutdown` is cancelled or the set is dropped.
pub fn start(store: Store, config: Config, shutdown: CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut run = |controller: Box<dyn runner::Controller>| {
        tasks.spawn(runner::run(store.clone(), controller, shutdown.clone()));
    };
    run(Box::new(service_accounts::ServiceAccounts::new(store.clone(), config.ca_pem)));
    run(Box::new(scheduler::Scheduler::new(store.clone())));
    run(Box::new(replica_sets::ReplicaSets::new(store.clone())));
    run(Box::new(deployments::Deployments::new(store.clone())));
    run(Box::new(daemon_sets::DaemonSets::new(store.clone())));
    run(Box::new(stateful_sets::StatefulSets::new(store.clone())));
    run(Box::new(jobs::Jobs::new(store.clone())));
    run(Box::new(endpoints::Endpoints::new(store.clone())));
    run(Box::new(load_balancers::LoadBalancers::new(
        store.clone(),
        config.load_balancer_pool_first,
        config.load_balancer_pool_size,
    )));
    run(Box::new(namespaces::Namespaces::new(store.clone())));
    run(Box::new(garbage::Garbage::new(store.clone())));
    tasks
}

#[cfg(test)]
mod tests;
