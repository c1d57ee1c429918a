//! The environment of a container, and `$(VAR)` in its command and arguments.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector};
use meshgate_store::{Selectors, Store};
use serde_json::Value;

use crate::kinds;

/// Where variables come from.
pub(crate) struct Sources<'a> {
    /// ConfigMaps, Secrets and Services.
    pub store: &'a Store,
    /// The pod, with its status as far as known.
    pub pod: &'a Pod,
    /// The pod's address.
    pub pod_ip: &'a str,
    /// The node's address.
    pub host_ip: Ipv4Addr,
}

/// Why a variable has no value. The sentences are the kubelet's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// The ConfigMap or Secret is not there.
    #[error("{kind} \"{name}\" not found")]
    MissingObject { kind: &'static str, name: String },
    /// It is there without the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey { kind: &'static str, namespace: String, name: String, key: String },
    /// `fieldRef` names a field that pods do not offer.
    #[error(
        "unsupported fieldPath: {0}; expected metadata.name, .namespace, .uid, .labels['k'], .annotations['k'], spec.nodeName, spec.serviceAccountName, status.podIP(s) or status.hostIP(s)"
    )]
    FieldPath(String),
    /// `resourceFieldRef` names an unknown resource.
    #[error("unsupported resource: {0}; expected limits or requests of cpu, memory or ephemeral-storage")]
    Resource(String),
}

type Result<T> = std::result::Result<T, EnvError>;

/// Variables in the order in which they are set; a later one replaces an earlier one of the same name.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Variables {
    /// Sets a variable.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.index.get(&name) {
            Some(index) => self.list[*index].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|index| self.list[*index].1.as_str())
    }

    /// Replaces `$(NAME)` by the variable's value. Unknown names stay as they are, `$$` is one `$`.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(tail) = after.strip_prefix('$') {
                result.push('$');
                rest = tail;
            } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
                match self.get(name) {
                    Some(value) => result.push_str(value),
                    None => result.push_str(&format!("$({name})")),
                }
                rest = tail;
            } else {
                result.push('$');
                rest = after;
            }
        }
        result.push_str(rest);
        result
    }

    /// All variables.
    pub(crate) fn into_list(self) -> Vec<(String, String)> {
        self.list
    }
}

/// The environment of `container`: Services, then `envFrom`, then `env`, on top of what the image brings.
pub(crate) fn build(container: &Container, image: &[(String, String)], sources: &Sources<'_>) -> Result<Variables> {
    let mut variables = Variables::default();
    variables.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    variables.set("HOME", "/root");
    for (name, value) in image {
        variables.set(name, value);
    }
    let spec = sources.pod.spec.as_ref();
    variables.set("HOSTNAME", hostname(sources.pod));
    services(&mut variables, sources, spec.and_then(|spec| spec.enable_service_links).unwrap_or(true));
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let data = if let Some(reference) = &from.config_map_ref {
            (kinds::config_maps(), "configmap", &reference.name, reference.optional)
        } else if let Some(reference) = &from.secret_ref {
            (kinds::secrets(), "secret", &reference.name, reference.optional)
        } else {
            continue;
        };
        let (resource, kind, name, optional) = data;
        let Some(object) = sources.object(&resource, kind, name, optional)? else { continue };
        for (key, value) in strings(&object, kind) {
            variables.set(format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, container, &variables, sources)? {
            variables.set(&variable.name, value);
        }
    }
    Ok(variables)
}

