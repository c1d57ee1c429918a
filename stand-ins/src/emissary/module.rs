//! The Module `ambassador`: what holds for every Mapping that says nothing else.

use std::time::Duration;

use serde_json::Value;

use super::Resource;

/// `cluster_request_timeout_ms` of a Module that says nothing.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What this stand-in reads of it.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// The name of the resolver of Mappings that name none.
    pub(super) resolver: String,
    pub(super) timeout: Duration,
    pub(super) add_linkerd_headers: bool,
    /// Services without a namespace are Emissary's neighbours, not the Mapping's.
    pub(super) services_are_neighbours: bool,
    pub(super) merge_slashes: bool,
    pub(super) preserve_external_request_id: bool,
    defaults: Value,
}

impl Module {
    pub(super) fn read(modules: &[Resource]) -> Self {
        let module = modules.iter().find(|module| module.name == "ambassador");
        let config = module.map(|module| module.spec["config"].clone()).unwrap_or_default();
        let is = |field: &str| config[field] == true;
        Self {
            resolver: config["resolver"].as_str().unwrap_or("kubernetes-service").to_owned(),
            timeout: config["cluster_request_timeout_ms"].as_u64().map_or(TIMEOUT, Duration::from_millis),
            add_linkerd_headers: is("add_linkerd_headers"),
            services_are_neighbours: is("use_ambassador_namespace_for_service_resolution"),
            merge_slashes: is("merge_slashes"),
            preserve_external_request_id: is("preserve_external_request_id"),
            defaults: config["defaults"]["httpmapping"].clone(),
        }
    }

    /// A Mapping's own field, or the default of the few that have one (`AllowedKeys` in `irhttpmapping.py`).
    pub(super) fn field<'a>(&'a self, spec: &'a Value, name: &str) -> &'a Value {
        match &spec[name] {
            Value::Null => &self.defaults[name],
            own => own,
        }
    }
}
