//! Kong's gateway (3.9), without a database, in front of the nginx of the wheel.
//!
//! ```text
//! POST /config ─ read ─> Model ─ render ─> nginx.conf ─ nginx -t, SIGHUP ─> nginx
//! 400, flattened_errors <─┴─ which routes is it that nginx refuses? ─┘
//! ```
//!
//! Kong is an nginx whose routes, balancer and plugins are Lua. Here a route is a location, an upstream follows
//! [`endpoints`](crate::nginx::endpoints), and the one plugin that is played, request-transformer, is worked out beforehand
//! ([`transform`]). The headers of a location are those of `kong/templates/nginx_kong.lua`. Before its first configuration Kong answers
//! that no route matches, and this one not at all: neither is ready.

mod admin;
mod declarative;
mod model;
mod read;
mod render;
mod settings;
mod transform;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::data_plane::{DataPlane, Files, Search};
use crate::flags::Flags;
use crate::nginx::plane::Nginx;
use admin::{Answer, Ask, Served};
use declarative::Declarative;
use model::{Found, Model};
use read::Flaw;
use settings::Settings;

/// The version that it is.
const VERSION: &str = "3.9.1";

/// After how long a name is looked up again: as long as answers of a cluster's DNS hold by default, or at once where there was none
/// (`dns_error_ttl`).
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_FOR_MISSING: Duration = Duration::from_secs(1);

/// How many names are looked up at a time.
const LOOKED_UP: usize = 16;

/// The role.
pub(crate) async fn main(_flags: Flags) -> anyhow::Result<()> {
    let settings = Settings::read(&std::env::vars().collect())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (admin, status, flavor) = (settings.admin, settings.status, settings.router_flavor.clone());
    let (ask, asked) = mpsc::channel(1);
    let mut gateway = Gateway::new(settings, Nginx::new().await?, default_certificate()?, look_up);
    let served = gateway.served.subscribe();
    let result = tokio::select! {
        result = admin::serve(admin, admin::api(ask, served.clone(), flavor)) => result,
        result = admin::serve(status, admin::status(served)) => result,
        error = gateway.run(asked) => Err(error),
        _ = terminate.recv() => Ok(()),
    };
    gateway.plane.stop().await;
    result
}