fn value(variable: &EnvVar, container: &Container, known: &Variables, sources: &Sources<'_>) -> Result<Option<String>> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(known.expand(variable.value.as_deref().unwrap_or_default())));
    };
    if let Some(field) = &from.field_ref {
        return sources.field(field).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(resource, container).map(Some);
    }
    let (resource, kind, name, key, optional) = if let Some(reference) = &from.config_map_key_ref {
        (kinds::config_maps(), "configmap", &reference.name, &reference.key, reference.optional)
    } else if let Some(reference) = &from.secret_key_ref {
        (kinds::secrets(), "secret", &reference.name, &reference.key, reference.optional)
    } else {
        return Ok(None);
    };
    let Some(object) = sources.object(&resource, kind, name, optional)? else { return Ok(None) };
    match strings(&object, kind).remove(key) {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::MissingKey {
            kind: if kind == "secret" { "Secret" } else { "ConfigMap" },
            namespace: sources.namespace().to_owned(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

impl Sources<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn object(
        &self,
        resource: &meshgate_store::GroupResource,
        kind: &'static str,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<meshgate_store::Object>> {
        match self.store.get(resource, self.namespace(), name) {
            Ok(object) => Ok(Some(object)),
            Err(_) if optional == Some(true) => Ok(None),
            Err(_) => Err(EnvError::MissingObject { kind, name: name.to_owned() }),
        }
    }

    /// The value of a downward API field.
    pub(crate) fn field(&self, field: &ObjectFieldSelector) -> Result<String> {
        let metadata = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let path = field.field_path.as_str();
        let value = match path {
            "metadata.name" => text(metadata.name.as_ref()),
            "metadata.namespace" => text(metadata.namespace.as_ref()),
            "metadata.uid" => text(metadata.uid.as_ref()),
            "metadata.labels" => all(metadata.labels.as_ref()),
            "metadata.annotations" => all(metadata.annotations.as_ref()),
            "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
            "spec.serviceAccountName" => {
                spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into())
            }
            "status.podIP" | "status.podIPs" => self.pod_ip.to_owned(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_string(),
            _ => {
                let (map, key) = path.split_once('[').ok_or_else(|| EnvError::FieldPath(path.to_owned()))?;
                let key = key.trim_end_matches(']').trim_matches(['\'', '"']);
                let map = match map {
                    "metadata.labels" => metadata.labels.as_ref(),
                    "metadata.annotations" => metadata.annotations.as_ref(),
                    _ => return Err(EnvError::FieldPath(path.to_owned())),
                };
                map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
            }
        };
        Ok(value)
    }
}

/// All labels or annotations as the downward API writes them into a file: `key="value"` lines.
fn all(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The strings in a ConfigMap's or Secret's `data`. Secrets are base64 there; values that are not UTF-8 are left out,
/// as no variable can hold them.
fn strings(object: &Value, kind: &str) -> BTreeMap<String, String> {
    let Some(data) = object["data"].as_object() else { return BTreeMap::new() };
    data.iter()
        .filter_map(|(key, value)| {
            let text = value.as_str()?;
            let text =
                if kind == "secret" { String::from_utf8(STANDARD.decode(text).ok()?).ok()? } else { text.to_owned() };
            Some((key.clone(), text))
        })
        .collect()
}

/// `spec.hostname`, else the pod's name, at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let name = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).or_else(|| pod.metadata.name.clone());
    name.unwrap_or_default().chars().take(63).collect()
}

/// `NAME_SERVICE_HOST` and its like, for `kubernetes` always and for the namespace's other Services when asked.
fn services(variables: &mut Variables, sources: &Sources<'_>, links: bool) {
    let list = |namespace| sources.store.list(&kinds::services(), Some(namespace), &Selectors::default());
    variables.set("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    variables.set("KUBERNETES_SERVICE_PORT", "443");
    variables.set("KUBERNETES_SERVICE_PORT_HTTPS", "443");
    variables.set("KUBERNETES_PORT", "tcp://10.96.0.1:443");
    variables.set("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443");
    variables.set("KUBERNETES_PORT_443_TCP_PROTO", "tcp");
    variables.set("KUBERNETES_PORT_443_TCP_PORT", "443");
    variables.set("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1");
    let Some(listing) = links.then(|| list(sources.namespace()).ok()).flatten() else { return };
    for service in &listing.items {
        let Some(host) = service["spec"]["clusterIP"].as_str().filter(|ip| !matches!(*ip, "" | "None")) else {
            continue;
        };
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_uppercase().replace('-', "_");
        variables.set(format!("{name}_SERVICE_HOST"), host);
        for (index, port) in service["spec"]["ports"].as_array().into_iter().flatten().enumerate() {
            let number = port["port"].to_string();
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
            let url = format!("{protocol}://{host}:{number}");
            if index == 0 {
                variables.set(format!("{name}_SERVICE_PORT"), &number);
                variables.set(format!("{name}_PORT"), &url);
            }
            if let Some(port_name) = port["name"].as_str() {
                variables.set(format!("{name}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_")), &number);
            }
            let prefix = format!("{name}_PORT_{number}_{}", protocol.to_uppercase());
            variables.set(&prefix, &url);
            variables.set(format!("{prefix}_PROTO"), &protocol);
            variables.set(format!("{prefix}_PORT"), &number);
            variables.set(format!("{prefix}_ADDR"), host);
        }
    }
}

/// A container's limit or request, rounded up to the divisor. A missing limit is the node's capacity.
pub(crate) fn resource_value(field: &ResourceFieldSelector, container: &Container) -> Result<String> {
    let resources = container.resources.as_ref();
    let (kind, name) = field.resource.split_once('.').ok_or_else(|| EnvError::Resource(field.resource.clone()))?;
    let map = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(EnvError::Resource(field.resource.clone())),
    };
    let fallback = match (kind, name) {
        ("limits", "cpu") => kinds::CAPACITY_CPU,
        ("limits", "memory") => kinds::CAPACITY_MEMORY,
        ("limits", "ephemeral-storage") => kinds::CAPACITY_STORAGE,
        ("requests", "cpu" | "memory" | "ephemeral-storage") => "0",
        _ => return Err(EnvError::Resource(field.resource.clone())),
    };
    let bad = || EnvError::Resource(field.resource.clone());
    let amount = map.and_then(|map| map.get(name)).map_or(fallback, |quantity| quantity.0.as_str());
    let amount = milli(amount).ok_or_else(bad)?;
    let divisor = match field.divisor.as_ref().map_or("0", |divisor| divisor.0.as_str()) {
        "" | "0" => 1000,
        divisor => milli(divisor).filter(|divisor| *divisor > 0).ok_or_else(bad)?,
    };
    Ok(amount.div_ceil(divisor).to_string())
}

/// A quantity in thousandths: `250m` is 250, `1` is 1000, `1Ki` is 1024000.
fn milli(quantity: &str) -> Option<u128> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(factor)?.div_ceil(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let mut variables = Variables::default();
        variables.set("A", "1");
        assert_eq!(variables.expand("x$(A)y"), "x1y");
        assert_eq!(variables.expand("$(B) $$(A) $A $"), "$(B) $(A) $A $");
        assert_eq!(variables.expand("$(A"), "$(A");
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one_in_place() {
        let mut variables = Variables::default();
        variables.set("A", "1");
        variables.set("B", "2");
        variables.set("A", "3");
        assert_eq!(variables.into_list(), [("A".to_owned(), "3".to_owned()), ("B".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn quantities() {
        assert_eq!(milli("250m"), Some(250));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("1Ki"), Some(1_024_000));
        assert_eq!(milli("1x"), None);
        let container = Container::default();
        let field = |resource: &str, divisor: Option<&str>| ResourceFieldSelector {
            resource: resource.to_owned(),
            divisor: divisor.map(|text| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned())),
            container_name: None,
        };
        assert_eq!(resource_value(&field("requests.cpu", None), &container).unwrap(), "0");
        assert!(resource_value(&field("limits.gpu", None), &container).is_err());
        assert_eq!(
            resource_value(&field("limits.cpu", Some("1m")), &container).unwrap(),
            (kinds::CAPACITY_CPU.parse::<u64>().unwrap() * 1000).to_string()
        );
    }
}
