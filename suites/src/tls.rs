//! TLS, source addresses and named ports: where traffic is not plain HTTP to a number.

use meshgate_harness::case::Case;

mod addresses;
mod sessions;
mod string_port;

/// The cases of this area.
pub const CASES: &[&[Case]] = &[sessions::CASES, addresses::CASES, string_port::CASES];
