//! A target and the plan for it, as the control plane's answers change.

use std::{net::SocketAddr, sync::Arc};

use linkerd2_proxy_api::{destination::DestinationProfile, outbound::OutboundPolicy};
use tokio::sync::watch;
use tracing::debug;

use super::plan::{Parts, Plan};
use crate::{
    Target,
    control::{Answers, Control},
};

/// A target that was asked about.
pub(super) struct Destination {
    target: Target,
    plan: watch::Receiver<Option<Arc<Plan>>>,
}

impl Destination {
    /// Asks for profile and policy at the same time, and keeps the plan current until the destination is dropped.
    pub(super) fn discover(target: Target, control: &Control, parts: Parts) -> Self {
        let (plans, plan) = watch::channel(None);
        tokio::spawn(compile(target.clone(), control.profile(&target), control.policy(&target), parts, plans));
        Self { target, plan }
    }

    /// An address that nobody is asked about.
    pub(super) fn forward(address: SocketAddr, parts: &Parts) -> Self {
        let plan = Some(Arc::new(Plan::forward(address, parts)));
        Self { target: Target::Address(address), plan: watch::channel(plan).1 }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The plan, as soon as profile and policy have been answered.
    pub(super) async fn plan(&self) -> Arc<Plan> {
        if let Some(plan) = &*self.plan.borrow() {
            return Arc::clone(plan);
        }
        let mut plan = self.plan.clone();
        loop {
            if let Ok(found) = plan.wait_for(Option::is_some).await
                && let Some(found) = &*found
            {
                return Arc::clone(found);
            }
            // The task that makes plans ends after this destination only.
            std::future::pending::<()>().await;
        }
    }
}

async fn compile(
    target: Target,
    mut profiles: Answers<DestinationProfile>,
    mut policies: Answers<OutboundPolicy>,
    parts: Parts,
    plans: watch::Sender<Option<Arc<Plan>>>,
) {
    // A stream that has given its last answer closes its channel; the other may still change.
    let (mut profile_open, mut policy_open) = (true, true);
    let mut changed = true;
    loop {
        if changed {
            let profile = profiles.borrow_and_update().clone();
            let policy = policies.borrow_and_update().clone();
            if let (Some(profile), Some(policy)) = (profile, policy) {
                let plan = Plan::compile(&target, &profile, &policy, &parts);
                debug!(%target, opaque = plan.opaque, "a new plan");
                plans.send_replace(Some(Arc::new(plan)));
            }
        }
        tokio::select! {
            next = profiles.changed(), if profile_open => {
                changed = next.is_ok();
                profile_open = changed;
            }
            next = policies.changed(), if policy_open => {
                changed = next.is_ok();
                policy_open = changed;
            }
            () = plans.closed() => return,
        }
    }
}
