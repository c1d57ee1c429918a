//! The balancers that are in use, one per name: destinations that lead to the same Service share its endpoints.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    NameAddr,
    balance::{Balancer, EndpointFactory},
    control::Control,
};

/// Makes balancers, and finds those that others use already.
pub(super) struct Balancers {
    control: Control,
    factory: EndpointFactory,
    failfast_timeout: Duration,
    used: Mutex<HashMap<NameAddr, Weak<Balancer>>>,
}

impl Balancers {
    pub(super) fn new(control: Control, factory: EndpointFactory, failfast_timeout: Duration) -> Self {
        Self { control, factory, failfast_timeout, used: Mutex::default() }
    }

    /// The balancer of `name`. It follows the control plane for as long as somebody holds it.
    pub(super) fn get(&self, name: &NameAddr) -> Arc<Balancer> {
        let mut used = self.used.lock();
        if let Some(balancer) = used.get(name).and_then(Weak::upgrade) {
            return balancer;
        }
        used.retain(|_, balancer| balancer.strong_count() > 0);
        let balancer = Arc::new(Balancer::new(name.clone(), self.factory.clone(), self.failfast_timeout));
        used.insert(name.clone(), Arc::downgrade(&balancer));
        let follow = self.control.endpoints(name, Arc::downgrade(&balancer));
        balancer.keep(tokio::spawn(follow).abort_handle());
        balancer
    }
}
