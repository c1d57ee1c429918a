//! Contour 1.33 in front of Envoy.
//!
//! ```text
//! HTTPProxies, Ingresses, Services, EndpointSlices, Secrets ─ ingresses, proxies ─> envoy::model ─> Envoy
//!                                                                      └─> status of every HTTPProxy
//! ```
//!
//! Envoy runs in a container of its own, from what `contour bootstrap` writes in an init container. What `contour serve` has to tell it,
//! which is xDS otherwise, it writes into the folder that these containers share.
//!
//! Which routes there are, what becomes of a bad one and in which words the status says so follow `internal/dag`; where on a route
//! a header is set follows `internal/envoy/v3/route.go`. Left out: TLS to backends, retries, rate limits, external authorization,
//! certificate delegation, mirrors and query parameters. A field that would need one of them is not in the definition of the kind.

mod backends;
mod headers;
mod ingresses;
mod proxies;
mod settings;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;

use crate::envoy::model::{Config, HeaderOps};
use crate::envoy::{self, Envoy};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES, annotation, text};
use crate::run::{Controller, Translation, run};
use crate::services;
use backends::Backends;
use settings::Settings;

/// The folder that is shared with Envoy. `contour bootstrap` is told it, and no flag of `contour serve` names it.
const FOLDER: &str = "/config";

const HTTP_PROXIES: Kind = Kind::new("projectcontour.io", "v1", "HTTPProxy", "httpproxies");

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    if let [subcommand, arguments @ ..] = flags.words()
        && subcommand == "bootstrap"
    {
        let [file] = arguments else {
            bail!("bootstrap: expected the path of the file to write, found {arguments:?}");
        };
        return envoy::bootstrap(Path::new(file));
    }
    let health_port = flags.number("health-port", 8000);
    let settings = Settings::read(flags.get("config-path"))?;
    let namespace = std::env::var("CONTOUR_NAMESPACE").unwrap_or_else(|_| "projectcontour".to_owned());
    let lease = (flags.get("disable-leader-election") != Some("true"))
        .then(|| (namespace.clone(), flags.or("leader-election-resource-name", "leader-elect").to_owned()));
    let envoy = Envoy::elsewhere(Path::new(FOLDER))?;
    run("contour", Contour { flags, settings, namespace }, envoy, health_port, lease).await
}

struct Contour {
    flags: Flags,
    settings: Settings,
    /// Its own.
    namespace: String,
}

impl Contour {
    fn is_ours(&self, object: &Object) -> bool {
        let of_annotation = annotation(object, "projectcontour.io/ingress.class");
        let class = of_annotation
            .or_else(|| annotation(object, "kubernetes.io/ingress.class"))
            .unwrap_or_else(|| text(&object.data, "/spec/ingressClassName"));
        match self.flags.get("ingress-class-name") {
            Some(classes) => classes.split(',').any(|ours| ours == class),
            None => class.is_empty() || class == "contour",
        }
    }
}

/// What every request gets (`RouteConfiguration` in `internal/envoy/v3/route.go`).
fn request_start() -> BTreeMap<String, String> {
    BTreeMap::from([("x-request-start".to_owned(), "t=%START_TIME(%s.%3f)%".to_owned())])
}

impl Controller for Contour {
    fn kinds(&self) -> Vec<Kind> {
        vec![ENDPOINT_SLICES, HTTP_PROXIES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let mut config = Config {
            http_port: self.flags.number("envoy-service-http-port", 8080),
            https_port: self.flags.number("envoy-service-https-port", 8443),
            ready_port: self.flags.number("stats-port", 8002),
            folder: Some(FOLDER.to_owned()),
            keep_request_id: true,
            any_host_port: true,
            request_headers: HeaderOps { append: request_start(), ..HeaderOps::default() },
            ..Config::default()
        };
        let mut backends = Backends::new(objects, self.settings.external_names);
        let mut complaints = BTreeSet::new();
        let service = self.flags.or("envoy-service-name", "envoy");
        let namespace = self.flags.or("envoy-service-namespace", &self.namespace);
        let addresses = services::published(objects, namespace, service);

        let taken: Vec<&Object> = objects.all(INGRESSES).filter(|object| self.is_ours(object)).collect();
        let mut statuses =
            ingresses::add(&taken, &self.settings, &mut config, &mut backends, &mut complaints, &addresses);
        let taken: Vec<&Object> = objects.all(HTTP_PROXIES).filter(|object| self.is_ours(object)).collect();
        let verdicts = proxies::add(&taken, &self.settings, &mut config, &mut backends);
        statuses.extend(taken.iter().filter_map(|proxy| verdicts.status(proxy, &addresses)));

        config.hosts.values_mut().for_each(envoy::model::VirtualHost::sort);
        for tls in config.tls.values_mut() {
            if let envoy::model::Tls::Terminated { host, .. } = tls {
                host.sort();
            }
        }
        config.clusters = backends.clusters;
        Translation { files: envoy::files(&config), statuses, complaints, held: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
