//! The annotations and labels the injector reads and writes, by Linkerd's names.

/// Whether and how a pod is injected: `enabled`, `ingress` or `disabled`.
pub const INJECT: &str = "linkerd.io/inject";

/// Ports (`25,443,8000-9000`) whose inbound connections do not pass the proxy.
pub const SKIP_INBOUND_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

/// Ports (`25,443,8000-9000`) whose outbound connections do not pass the proxy.
pub const SKIP_OUTBOUND_PORTS: &str = "config.linkerd.io/skip-outbound-ports";

/// Ports, ranges or container port names that carry no HTTP and are passed on as they are.
pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// The proxy's log filter, such as `warn,linkerd=debug`.
pub const PROXY_LOG_LEVEL: &str = "config.linkerd.io/proxy-log-level";

/// Whether the proxy is an init container that stays (`true`) or a container beside the application (`false`), by the names that Linkerd gave
/// it one after the other; the first that is there counts.
pub(crate) const NATIVE_SIDECAR: [&str; 3] = [
    "config.linkerd.io/proxy-enable-native-sidecar",
    "config.beta.linkerd.io/proxy-enable-native-sidecar",
    "config.alpha.linkerd.io/proxy-enable-native-sidecar",
];

/// Which routing rule the bundled proxy follows in ingress mode: `documented` or `modern`.
pub const DIALECT: &str = "config.meshgate.dev/dialect";

/// `off` lets requests pass the same proxy twice; only control experiments want that.
pub const LOOP_GUARD: &str = "config.meshgate.dev/loop-guard";

/// How long the certificates of the pod's proxy are to be valid, such as `10s`; shorter than those of others.
pub const IDENTITY_LIFETIME: &str = "config.meshgate.dev/identity-lifetime";

/// After what time, such as `1s`, the pod's proxy asks for the next certificate, whatever the lifetime of the last.
pub const IDENTITY_REFRESH: &str = "config.meshgate.dev/identity-refresh";

/// On a namespace: `disabled` keeps Linkerd's webhooks from it.
pub(crate) const ADMISSION_WEBHOOKS: &str = "config.linkerd.io/admission-webhooks";

pub(crate) const PROXY_LOG_FORMAT: &str = "config.linkerd.io/proxy-log-format";
pub(crate) const PROXY_IMAGE: &str = "config.linkerd.io/proxy-image";
pub(crate) const PROXY_IMAGE_VERSION: &str = "config.linkerd.io/proxy-version";
pub(crate) const INIT_IMAGE: &str = "config.linkerd.io/init-image";
pub(crate) const INIT_IMAGE_VERSION: &str = "config.linkerd.io/init-image-version";
/// `disabled` lets the application start before a proxy that is not Meshgate's is ready.
pub(crate) const PROXY_AWAIT: &str = "config.linkerd.io/proxy-await";
pub(crate) const PROXY_CPU_REQUEST: &str = "config.linkerd.io/proxy-cpu-request";
pub(crate) const PROXY_CPU_LIMIT: &str = "config.linkerd.io/proxy-cpu-limit";
pub(crate) const PROXY_MEMORY_REQUEST: &str = "config.linkerd.io/proxy-memory-request";
pub(crate) const PROXY_MEMORY_LIMIT: &str = "config.linkerd.io/proxy-memory-limit";
pub(crate) const DEFAULT_INBOUND_POLICY: &str = "config.linkerd.io/default-inbound-policy";
pub(crate) const INBOUND_CONNECT_TIMEOUT: &str = "config.linkerd.io/proxy-inbound-connect-timeout";
pub(crate) const OUTBOUND_CONNECT_TIMEOUT: &str = "config.linkerd.io/proxy-outbound-connect-timeout";

pub(crate) const PROXY_VERSION: &str = "linkerd.io/proxy-version";
pub(crate) const CREATED_BY: &str = "linkerd.io/created-by";
pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub(crate) const CONTROL_PLANE_NS: &str = "linkerd.io/control-plane-ns";
/// On what belongs to Linkerd's network plugin.
pub(crate) const CNI_RESOURCE: &str = "linkerd.io/cni-resource";

pub(crate) const CONTROL_PLANE_COMPONENT: &str = "linkerd.io/control-plane-component";
pub(crate) const WORKLOAD_NS: &str = "linkerd.io/workload-ns";
