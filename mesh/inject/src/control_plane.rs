//! The control plane's own objects.

use serde_json::{Value, json};

use crate::{Issuer, Options, annotations, crds, identity};

const DEPLOYMENT: &str = "linkerd-destination";
const DESTINATION_PORT: u16 = 8086;
const POLICY_PORT: u16 = 8090;
const ADMIN_PORT: u16 = 9996;

/// The Lease, in the control plane's namespace, of who writes the EndpointSlices of ExternalWorkloads. The name is
/// Linkerd's.
pub const SLICES_LEASE: &str = "linkerd-destination-endpoint-write";

/// Every object of the control plane, in an order in which they can be applied: the namespace, the custom resources, the
/// rights, the Deployment and its Services.
///
/// Meant for server-side apply or create; the namespace and image come from the options.
pub fn control_plane_manifests(options: &Options) -> Vec<Value> {
    let namespace = &options.control_plane_namespace;
    let mut manifests = vec![json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace,
            "labels": labels_of_namespace(options),
            "annotations": {annotations::INJECT: "disabled"},
        },
    })];
    manifests.extend(crds::custom_resource_definitions());
    if options.gateway_api {
        manifests.extend(crds::gateway_route_definitions());
    }
    manifests.extend(rights(namespace));
    if let Some(issuer) = issuer(options) {
        manifests.extend(identity_objects(namespace, issuer));
    }
    manifests.push(deployment(options));
    manifests.push(service(namespace, "linkerd-dst", DESTINATION_PORT));
    manifests.push(service(namespace, "linkerd-policy", POLICY_PORT));
    if let Some(webhook) = &options.webhook {
        manifests.extend(webhook.manifests(options));
    }
    manifests
}

fn labels_of_namespace(options: &Options) -> Value {
    let mut labels =
        json!({"linkerd.io/is-control-plane": "true", annotations::CONTROL_PLANE_NS: options.control_plane_namespace});
    if options.webhook.is_some() {
        labels[annotations::ADMISSION_WEBHOOKS] = json!("disabled");
    }
    labels
}

fn issuer(options: &Options) -> Option<&Issuer> {
    options.identity.as_ref()?.issuer.as_ref()
}

/// What issuing certificates needs besides: the key, the right to have tokens reviewed, and a Service.
fn identity_objects(namespace: &str, issuer: &Issuer) -> [Value; 3] {
    let name = format!("linkerd-{namespace}-identity");
    [
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": identity::ISSUER_SECRET, "namespace": namespace, "labels": labels(namespace)},
            "stringData": {"tls.crt": issuer.certificate, "tls.key": issuer.key},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": labels(namespace)},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": DEPLOYMENT, "namespace": namespace}],
        }),
        service(namespace, identity::SERVICE, identity::PORT),
    ]
}

fn labels(namespace: &str) -> Value {
    json!({annotations::CONTROL_PLANE_COMPONENT: "destination", annotations::CONTROL_PLANE_NS: namespace})
}

/// The account and exactly what it lists, watches and writes.
fn rights(namespace: &str) -> [Value; 3] {
    let name = format!("linkerd-{namespace}-destination");
    let allow = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let rule = |group: &str, resources: &[&str]| allow(group, resources, &["list", "watch"]);
    const GATEWAY_API: &str = "gateway.networking.k8s.io";
    [
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": DEPLOYMENT, "namespace": namespace, "labels": labels(namespace)},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels(namespace)},
            "rules": [
                rule("", &["services", "pods", "nodes"]),
                rule("discovery.k8s.io", &["endpointslices"]),
                rule("workload.linkerd.io", &["externalworkloads"]),
                rule("linkerd.io", &["serviceprofiles"]),
                rule("split.smi-spec.io", &["trafficsplits"]),
                rule(
                    "policy.linkerd.io",
                    &[
                        "httproutes",
                        "servers",
                        "serverauthorizations",
                        "authorizationpolicies",
                        "meshtlsauthentications",
                        "networkauthentications",
                        "httplocalratelimitpolicies",
                        "egressnetworks",
                    ],
                ),
                rule(GATEWAY_API, &["httproutes", "grpcroutes", "tlsroutes", "tcproutes"]),
                // What became of a route or a network is written into its status.
                allow("policy.linkerd.io", &["httproutes", "egressnetworks"], &["get"]),
                allow("policy.linkerd.io", &["httproutes/status", "egressnetworks/status"], &["patch"]),
                allow(GATEWAY_API, &["httproutes", "grpcroutes", "tlsroutes", "tcproutes"], &["get"]),
                allow(
                    GATEWAY_API,
                    &["httproutes/status", "grpcroutes/status", "tlsroutes/status", "tcproutes/status"],
                    &["patch"],
                ),
                // Slices are made of ExternalWorkloads, by whichever replica has the Lease. What is created is not
                // known by name.
                allow("discovery.k8s.io", &["endpointslices"], &["create", "update", "delete"]),
                allow("coordination.k8s.io", &["leases"], &["create"]),
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "resourceNames": [SLICES_LEASE],
                    "verbs": ["get", "update"],
                },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": labels(namespace)},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": DEPLOYMENT, "namespace": namespace}],
        }),
    ]
}

fn deployment(options: &Options) -> Value {
    let mut deployment = without_identity(options);
    if issuer(options).is_some() {
        let spec = &mut deployment["spec"]["template"]["spec"];
        spec["volumes"] = json!([{"name": "identity-issuer", "secret": {"secretName": identity::ISSUER_SECRET}}]);
        let container = &mut spec["containers"][0];
        container["volumeMounts"] =
            json!([{"name": "identity-issuer", "mountPath": identity::ISSUER_DIR, "readOnly": true}]);
        if let Some(env) = container["env"].as_array_mut() {
            env.push(json!({"name": "MESHGATE_IDENTITY_ISSUER_DIR", "value": identity::ISSUER_DIR}));
        }
        if let Some(ports) = container["ports"].as_array_mut() {
            ports.push(json!({"name": "ident-grpc", "containerPort": identity::PORT}));
        }
    }
    deployment
}

