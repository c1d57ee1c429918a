//! The objects by name, and the few relations between them that answers follow.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Key, Kind, Object,
    index::Topic,
    objects::{
        Authentication, Authorization, EgressNetwork, EndpointSlice, Node, Pod, RateLimit, Referent, Route, Server,
        Service, ServiceProfile, TrafficSplit,
    },
};

/// All objects. Reads are what answers are computed from; writes tell which topics they change.
#[derive(Debug, Default)]
pub(crate) struct State {
    services: HashMap<Key, Service>,
    slices: HashMap<Key, EndpointSlice>,
    // ExternalWorkloads as well.
    pods: HashMap<(Kind, Key), Pod>,
    nodes: HashMap<Key, Node>,
    profiles: HashMap<Key, ServiceProfile>,
    splits: HashMap<Key, TrafficSplit>,
    routes: HashMap<(Kind, Key), Route>,
    // Sorted: of several Servers of a port the first counts, and authorizations are told in one order.
    servers: BTreeMap<Key, Server>,
    authorizations: BTreeMap<(Kind, Key), Authorization>,
    authentications: HashMap<(Kind, Key), Authentication>,
    rate_limits: HashMap<Key, RateLimit>,
    egress_networks: BTreeMap<Key, EgressNetwork>,
    // Those of the pods that are none, and the slices that are made of them.
    external_workloads: BTreeSet<Key>,
    written_slices: BTreeSet<Key>,

    services_by_ip: Relation<IpAddr, Key>,
    pods_by_ip: Relation<IpAddr, (Kind, Key)>,
    pods_by_host_port: Relation<SocketAddr, (Kind, Key)>,
    slices_by_service: Relation<Key, Key>,
    services_by_pod: Relation<(Kind, Key), (Key, Key)>,
    splits_by_apex: Relation<Key, Key>,
    routes_by_parent: Relation<Referent, (Kind, Key)>,
    routes_by_server: Relation<Key, (Kind, Key)>,
    routes_by_backend: Relation<Referent, (Kind, Key)>,
}

impl State {
    pub(crate) fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    /// The Service whose cluster IP this is.
    pub(crate) fn service_by_ip(&self, ip: IpAddr) -> Option<&Service> {
        self.services_by_ip.get(&ip).next().and_then(|key| self.services.get(key))
    }

