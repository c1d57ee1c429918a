//! What names the Service in ingress mode, and how its spellings are read.
//!
//! The two dialects differ where there is no usable override: `documented` goes on to `:authority` and `Host`, `modern` to the
//! address that was dialled.

use std::time::Duration;

use meshgate_clusters::Vantage;
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::matrix::{Dialect, Mesh};
use meshgate_harness::plan::NAMESPACE;
use meshgate_harness::probe::{self, Record, Request, Version};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::target::{self, A, B, DIALLED, OVERRIDE, Place, ask, came_from, dial};
use crate::counters::{fqdn, only_pod};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "modes/override-wins-over-host",
        summary: "The header decides against Host and the dialled address, and Host arrives unchanged",
        claims: &[Evidence::Confirms("ingress.route-by-override")],
        run: |context| Box::pin(wins_over_host(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-absent",
        summary: "Without the header, Host decides (documented) or the dialled address (modern)",
        claims: &[Evidence::HoldsAsDocumented("ingress.route-by-host")],
        run: |context| Box::pin(absent(context, Version::H1)),
        ..INGRESS
    },
    Case {
        id: "modes/authority",
        summary: "Without the header, :authority decides (documented) or the dialled address (modern)",
        claims: &[Evidence::HoldsAsDocumented("ingress.route-by-authority")],
        run: |context| Box::pin(absent(context, Version::H2c)),
        ..INGRESS
    },
    Case {
        id: "modes/header-without-port",
        summary: "A name without a port means port 80",
        claims: &[Evidence::Confirms("nginx.port"), Evidence::Confirms("traefik.port")],
        run: |context| Box::pin(without_port(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-named-port",
        summary: "The name of a port is not understood: it means port 80, whatever port the Service calls so",
        claims: &[Evidence::Confirms("notes.numeric-port"), Evidence::Confirms("notes.string-port-80")],
        run: |context| Box::pin(named_port(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-short-name",
        summary: "A name that is not whole names no Service: it is refused with a reason, though DNS would find it",
        needs: &[
            Need::Mesh(Mesh::Bundled),
            Need::Mode(Mode::Ingress),
            Need::Dialect(Dialect::Modern),
            Need::OncePerController,
        ],
        claims: &[Evidence::Confirms("nginx.fqdn"), Evidence::Confirms("traefik.fqdn")],
        run: |context| Box::pin(short_name(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-ip",
        summary: "An address in the header is followed (documented) or refused with a reason (modern)",
        needs: EXPLAINED,
        run: |context| Box::pin(ip(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-twice",
        summary: "Of two header lines the first counts",
        run: |context| Box::pin(twice(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-comma-joined",
        summary: "Two values joined by a comma name nothing: with ports as if absent, without ports refused with a reason",
        needs: EXPLAINED,
        run: |context| Box::pin(comma_joined(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-case-and-dot",
        summary: "Case and a dot at the end of the name make no difference",
        run: |context| Box::pin(case_and_dot(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-unknown-service",
        summary: "A Service that does not exist is a prompt error that names it, and the connection serves on",
        needs: EXPLAINED,
        run: |context| Box::pin(unknown_service(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-stripped",
        summary: "The application never sees the header, whatever its value",
        run: |context| Box::pin(stripped(context)),
        ..INGRESS
    },
    Case {
        id: "modes/header-ignored",
        summary: "In default mode the header decides nothing in any spelling, and Host neither",
        needs: &[Need::Mode(Mode::Default), Need::OncePerController],
        run: |context| Box::pin(ignored(context)),
        ..INGRESS
    },
];

/// Of cases about an error with a reason. Linkerd's own proxy gives none in ingress mode: it closes the connection without an answer, or lets the
/// client wait where a Service does not exist.
const EXPLAINED: &[Need] = &[Need::Mesh(Mesh::Bundled), Need::Mode(Mode::Ingress), Need::OncePerController];

/// What the cases have in common.
const INGRESS: Case = Case {
    id: "",
    summary: "",
    needs: &[Need::Mode(Mode::Ingress), Need::OncePerController],
    claims: &[],
    stage: Stage::Shared,
    plan: target::plan,
    run: |context| Box::pin(wins_over_host(context)),
};

/// The right one for the cell's dialect.
fn by_dialect<T>(context: &Context, documented: T, modern: T) -> T {
    match context.world.cell.dialect {
        Some(Dialect::Documented) => documented,
        _ => modern,
    }
}

/// A value of the header leads to a place.
async fn leads_to(context: &Context, value: &str, expected: Place) -> Result<Record, Failure> {
    let record = ask(context, dial(context).header(OVERRIDE, value)).await?;
    came_from(format!("the answer with {OVERRIDE}: {value}"), &record, expected)?;
    Ok(record)
}

/// An answer of the proxy itself that says what is wrong, with one of these statuses, and soon.
fn refused(what: &str, record: &Record, statuses: &[u16], reason: &str) -> Result<(), Failure> {
    let explained = record.header("l5d-proxy-error").any(|error| error.contains(reason));
    let soon = Duration::from_micros(record.total_us) < Duration::from_secs(5);
    let status = record.status.is_some_and(|status| statuses.contains(&status));
    check(what).that(
        record.error.is_none() && status && explained && soon,
        format!("one of {statuses:?} within 5 s and an l5d-proxy-error with {reason:?}"),
        format!("{} after {} ms", probe::outcome(record), record.total_us / 1000),
    )
}

async fn wins_over_host(context: Context) -> CaseResult {
    let (a, b) = (fqdn(&context, "a"), fqdn(&context, "b"));
    let record = ask(&context, dial(&context).host(&b).header(OVERRIDE, format!("{a}:80"))).await?;
    came_from("the answer", &record, A)?;
    let host = record.seen.and_then(|seen| seen.host);
    check("the Host that arrives").equal(host.as_deref(), Some(b.as_str()))?;
    // The control: without the header the same request goes elsewhere.
    let control = ask(&context, dial(&context).host(&b)).await?;
    came_from("the control without the header", &control, by_dialect(&context, B, DIALLED))?;
    Ok(Outcome::Pass)
}

async fn absent(context: Context, version: Version) -> CaseResult {
    let request = |host: String| dial(&context).version(version).host(host);
    let record = ask(&context, request(fqdn(&context, "a"))).await?;
    came_from("the answer to a request for Service a", &record, by_dialect(&context, A, DIALLED))?;
    let record = ask(&context, request(format!("{}:80", fqdn(&context, "b")))).await?;
    came_from("the answer to a request for Service b", &record, by_dialect(&context, B, DIALLED))?;
    Ok(Outcome::Pass)
}

async fn without_port(context: Context) -> CaseResult {
    leads_to(&context, &fqdn(&context, "a"), A).await?;
    // The control: another port of the same Service is another place.
    leads_to(&context, &format!("{}:8081", fqdn(&context, "b")), DIALLED).await?;
    leads_to(&context, &fqdn(&context, "b"), B).await?;
    Ok(Outcome::Pass)
}

async fn named_port(context: Context) -> CaseResult {
    let b = fqdn(&context, "b");
    // The Service's port `alt` is 8081.
    leads_to(&context, &format!("{b}:alt"), B).await?;
    leads_to(&context, &format!("{b}:http"), B).await?;
    leads_to(&context, &format!("{b}:8081"), ("echo-b", 8081)).await?;
    Ok(Outcome::Pass)
}

async fn short_name(context: Context) -> CaseResult {
    let name = context.plan.full("a");
    for short in [format!("{name}.{NAMESPACE}.svc"), format!("{name}.{NAMESPACE}"), name] {
        let record = ask(&context, dial(&context).header(OVERRIDE, format!("{short}:80"))).await?;
        refused(&format!("the answer with {OVERRIDE}: {short}:80"), &record, &[502], &short)?;
    }
    // The control: the whole name of the same Service.
    leads_to(&context, &format!("{}:80", fqdn(&context, "a")), A).await?;
    Ok(Outcome::Pass)
}

async fn ip(context: Context) -> CaseResult {
    let pod = only_pod(&context, "echo-b").await?;
    let value = format!("{pod}:8080");
    let record = ask(&context, dial(&context).header(OVERRIDE, &value)).await?;
    let what = format!("the answer with {OVERRIDE}: {value}");
    match context.world.cell.dialect {
        Some(Dialect::Documented) => came_from(what, &record, B)?,
        _ => refused(&what, &record, &[400], "not a valid host:port")?,
    }
    Ok(Outcome::Pass)
}

async fn twice(context: Context) -> CaseResult {
    let (a, b) = (format!("{}:80", fqdn(&context, "a")), format!("{}:80", fqdn(&context, "b")));
    for (first, second, expected) in [(&a, &b, A), (&b, &a, B)] {
        let record = ask(&context, dial(&context).header(OVERRIDE, first).header(OVERRIDE, second)).await?;
        came_from(format!("the answer with {first} before {second}"), &record, expected)?;
        let left = record.seen.map_or(0, |seen| seen.header(OVERRIDE).count());
        check("the header lines that the application sees").equal(left, 0)?;
    }
    Ok(Outcome::Pass)
}

async fn comma_joined(context: Context) -> CaseResult {
    let (a, b) = (fqdn(&context, "a"), fqdn(&context, "b"));
    // Host is the dialled Service, so both dialects fall back to it.
    leads_to(&context, &format!("{a}:80,{b}:80"), DIALLED).await?;
    let record = ask(&context, dial(&context).header(OVERRIDE, format!("{a},{b}"))).await?;
    refused("the answer to two names without ports", &record, &[400], "not a valid host:port")?;
    Ok(Outcome::Pass)
}

async fn case_and_dot(context: Context) -> CaseResult {
    let a = fqdn(&context, "a");
    for value in [format!("{}:80", a.to_uppercase()), format!("{a}.:80"), format!("{}.", a.to_uppercase())] {
        leads_to(&context, &value, A).await?;
    }
    Ok(Outcome::Pass)
}

async fn unknown_service(context: Context) -> CaseResult {
    let nowhere = fqdn(&context, "nowhere");
    let on = |request: Request| request.on(probe::Connection::Named("one".into()));
    let batch = probe::Batch::of(vec![
        on(dial(&context).header(OVERRIDE, format!("{nowhere}:80"))),
        on(dial(&context).header(OVERRIDE, fqdn(&context, "a"))),
    ]);
    let records = context.send_inside(batch).await?;
    let [unknown, known] = records.as_slice() else {
        return Err(check("the answers").failure("two", records.len().to_string()));
    };
    refused("the answer for a Service that does not exist", unknown, &[404, 502, 503, 504], &nowhere)?;
    came_from("the answer for one that does, right after it", known, A)?;
    Ok(Outcome::Pass)
}

async fn stripped(context: Context) -> CaseResult {
    let name = format!("{}:80", fqdn(&context, "b"));
    for (spelling, value) in
        [(OVERRIDE, name.as_str()), ("L5D-Dst-Override", &name), (OVERRIDE, "not a name"), (OVERRIDE, "")]
    {
        let record = ask(&context, dial(&context).header(spelling, value)).await?;
        let seen = record.seen.as_ref().filter(|_| record.is(200));
        let left: Option<Vec<&str>> = seen.map(|seen| seen.header(OVERRIDE).collect());
        check(format!("what the application sees of {spelling}: {value}")).equal(left, Some(Vec::new()))?;
    }
    // The control: an application that gets the header says so. Nothing on the node's own way to the pod removes it.
    let pod = only_pod(&context, "echo-b").await?;
    let direct = Request::get(format!("{pod}:8080"), "/").header(OVERRIDE, &name);
    let record = context.send_from(Vantage::Node, direct).await;
    let seen: Vec<&str> = record.seen.iter().flat_map(|seen| seen.header(OVERRIDE)).collect();
    check("the control: what an application sees without that proxy").equal(seen, vec![name.as_str()])?;
    Ok(Outcome::Pass)
}

async fn ignored(context: Context) -> CaseResult {
    let a = fqdn(&context, "a");
    let values = [
        format!("{a}:80"),
        a.clone(),
        format!("{a}:http"),
        a.to_uppercase(),
        "10.244.0.1:80".into(),
        "not a name".into(),
    ];
    for value in &values {
        let record = leads_to(&context, value, DIALLED).await?;
        let seen: Vec<&str> = record.seen.iter().flat_map(|seen| seen.header(OVERRIDE)).collect();
        check("the header that the application sees").equal(seen, vec![value.as_str()])?;
    }
    let record = ask(&context, dial(&context).host(&a)).await?;
    came_from("the answer to a request whose Host is another Service", &record, DIALLED)?;
    // The control: dialled itself, that Service answers.
    let record = ask(&context, Request::get(format!("{a}:80"), "/")).await?;
    came_from("the control: the answer of the Service itself", &record, A)?;
    Ok(Outcome::Pass)
}
