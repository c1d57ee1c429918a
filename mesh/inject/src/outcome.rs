//! What was done to each object, and why: the report a person reads on stderr.

use std::fmt;

use serde_json::Value;

use crate::{Mode, annotations};

/// What happened to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The proxy was added.
    Injected {
        /// The mode the proxy runs in.
        mode: Mode,
        /// What may not work as the author of the manifest expects.
        warnings: Vec<Warning>,
    },
    /// The proxy was there already and was brought up to date with the options and annotations.
    Updated {
        /// The mode the proxy runs in.
        mode: Mode,
        /// What may not work as the author of the manifest expects.
        warnings: Vec<Warning>,
    },
    /// The object was left as it is.
    Skipped(Skip),
    /// The object is a list; one entry for each item.
    List(Vec<Entry>),
}

impl Outcome {
    /// Whether the object, or an item of the list, was changed.
    pub fn changed(&self) -> bool {
        match self {
            Self::Injected { .. } | Self::Updated { .. } => true,
            Self::Skipped(_) => false,
            Self::List(entries) => entries.iter().any(|entry| entry.outcome.changed()),
        }
    }

    /// The warnings, of list items too.
    pub fn warnings(&self) -> Vec<&Warning> {
        match self {
            Self::Injected { warnings, .. } | Self::Updated { warnings, .. } => warnings.iter().collect(),
            Self::Skipped(_) => Vec::new(),
            Self::List(entries) => entries.iter().flat_map(|entry| entry.outcome.warnings()).collect(),
        }
    }
}

/// Why an object was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The kind has no pods.
    NoPods,
    /// The pod template says `linkerd.io/inject: disabled`.
    Disabled,
    /// The pod template does not ask for injection, and the scope is [`Scope::Annotated`](crate::Scope::Annotated).
    NotAnnotated,
    /// `linkerd.io/inject` has a value nobody defined.
    UnknownAnnotation(String),
    /// The pod shares the node's network, where redirecting its connections would redirect everybody's.
    HostNetwork,
    /// Pods of this namespace are never injected.
    Namespace(String),
    /// The pod has the proxy of another mesh, in this container.
    ForeignProxy(String),
    /// The manifest lacks a part that every workload of its kind has.
    Malformed(String),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inject = annotations::INJECT;
        match self {
            Self::NoPods => write!(f, "it has no pods"),
            Self::Disabled => write!(f, "its pod template says `{inject}: disabled`"),
            Self::NotAnnotated => write!(f, "its pod template has no `{inject}` annotation"),
            Self::UnknownAnnotation(value) => {
                write!(f, "`{inject}` is `{value}`; expected `enabled`, `ingress` or `disabled`")
            }
            Self::HostNetwork => {
                write!(f, "`hostNetwork: true`: its connections are the node's and cannot be redirected")
            }
            Self::Namespace(namespace) => write!(f, "pods in namespace `{namespace}` are never injected"),
            Self::ForeignProxy(container) => write!(f, "container `{container}` is the proxy of another mesh"),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

/// Something about an injected pod that may not work as its author expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// `automountServiceAccountToken: false` where the proxy uses the token that Kubernetes mounts: it will have none.
    NoServiceAccountToken,
    /// The proxy is of another image than Meshgate's, here, and the mesh has no identities, without which Linkerd's does not start.
    NoIdentity(String),
    /// The pod has UDP ports, which do not pass the proxy.
    UdpPorts,
    /// An opaque port is named that no container declares.
    UnknownPortName(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServiceAccountToken => f.write_str(
                "`automountServiceAccountToken: false` leaves the proxy without the token that proves its identity, and it does \
                 not start without; set it to true, or let the injector mount one (serviceAccountTokenProjection)",
            ),
            Self::NoIdentity(image) => write!(
                f,
                "`{}` names {image}, and Linkerd's proxy does not start without an identity; have the pod injected in the cluster \
                 (`meshgate inject --control-plane`), where proxies have one",
                annotations::PROXY_IMAGE
            ),
            Self::UdpPorts => f.write_str("its UDP ports do not pass the proxy, which carries TCP only"),
            Self::UnknownPortName(name) => write!(
                f,
                "`{}` names port `{name}`, which no container of the pod declares; the name was ignored",
                annotations::OPAQUE_PORTS
            ),
        }
    }
}

/// One object and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kind, as the manifest has it; empty if it has none.
    pub kind: String,
    /// The name, or `generateName`; empty if it has neither.
    pub name: String,
    /// What happened.
    pub outcome: Outcome,
}

impl Entry {
    pub(crate) fn new(object: &Value, outcome: Outcome) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        Self {
            kind: text("/kind").unwrap_or_default().into(),
            name: text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default().into(),
            outcome,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, outcome } = self;
        let kind = kind.to_lowercase();
        match outcome {
            Outcome::Injected { mode: Mode::Enabled, .. } => writeln!(f, "{kind} \"{name}\" injected")?,
            Outcome::Injected { mode: Mode::Ingress, .. } => writeln!(f, "{kind} \"{name}\" injected (ingress mode)")?,
            Outcome::Updated { mode, .. } => writeln!(f, "{kind} \"{name}\" updated ({mode})")?,
            Outcome::Skipped(Skip::NoPods) => writeln!(f, "{kind} \"{name}\" skipped")?,
            Outcome::Skipped(reason) => writeln!(f, "{kind} \"{name}\" skipped: {reason}")?,
            Outcome::List(entries) => return entries.iter().try_for_each(|entry| entry.fmt(f)),
        }
        outcome.warnings().into_iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}

/// What happened to every object of a stream, in its order. `Display` gives one line for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The objects, in the order of the stream.
    pub entries: Vec<Entry>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| entry.fmt(f))
    }
}
