//! The balancers that are in use: destinations that lead to the same Service, as the same backend of the same parent, share its
//! endpoints.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    NameAddr,
    balance::{Accrual, Balancer, EndpointFactory, LoadBias, Queue},
    control::Control,
    metrics::Labels,
};

/// A name, how failures of its endpoints are judged and how they count, and under which labels it is counted, if it is.
type Key = (NameAddr, Option<Accrual>, Option<LoadBias>, Option<Labels>);

/// Makes balancers, and finds those that others use already.
pub(super) struct Balancers {
    control: Control,
    factory: EndpointFactory,
    queue: Queue,
    used: Mutex<HashMap<Key, Weak<Balancer>>>,
}

impl Balancers {
    pub(super) fn new(control: Control, factory: EndpointFactory, queue: Queue) -> Self {
        Self { control, factory, queue, used: Mutex::default() }
    }

    /// The balancer of `name`, whose endpoints are set aside as `accrual` says and chosen as `bias` does, and which `labels` say what is a
    /// backend of what. It follows the control plane for as long as somebody holds it.
    pub(super) fn get(
        &self,
        name: &NameAddr,
        accrual: Option<Accrual>,
        bias: Option<LoadBias>,
        labels: Option<Labels>,
    ) -> Arc<Balancer> {
        let mut used = self.used.lock();
        let key = (name.clone(), accrual, bias, labels);
        if let Some(balancer) = used.get(&key).and_then(Weak::upgrade) {
            return balancer;
        }
        used.retain(|_, balancer| balancer.strong_count() > 0);
        let factory = self.factory.judging(accrual, bias);
        let balancer = Balancer::new(name.clone(), factory, self.queue, key.3.as_ref());
        used.insert(key, Arc::downgrade(&balancer));
        let follow = self.control.endpoints(name, Arc::downgrade(&balancer));
        balancer.keep(tokio::spawn(follow).abort_handle());
        balancer
    }
}