    pub(crate) fn pod(&self, id: &(Kind, Key)) -> Option<&Pod> {
        self.pods.get(id)
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&Key::new("", name))
    }

    /// The pod that has this address alone.
    pub(crate) fn pod_by_ip(&self, ip: IpAddr) -> Option<&Pod> {
        self.pods_by_ip.get(&ip).next().and_then(|key| self.pods.get(key))
    }

    /// The pod that has this address of a node as a `hostPort`, and where in the pod that leads.
    pub(crate) fn pod_by_host_port(&self, address: SocketAddr) -> Option<(&Pod, SocketAddr)> {
        let pod = self.pods_by_host_port.get(&address).next().and_then(|key| self.pods.get(key))?;
        let (_, target) = pod.host_ports.iter().find(|(host, _)| *host == address)?;
        Some((pod, *target))
    }

    /// Why nobody can say whose an address is: several objects have it.
    pub(crate) fn conflict(&self, address: SocketAddr) -> Option<String> {
        let ip = address.ip();
        let several = |what: &str, keys: &mut dyn Iterator<Item = &Key>| {
            let keys: Vec<_> = keys.map(Key::to_string).collect();
            (keys.len() > 1).then(|| format!("expected one {what}, found {}; leave it to one of them", keys.join(", ")))
        };
        several(&format!("Service with the cluster IP {ip}"), &mut self.services_by_ip.get(&ip))
            .or_else(|| {
                let pods = self.pods_by_ip.get(&ip);
                several(&format!("pod with the address {ip}"), &mut pods.map(|(_, key)| key))
            })
            .or_else(|| {
                let pods = self.pods_by_host_port.get(&address);
                several(&format!("pod with the host port {address}"), &mut pods.map(|(_, key)| key))
            })
    }

    /// The EndpointSlices of a Service.
    pub(crate) fn slices(&self, service: &Key) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_by_service.get(service).filter_map(|key| self.slices.get(key))
    }

    /// Every Service.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Every ExternalWorkload, by namespace and name.
    pub(crate) fn external_workloads(&self) -> impl Iterator<Item = &Pod> {
        self.external_workloads.iter().filter_map(|key| self.pods.get(&(Kind::ExternalWorkload, key.clone())))
    }

    /// The EndpointSlices that are made of them, by namespace and name.
    pub(crate) fn written_slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.written_slices.iter().filter_map(|key| self.slices.get(key))
    }

    /// The ServiceProfile of a name in a namespace.
    pub(crate) fn profile(&self, namespace: &str, fqdn: &str) -> Option<&ServiceProfile> {
        self.profiles.get(&Key::new(namespace, fqdn))
    }

    /// The TrafficSplit of a Service: of several, the first by name, so that every proxy gets the same.
    pub(crate) fn split(&self, apex: &Key) -> Option<&TrafficSplit> {
        self.splits_by_apex.get(apex).next().and_then(|key| self.splits.get(key))
    }

    /// The routes of requests to a port of a Service or an EgressNetwork from a namespace, in the order in which they take precedence.
    pub(crate) fn routes(&self, parent: &Referent, port: u16, client_namespace: Option<&str>) -> Vec<&Route> {
        let routes = self.routes_by_parent.get(parent).filter_map(|key| self.routes.get(key));
        by_precedence(routes.filter(|route| {
            route.parents_at(parent, port, client_namespace).any(|parent| !self.has_conflict(route, parent))
        }))
    }

    /// Whether a route counts for nothing for one of its parents, since one of a type that tells more of a connection names the same.
    ///
    /// As in Linkerd's policy controller (`policy-controller/k8s/status/src/index.rs`), the same port has to be named for that, or none by both.
    pub(crate) fn has_conflict(&self, route: &Route, parent: &(Referent, Option<u16>)) -> bool {
        let mut routes = self.routes_by_parent.get(&parent.0).filter_map(|key| self.routes.get(key));
        routes.any(|other| {
            other.route_type() < route.route_type() && !other.is_unusable() && other.parents.contains(parent)
        })
    }

    /// The routes that are for arrivals at a Server, likewise.
    pub(crate) fn routes_of_server(&self, server: &Key) -> Vec<&Route> {
        by_precedence(self.routes_by_server.get(server).filter_map(|key| self.routes.get(key)))
    }

    /// Every route.
    pub(crate) fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// The Servers of a namespace.
    pub(crate) fn servers<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Server> {
        let servers = self.servers.range(Key::new(namespace, "")..);
        servers.take_while(move |(key, _)| *key.namespace == *namespace).map(|(_, server)| server)
    }

    pub(crate) fn has_server(&self, server: &Key) -> bool {
        self.servers.contains_key(server)
    }

    /// Every ServerAuthorization and AuthorizationPolicy.
    pub(crate) fn authorizations(&self) -> impl Iterator<Item = &Authorization> {
        self.authorizations.values()
    }

    pub(crate) fn authentication(&self, kind: Kind, key: &Key) -> Option<&Authentication> {
        self.authentications.get(&(kind, key.clone()))
    }

    /// The HTTPLocalRateLimitPolicy of a Server: of several the one that takes precedence.
    pub(crate) fn rate_limit(&self, server: &Key) -> Option<&RateLimit> {
        let limits = self.rate_limits.values().filter(|limit| limit.server.as_ref() == Some(server));
        limits.min_by_key(|limit| limit.precedence())
    }

    pub(crate) fn egress_network(&self, key: &Key) -> Option<&EgressNetwork> {
        self.egress_networks.get(key)
    }

    /// Every EgressNetwork.
    pub(crate) fn egress_networks(&self) -> impl Iterator<Item = &EgressNetwork> {
        self.egress_networks.values()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::Pod => self.pods.len() - self.external_workloads.len(),
            Kind::ExternalWorkload => self.external_workloads.len(),
            Kind::Node => self.nodes.len(),
            Kind::ServiceProfile => self.profiles.len(),
            Kind::TrafficSplit => self.splits.len(),
            Kind::PolicyHttpRoute
            | Kind::GatewayHttpRoute
            | Kind::GatewayGrpcRoute
            | Kind::GatewayTlsRoute
            | Kind::GatewayTcpRoute => self.routes.keys().filter(|(own, _)| *own == kind).count(),
            Kind::Server => self.servers.len(),
            Kind::ServerAuthorization | Kind::AuthorizationPolicy => {
                self.authorizations.keys().filter(|(own, _)| *own == kind).count()
            }
            Kind::MeshTlsAuthentication | Kind::NetworkAuthentication => {
                self.authentications.keys().filter(|(own, _)| *own == kind).count()
            }
            Kind::HttpLocalRateLimitPolicy => self.rate_limits.len(),
            Kind::EgressNetwork => self.egress_networks.len(),
        }
    }

    pub(crate) fn keys(&self, kind: Kind) -> Vec<Key> {
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Pod | Kind::ExternalWorkload => {
                self.pods.keys().filter(|(own, _)| *own == kind).map(|(_, key)| key.clone()).collect()
            }
            Kind::Node => self.nodes.keys().cloned().collect(),
            Kind::ServiceProfile => self.profiles.keys().cloned().collect(),
            Kind::TrafficSplit => self.splits.keys().cloned().collect(),
            Kind::PolicyHttpRoute
            | Kind::GatewayHttpRoute
            | Kind::GatewayGrpcRoute
            | Kind::GatewayTlsRoute
            | Kind::GatewayTcpRoute => {
                self.routes.keys().filter(|(own, _)| *own == kind).map(|(_, key)| key.clone()).collect()
            }
            Kind::Server => self.servers.keys().cloned().collect(),
            Kind::ServerAuthorization | Kind::AuthorizationPolicy => {
                self.authorizations.keys().filter(|(own, _)| *own == kind).map(|(_, key)| key.clone()).collect()
            }
            Kind::MeshTlsAuthentication | Kind::NetworkAuthentication => {
                self.authentications.keys().filter(|(own, _)| *own == kind).map(|(_, key)| key.clone()).collect()
            }
            Kind::HttpLocalRateLimitPolicy => self.rate_limits.keys().cloned().collect(),
            Kind::EgressNetwork => self.egress_networks.keys().cloned().collect(),
        }
    }

    /// Adds or replaces an object; the topics that changed, none if the object is what it was.
    pub(crate) fn apply(&mut self, object: Object) -> Vec<Topic> {
        if self.holds(&object) {
            return Vec::new();
        }
        let mut topics = self.delete(object.kind(), &object.key().clone());
        self.insert(object, &mut topics);
        topics
    }

    fn holds(&self, object: &Object) -> bool {
        let key = object.key();
        match object {
            Object::Service(new) => self.services.get(key) == Some(new),
            Object::EndpointSlice(new) => self.slices.get(key) == Some(new),
            Object::Pod(new) => self.pods.get(&new.id()) == Some(new),
            Object::Node(new) => self.nodes.get(key) == Some(new),
            Object::ServiceProfile(new) => self.profiles.get(key) == Some(new),
            Object::TrafficSplit(new) => self.splits.get(key) == Some(new),
            Object::Route(new) => self.routes.get(&(new.kind, key.clone())) == Some(new),
            Object::Server(new) => self.servers.get(key) == Some(new),
            Object::Authorization(new) => self.authorizations.get(&(new.kind, key.clone())) == Some(new),
            Object::Authentication(new) => self.authentications.get(&(new.kind, key.clone())) == Some(new),
            Object::RateLimit(new) => self.rate_limits.get(key) == Some(new),
            Object::EgressNetwork(new) => self.egress_networks.get(key) == Some(new),
        }
    }

    fn insert(&mut self, object: Object, topics: &mut Vec<Topic>) {
        match object {
            Object::Service(service) => {
                for ip in &service.cluster_ips {
                    self.services_by_ip.insert(*ip, service.key.clone());
                }
                topics.extend(service.selection.as_ref().map(|_| Topic::Slices));
                let key = service.key.clone();
                self.services.insert(key.clone(), service);
                self.service_topics(&key, topics);
            }
            Object::EndpointSlice(slice) => {
                self.slices_by_service.insert(slice.service.clone(), slice.key.clone());
                for pod in slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref()) {
                    self.services_by_pod.insert(pod.clone(), (slice.service.clone(), slice.key.clone()));
                }
                topics.push(Topic::Service(slice.service.clone()));
                if slice.written.is_some() {
                    self.written_slices.insert(slice.key.clone());
                    topics.push(Topic::Slices);
                }
                self.slices.insert(slice.key.clone(), slice);
            }
            Object::Pod(pod) => {
                for ip in &pod.ips {
                    self.pods_by_ip.insert(*ip, pod.id());
                }
                for (host, _) in &pod.host_ports {
                    self.pods_by_host_port.insert(*host, pod.id());
                }
                self.pod_topics(&pod, topics);
                if pod.kind == Kind::ExternalWorkload {
                    self.external_workloads.insert(pod.key.clone());
                    topics.push(Topic::Slices);
                }
                self.pods.insert(pod.id(), pod);
            }
            Object::Node(node) => {
                topics.push(Topic::Node(node.key.name.clone()));
                self.nodes.insert(node.key.clone(), node);
            }
            Object::ServiceProfile(profile) => {
                self.profile_topics(&profile.key, topics);
                self.profiles.insert(profile.key.clone(), profile);
            }
            Object::TrafficSplit(split) => {
                self.splits_by_apex.insert(split.apex.clone(), split.key.clone());
                self.service_topics(&split.apex, topics);
                self.splits.insert(split.key.clone(), split);
            }
            Object::Route(route) => {
                let key = (route.kind, route.key.clone());
                for (parent, _) in &route.parents {
                    self.routes_by_parent.insert(parent.clone(), key.clone());
                    self.referent_topics(parent, topics);
                }
                for server in &route.servers {
                    self.routes_by_server.insert(server.clone(), key.clone());
                }
                for backend in route.backends() {
                    self.routes_by_backend.insert(backend.clone(), key.clone());
                }
                if !route.servers.is_empty() {
                    self.pods_of(&route.key.namespace, topics);
                }
                topics.push(Topic::Statuses);
                self.routes.insert(key, route);
            }
            Object::Server(server) => {
                self.server_topics(&server, topics);
                self.servers.insert(server.key.clone(), server);
            }
            Object::Authorization(authorization) => {
                self.pods_of(&authorization.key.namespace, topics);
                self.authorizations.insert((authorization.kind, authorization.key.clone()), authorization);
            }
            Object::Authentication(authentication) => {
                self.authentications.insert((authentication.kind, authentication.key.clone()), authentication);
                self.every_pod(topics);
            }
            Object::RateLimit(limit) => {
                self.pods_of(&limit.key.namespace, topics);
                self.rate_limits.insert(limit.key.clone(), limit);
            }
            Object::EgressNetwork(network) => {
                self.referent_topics(&Referent::EgressNetwork(network.key.clone()), topics);
                topics.push(Topic::Statuses);
                self.egress_networks.insert(network.key.clone(), network);
            }
        }
    }

    /// Removes an object; the topics that changed, none if there was none.
    pub(crate) fn delete(&mut self, kind: Kind, key: &Key) -> Vec<Topic> {
        let mut topics = Vec::new();
        match kind {
            Kind::Service => {
                self.service_topics(key, &mut topics);
                let Some(service) = self.services.remove(key) else { return Vec::new() };
                topics.extend(service.selection.as_ref().map(|_| Topic::Slices));
                for ip in &service.cluster_ips {
                    self.services_by_ip.remove(ip, key);
                }
            }
            Kind::EndpointSlice => {
                let Some(slice) = self.slices.remove(key) else { return Vec::new() };
                self.slices_by_service.remove(&slice.service, key);
                let reference = (slice.service.clone(), slice.key.clone());
                for pod in slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref()) {
                    self.services_by_pod.remove(pod, &reference);
                }
                if self.written_slices.remove(key) {
                    topics.push(Topic::Slices);
                }
                topics.push(Topic::Service(slice.service));
            }
            Kind::Pod | Kind::ExternalWorkload => {
                let id = (kind, key.clone());
                let Some(pod) = self.pods.remove(&id) else { return Vec::new() };
                for ip in &pod.ips {
                    self.pods_by_ip.remove(ip, &id);
                }
                for (host, _) in &pod.host_ports {
                    self.pods_by_host_port.remove(host, &id);
                }
                self.pod_topics(&pod, &mut topics);
                if kind == Kind::ExternalWorkload {
                    self.external_workloads.remove(key);
                    topics.push(Topic::Slices);
                }
            }
            Kind::Node => {
                if self.nodes.remove(key).is_some() {
                    topics.push(Topic::Node(key.name.clone()));
                }
            }
            Kind::ServiceProfile => {
                if self.profiles.remove(key).is_some() {
                    self.profile_topics(key, &mut topics);
                }
            }
            Kind::TrafficSplit => {
                let Some(split) = self.splits.remove(key) else { return Vec::new() };
                self.splits_by_apex.remove(&split.apex, key);
                self.service_topics(&split.apex, &mut topics);
            }
            Kind::PolicyHttpRoute
            | Kind::GatewayHttpRoute
            | Kind::GatewayGrpcRoute
            | Kind::GatewayTlsRoute
            | Kind::GatewayTcpRoute => {
                let Some(route) = self.routes.remove(&(kind, key.clone())) else { return Vec::new() };
                topics.push(Topic::Statuses);
                for (parent, _) in &route.parents {
                    self.routes_by_parent.remove(parent, &(kind, key.clone()));
                    self.referent_topics(parent, &mut topics);
                }
                for server in &route.servers {
                    self.routes_by_server.remove(server, &(kind, key.clone()));
                }
                for backend in route.backends() {
                    self.routes_by_backend.remove(backend, &(kind, key.clone()));
                }
                if !route.servers.is_empty() {
                    self.pods_of(&key.namespace, &mut topics);
                }
            }
            Kind::Server => {
                let Some(server) = self.servers.remove(key) else { return Vec::new() };
                self.server_topics(&server, &mut topics);
            }
            Kind::ServerAuthorization | Kind::AuthorizationPolicy => {
                if self.authorizations.remove(&(kind, key.clone())).is_some() {
                    self.pods_of(&key.namespace, &mut topics);
                }
            }
            Kind::MeshTlsAuthentication | Kind::NetworkAuthentication => {
                if self.authentications.remove(&(kind, key.clone())).is_some() {
                    self.every_pod(&mut topics);
                }
            }
            Kind::HttpLocalRateLimitPolicy => {
                if self.rate_limits.remove(key).is_some() {
                    self.pods_of(&key.namespace, &mut topics);
                }
            }
            Kind::EgressNetwork => {
                if self.egress_networks.remove(key).is_some() {
                    self.referent_topics(&Referent::EgressNetwork(key.clone()), &mut topics);
                    topics.push(Topic::Statuses);
                }
            }
        }
        topics
    }

    /// What a Server says is told to its pods, and that they speak no HTTP to those who send there; that it is there, to its routes.
    fn server_topics(&self, server: &Server, topics: &mut Vec<Topic>) {
        if self.routes_by_server.contains(&server.key) {
            topics.push(Topic::Statuses);
        }
        let mut changed = Vec::new();
        for pod in self.pods.values().filter(|pod| server.selects(pod)) {
            self.pod_topics(pod, &mut changed);
        }
        // Its pods may be thousands of endpoints of one Service, of which everybody is to be woken once.
        topics.extend(HashSet::<Topic>::from_iter(changed));
    }

    /// Authorizations, routes and limits are about Servers of their own namespace. They change seldom, so that it need not be known
    /// about whose ports: answers that stay are not sent again.
    fn pods_of(&self, namespace: &str, topics: &mut Vec<Topic>) {
        topics.extend(self.pods.keys().filter(|(_, pod)| *pod.namespace == *namespace).cloned().map(Topic::Pod));
    }

    /// Authentications are referred to from any namespace.
    fn every_pod(&self, topics: &mut Vec<Topic>) {
        topics.extend(self.pods.keys().cloned().map(Topic::Pod));
    }

    fn service_topics(&self, key: &Key, topics: &mut Vec<Topic>) {
        self.referent_topics(&Referent::Service(key.clone()), topics);
    }

    /// A route's answer also depends on whether what it sends to exists, hence the parents.
    fn referent_topics(&self, referent: &Referent, topics: &mut Vec<Topic>) {
        self.own_topics(referent, topics);
        if self.routes_by_parent.contains(referent) || self.routes_by_backend.contains(referent) {
            topics.push(Topic::Statuses);
        }
        let routes = self.routes_by_backend.get(referent).filter_map(|route| self.routes.get(route));
        for (parent, _) in routes.flat_map(|route| &route.parents).filter(|(parent, _)| parent != referent) {
            self.own_topics(parent, topics);
        }
    }

    fn own_topics(&self, referent: &Referent, topics: &mut Vec<Topic>) {
        match referent {
            Referent::Service(key) => self.name_topics(key, topics),
            Referent::EgressNetwork(_) => topics.push(Topic::Addresses),
        }
    }

    /// A Service is asked about by name and by each of its addresses.
    fn name_topics(&self, key: &Key, topics: &mut Vec<Topic>) {
        topics.push(Topic::Service(key.clone()));
        topics.extend(
            self.services.get(key).into_iter().flat_map(|service| &service.cluster_ips).map(|ip| Topic::Address(*ip)),
        );
    }

    fn pod_topics(&self, pod: &Pod, topics: &mut Vec<Topic>) {
        topics.push(Topic::Pod(pod.id()));
        let hosts = pod.host_ports.iter().map(|(host, _)| host.ip());
        topics.extend(pod.ips.iter().copied().chain(hosts).map(Topic::Address));
        topics.extend(self.services_by_pod.get(&pod.id()).map(|(service, _)| Topic::Service(service.clone())));
    }

    /// A profile is named after its Service, `web.default.svc.cluster.local`, in whatever namespace it is.
    fn profile_topics(&self, profile: &Key, topics: &mut Vec<Topic>) {
        let mut labels = profile.name.split('.');
        if let (Some(service), Some(namespace)) = (labels.next(), labels.next()) {
            self.service_topics(&Key::new(namespace, service), topics);
        }
    }
}

