//! The injector: manifests in, manifests with the mesh proxy out.
//!
//! Everything here is a pure function over objects: nothing talks to a cluster. Data flows
//! **YAML text → documents → objects → pod template → the same template with `linkerd-init` and `linkerd-proxy`**:
//!
//! * [`inject`] and [`inject_with_report`] take a stream of YAML documents. A document without anything to inject keeps
//!   its text, comments included.
//! * [`inject_object`] takes one object, and says in its [`Outcome`] what it did and why.
//! * [`control_plane_manifests`] are the objects of the control plane those proxies ask: one Deployment, its Services,
//!   its rights and the custom resources it reads. With a [`Webhook`] they have an injector as well, for which [`review`]
//!   answers the API server.
//!
//! Annotations, labels, container names, ports and environment are Linkerd's, so that tools and people that know a
//! Linkerd pod know this one, and either proxy can stand behind the same manifest. With an [`Identity`] the pod proves its
//! service account by a token, and the control plane has what it issues certificates with. A pod that asks by annotation for the image of
//! Linkerd's own proxy gets it with all that it insists on.

mod annotations;
mod containers;
mod control_plane;
mod crds;
mod documents;
mod identity;
mod image;
mod options;
mod outcome;
mod review;
mod webhook;
mod workload;
mod yaml;

pub use annotations::{
    DIALECT, IDENTITY_LIFETIME, IDENTITY_REFRESH, INJECT, LOOP_GUARD, OPAQUE_PORTS, PROXY_LOG_LEVEL,
    SKIP_INBOUND_PORTS, SKIP_OUTBOUND_PORTS,
};
pub use containers::{DEFAULT_OPAQUE_PORTS, INIT_CONTAINER, PROXY_CONTAINER, SOCKET_MARK};
pub use control_plane::{SLICES_LEASE, control_plane_manifests};
pub use crds::{custom_resource_definitions, gateway_route_definitions};
pub use documents::{InjectError, Injection, inject, inject_with_report, to_yaml};
pub use identity::{Identity, IdentityError, Issuer, TOKEN_AUDIENCE, Token};
pub use options::{Mode, Options, Scope};
pub use outcome::{Entry, Outcome, Report, Skip, Warning};
pub use review::{ReviewError, review, reviewed_namespace};
pub use webhook::Webhook;
pub use workload::inject_object;
