//! The two containers the injector adds, from what the pod says about itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{Mode, Options, annotations, identity, image::Image};

/// The init container that redirects the pod's connections to the proxy.
pub const INIT_CONTAINER: &str = "linkerd-init";

/// The proxy's container.
pub const PROXY_CONTAINER: &str = "linkerd-proxy";

/// Ports that servers which speak first are known by: Linkerd's list of protocols without HTTP (SMTP, MySQL, Galera,
/// PostgreSQL, Redis, Elasticsearch, Memcached).
pub const DEFAULT_OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// The mark on every socket the proxy dials with. Redirection exempts it.
pub const SOCKET_MARK: &str = "0x2102";

/// Linkerd's program that waits until the proxy is ready.
const AWAIT: &str = "/usr/lib/linkerd/linkerd-await";

const PROXY_UID: u32 = 2102;
const INBOUND_PORT: u16 = 4143;
const OUTBOUND_PORT: u16 = 4140;
const CONTROL_PORT: u16 = 4190;
const ADMIN_PORT: u16 = 4191;

// The proxy's own ports; 4567 and 4568 are Galera's cluster traffic, which Linkerd's chart leaves out by default.
const IGNORED_INBOUND_PORTS: &str = "4190,4191,4567,4568";
const IGNORED_OUTBOUND_PORTS: &str = "4567,4568";

/// What the injector needs to know about a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodFacts {
    annotations: Map<String, Value>,
    named_ports: Vec<(String, u16)>,
    /// TCP ports the containers declare.
    pub(crate) ports: BTreeSet<u16>,
    /// Whether a container declares a UDP port.
    pub(crate) udp: bool,
    /// The name of the first container of the application.
    pub(crate) first_container: String,
}

impl PodFacts {
    /// Reads a pod template; `None` if it has no container of its own.
    pub(crate) fn read(template: &Value) -> Option<Self> {
        let containers = template.get("spec")?.get("containers")?.as_array()?;
        let mut own = containers.iter().filter(|container| name_of(container) != PROXY_CONTAINER).peekable();
        let mut facts = Self {
            annotations: template
                .pointer("/metadata/annotations")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            first_container: name_of(own.peek()?).to_owned(),
            ..Self::default()
        };
        // A sidecar among the init containers serves ports as a container does.
        let sidecars = template.pointer("/spec/initContainers").and_then(Value::as_array).into_iter().flatten();
        let sidecars = sidecars.filter(|container| {
            container.get("restartPolicy") == Some(&json!("Always")) && name_of(container) != PROXY_CONTAINER
        });
        for port in own.chain(sidecars).filter_map(|container| container.get("ports")?.as_array()).flatten() {
            facts.add_port(port);
        }
        Some(facts)
    }

    fn add_port(&mut self, port: &Value) {
        let Some(number) = port.get("containerPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
        else {
            return;
        };
        match port.get("protocol").and_then(Value::as_str).unwrap_or("TCP") {
            "TCP" => {
                self.ports.insert(number);
                if let Some(name) = port.get("name").and_then(Value::as_str) {
                    self.named_ports.push((name.to_owned(), number));
                }
            }
            "UDP" => self.udp = true,
            _ => {}
        }
    }

    /// The value of an annotation of the pod, if it is there and not empty.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key)?.as_str().map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether the proxy is to be an init container.
    pub(crate) fn native_sidecar(&self, options: &Options) -> bool {
        let said = annotations::NATIVE_SIDECAR.into_iter().find_map(|key| self.annotation(key)?.parse().ok());
        said.unwrap_or(options.native_sidecar)
    }

    fn annotation_or<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.annotation(key).unwrap_or(default)
    }

    /// The opaque ports as numbers and ranges, and the port names nobody declares.
    pub(crate) fn opaque_ports(&self) -> (String, Vec<String>) {
        let Some(wanted) = self.annotation(annotations::OPAQUE_PORTS) else {
            return (join(DEFAULT_OPAQUE_PORTS), Vec::new());
        };
        let mut ports = Vec::new();
        let mut unknown = Vec::new();
        for item in wanted.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item.chars().all(|c| c.is_ascii_digit() || c == '-') {
                ports.push(item.to_owned());
                continue;
            }
            match self.named_ports.iter().find(|(name, _)| name == item) {
                Some((_, number)) => ports.push(number.to_string()),
                None => unknown.push(item.to_owned()),
            }
        }
        (ports.join(","), unknown)
    }
}

