//! Three places to tell apart, and requests from the probe pod, whose proxy runs in the cell's mode and dialect.

use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{self, Batch, Record, Request};
use meshgate_harness::verdict::{Failure, check};

use crate::counters::fqdn;

/// The header that names a Service.
pub const OVERRIDE: &str = "l5d-dst-override";

/// Who answered: the backend and its port.
pub type Place = (&'static str, u16);

/// Service `a`, port 80.
pub const A: Place = ("echo-a", 8080);
/// Service `b`, port 80.
pub const B: Place = ("echo-b", 8080);
/// Service `dialled`, port 8081, which the requests of this area connect to.
pub const DIALLED: Place = ("echo-b", 8081);

/// The three Services.
pub fn plan(plan: &mut Plan) {
    plan.service("a", Backend::A);
    plan.service("b", Backend::B);
    plan.service("dialled", Backend::B);
}

/// A GET to [`DIALLED`], by its name; Host says the same.
pub fn dial(context: &Context) -> Request {
    Request::get(format!("{}:8081", fqdn(context, "dialled")), "/")
}

/// The place that answered with 200.
pub fn place(record: &Record) -> Option<(&str, u16)> {
    record.seen.as_ref().filter(|_| record.is(200)).map(|seen| (seen.service.as_str(), seen.port))
}

/// The answer came from a place.
pub fn came_from(what: impl Into<String>, record: &Record, expected: Place) -> Result<(), Failure> {
    let found = match &record.seen {
        Some(seen) => format!("{} from {} port {}", record.outcome(), seen.service, seen.port),
        None => probe::outcome(record),
    };
    check(what).that(place(record) == Some(expected), format!("200 from {} port {}", expected.0, expected.1), found)
}

/// Sends one request from the probe pod.
pub async fn ask(context: &Context, request: Request) -> Result<Record, Failure> {
    let mut records = context.send_inside(Batch::of(vec![request])).await?;
    Ok(records.pop().unwrap_or_default())
}
