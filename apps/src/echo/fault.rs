//! Breaking the backend while it runs.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The body of `POST /_fault`. It replaces what was set before, so `{}` mends everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// For so many milliseconds nothing listens on any port, and connections that are open end after the request under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse_ms: Option<u64>,
    /// The status of every answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds before every answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Status and delay concern only so many requests; all when none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What is broken at present.
#[derive(Default)]
pub(super) struct Faults(Mutex<Fault>);

impl Faults {
    pub fn set(&self, fault: Fault) {
        *self.0.lock() = fault;
    }

    pub fn get(&self) -> Fault {
        self.0.lock().clone()
    }

    /// Status and delay for the next request. Counts it.
    pub fn next(&self) -> (Option<u16>, u64) {
        let mut fault = self.0.lock();
        match &mut fault.count {
            Some(0) => return (None, 0),
            Some(count) => *count -= 1,
            None => {}
        }
        (fault.status, fault.delay_ms.unwrap_or_default())
    }
}
