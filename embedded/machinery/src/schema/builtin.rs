//! Built-in kinds, and decoding by their types.

mod decode;
mod types;

use std::sync::OnceLock;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::TypeError;
use types::Types;

/// A built-in kind in one version.
pub struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    schema_name: fn() -> String,
    generate: fn(&mut SchemaGenerator),
    types: OnceLock<Types>,
}

impl Builtin {
    const fn of<T: JsonSchema>(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            group,
            version,
            kind,
            schema_name: || T::schema_name().into_owned(),
            generate: |generator| {
                generator.subschema_for::<T>();
            },
            types: OnceLock::new(),
        }
    }

    /// A kind by group (`""` for core), version and kind.
    pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|row| row.kind == kind && row.group == group && row.version == version)
    }

    /// Decodes an object in place: takes out null and unknown fields, and returns the paths of the unknown ones, e.g.
    /// `spec.template.spec.containers[0].imagee`. On an error the object may be partly changed.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, TypeError> {
        decode::decode(self.types(), object).map_err(|problem| TypeError {
            kind: self.kind.to_owned(),
            version: self.version.to_owned(),
            problem,
        })
    }

    /// Decodes the `metadata` of any object, as [`Builtin::decode`] does the whole.
    pub(super) fn decode_metadata(metadata: &mut Value) -> Result<Vec<String>, String> {
        static METADATA: Builtin = Builtin::of::<meta::ObjectMeta>("", "v1", "ObjectMeta");
        decode::decode_at(METADATA.types(), "metadata", metadata)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn schema_name(&self) -> String {
        (self.schema_name)()
    }

    pub(super) fn generate(&self, generator: &mut SchemaGenerator) {
        (self.generate)(generator);
    }

    fn types(&self) -> &Types {
        self.types.get_or_init(|| Types::new(&self.schema_name(), self.generate))
    }
}

/// All built-in kinds, from rows of group, version, module and kinds.
macro_rules! kinds {
    ($($group:literal $version:literal $module:ident { $($kind:ident),+ $(,)? })+) => {
        static KINDS: [Builtin; [$($(stringify!($kind)),+),+].len()] =
            [$($(Builtin::of::<$module::$kind>($group, $version, stringify!($kind)),)+)+];
    };
}

kinds! {
    "" "v1" core {
        Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
        Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
    }
    "" "v1" meta { DeleteOptions }
    "admissionregistration.k8s.io" "v1" admissionregistration {
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    }
    "apiextensions.k8s.io" "v1" apiextensions { CustomResourceDefinition }
    "apiregistration.k8s.io" "v1" apiregistration { APIService }
    "apps" "v1" apps { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
    "authentication.k8s.io" "v1" authentication { SelfSubjectReview, TokenRequest, TokenReview }
    "authorization.k8s.io" "v1" authorization {
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    }
    "autoscaling" "v1" autoscaling { HorizontalPodAutoscaler, Scale }
    "autoscaling" "v2" autoscaling_v2 { HorizontalPodAutoscaler }
    "batch" "v1" batch { CronJob, Job }
    "coordination.k8s.io" "v1" coordination { Lease }
    "discovery.k8s.io" "v1" discovery { EndpointSlice }
    "events.k8s.io" "v1" events { Event }
    "networking.k8s.io" "v1" networking { Ingress, IngressClass, NetworkPolicy }
    "policy" "v1" policy { Eviction, PodDisruptionBudget }
    "rbac.authorization.k8s.io" "v1" rbac { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
    "scheduling.k8s.io" "v1" scheduling { PriorityClass }
    "storage.k8s.io" "v1" storage { StorageClass }
}

#[cfg(test)]
mod tests;
