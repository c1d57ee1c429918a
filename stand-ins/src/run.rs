//! The loop around a controller: objects in, configuration, statuses and events out.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::refused::Refused;
use crate::data_plane::{DataPlane, Files};
use crate::health::{self, Ready};
use crate::objects::{Kind, Object, Objects, Watches};
use crate::status::{Complaint, RENEWAL, Report, Reporter, StatusUpdate};

mod refused;
mod webhook;

pub(crate) use webhook::Webhook;

/// A burst of changes is over when there is none for so long.
const QUIET: Duration = Duration::from_millis(50);

/// How long a burst is waited for at most. Every configuration costs its data plane time, the more the more routes it has.
const BURST: Duration = Duration::from_millis(500);

/// What a controller makes of the objects.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    /// The data plane's configuration.
    pub(crate) files: Files,
    /// What the controller writes into the objects' status.
    pub(crate) statuses: Vec<StatusUpdate>,
    /// What it says of objects that it does not take as they are.
    pub(crate) complaints: BTreeSet<Complaint>,
    /// Why the files are not to be taken as they are, if so.
    pub(crate) held: Vec<Held>,
}

/// A reason why a translation is not to be taken as it is: what is wrong with one object keeps the controller from every change, or from all
/// of a kind, until it is mended. What only the data plane can judge it refuses itself: see [`Controller::leaves_out_refused`].
pub(crate) struct Held {
    /// What the controller writes to its log, at each change anew.
    why: String,
    instead: Instead,
}

/// What is served in place of a translation's files, by those that were served before, if any were. `None` is nothing yet.
type Instead = Box<dyn Fn(Files, Option<&Files>) -> Option<Files> + Send + Sync>;

impl Held {
    /// With what is served instead.
    pub(crate) fn new(
        why: String,
        instead: impl Fn(Files, Option<&Files>) -> Option<Files> + Send + Sync + 'static,
    ) -> Self {
        Self { why, instead: Box::new(instead) }
    }

    /// Nothing is taken: what was served before goes on being served, and whoever has served nothing yet does not become ready.
    pub(crate) fn whole(why: String) -> Self {
        Self::new(why, |_, former| former.cloned())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("why", &self.why).finish_non_exhaustive()
    }
}

/// What is served when `former` were served before.
fn unless_held(files: Files, held: &[Held], former: Option<&Files>) -> Option<Files> {
    held.iter().try_fold(files, |files, held| (held.instead)(files, former))
}

#[cfg(test)]
impl Translation {
    /// Why it is held back.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.held.iter().map(|held| held.why.as_str()).collect()
    }

    /// What is served after these files.
    pub(crate) fn served(&self, former: Option<&Files>) -> Option<Files> {
        unless_held(self.files.clone(), &self.held, former)
    }

    /// What is said of objects, without which.
    pub(crate) fn messages(&self) -> Vec<&str> {
        self.complaints.iter().map(Complaint::message).collect()
    }

    /// Whether each of these is a line of a file.
    #[track_caller]
    pub(crate) fn says(&self, file: &str, lines: &[&str]) {
        let text = &self.files[std::path::Path::new(file)];
        for line in lines {
            assert!(text.lines().any(|found| found.trim() == *line), "no {line} in {text}");
        }
    }
}

/// A controller: what it reads, and what it makes of it.
pub(crate) trait Controller {
    /// The kinds that it watches.
    fn kinds(&self) -> Vec<Kind>;

    /// The whole configuration for these objects. Pure: the same objects lead to the same files.
    fn translate(&self, objects: &Objects) -> Translation;

    /// Whether an object for which the data plane refuses everything is left out. Otherwise nothing changes until it is mended.
    fn leaves_out_refused(&self) -> bool {
        true
    }

    /// The Ingresses that are left out with an object that is, as they would mean something else without it.
    fn dependants(&self, _objects: &Objects, _kind: Kind, _object: &Object) -> Vec<Object> {
        Vec::new()
    }

    /// Where it is asked about objects before they are stored, if it is.
    fn webhook(&self) -> Option<Webhook> {
        None
    }

