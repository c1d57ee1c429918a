//! GKE's ingress controller (GLBC) 1.41, and an Envoy in the place of the load balancer that it orders from Google.
//!
//! ```text
//! Ingresses, Services, BackendConfigs, EndpointSlices, Secrets ─ ingresses, backends ─> envoy::model ─> Envoy
//! ```
//!
//! Google's load balancer is no pod of the cluster and sends to the addresses of pods (network endpoint groups) or to ports of nodes
//! (instance groups, which are not here). Which Ingresses are taken follows `pkg/utils/utils.go` (`IsGCEIngress`), what they become
//! `pkg/controller/translator`, and what an Ingress with a mistake is answered `pkg/controller/controller.go`: an event, and nothing of
//! it is handed to Google, so that a load balancer that was there before the mistake goes on as it was. Each Ingress is a load balancer
//! with an address of its own; here all of them share one, so what two say of the same host comes together, and of one with a mistake
//! only those hosts go on that no other Ingress has. What takes every host, a default backend for instance, does not.
//!
//! Left out: instance groups, TLS to backends, health checks other than the pods' readiness, FrontendConfigs, the other kinds of load
//! balancers (`gce-internal`, `gce-regional-external`, `gce-multi-cluster`), the names of Google's objects in annotations.

mod backends;
mod ingresses;

use std::collections::BTreeSet;

use crate::envoy::model::{Action, Config, HeaderOps, PathMatch, Route, Tls, VirtualHost};
use crate::envoy::{self, Envoy};
use crate::flags::Flags;
use crate::objects::{ENDPOINT_SLICES, INGRESSES, Kind, Object, Objects, SECRETS, SERVICES, annotation, text};
use crate::run::{Controller, Held, Translation, run};
use crate::services;
use crate::status::{Complaint, StatusUpdate};
use backends::Backends;
use ingresses::{LoadBalancer, Problem, Project};

const BACKEND_CONFIGS: Kind = Kind::new("cloud.google.com", "v1", "BackendConfig", "backendconfigs");

/// Where Envoy listens. The load balancer's own ports are 80 and 443, which the Service in front of it has.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;

/// What Google's proxies answer in the place of a backend that fails, whatever it failed at: in their logs that is
/// `failed_to_pick_backend`, `failed_to_connect_to_backend` or `backend_timeout`, each with this status.
const FAILURE: u16 = 502;

/// What the default backend of a cluster answers, to which everything goes that no rule and no other default takes.
const NOT_FOUND: &str = "response 404 (backend NotFound), service rules for the path non-existent";

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let health_port = flags.number("healthz-port", 8086);
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "kube-system".to_owned());
    // All instances share it: which of their addresses an Ingress has is then at least one and the same.
    let lease = (namespace.clone(), flags.or("lock-object-name", "ingress-gce-lock").to_owned());
    let service = std::env::var("FORWARDING_RULE_SERVICE").unwrap_or_default();
    let names = |variable| {
        let names = std::env::var(variable).unwrap_or_default();
        names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let project = Project {
        addresses: names("RESERVED_ADDRESSES"),
        certificates: names("KEPT_CERTIFICATES"),
        certificate: google_certificate()?,
    };
    let gce = Gce { flags, forwarding_rule: (namespace, service), project };
    run("loadbalancer-controller", gce, Envoy::new()?, health_port, Some(lease)).await
}

/// A certificate in the place of those that Google keeps: the cluster knows no more of them than the name.
fn google_certificate() -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["google-managed.test".to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

struct Gce {
    flags: Flags,
    /// Namespace and name of the Service whose address stands for that of the load balancer.
    forwarding_rule: (String, String),
    project: Project,
}

impl Gce {
    /// The annotation decides. Without one an Ingress is taken when it has no `ingressClassName` either: no class of that kind is
    /// this controller's.
    fn is_ours(&self, ingress: &Object) -> bool {
        let class = annotation(ingress, "kubernetes.io/ingress.class").unwrap_or_default();
        match self.flags.get("ingress-class") {
            Some(ours) if ours == class => true,
            _ if class.is_empty() => text(&ingress.data, "/spec/ingressClassName").is_empty(),
            _ => class == "gce",
        }
    }
}

impl Controller for Gce {
    fn kinds(&self) -> Vec<Kind> {
        vec![BACKEND_CONFIGS, ENDPOINT_SLICES, INGRESSES, SECRETS, SERVICES]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        // Google knows no `x-request-id`, so that a client's goes through, and does not say what a port after a host is to its rules.
        let mut config = Config {
            http_port: HTTP_PORT,
            https_port: HTTPS_PORT,
            failure_status: Some(FAILURE),
            keep_request_id: true,
            any_host_port: true,
            ..Config::default()
        };
        let mut backends = Backends::new(objects);
        let mut complaints = BTreeSet::new();
        let (mut statuses, mut held) = (Vec::new(), Vec::new());
        let (namespace, service) = &self.forwarding_rule;
        let status = services::ingress_status(&services::published(objects, namespace, service));
        for ingress in objects.all(INGRESSES).filter(|object| self.is_ours(object)) {
            let mut complain = |problem: Problem| {
                let (reason, message) = problem.event();
                complaints.insert(Complaint::new(INGRESSES, ingress, reason, message));
            };
            match LoadBalancer::of(ingress, &mut backends, &self.project) {
                Ok((load_balancer, warnings)) => {
                    warnings.into_iter().for_each(&mut complain);
                    load_balancer.add_to(&mut config);
                    statuses.extend(StatusUpdate::unless_there(INGRESSES, ingress, status.clone()));
                }
                Err(problem) => {
                    complain(problem);
                    held.push(kept(ingress));
                }
            }
        }
        config.hosts.entry("*".to_owned()).or_default();
        config.hosts.values_mut().for_each(finish);
        for tls in config.tls.values_mut() {
            if let Tls::Terminated { host, .. } = tls {
                finish(host);
            }
        }
        if !held.is_empty() {
            backends.add_all();
        }
        config.clusters = backends.clusters;
        Translation { files: envoy::files(&config), statuses, complaints, held }
    }
}

/// The load balancer of an Ingress with a mistake is what it was.
fn kept(ingress: &Object) -> Held {
    let origin = ingresses::origin(ingress);
    Held::new(format!("the load balancer of Ingress {origin} is left as it is"), move |files, former| {
        Some(match former {
            Some(former) => envoy::keep_hosts(&origin, files, former),
            None => files,
        })
    })
}

/// The longest path first, and the cluster's default backend last.
fn finish(host: &mut VirtualHost) {
    let everything = PathMatch::Prefix("/".to_owned());
    if !host.routes.iter().any(|route| route.path == everything) {
        host.routes.push(Route {
            path: everything,
            headers: Vec::new(),
            percent: None,
            action: Action::Respond(404, NOT_FOUND.to_owned()),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
        });
    }
    host.sort();
}

#[cfg(test)]
mod tests;
