//! Routing: what reaches which backend, and what of the request arrives unchanged.

use meshgate_harness::case::Case;

mod targets;

/// The cases of this area.
pub const CASES: &[Case] = targets::CASES;