fn name_of(container: &Value) -> &str {
    container.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn join(ports: impl IntoIterator<Item = u16>) -> String {
    ports.into_iter().map(|port| port.to_string()).collect::<Vec<_>>().join(",")
}

/// `linkerd-init`: redirects inbound connections to 4143 and outbound ones to 4140, but for the ports to ignore and for
/// what the proxy itself sends. The arguments are those of Linkerd's `proxy-init`.
pub(crate) fn init_container(facts: &PodFacts, options: &Options) -> Value {
    let ignored = |always: &str, annotation: &str| match facts.annotation(annotation) {
        Some(ports) => format!("{always},{}", ports.replace(' ', "")),
        None => always.to_owned(),
    };
    let image = Image::of_init(facts, options);
    let first: &[&str] = match image.own {
        true => &["proxy-init"],
        // Otherwise it would be the older kind of iptables, which the chart has not asked for since 2.19 and newer kernels lack.
        false => &["--firewall-bin-path", "iptables-nft", "--firewall-save-bin-path", "iptables-nft-save"],
    };
    let flags = [
        ("--incoming-proxy-port", INBOUND_PORT.to_string()),
        ("--outgoing-proxy-port", OUTBOUND_PORT.to_string()),
        ("--proxy-uid", PROXY_UID.to_string()),
        ("--inbound-ports-to-ignore", ignored(IGNORED_INBOUND_PORTS, annotations::SKIP_INBOUND_PORTS)),
        ("--outbound-ports-to-ignore", ignored(IGNORED_OUTBOUND_PORTS, annotations::SKIP_OUTBOUND_PORTS)),
    ];
    let flags = flags.iter().flat_map(|(flag, value)| [*flag, value]);
    let args: Vec<&str> = first.iter().copied().chain(flags).collect();
    json!({
        "name": INIT_CONTAINER,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

/// `linkerd-proxy`, configured by environment only.
pub(crate) fn proxy_container(facts: &PodFacts, mode: Mode, opaque_ports: &str, options: &Options) -> Value {
    let probe =
        |path: &str, delay: u32| json!({"httpGet": {"path": path, "port": ADMIN_PORT}, "initialDelaySeconds": delay});
    let mut readiness = probe("/ready", 0);
    // The pod is ready no sooner than its proxy is, and everything that waits for a rollout waits for this.
    readiness["periodSeconds"] = json!(1);
    let image = Image::of_proxy(facts, options);
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(facts, mode, opaque_ports, options),
        "ports": [
            {"name": "linkerd-proxy", "containerPort": INBOUND_PORT},
            {"name": "linkerd-admin", "containerPort": ADMIN_PORT},
        ],
        "livenessProbe": probe("/live", 10),
        "readinessProbe": readiness,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": PROXY_UID,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if image.own {
        container["args"] = json!(["proxy"]);
    }
    let resources = resources(facts);
    if !resources.is_empty() {
        container["resources"] = Value::Object(resources);
    }
    if facts.native_sidecar(options) {
        container["restartPolicy"] = json!("Always");
        // Whatever comes after it waits for this. Linkerd's waits two minutes for its control plane.
        container["startupProbe"] =
            json!({"httpGet": {"path": "/ready", "port": ADMIN_PORT}, "periodSeconds": 1, "failureThreshold": 120});
    } else if !image.own && facts.annotation(annotations::PROXY_AWAIT) != Some("disabled") {
        // The kubelet starts the next container when this has ended. Meshgate's own image has no such program.
        let command = json!([AWAIT, "--timeout=2m", format!("--port={ADMIN_PORT}")]);
        container["lifecycle"] = json!({"postStart": {"exec": {"command": command}}});
    }
    if let Some(identity) = &options.identity {
        container["volumeMounts"] = identity.volumes().into_iter().map(|(_, mount)| mount).collect();
    }
    container
}

fn resources(facts: &PodFacts) -> Map<String, Value> {
    let mut resources = Map::new();
    for (list, resource, annotation) in [
        ("requests", "cpu", annotations::PROXY_CPU_REQUEST),
        ("requests", "memory", annotations::PROXY_MEMORY_REQUEST),
        ("limits", "cpu", annotations::PROXY_CPU_LIMIT),
        ("limits", "memory", annotations::PROXY_MEMORY_LIMIT),
    ] {
        if let Some(quantity) = facts.annotation(annotation) {
            resources.entry(list).or_insert_with(|| json!({}))[resource] = json!(quantity);
        }
    }
    resources
}

/// The environment, in the order a reader looks for it: who the pod is, where the control plane is, what to listen on,
/// how to treat connections. The `_pod_*` variables come first because `$(...)` refers back only.
fn environment(facts: &PodFacts, mode: Mode, opaque_ports: &str, options: &Options) -> Vec<Value> {
    let Options { control_plane_namespace, cluster_domain, .. } = options;
    let networks = options.cluster_networks.join(",");
    let service = |name: &str, port: u16| format!("{name}.{control_plane_namespace}.svc.{cluster_domain}.:{port}");
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        field("_pod_name", "metadata.name"),
        field("_pod_ns", "metadata.namespace"),
        field("_pod_nodeName", "spec.nodeName"),
        field("_pod_ips", "status.podIPs"),
    ];
    if options.identity.is_some() {
        env.push(field("_pod_sa", "spec.serviceAccountName"));
    }
    let mut set = |name: &str, value: &str| env.push(json!({"name": name, "value": value}));
    set("LINKERD2_PROXY_LOG", facts.annotation_or(annotations::PROXY_LOG_LEVEL, &options.log_level));
    set("LINKERD2_PROXY_LOG_FORMAT", facts.annotation_or(annotations::PROXY_LOG_FORMAT, "plain"));

    set("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &service("linkerd-dst", 8086));
    set("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", &networks);
    set("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", &format!("svc.{cluster_domain}."));
    set(
        "LINKERD2_PROXY_DESTINATION_CONTEXT",
        r#"{"ns":"$(_pod_ns)","nodeName":"$(_pod_nodeName)","pod":"$(_pod_name)"}"#,
    );
    set("LINKERD2_PROXY_POLICY_SVC_ADDR", &service("linkerd-policy", 8090));
    set("LINKERD2_PROXY_POLICY_WORKLOAD", "$(_pod_ns):$(_pod_name)");
    set("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", &networks);

    if let Some(identity) = &options.identity {
        let domain = format!("serviceaccount.identity.{control_plane_namespace}.{cluster_domain}");
        set("LINKERD2_PROXY_IDENTITY_SVC_ADDR", &service(identity::SERVICE, identity::PORT));
        // Who has to be at the control plane's addresses. The policy service runs in the pod of the destination service.
        let account = |name: &str| format!("{name}.{control_plane_namespace}.{domain}");
        set("LINKERD2_PROXY_IDENTITY_SVC_NAME", &account("linkerd-identity"));
        set("LINKERD2_PROXY_DESTINATION_SVC_NAME", &account("linkerd-destination"));
        set("LINKERD2_PROXY_POLICY_SVC_NAME", &account("linkerd-destination"));
        set("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", &format!("$(_pod_sa).$(_pod_ns).{domain}"));
        // Linkerd's image writes the proxy's key there before the proxy starts. Meshgate's proxy makes one in memory where there is none.
        set("LINKERD2_PROXY_IDENTITY_DIR", identity::END_ENTITY_DIR);
        set("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", &identity.token.file());
        set("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", &identity.trust_anchors);
        if let Some(refresh) = facts.annotation(annotations::IDENTITY_REFRESH) {
            set("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", refresh);
            set("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", refresh);
        }
        if let Some(lifetime) = facts.annotation(annotations::IDENTITY_LIFETIME) {
            set("MESHGATE_PROXY_IDENTITY_LIFETIME", lifetime);
        }
    } else {
        // Otherwise the proxy refuses to speak plaintext to the control plane.
        set("MESHGATE_PROXY_IDENTITY", "optional");
    }

    set("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", &format!("0.0.0.0:{CONTROL_PORT}"));
    set("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", &format!("0.0.0.0:{ADMIN_PORT}"));
    set("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", &format!("127.0.0.1:{OUTBOUND_PORT}"));
    set("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &format!("0.0.0.0:{INBOUND_PORT}"));
    set("LINKERD2_PROXY_INBOUND_IPS", "$(_pod_ips)");
    set("LINKERD2_PROXY_INBOUND_PORTS", &join(facts.ports.iter().copied()));

    set(
        "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
        facts.annotation_or(annotations::DEFAULT_INBOUND_POLICY, "all-unauthenticated"),
    );
    set("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", opaque_ports);
    // The values of Linkerd's Helm chart.
    set("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", facts.annotation_or(annotations::INBOUND_CONNECT_TIMEOUT, "100ms"));
    set(
        "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT",
        facts.annotation_or(annotations::OUTBOUND_CONNECT_TIMEOUT, "1000ms"),
    );
    if mode == Mode::Ingress {
        set("LINKERD2_PROXY_INGRESS_MODE", "true");
    }

    set("MESHGATE_PROXY_SOCKET_MARK", SOCKET_MARK);
    if let Some(dialect) = facts.annotation(annotations::DIALECT) {
        set("MESHGATE_PROXY_DIALECT", dialect);
    }
    if let Some(guard) = facts.annotation(annotations::LOOP_GUARD) {
        set("MESHGATE_PROXY_LOOP_GUARD", guard);
    }
    env
}
