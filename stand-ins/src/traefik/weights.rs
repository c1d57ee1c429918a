//! `service-weights`: how much each of several Services of one path gets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::annotations;
use super::translate::{Path, paths};
use crate::objects::{Object, Objects, SERVICES};
use crate::services::service_port;

/// Host, path and Service.
type Key = (String, String, String);

/// The weight of one server of each Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights(Option<BTreeMap<Key, u64>>);

/// The whole, in thousandths of a percent.
const WHOLE: i64 = 100_000;

impl Weights {
    /// Reads an Ingress' annotation, as `weight_allocator.go` does: what a path's Services are given is split among their servers,
    /// and the Services that are given nothing share what is left.
    ///
    /// # Errors
    /// Why they cannot be used: the Ingress is not taken then.
    pub(crate) fn read(objects: &Objects, ingress: &Object) -> Result<Self, String> {
        let Some(text) = annotations::get(ingress, "service-weights") else { return Ok(Self(None)) };
        let given = given(text)?;
        let mut left: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut sharing: BTreeMap<(String, String), Vec<(Key, u64)>> = BTreeMap::new();
        let mut weights = BTreeMap::new();
        for path in paths(&ingress.data) {
            let key = key(&path);
            let servers = servers(objects, ingress, &path)?;
            let of_path = (key.0.clone(), key.1.clone());
            let left = left.entry(of_path.clone()).or_insert(WHOLE);
            match given.get(&key.2) {
                Some(share) => {
                    *left -= share;
                    if *left < 0 {
                        return Err(format!("percentage value {} must not exceed 100%", percent(WHOLE - *left)));
                    }
                    weights.insert(key, of_each(*share, servers));
                }
                None => sharing.entry(of_path).or_default().push((key, servers)),
            }
        }
        for (path, left) in left {
            match sharing.remove(&path) {
                Some(services) => {
                    let servers = services.iter().map(|(_, servers)| servers).sum();
                    weights.extend(services.into_iter().map(|(key, _)| (key, of_each(left, servers))));
                }
                None if left > 0 => {
                    let (host, path) = path;
                    return Err(format!(
                        "weights of path {host}{path} not summing up to 100%: {}",
                        percent(WHOLE - left)
                    ));
                }
                None => {}
            }
        }
        Ok(Self(Some(weights)))
    }

    /// The weight of each server of a Service under a path; 1 without the annotation.
    pub(crate) fn of(&self, path: &Path<'_>) -> u64 {
        self.0.as_ref().map_or(1, |weights| weights.get(&key(path)).copied().unwrap_or_default())
    }
}

fn key(path: &Path<'_>) -> Key {
    (path.host.to_owned(), path.path.to_owned(), path.service.to_owned())
}

/// `SERVICE: 70%` or `SERVICE: 0.7`, one a line.
fn given(text: &str) -> Result<BTreeMap<String, i64>, String> {
    let lines: BTreeMap<String, Value> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let share = |(service, value): (String, Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (number, whole) = match text.strip_suffix('%') {
            Some(number) => (number, 1000.0),
            None => (text.as_str(), 100_000.0),
        };
        let number: f64 = number.trim().parse().map_err(|_| format!("invalid percentage value {text:?}"))?;
        #[expect(clippy::cast_possible_truncation, reason = "as the real one does")]
        Ok((service, (number * whole) as i64))
    };
    lines.into_iter().map(share).collect()
}

fn of_each(share: i64, servers: u64) -> u64 {
    u64::try_from(share).unwrap_or_default().checked_div(servers).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a hundred thousand is precise")]
fn percent(share: i64) -> String {
    format!("{:.3}%", share as f64 / 1000.0)
}

/// How many ready pods a path's Service has.
fn servers(objects: &Objects, ingress: &Object, path: &Path<'_>) -> Result<u64, String> {
    let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
    if objects.get(SERVICES, namespace, path.service).is_none() {
        return Err(format!("endpoints not found for {namespace}/{}", path.service));
    }
    let port = path.port.as_ref().and_then(|port| service_port(objects, namespace, path.service, port));
    Ok(port.map_or(0, |port| port.endpoints(objects).len() as u64))
}
