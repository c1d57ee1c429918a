//! Writes the EndpointSlices of Services whose selectors match ExternalWorkloads, whenever they are not what they
//! should be.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};

use crate::{
    Index,
    answers::slices::{self, Change, Picture, Verb},
    index::Topic,
    lease::Lease,
    objects::{MANAGED_BY, MANAGER},
};

/// How long after a slice could not be written it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Writes slices until `shutdown`: once every kind has been listed, and then after each change that one depends on.
/// What is being written then is written to its end.
///
/// Of several writers one does, by the Lease `linkerd-destination-endpoint-write` of the namespace, as with Linkerd's
/// destination controller; `holder` is this one's name. It is given back at the end, or the next one would wait until
/// its time is over. Where no Service selects an ExternalWorkload nothing is asked for and nothing is written.
pub async fn write_slices(
    client: Client,
    index: Index,
    namespace: &str,
    holder: &str,
    shutdown: impl Future<Output = ()>,
) {
    let mut lease = Lease::new(client.clone(), namespace, meshgate_inject::SLICES_LEASE, holder);
    let mut pictures = pin!(index.follow(Topic::Slices, slices::picture));
    let mut shutdown = pin!(shutdown);
    let mut picture = Picture::default();
    let mut wait = None;
    loop {
        let again = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = pictures.next() => match next {
                Some(next) => picture = next,
                None => break,
            },
            () = again => {}
        }
        wait = write_what_differs(&client, &mut lease, &picture).await;
    }
    if let Err(error) = lease.give_back().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the Lease of EndpointSlices could not be given back; the next replica waits until its time is over"
        );
    }
}

/// How long to wait until it is tried again, if something is left to write.
async fn write_what_differs(client: &Client, lease: &mut Lease, picture: &Picture) -> Option<Duration> {
    loop {
        let changes = match changes(client, picture).await {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "EndpointSlices could not be listed; trying again"
                );
                return Some(RETRY);
            }
        };
        if changes.is_empty() {
            return None;
        }
        if lease.is_held() {
            return write_all(client, lease, &changes).await;
        }
        match lease.take().await {
            // What another replica has written until now is not known yet.
            Ok(None) => {}
            Ok(Some(left)) => return Some(left),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the Lease of EndpointSlices could not be taken; trying again"
                );
                return Some(RETRY);
            }
        }
    }
}

/// What there is to write. By what the API server has and not by the index, to which one's own writes take a while.
async fn changes(client: &Client, picture: &Picture) -> kube::Result<Vec<Change>> {
    if picture.is_empty() {
        return Ok(Vec::new());
    }
    let params = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let existing = Api::<EndpointSlice>::all(client.clone()).list(&params).await?;
    Ok(slices::changes(picture, existing.items))
}

async fn write_all(client: &Client, lease: &Lease, changes: &[Change]) -> Option<Duration> {
    let mut again = None;
    for change in changes {
        if !lease.is_held() {
            return Some(Duration::ZERO);
        }
        if let Err(error) = write(client, change).await {
            again = Some(RETRY);
            let Change { verb, slice } = change;
            let (namespace, name) = (&slice.metadata.namespace, &slice.metadata.name);
            tracing::warn!(
                ?verb,
                ?namespace,
                ?name,
                error = &error as &dyn std::error::Error,
                "an EndpointSlice could not be written; trying again"
            );
        }
    }
    again
}

/// Only of the slice that was read: what others write meanwhile is looked at first.
async fn write(client: &Client, change: &Change) -> kube::Result<()> {
    let Change { verb, slice } = change;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match verb {
        Verb::Create => api.create(&params, slice).await.map(drop),
        Verb::Replace => api.replace(name, &params, slice).await.map(drop),
        Verb::Delete => {
            let resource_version = slice.metadata.resource_version.clone();
            let as_read = Preconditions { resource_version, ..Preconditions::default() };
            match api.delete(name, &DeleteParams::default().preconditions(as_read)).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(()),
                deleted => deleted.map(drop),
            }
        }
    }
}
