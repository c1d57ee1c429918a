//! The injector in the cluster: the API server asks it about every new pod. Its objects, by the names of Linkerd's chart.
//!
//! As there, but for what it has no use for: its own proxy, the events, workloads and ReplicaSets that Linkerd's reads, and new Services,
//! which Linkerd's gives the `opaque-ports` of their namespace. The chart's webhook passes by `kube-system` and `cert-manager`, and by its own
//! namespace because of the label there; ours names all three.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control_plane::container;
use crate::{IdentityError, Options, annotations};

/// Of the Deployment, the Service, the account.
const NAME: &str = "linkerd-proxy-injector";
const PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9995;

const TLS_SECRET: &str = "linkerd-proxy-injector-k8s-tls";
const TLS_DIR: &str = "/var/run/linkerd/tls";

/// What the injector injects with. Linkerd's reads its chart's values from a ConfigMap `linkerd-config`.
const OPTIONS: &str = "linkerd-proxy-injector-options";
const OPTIONS_DIR: &str = "/var/run/linkerd/config";
const OPTIONS_FILE: &str = "options.json";

/// Who the injector is to the API server. All PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Who signed its certificate: the `caBundle` of the configuration.
    pub authority: String,
    /// Its certificate, for `linkerd-proxy-injector.NAMESPACE.svc`.
    pub certificate: String,
    /// The certificate's key.
    pub key: String,
}

impl Webhook {
    /// A new certificate for an injector in a namespace, by an authority that signs nothing else.
    ///
    /// # Errors
    /// The system has no randomness, or the namespace cannot be part of a DNS name.
    pub fn generate(namespace: &str) -> Result<Self, IdentityError> {
        let name = format!("{NAME}.{namespace}.svc");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &authority)?;
        Ok(Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Its objects, in an order in which they can be applied. The configuration comes last: until the injector serves, pods
    /// are created without it (`failurePolicy: Ignore`).
    pub(crate) fn manifests(&self, options: &Options) -> Vec<Value> {
        let namespace = &options.control_plane_namespace;
        let meta = |name: &str| json!({"name": name, "namespace": namespace, "labels": labels(namespace)});
        let role = format!("linkerd-{namespace}-proxy-injector");
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(NAME)}),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role, "labels": labels(namespace)},
                "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}],
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role, "labels": labels(namespace)},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": meta(TLS_SECRET),
                "stringData": {"tls.crt": self.certificate, "tls.key": self.key},
            }),
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": meta(OPTIONS),
                "data": {OPTIONS_FILE: json!(options.of_webhook()).to_string()},
            }),
            deployment(options, meta(NAME)),
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta(NAME),
                "spec": {
                    "selector": labels(namespace),
                    "ports": [{"name": "proxy-injector", "port": 443, "targetPort": "proxy-injector"}],
                },
            }),
            self.configuration(options),
        ]
    }

    fn configuration(&self, options: &Options) -> Value {
        let namespace = &options.control_plane_namespace;
        let mut never = options.skipped_namespaces.clone();
        never.push(namespace.clone());
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "linkerd-proxy-injector-webhook-config", "labels": labels(namespace)},
            "webhooks": [{
                "name": "linkerd-proxy-injector.linkerd.io",
                "namespaceSelector": {"matchExpressions": [
                    {"key": annotations::ADMISSION_WEBHOOKS, "operator": "NotIn", "values": ["disabled"]},
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": never},
                ]},
                "objectSelector": {"matchExpressions": [
                    {"key": annotations::CONTROL_PLANE_COMPONENT, "operator": "DoesNotExist"},
                    {"key": annotations::CNI_RESOURCE, "operator": "DoesNotExist"},
                ]},
                "clientConfig": {
                    "service": {"name": NAME, "namespace": namespace, "path": "/"},
                    "caBundle": STANDARD.encode(&self.authority),
                },
                "failurePolicy": "Ignore",
                "admissionReviewVersions": ["v1"],
                "rules": [{
                    "operations": ["CREATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }],
                "sideEffects": "None",
                "timeoutSeconds": 10,
            }],
        })
    }
}

fn labels(namespace: &str) -> Value {
    json!({annotations::CONTROL_PLANE_COMPONENT: "proxy-injector", annotations::CONTROL_PLANE_NS: namespace})
}

fn deployment(options: &Options, meta: Value) -> Value {
    let labels = labels(&options.control_plane_namespace);
    let env = |name: &str, value: String| json!({"name": name, "value": value});
    let own = json!({
        "name": "proxy-injector",
        "args": ["proxy-injector"],
        "env": [
            env("MESHGATE_INJECTOR_TLS_DIR", TLS_DIR.to_owned()),
            env("MESHGATE_INJECTOR_OPTIONS", format!("{OPTIONS_DIR}/{OPTIONS_FILE}")),
        ],
        "ports": [
            {"name": "proxy-injector", "containerPort": PORT},
            {"name": "admin-http", "containerPort": ADMIN_PORT},
        ],
        "volumeMounts": [
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": true},
            {"name": "options", "mountPath": OPTIONS_DIR, "readOnly": true},
        ],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {annotations::INJECT: "disabled"}},
                "spec": {
                    "serviceAccountName": NAME,
                    "containers": [container(options, ADMIN_PORT, own)],
                    "volumes": [
                        {"name": "tls", "secret": {"secretName": TLS_SECRET}},
                        {"name": "options", "configMap": {"name": OPTIONS}},
                    ],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Scope, control_plane_manifests};

    fn options() -> Options {
        let identity = Some(Identity::generate("cluster.local").unwrap());
        Options { identity, webhook: Some(Webhook::generate("linkerd").unwrap()), ..Options::default() }
    }

    fn find<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
        let found = manifests.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn it_is_there_only_when_asked_for() {
        let without = control_plane_manifests(&Options { webhook: None, ..options() });
        assert!(without.iter().all(|object| object["kind"] != "MutatingWebhookConfiguration"));
        let with = control_plane_manifests(&options());
        assert_eq!(with.last().unwrap()["kind"], "MutatingWebhookConfiguration");
        let namespace = find(&with, "Namespace", "linkerd");
        assert_eq!(namespace["metadata"]["labels"]["config.linkerd.io/admission-webhooks"], "disabled");
    }

    #[test]
    fn it_is_given_the_options_and_no_key_but_its_own() {
        let options = options();
        let manifests = control_plane_manifests(&options);
        let text = find(&manifests, "ConfigMap", OPTIONS)["data"][OPTIONS_FILE].as_str().unwrap();
        assert!(!text.contains("PRIVATE"), "{text}");
        let given: Options = serde_json::from_str(text).unwrap();
        let anchors = options.identity.unwrap().trust_anchors;
        assert_eq!(given.identity.as_ref().unwrap().trust_anchors, anchors);
        assert_eq!((given.scope, given.webhook), (Scope::Annotated, None));
    }
}
