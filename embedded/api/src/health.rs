//! `/version`, `/healthz`, `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::query::Query;
use crate::reply::{self, Reply};

/// The Kubernetes version that the server says it is.
pub(crate) const GIT_VERSION: &str = "v1.37.1";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/healthz`, `/livez`, `/readyz`: whoever gets an answer gets a good one, for the objects are in this process.
pub(crate) fn check(name: &str, query: &Query) -> Reply {
    if query.flag("verbose") {
        return reply::text(StatusCode::OK, format!("[+]ping ok\n[+]log ok\n[+]store ok\n{name} check passed\n"));
    }
    reply::text(StatusCode::OK, "ok")
}

/// Requests by verb, resource and code.
#[derive(Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, String, u16), u64>>);

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, verb: &str, resource: &str, code: u16) {
        *self.0.lock().entry((verb.to_uppercase(), resource.to_owned(), code)).or_default() += 1;
    }

    /// `/metrics`, in Prometheus' text format.
    pub(crate) fn metrics(&self, revision: u64) -> String {
        let mut text = String::from(
            "# HELP apiserver_request_total Requests by verb, resource and HTTP code.\n# TYPE apiserver_request_total counter\n",
        );
        for ((verb, resource, code), count) in self.0.lock().iter() {
            text.push_str(&format!(
                "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}\n"
            ));
        }
        text.push_str(&format!(
            "# HELP meshgate_store_revision The store's current resourceVersion.\n# TYPE meshgate_store_revision gauge\nmeshgate_store_revision {revision}\n"
        ));
        text
    }
}
