//! The loop around a controller: objects in, configuration, statuses and events out.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::data_plane::{DataPlane, Files};
use crate::health::{self, Ready};
use crate::objects::{Kind, Objects, Watches};
use crate::status::{Complaint, RENEWAL, Reporter, StatusUpdate};

/// How long a burst of changes is waited for, and so the shortest time between two configurations.
const BURST: Duration = Duration::from_millis(50);

/// What a controller makes of the objects.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    /// The data plane's configuration.
    pub(crate) files: Files,
    /// What the controller writes into the objects' status.
    pub(crate) statuses: Vec<StatusUpdate>,
    /// What it says of objects that it does not take as they are.
    pub(crate) complaints: BTreeSet<Complaint>,
}

/// A controller: what it reads, and what it makes of it.
pub(crate) trait Controller {
    /// The kinds that it watches.
    fn kinds(&self) -> Vec<Kind>;

    /// The whole configuration for these objects. Pure: the same objects lead to the same files.
    fn translate(&self, objects: &Objects) -> Translation;
}

/// Runs a controller until SIGTERM, or until its data plane ends.
pub(crate) async fn run(
    name: &'static str,
    controller: impl Controller,
    mut data_plane: impl DataPlane,
    health_port: u16,
    lease: Option<(String, String)>,
) -> anyhow::Result<()> {
    // Someone else may have installed the same provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ready = Ready::default();
    let watches = Watches::start(&client, &controller.kinds());
    let mut reporter = Reporter::new(name, client, lease);
    let serve = async {
        watches.listed().await;
        let mut applied = None;
        loop {
            let translation = controller.translate(&watches.snapshot());
            if applied.as_ref() != Some(&translation.files) {
                match data_plane.apply(&translation.files).await {
                    Ok(()) => ready.set(),
                    Err(error) => tracing::error!("the configuration is not taken, the former one stays: {error:#}"),
                }
                applied = Some(translation.files);
            }
            reporter.report(translation.statuses, translation.complaints).await;
            tokio::select! {
                () = watches.changed() => tokio::time::sleep(BURST).await,
                () = tokio::time::sleep(RENEWAL) => {}
                error = data_plane.ended() => return Err(error),
            }
        }
    };
    let result = tokio::select! {
        result = serve => result,
        result = health::serve(health_port, ready.clone()) => result,
        _ = terminate.recv() => Ok(()),
    };
    data_plane.stop().await;
    result
}