    /// What it answers there. Pure, as [`Controller::translate`] is.
    ///
    /// # Errors
    /// Why the object must not be stored.
    fn judge(&self, _objects: &Objects, _object: &Object) -> Result<(), String> {
        Ok(())
    }
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
    let reporter = Reporter::new(name, client.clone(), lease);
    let result = tokio::select! {
        error = serve(&client, reporter, &controller, &mut data_plane, &ready) => Err(error),
        result = health::serve(health_port, ready.clone()) => result,
        _ = terminate.recv() => Ok(()),
    };
    data_plane.stop().await;
    result
}

/// Serves until the data plane ends by itself.
async fn serve(
    client: &Client,
    reporter: Reporter,
    controller: &impl Controller,
    data_plane: &mut impl DataPlane,
    ready: &Ready,
) -> anyhow::Error {
    let webhook = match controller.webhook() {
        Some(webhook) => match webhook.listen().await {
            Ok(listening) => Some(listening),
            Err(error) => return error,
        },
        None => None,
    };
    let watches = Watches::start(client, &controller.kinds());
    let asked = async {
        match webhook {
            Some(webhook) => {
                webhook.serve(watches.listed(), |object| controller.judge(&watches.objects(), object)).await
            }
            None => std::future::pending().await,
        }
    };
    let (found, reports) = watch::channel(None);
    tokio::select! {
        error = follow(&watches, controller, data_plane, ready, &found) => error,
        error = asked => error,
        never = report(reporter, reports) => match never {},
    }
}

/// Keeps the data plane's configuration current, and hands over what there is to report.
async fn follow(
    watches: &Watches,
    controller: &impl Controller,
    data_plane: &mut impl DataPlane,
    ready: &Ready,
    found: &watch::Sender<Option<Report>>,
) -> anyhow::Error {
    watches.listed().await;
    let (mut tried, mut served): (Option<Files>, Option<Files>) = (None, None);
    let mut refused = Refused::default();
    // A renewal is no change that would be held back.
    let mut news = true;
    loop {
        let translation = refused.translate(controller, &watches.objects());
        if news {
            translation.held.iter().for_each(|held| tracing::error!("{}", held.why));
        }
        let files = unless_held(translation.files, &translation.held, served.as_ref());
        if let Some(files) = files.filter(|files| tried.as_ref() != Some(files)) {
            match data_plane.apply(&files).await {
                Ok(()) => {
                    ready.set();
                    served = Some(files.clone());
                }
                Err(error) => {
                    tracing::error!("the configuration is not taken, the former one stays: {error:#}");
                    let objects = watches.objects().clone();
                    if controller.leaves_out_refused() && refused.find(&error, controller, data_plane, &objects).await {
                        continue;
                    }
                }
            }
            tried = Some(files);
        }
        found.send_replace(Some(Report { statuses: translation.statuses, complaints: translation.complaints }));
        news = tokio::select! {
            () = watches.changed() => {
                over(watches).await;
                true
            }
            () = tokio::time::sleep(RENEWAL) => false,
            error = data_plane.ended() => return error,
        };
    }
}

/// Waits until a burst of changes is over.
pub(crate) async fn over(watches: &Watches) {
    let more = async { while tokio::time::timeout(QUIET, watches.changed()).await.is_ok() {} };
    // One that lasts is not waited for any longer.
    let _ = tokio::time::timeout(BURST, more).await;
}

/// Writes the latest report, and again the latest. Beside the data plane's changes: a hundred statuses take seconds on a busy API
/// server, and traffic must not wait for them.
async fn report(mut reporter: Reporter, mut reports: watch::Receiver<Option<Report>>) -> Infallible {
    loop {
        if reports.changed().await.is_err() {
            // Nothing more will come.
            std::future::pending::<()>().await;
        }
        let latest = reports.borrow_and_update().clone();
        if let Some(report) = latest {
            reporter.report(report).await;
        }
    }
}

#[cfg(test)]
mod tests;