fn by_precedence<'a>(routes: impl Iterator<Item = &'a Route>) -> Vec<&'a Route> {
    let mut routes: Vec<_> = routes.collect();
    routes.sort_by_cached_key(|route| route.precedence());
    routes
}

/// A relation of one to many, sorted so that "the first" is the same at every look.
///
/// Most are of one to one: a vector of exact size costs a tenth of a set there, and there are several for every pod.
#[derive(Debug)]
struct Relation<A, B>(HashMap<A, Vec<B>>);

impl<A, B> Default for Relation<A, B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<A: Eq + Hash, B: Ord> Relation<A, B> {
    fn insert(&mut self, from: A, to: B) {
        let related = self.0.entry(from).or_default();
        if let Err(place) = related.binary_search(&to) {
            related.reserve_exact(1);
            related.insert(place, to);
        }
    }

    fn remove(&mut self, from: &A, to: &B) {
        let Some(related) = self.0.get_mut(from) else { return };
        if let Ok(place) = related.binary_search(to) {
            related.remove(place);
            related.shrink_to_fit();
        }
        if related.is_empty() {
            self.0.remove(from);
        }
    }

    fn contains(&self, from: &A) -> bool {
        self.0.contains_key(from)
    }

    fn get(&self, from: &A) -> impl Iterator<Item = &B> {
        self.0.get(from).into_iter().flatten()
    }
}