/// The certificate of hosts without one, as Kong makes it at its first start.
fn default_certificate() -> anyhow::Result<String> {
    let key = KeyPair::generate().context("a key for Kong's own certificate")?;
    let mut params = CertificateParams::new(["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.distinguished_name.push(DnType::OrganizationName, "Kong");
    Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
}

/// The addresses of a name; none where there is none.
type LookUp = fn(String) -> BoxFuture<'static, Vec<Ipv4Addr>>;

fn look_up(name: String) -> BoxFuture<'static, Vec<Ipv4Addr>> {
    let looked_up = async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        let mut addresses: Vec<Ipv4Addr> = found
            .into_iter()
            .flatten()
            .filter_map(|address| match address.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect();
        // Servers turn their order.
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    looked_up.boxed()
}

struct Gateway<P> {
    settings: Settings,
    plane: P,
    certificate: String,
    look_up: LookUp,
    model: Model,
    /// What the names of the model lead to.
    found: Found,
    served: watch::Sender<Option<Served>>,
}

impl<P: DataPlane> Gateway<P> {
    fn new(settings: Settings, plane: P, certificate: String, look_up: LookUp) -> Self {
        let (model, found, served) = (Model::default(), Found::new(), watch::Sender::new(None));
        Self { settings, plane, certificate, look_up, model, found, served }
    }

    /// Takes configurations, and follows the names of the one that it has, until nginx ends.
    async fn run(&mut self, mut asked: mpsc::Receiver<Ask>) -> anyhow::Error {
        loop {
            let missing = self.found.values().any(Vec::is_empty);
            let pause = if missing { LOOK_AGAIN_FOR_MISSING } else { LOOK_AGAIN };
            tokio::select! {
                Some(Ask { body, answer }) = asked.recv() => {
                    let said = self.take(body).await;
                    // Nobody may be there any more to hear it.
                    let _ = answer.send(said);
                }
                () = tokio::time::sleep(pause), if !self.found.is_empty() => self.look_again().await,
                error = self.plane.ended() => return error,
            }
        }
    }

    /// Serves a configuration from now on, if it can.
    async fn take(&mut self, body: String) -> Answer {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = format!("{:032x}", hasher.finish());
        if self.served.borrow().as_ref().is_some_and(|served| served.hash == hash) {
            return Answer::Unchanged;
        }
        let configuration: Declarative = match serde_json::from_str(&body) {
            Ok(configuration) => configuration,
            Err(error) => return Answer::unreadable(&format!("expected a declarative configuration as JSON: {error}")),
        };
        if configuration.format != "3.0" {
            return Answer::unreadable(&format!("_format_version: expected 3.0, found {:?}", configuration.format));
        }
        for kind in configuration.others.keys().filter(|kind| !kind.starts_with('_')) {
            tracing::warn!("{kind} are not played by this gateway, and passed over");
        }
        let model = match read::model(&configuration) {
            Ok(model) => model,
            Err(flaws) => return Answer::Refused(flaws),
        };
        let new = model.names().filter(|name| !self.found.contains_key(*name)).map(str::to_owned).collect();
        let new = self.addresses(new).await;
        self.found.extend(new);
        match self.plane.apply(&self.files(&model)).await {
            Ok(()) => {
                let names: BTreeSet<&str> = model.names().collect();
                self.found.retain(|name, _| names.contains(name.as_str()));
                self.model = model;
                self.served.send_replace(Some(Served { hash, configuration: body }));
                Answer::Taken
            }
            Err(error) => {
                tracing::error!("the configuration is not taken, the former one stays: {error:#}");
                let flaws = self.blamed(&configuration, &model).await;
                if flaws.is_empty() { Answer::unreadable(&format!("{error:#}")) } else { Answer::Refused(flaws) }
            }
        }
    }

    /// The routes for which nginx refuses a configuration.
    async fn blamed(&mut self, configuration: &Declarative, model: &Model) -> Vec<Flaw> {
        let routes: Vec<_> = configuration.routes().collect();
        let (mut blamed, mut flaws) = (BTreeSet::new(), Vec::new());
        loop {
            let mut search = Search::among(routes.len());
            while let Some(count) = search.next() {
                let part = model.with_routes(|origin| origin < count && !blamed.contains(&origin));
                search.told(count, self.plane.test(&self.files(&part)).await);
            }
            let Some((origin, why)) = search.found() else { return flaws };
            blamed.insert(origin);
            flaws.extend(routes.get(origin).map(|route| Flaw {
                entity: "route",
                name: route.name.clone(),
                tags: route.tags.clone(),
                field: "paths".to_owned(),
                message: format!("{why:#}"),
            }));
        }
    }

    /// Looks all names up again.
    async fn look_again(&mut self) {
        let found = self.addresses(self.model.names().map(str::to_owned).collect()).await;
        if found == self.found {
            return;
        }
        self.found = found;
        if let Err(error) = self.plane.apply(&self.files(&self.model)).await {
            tracing::error!("new addresses are not taken: {error:#}");
        }
    }

    async fn addresses(&self, names: BTreeSet<String>) -> Found {
        let look_up = |name: String| (self.look_up)(name.clone()).map(|addresses| (name, addresses));
        futures::stream::iter(names.into_iter().map(look_up)).buffer_unordered(LOOKED_UP).collect().await
    }

    fn files(&self, model: &Model) -> Files {
        render::files(model, &self.found, &self.settings, &self.certificate)
    }
}

#[cfg(test)]
pub(super) mod tests;
