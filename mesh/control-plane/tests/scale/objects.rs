//! A large cluster, as its API serves it.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// Services in all, and those of them that are large.
const SERVICES: usize = 1000;
const LARGE: usize = 10;

/// Endpoints of a large Service and of any other.
const MANY: usize = 208;
const FEW: usize = 8;

/// Endpoints in all.
pub const ENDPOINTS: usize = LARGE * MANY + (SERVICES - LARGE) * FEW;

/// Endpoints of a slice, at most.
const SLICE: usize = 10;

const NAMESPACES: usize = 10;

/// A thousand Services with ten thousand endpoints.
pub struct Large;

impl Large {
    pub fn services() -> impl Iterator<Item = LargeService> {
        let mut pods = 0;
        (0..SERVICES).map(move |number| {
            let size = if number < LARGE { MANY } else { FEW };
            let service = LargeService {
                namespace: format!("shop-{}", number % NAMESPACES),
                name: format!("recommendations-{number}"),
                first: pods,
                size,
            };
            pods += size;
            service
        })
    }

    /// Every slice, by the number that it has in its Service.
    pub fn slices() -> impl Iterator<Item = (LargeService, usize)> {
        Self::services()
            .flat_map(|service| (0..service.size.div_ceil(SLICE)).map(move |slice| (service.clone(), slice)))
    }

    /// Every pod, by the number that it has in its Service.
    pub fn pods() -> impl Iterator<Item = (LargeService, usize)> {
        Self::services().flat_map(|service| (0..service.size).map(move |pod| (service.clone(), pod)))
    }
}

/// One of its Services.
#[derive(Clone)]
pub struct LargeService {
    pub namespace: String,
    pub name: String,
    /// The number of its first pod in the cluster.
    first: usize,
    size: usize,
}

impl LargeService {
    /// What proxies ask for.
    pub fn path(&self) -> String {
        format!("{}.{}.svc.cluster.local:80", self.name, self.namespace)
    }

    pub fn object(&self) -> Value {
        service(&self.namespace, &self.name)
    }

    pub fn pod_name(&self, number: usize) -> String {
        format!("{}-7c9d8f6b5d-{number:05}", self.name)
    }

    fn ip(&self, number: usize) -> [u8; 4] {
        let [.., high, low] = (self.first + number).to_be_bytes();
        [10, 244, high, low]
    }

    /// As text: to make each from its parts would take most of the test's time.
    pub fn pod(&self, number: usize) -> String {
        static TEMPLATE: LazyLock<String> = LazyLock::new(|| {
            let mut pod = pod("@namespace", "@app", "@pod", "@ip");
            manage(&mut pod);
            pod.to_string()
        });
        let pod = TEMPLATE.replace("@namespace", &self.namespace).replace("@app", &self.name);
        pod.replace("@pod", &self.pod_name(number)).replace("@ip", &dotted(self.ip(number)))
    }

    pub fn slice(&self, number: usize) -> Value {
        let pods = number * SLICE..((number + 1) * SLICE).min(self.size);
        let endpoints = pods.map(|pod| slice_endpoint(self.ip(pod), &self.pod_name(pod), &self.namespace));
        slice(&self.namespace, &self.name, number, endpoints.collect())
    }

    /// The first slice with an endpoint more.
    pub fn slice_with(&self, ip: [u8; 4]) -> Value {
        let mut slice = self.slice(0);
        let more = slice_endpoint(ip, &self.pod_name(0), &self.namespace);
        slice["endpoints"].as_array_mut().unwrap().push(more);
        slice
    }
}

pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(name)},
        "spec": {
            "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"},
            ],
        },
    })
}

/// The Server of an application's port.
pub fn server(namespace: &str, app: &str, protocol: &str) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1beta1",
        "kind": "Server",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "port": 8080, "proxyProtocol": protocol},
    })
}

/// What the pods of an application run as; the API server takes no pod without.
pub fn service_account(namespace: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": app, "namespace": namespace}})
}

fn labels(app: &str) -> Value {
    json!({
        "app": app,
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": format!("{app}-production"),
        "app.kubernetes.io/version": "2026.11.3",
        "app.kubernetes.io/part-of": "shop",
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": format!("{app}-1.42.0"),
    })
}

pub fn slice(namespace: &str, service: &str, number: usize, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{number:05}"),
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service, "controller": true, "blockOwnerDeletion": true,
                "uid": "0f0b5a0e-6c8a-4f5e-9a43-0d6b6f1f2a11",
            }],
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "metrics", "port": 9090, "protocol": "TCP"},
        ],
        "endpoints": endpoints,
    })
}

pub fn slice_endpoint(ip: [u8; 4], pod: &str, namespace: &str) -> Value {
    json!({
        "addresses": [dotted(ip)],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": "ip-10-0-17-3.eu-central-1.compute.internal",
        "zone": "eu-central-1a",
        "targetRef": {
            "kind": "Pod", "name": pod, "namespace": namespace, "uid": "4b8a2c1e-91d5-4a77-8d0c-5f2f4a0b7c33",
        },
    })
}

