//! The custom resources the control plane reads.

use serde_json::{Value, json};

/// The definitions of `serviceprofiles.linkerd.io`, `trafficsplits.split.smi-spec.io`, `externalworkloads.workload.linkerd.io`, and of `policy.linkerd.io` those of
/// routes, Servers, authorizations, authentications, rate limits and EgressNetworks.
pub fn custom_resource_definitions() -> Vec<Value> {
    vec![
        definition(
            "linkerd.io",
            &names("ServiceProfile", "serviceprofiles", "serviceprofile", &["sp"]),
            &[version("v1alpha1", false, &service_profile_spec()), version("v1alpha2", true, &service_profile_spec())],
        ),
        definition(
            "split.smi-spec.io",
            &names("TrafficSplit", "trafficsplits", "trafficsplit", &["ts"]),
            &[version("v1alpha1", false, &traffic_split_spec()), version("v1alpha2", true, &traffic_split_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("HTTPRoute", "httproutes", "httproute", &[]),
            &[version("v1beta2", false, &route_spec()), version("v1beta3", true, &route_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("Server", "servers", "server", &["srv"]),
            &[
                version("v1beta1", false, &server_spec()),
                version("v1beta2", false, &server_spec()),
                version("v1beta3", true, &server_spec()),
            ],
        ),
        definition(
            "policy.linkerd.io",
            &names("ServerAuthorization", "serverauthorizations", "serverauthorization", &["saz", "serverauthz"]),
            &[version("v1beta1", true, &server_authorization_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("AuthorizationPolicy", "authorizationpolicies", "authorizationpolicy", &["authzpolicy"]),
            &[version("v1alpha1", true, &authorization_policy_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("MeshTLSAuthentication", "meshtlsauthentications", "meshtlsauthentication", &["meshtlsauthn"]),
            &[version("v1alpha1", true, &mesh_tls_authentication_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("NetworkAuthentication", "networkauthentications", "networkauthentication", &["netauthn"]),
            &[version("v1alpha1", true, &network_authentication_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("HTTPLocalRateLimitPolicy", "httplocalratelimitpolicies", "httplocalratelimitpolicy", &[]),
            &[version("v1alpha1", true, &rate_limit_spec())],
        ),
        definition(
            "policy.linkerd.io",
            &names("EgressNetwork", "egressnetworks", "egressnetwork", &[]),
            &[version("v1alpha1", true, &egress_network_spec())],
        ),
        definition(
            "workload.linkerd.io",
            &names("ExternalWorkload", "externalworkloads", "externalworkload", &[]),
            &[version("v1beta1", true, &external_workload_spec())],
        ),
    ]
}

/// The definitions of Gateway API's `httproutes`, `grpcroutes`, `tlsroutes` and `tcproutes`, for clusters without Gateway API.
pub fn gateway_route_definitions() -> Vec<Value> {
    let route = |kind: &str, plural: &str, singular: &str, versions: &[Value]| {
        let mut definition = definition("gateway.networking.k8s.io", &names(kind, plural, singular, &[]), versions);
        // An API server takes definitions in `*.k8s.io` only with a reference to their review.
        definition["metadata"]["annotations"] =
            json!({"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/3328"});
        definition
    };
    let spec = route_spec();
    vec![
        route("HTTPRoute", "httproutes", "httproute", &[version("v1", true, &spec), version("v1beta1", false, &spec)]),
        route("GRPCRoute", "grpcroutes", "grpcroute", &[version("v1", true, &spec)]),
        route("TLSRoute", "tlsroutes", "tlsroute", &[version("v1", true, &spec), version("v1alpha2", false, &spec)]),
        route("TCPRoute", "tcproutes", "tcproute", &[version("v1", true, &spec), version("v1alpha2", false, &spec)]),
    ]
}

fn names(kind: &str, plural: &str, singular: &str, short: &[&str]) -> Value {
    json!({"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular, "shortNames": short})
}

fn definition(group: &str, names: &Value, versions: &[Value]) -> Value {
    let plural = names["plural"].as_str().unwrap_or_default();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": versions},
    })
}

fn version(name: &str, storage: bool, spec: &Value) -> Value {
    let any = open();
    json!({
        "name": name,
        "served": true,
        "storage": storage,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec,
                "status": any,
            },
        }},
    })
}

/// `all`, `any` and `not` nest without end, which a structural schema cannot say: the conditions below the first level
/// are open.
fn condition(leaf: Value) -> Value {
    let open = open();
    let mut properties = json!({
        "all": {"type": "array", "items": open},
        "any": {"type": "array", "items": open},
        "not": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    if let (Some(properties), Value::Object(leaf)) = (properties.as_object_mut(), leaf) {
        properties.extend(leaf);
    }
    json!({"type": "object", "properties": properties})
}

fn service_profile_spec() -> Value {
    let request = condition(json!({"method": {"type": "string"}, "pathRegex": {"type": "string"}}));
    let status = json!({
        "type": "object",
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
    });
    json!({
        "type": "object",
        "properties": {
            "dstOverrides": {"type": "array", "items": {
                "type": "object",
                "required": ["authority", "weight"],
                "properties": {"authority": {"type": "string"}, "weight": {"x-kubernetes-int-or-string": true}},
            }},
            "opaquePorts": {"type": "array", "items": {"type": "string"}},
            "retryBudget": {
                "type": "object",
                "required": ["minRetriesPerSecond", "retryRatio", "ttl"],
                "properties": {
                    "minRetriesPerSecond": {"type": "integer"},
                    "retryRatio": {"type": "number"},
                    "ttl": {"type": "string"},
                },
            },
            "routes": {"type": "array", "items": {
                "type": "object",
                "required": ["condition", "name"],
                "properties": {
                    "name": {"type": "string"},
                    "condition": request,
                    "isRetryable": {"type": "boolean"},
                    "timeout": {"type": "string"},
                    "responseClasses": {"type": "array", "items": {
                        "type": "object",
                        "required": ["condition"],
                        "properties": {"condition": condition(json!({"status": status})), "isFailure": {"type": "boolean"}},
                    }},
                },
            }},
        },
    })
}

/// v1alpha1 has weights as quantities (`500m`), v1alpha2 as integers. Both versions take both: stored in one, an object
/// written in the other must still be valid.
fn traffic_split_spec() -> Value {
    json!({
        "type": "object",
        "required": ["service", "backends"],
        "properties": {
            "service": {"type": "string"},
            "backends": {"type": "array", "items": {
                "type": "object",
                "required": ["service", "weight"],
                "properties": {"service": {"type": "string"}, "weight": {"x-kubernetes-int-or-string": true}},
            }},
        },
    })
}

/// Only what makes a route a route; the rest of Gateway API's schema is open.
fn route_spec() -> Value {
    let open = open();
    json!({
        "type": "object",
        "properties": {
            "parentRefs": {"type": "array", "items": open},
            "hostnames": {"type": "array", "items": {"type": "string"}},
            "rules": {"type": "array", "items": open},
        },
    })
}

/// A Server has one of the two selectors.
fn server_spec() -> Value {
    json!({
        "type": "object",
        "required": ["port"],
        "properties": {
            "podSelector": open(),
            "externalWorkloadSelector": open(),
            "port": {"x-kubernetes-int-or-string": true},
            "proxyProtocol": {"type": "string"},
            "accessPolicy": {"type": "string"},
        },
    })
}

fn server_authorization_spec() -> Value {
    json!({
        "type": "object",
        "required": ["server", "client"],
        "properties": {
            "server": {"type": "object", "properties": {"name": {"type": "string"}, "selector": open()}},
            "client": {"type": "object", "properties": {
                "networks": networks(),
                "unauthenticated": {"type": "boolean"},
                "meshTLS": {"type": "object", "properties": {
                    "unauthenticatedTLS": {"type": "boolean"},
                    "identities": {"type": "array", "items": {"type": "string"}},
                    "serviceAccounts": {"type": "array", "items": open()},
                }},
            }},
        },
    })
}

fn authorization_policy_spec() -> Value {
    json!({
        "type": "object",
        "required": ["targetRef", "requiredAuthenticationRefs"],
        "properties": {
            "targetRef": reference(),
            "requiredAuthenticationRefs": {"type": "array", "items": reference()},
        },
    })
}

fn mesh_tls_authentication_spec() -> Value {
    json!({
        "type": "object",
        "properties": {
            "identities": {"type": "array", "items": {"type": "string"}},
            "identityRefs": {"type": "array", "items": reference()},
        },
    })
}

fn network_authentication_spec() -> Value {
    json!({"type": "object", "required": ["networks"], "properties": {"networks": networks()}})
}

fn rate_limit_spec() -> Value {
    let requests = json!({"type": "integer", "format": "int64", "minimum": 0});
    let limit = json!({
        "type": "object",
        "required": ["requestsPerSecond"],
        "properties": {"requestsPerSecond": requests},
    });
    json!({
        "type": "object",
        "required": ["targetRef"],
        "properties": {
            "targetRef": reference(),
            "total": limit,
            "identity": limit,
            "overrides": {"type": "array", "items": {
                "type": "object",
                "required": ["requestsPerSecond", "clientRefs"],
                "properties": {"requestsPerSecond": requests, "clientRefs": {"type": "array", "items": reference()}},
            }},
        },
    })
}

/// Without networks, all but the cluster's.
fn egress_network_spec() -> Value {
    json!({
        "type": "object",
        "required": ["trafficPolicy"],
        "properties": {
            "networks": networks(),
            "trafficPolicy": {"type": "string", "enum": ["Allow", "Deny"]},
        },
    })
}

fn external_workload_spec() -> Value {
    let name = json!({"type": "string", "minLength": 1, "maxLength": 253});
    json!({
        "type": "object",
        "required": ["meshTLS"],
        "properties": {
            "meshTLS": {
                "type": "object",
                "required": ["identity", "serverName"],
                "properties": {"identity": name, "serverName": name},
            },
            "ports": {"type": "array", "items": {
                "type": "object",
                "required": ["port"],
                "properties": {
                    "name": {"type": "string"},
                    "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
                    "protocol": {"type": "string", "default": "TCP"},
                },
            }},
            "workloadIPs": {"type": "array", "items": {"type": "object", "properties": {"ip": {"type": "string"}}}},
        },
    })
}

fn networks() -> Value {
    json!({"type": "array", "items": {
        "type": "object",
        "required": ["cidr"],
        "properties": {"cidr": {"type": "string"}, "except": {"type": "array", "items": {"type": "string"}}},
    }})
}

fn reference() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {"group": text, "kind": text, "name": text, "namespace": text},
    })
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
