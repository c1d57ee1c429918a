//! TLS, identities, source addresses and named ports: where traffic is not plain HTTP to a number.

use anyhow::Context as _;
use meshgate_apps::echo::Answer;
use meshgate_harness::case::Case;
use meshgate_harness::probe::Record;

mod addresses;
mod identity;
mod rotation;
mod sessions;
mod string_port;

pub(crate) use sessions::{COMMON_NAME, certificate, secret, terminate};

/// The cases of this area.
pub const CASES: &[&[Case]] =
    &[sessions::CASES, addresses::CASES, string_port::CASES, identity::CASES, rotation::CASES];

/// What an echo backend says of a request.
fn answer(record: &Record) -> anyhow::Result<Answer> {
    serde_json::from_str(&record.body).context("the answer of an echo backend")
}
