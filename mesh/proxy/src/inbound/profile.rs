//! The profile of the name that a request is for, under whose routes it is counted.

use std::{sync::Arc, time::Duration};

use http::{Request, header::HOST, uri::Authority};
use linkerd2_proxy_api::destination::DestinationProfile;
use tokio::{sync::watch, time};

use crate::{
    NameAddr,
    control::{Answer, Answers},
    dialect,
    http::CANONICAL,
    profile::ServiceProfile,
};

/// Requests are not held up for their metrics any longer than this, as in Linkerd.
const PATIENCE: Duration = Duration::from_millis(500);

/// The profile of a name, as it changes.
pub(super) struct Profile(watch::Receiver<Option<Option<Arc<ServiceProfile>>>>);

impl Profile {
    pub(super) fn follow(port: u16, mut answers: Answers<DestinationProfile>) -> Self {
        let (profiles, listener) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let answer = answers.borrow_and_update().clone();
                if let Some(answer) = answer {
                    profiles.send_replace(Some(match answer {
                        Answer::Found(profile) => ServiceProfile::compile(&profile, port).map(Arc::new),
                        Answer::Nothing | Answer::Failed(_) => None,
                    }));
                }
                tokio::select! {
                    changed = answers.changed() => if changed.is_err() {
                        return profiles.closed().await;
                    },
                    () = profiles.closed() => return,
                }
            }
        });
        Self(listener)
    }

    /// The profile, if there is one and the control plane says so soon.
    pub(super) async fn get(&self) -> Option<Arc<ServiceProfile>> {
        if let Some(known) = &*self.0.borrow() {
            return known.clone();
        }
        let mut listener = self.0.clone();
        let known = time::timeout(PATIENCE, listener.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone().flatten()
    }
}

/// The name that a request is for: what the client's proxy says, or `:authority`, or `Host`.
pub(super) fn name<B>(request: &Request<B>) -> Option<NameAddr> {
    let header = |name| request.headers().get(name).and_then(|value| Authority::try_from(value.as_bytes()).ok());
    let authority = header(CANONICAL).or_else(|| request.uri().authority().cloned()).or_else(|| header(HOST))?;
    dialect::name(&authority)
}
