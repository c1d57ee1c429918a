//! Streams into pods: logs, exec, port-forward, and the HTTP proxy to pods and Services.

pub(crate) mod channels;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod logs;
pub(crate) mod proxy;
mod spdy;
mod websocket;

use meshgate_store::{GroupResource, Object, Status};
use serde_json::Value;

use crate::handler::Call;

/// The pod of a path.
fn pod(call: &Call) -> Result<Object, Status> {
    call.api.store.get(&GroupResource::new("", "pods"), &call.path.namespace, &call.path.name)
}

/// The container that a request means: the named one, or the only one there is. 400 otherwise, as the kubelet words it.
fn container(call: &Call) -> Result<String, Status> {
    let pod = pod(call)?;
    let names = |key: &str| -> Vec<String> {
        let containers = pod.pointer(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        containers.iter().filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let name = &call.path.name;
    match call.query.get("container") {
        Some(asked) if main.iter().chain(&init).any(|container| container == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] if init.is_empty() => Ok(only.clone()),
            _ => {
                let mut message =
                    format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(Status::bad_request(message))
            }
        },
    }
}