fn without_identity(options: &Options) -> Value {
    let namespace = &options.control_plane_namespace;
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let own = json!({
        "name": "destination",
        "args": ["control-plane"],
        "env": [
            env("MESHGATE_CLUSTER_DOMAIN", &options.cluster_domain),
            env("MESHGATE_CLUSTER_NETWORKS", &options.cluster_networks.join(",")),
            env("MESHGATE_CONTROL_PLANE_NAMESPACE", namespace),
        ],
        "ports": [
            {"name": "grpc", "containerPort": DESTINATION_PORT},
            {"name": "policy-grpc", "containerPort": POLICY_PORT},
            {"name": "admin-http", "containerPort": ADMIN_PORT},
        ],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "namespace": namespace, "labels": labels(namespace)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels(namespace)},
            "template": {
                "metadata": {"labels": labels(namespace), "annotations": {annotations::INJECT: "disabled"}},
                "spec": {
                    "serviceAccountName": DEPLOYMENT,
                    "containers": [container(options, ADMIN_PORT, own)],
                },
            },
        },
    })
}

/// A container of the control plane: Meshgate's image without any rights, whose probes are answered on `admin_port`, with what is the
/// container's own.
pub(crate) fn container(options: &Options, admin_port: u16, own: Value) -> Value {
    let probe =
        |path: &str, period: u32| json!({"httpGet": {"path": path, "port": admin_port}, "periodSeconds": period});
    let mut container = json!({
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        // Pods wait for it, so it should be found ready as soon as it is.
        "readinessProbe": probe("/ready", 1),
        "livenessProbe": probe("/live", 10),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 2103,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let (Some(all), Value::Object(own)) = (container.as_object_mut(), own) {
        all.extend(own);
    }
    container
}

fn service(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(namespace)},
        "spec": {
            "selector": labels(namespace),
            "ports": [{"name": "grpc", "port": port, "targetPort": port}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Skip, inject_object};

    #[test]
    fn every_object_can_be_applied() {
        let manifests = control_plane_manifests(&Options { gateway_api: true, ..Options::default() });
        for object in &manifests {
            for field in ["/apiVersion", "/kind", "/metadata/name"] {
                assert!(object.pointer(field).is_some_and(Value::is_string), "{field} of {object}");
            }
        }
        let names: Vec<_> = manifests
            .iter()
            .map(|object| {
                format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            names,
            [
                "Namespace/linkerd",
                "CustomResourceDefinition/serviceprofiles.linkerd.io",
                "CustomResourceDefinition/trafficsplits.split.smi-spec.io",
                "CustomResourceDefinition/httproutes.policy.linkerd.io",
                "CustomResourceDefinition/servers.policy.linkerd.io",
                "CustomResourceDefinition/serverauthorizations.policy.linkerd.io",
                "CustomResourceDefinition/authorizationpolicies.policy.linkerd.io",
                "CustomResourceDefinition/meshtlsauthentications.policy.linkerd.io",
                "CustomResourceDefinition/networkauthentications.policy.linkerd.io",
                "CustomResourceDefinition/httplocalratelimitpolicies.policy.linkerd.io",
                "CustomResourceDefinition/egressnetworks.policy.linkerd.io",
                "CustomResourceDefinition/externalworkloads.workload.linkerd.io",
                "CustomResourceDefinition/httproutes.gateway.networking.k8s.io",
                "CustomResourceDefinition/grpcroutes.gateway.networking.k8s.io",
                "CustomResourceDefinition/tlsroutes.gateway.networking.k8s.io",
                "CustomResourceDefinition/tcproutes.gateway.networking.k8s.io",
                "ServiceAccount/linkerd-destination",
                "ClusterRole/linkerd-linkerd-destination",
                "ClusterRoleBinding/linkerd-linkerd-destination",
                "Deployment/linkerd-destination",
                "Service/linkerd-dst",
                "Service/linkerd-policy",
            ]
        );
    }

    #[test]
    fn identity_brings_its_secret_its_right_and_its_service() {
        let identity = crate::Identity::generate("cluster.local").unwrap();
        let manifests = control_plane_manifests(&Options { identity: Some(identity), ..Options::default() });
        let find = |kind: &str, name: &str| {
            let found = manifests.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
            found.unwrap_or_else(|| panic!("no {kind} {name}")).clone()
        };
        assert!(
            find("Secret", "linkerd-identity-issuer")["stringData"]["tls.key"].as_str().unwrap().contains("PRIVATE")
        );
        assert_eq!(find("ClusterRoleBinding", "linkerd-linkerd-identity")["roleRef"]["name"], "system:auth-delegator");
        let pod = &find("Deployment", "linkerd-destination")["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "linkerd-identity-issuer");
        assert_eq!(find("Service", "linkerd-identity")["spec"]["ports"][0]["port"], 8080);
    }

    #[test]
    fn selectors_match_the_pods() {
        let manifests = control_plane_manifests(&Options::default());
        let deployment = manifests.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
        for service in manifests.iter().filter(|object| object["kind"] == "Service") {
            assert_eq!(&service["spec"]["selector"], labels);
        }
    }

    #[test]
    fn the_control_plane_is_not_injected() {
        let mut deployment = deployment(&Options::default());
        assert_eq!(inject_object(&mut deployment, &Options::default()), Outcome::Skipped(Skip::Disabled));
    }
}