fn dotted(ip: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

/// Adds who wrote what.
fn manage(pod: &mut Value) {
    let set = json!({"f:metadata": fields(&pod["metadata"]), "f:spec": fields(&pod["spec"])});
    let status = json!({"f:status": fields(&pod["status"])});
    let manager = |name: &str, fields: Value| {
        json!({
            "apiVersion": "v1", "manager": name, "operation": "Update", "time": "2026-11-03T10:17:12Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    };
    pod["metadata"]["managedFields"] = json!([manager("kube-controller-manager", set), manager("kubelet", status)]);
}

/// The fields of a value, as `managedFields` name them.
fn fields(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("f:{key}"), fields(value))).collect(),
        Value::Array(items) => {
            let named = items.iter().filter_map(|item| {
                let key = ["name", "type", "uid", "ip"].into_iter().find(|key| item.get(key).is_some())?;
                Some((format!("k:{{\"{key}\":{}}}", item[key]), fields(item)))
            });
            named.collect()
        }
        _ => json!({}),
    }
}

/// A pod of a Deployment, with a proxy.
pub fn pod(namespace: &str, app: &str, name: &str, ip: &str) -> Value {
    let mut labels = labels(app);
    labels["pod-template-hash"] = json!("7c9d8f6b5d");
    labels["linkerd.io/control-plane-ns"] = json!("linkerd");
    labels["linkerd.io/proxy-deployment"] = json!(app);
    labels["linkerd.io/workload-ns"] = json!(namespace);
    let probe = |path: &str, port: Value| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1});
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let condition = |type_: &str| json!({"type": type_, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-03T10:17:21Z"});
    let running = |name: &str| {
        json!({
            "name": name, "ready": true, "started": true, "restartCount": 0,
            "image": format!("registry.example.com/shop/{name}:2026.11.3"),
            "imageID": "registry.example.com/shop@sha256:9b1f0f0c5c2f1b6f8f7a0c8f1f4f7a2f6f0f3f8f1f2f4f5f6f7f8f9f0f1f2f3f",
            "containerID": "containerd://3f2f1f0f9f8f7f6f5f4f3f2f1f0f9f8f7f6f5f4f3f2f1f0f9f8f7f6f5f4f3f2f",
            "state": {"running": {"startedAt": "2026-11-03T10:17:12Z"}},
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generateName": format!("{app}-7c9d8f6b5d-"),
            "labels": labels,
            "annotations": {
                "checksum/config": "5d41402abc4b2a76b9719d911017c592ae1f0c6a4c2b0e0b8d0d6f0e8f5f3a21",
                "kubectl.kubernetes.io/restartedAt": "2026-11-03T10:17:09Z",
                "linkerd.io/created-by": "linkerd/proxy-injector",
                "linkerd.io/inject": "enabled",
                "linkerd.io/proxy-version": "edge-26.11.1",
                "linkerd.io/trust-root-sha256": "c7a1f4de2b8d4b8ea6a2f9a4d25b67f1c0b7e1a9f3d58b6c7e2f10a3948576c1",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": "9090",
                "prometheus.io/scrape": "true",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7c9d8f6b5d"),
                "uid": "a1f5c2e4-6b7d-4f8e-9c0a-1b2c3d4e5f60", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": "ip-10-0-17-3.eu-central-1.compute.internal",
            "serviceAccountName": app,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": [
                {
                    "name": "app",
                    "image": format!("registry.example.com/shop/{app}:2026.11.3"),
                    "args": ["--listen", "0.0.0.0:8080", "--metrics", "0.0.0.0:9090"],
                    "ports": [
                        {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                    ],
                    "env": [
                        env("LOG_LEVEL", "info"),
                        env("DATABASE_URL", "postgres://shop@database.data.svc.cluster.local:5432/shop"),
                        env("CACHE_URL", "redis://cache.data.svc.cluster.local:6379"),
                        env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.tracing.svc.cluster.local:4317"),
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                    ],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "livenessProbe": probe("/healthz", json!("http")),
                    "readinessProbe": probe("/ready", json!("http")),
                    "startupProbe": probe("/healthz", json!("http")),
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/shop", "readOnly": true}],
                },
                {
                    "name": "linkerd-proxy",
                    "image": "cr.l5d.io/linkerd/proxy:edge-26.11.1",
                    "ports": [
                        {"name": "linkerd-proxy", "containerPort": 4143, "protocol": "TCP"},
                        {"name": "linkerd-admin", "containerPort": 4191, "protocol": "TCP"},
                    ],
                    "env": [
                        env("LINKERD2_PROXY_LOG", "warn,linkerd=info"),
                        env("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "linkerd-dst-headless.linkerd.svc.cluster.local.:8086"),
                        env("LINKERD2_PROXY_POLICY_SVC_ADDR", "linkerd-policy.linkerd.svc.cluster.local.:8090"),
                        env("LINKERD2_PROXY_INBOUND_PORTS", "8080,9090"),
                    ],
                    "resources": {"requests": {"cpu": "10m", "memory": "20Mi"}},
                    "livenessProbe": probe("/live", json!(4191)),
                    "readinessProbe": probe("/ready", json!(4191)),
                },
            ],
            "volumes": [{"name": "config", "configMap": {"name": format!("{app}-config")}}],
        },
        "status": {
            "phase": "Running",
            "hostIP": "10.0.17.3",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": "2026-11-03T10:17:10Z",
            "conditions": [
                condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"),
                condition("ContainersReady"), condition("PodScheduled"),
            ],
            "containerStatuses": [running("app"), running("linkerd-proxy")],
        },
    })
}
