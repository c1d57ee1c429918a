//! The policies of the pod's ports, as they change.

use std::sync::Arc;

use linkerd2_proxy_api::inbound::Server;
use tokio::sync::watch;

use super::policy::{Protocol, ServerPolicy};
use crate::{
    Config,
    cache::Cache,
    control::{Answer, Answers, Control},
};

/// A port's policy, as it changes.
pub(super) type Policy = watch::Receiver<Arc<ServerPolicy>>;

/// Asks for the policies of ports, for as long as somebody uses them.
pub(super) struct Ports {
    config: Arc<Config>,
    control: Control,
    ports: Arc<Cache<u16, Policy>>,
    /// The ports that the pod declares are followed from the start, and the proxy's own.
    _declared: Vec<Arc<Policy>>,
}

impl Ports {
    /// `own` are the ports that the proxy answers at itself.
    pub(super) fn new(config: &Arc<Config>, own: &[u16], control: Control) -> Self {
        let mut ports = Self {
            control,
            ports: Cache::new(config.inbound_discovery_idle_timeout),
            _declared: Vec::new(),
            config: Arc::clone(config),
        };
        let declared = config.inbound_ports.iter().chain(own);
        ports._declared = declared.map(|port| ports.get(*port)).collect();
        ports
    }

    /// The policy of a port. Until the control plane has answered, and where it does not, it is the default, as in Linkerd.
    pub(super) fn of(&self, port: u16) -> Policy {
        Policy::clone(&self.get(port))
    }

    fn get(&self, port: u16) -> Arc<Policy> {
        self.ports.get_or_make(&port, || {
            let config = &self.config;
            let protocol = if config.is_opaque(port) { Protocol::Opaque } else { Protocol::Detect(None) };
            let default = ServerPolicy::named(config.inbound_default_policy, &config.cluster_networks, protocol, port);
            follow(default, port, self.control.server(port))
        })
    }
}

fn follow(default: ServerPolicy, port: u16, mut answers: Answers<Server>) -> Policy {
    let (policies, policy) = watch::channel(Arc::new(default));
    tokio::spawn(async move {
        loop {
            // What was known stays known while the control plane is away.
            if let Some(Answer::Found(server)) = &*answers.borrow_and_update() {
                policies.send_replace(Arc::new(ServerPolicy::compile(server, port)));
            }
            tokio::select! {
                changed = answers.changed() => if changed.is_err() {
                    return policies.closed().await;
                },
                () = policies.closed() => return,
            }
        }
    });
    policy
}
