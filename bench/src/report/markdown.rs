//! The tables.

use std::fmt::Write as _;

use super::{
    tables::{NOTHING, median, table, with_range},
    title,
};
use crate::{
    load::{Latency, Shape},
    measure::Visit,
    results::{CROWD, MANY, OPEN_RATE, Results, Row, RowOf, SHAPES},
    services::SCALES,
    statistics::Spread,
};

/// A proxy that uses less of its core than this was not what limited the load.
const SATURATED: f64 = 0.9;
/// More of the time than this for others makes numbers of no use.
const DISTURBED: f64 = 0.05;
/// The load that proxies are compared at.
const COMPARED: Shape = Shape::Http1 { connections: 64 };
const HTTP2: Shape = Shape::Http2 { connections: 4, streams: 32 };
const DIRECT: &str = "direct";

/// All tables, with what they mean.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::from("# Proxies side by side\n\n");
    let rounds = results.rounds.len();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{}. Medians of {rounds} {}, each load measured for {} s. One core for the proxy, one for load and backend; GET, answers of \
         100 bytes; metrics on.\n",
        results.machine,
        if rounds == 1 { "round" } else { "rounds, in each of which every proxy is measured" },
        results.times.measured.as_secs_f64(),
    );
    let sections = [
        ("Requests per second", throughput(results)),
        ("CPU seconds of the proxy per 100,000 requests", cpu(results)),
        (&format!("Latency at {OPEN_RATE} requests per second, open loop"), latency(results)),
        ("Resident memory, MiB", memory(results)),
        ("Compared", comparison(results)),
        ("Many routes and many endpoints, 64 connections", scales(results)),
        ("TLS to a backend with a proxy of its own, 64 connections", meshed(results)),
        ("Disturbance", disturbance(results)),
        ("Problems", problems(results)),
        ("What was measured", programs(results)),
    ];
    for (heading, section) in sections {
        if !section.is_empty() {
            let _ = writeln!(text, "## {heading}\n\n{section}");
        }
    }
    text
}

fn headings(first: &str, others: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(others).collect()
}

fn throughput(results: &Results) -> String {
    let mut limited = false;
    let rows: Vec<_> = results
        .subjects
        .iter()
        .map(|subject| {
            let cells = SHAPES.map(|shape| {
                let row = Row::Plain(shape);
                let mut cell = median(results.spread(subject, |visit| visit.per_second(row)), 0);
                if results.spread(subject, |visit| visit.wanted(row)).is_some_and(|share| share.median < SATURATED) {
                    limited = true;
                    cell.push('*');
                }
                cell
            });
            headings(subject, cells)
        })
        .collect();
    let mut text = table(&headings("connections", SHAPES.map(title)), &rows);
    if limited {
        text.push_str("\n\\* The proxy's core was not fully used, so that something else is the limit: the load's core, or waiting for each other.\n");
    }
    text
}

fn cpu(results: &Results) -> String {
    let rows = proxies(results).map(|subject| {
        headings(
            subject,
            SHAPES.map(|shape| median(results.spread(subject, |visit| visit.cpu_per_100k(Row::Plain(shape))), 2)),
        )
    });
    table(&headings("connections", SHAPES.map(title)), &rows.collect::<Vec<_>>())
}

fn latency(results: &Results) -> String {
    let rows = results.subjects.iter().map(|subject| {
        let of = |number: fn(&Latency) -> f64| results.spread(subject, |visit| visit.latency.as_ref().map(number));
        let added = if subject == DIRECT { None } else { results.compared(subject, DIRECT, added_p99) };
        headings(
            subject,
            [
                median(of(|latency| latency.p50), 0),
                median(of(|latency| latency.p99), 0),
                median(of(|latency| latency.p999), 0),
                with_range(added, 0),
            ],
        )
    });
    let columns = ["p50", "p99", "p99.9", "p99 added to direct's"].map(str::to_owned);
    let text = table(&headings("µs", columns), &rows.collect::<Vec<_>>());
    format!("{text}\nFrom when a request was due, over 32 connections of HTTP/1.1.\n")
}

fn memory(results: &Results) -> String {
    let rows = proxies(results).map(|subject| {
        let numbers: [fn(&Visit) -> Option<f64>; 3] =
            [Visit::idle_mib, |visit| visit.resident_mib(MANY), |visit| visit.resident_mib(CROWD)];
        headings(subject, numbers.map(|number| median(results.spread(subject, number), 1)))
    });
    let columns = ["idle", "256 connections", "1,000 connections"].map(str::to_owned);
    table(&headings("MiB", columns), &rows.collect::<Vec<_>>())
}

/// Every proxy that takes routes and endpoints, in both modes, beside every other.
fn comparison(results: &Results) -> String {
    let peers: Vec<&str> =
        ["envoy", "nginx", "haproxy"].into_iter().filter(|peer| is_measured(results, peer)).collect();
    let ours = proxies(results).filter(|subject| !["envoy", "nginx", "haproxy"].contains(&subject.as_str()));
    let mut rows = Vec::new();
    for subject in ours.filter(|subject| is_measured(results, subject)) {
        for other in std::iter::once(&DIRECT).chain(&peers) {
            let of = |number: &dyn Fn(&Visit) -> Option<f64>| {
                with_range(results.compared(subject, other, |one, two| ratio(number(one), number(two))), 2)
            };
            let rps = |shape| of(&move |visit: &Visit| visit.per_second(Row::Plain(shape)));
            let added = match *other {
                DIRECT => NOTHING.to_owned(),
                other => with_range(added_ratio(results, subject, other), 2),
            };
            rows.push(vec![
                format!("{subject} / {other}"),
                rps(COMPARED),
                rps(HTTP2),
                of(&|visit| visit.cpu_per_100k(Row::Plain(COMPARED))),
                added,
                of(&|visit| visit.resident_mib(MANY)),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns =
        ["requests/s, 64", "requests/s, HTTP/2 4x32", "CPU per request, 64", "p99 added to direct's", "memory, 256"];
    let text = table(&headings("ratio", columns.map(str::to_owned)), &rows);
    format!("{text}\nRatios within a round: the median of the rounds, with the least and the greatest.\n")
}

fn scales(results: &Results) -> String {
    let mut rows = Vec::new();
    for subject in &results.subjects {
        let kinds: [(&str, RowOf); 2] = [("routes", Row::Routes), ("endpoints", Row::Endpoints)];
        for (what, row) in kinds.into_iter().filter(|(_, row)| results.has(subject, row(1))) {
            let rps = SCALES.map(|scale| median(results.spread(subject, |visit| visit.per_second(row(scale))), 0));
            let cpu = SCALES.map(|scale| median(results.spread(subject, |visit| visit.cpu_per_100k(row(scale))), 2));
            let least_and_most = |visit: &Visit| {
                let (least, most) = (row(SCALES[0]), row(SCALES[SCALES.len() - 1]));
                ratio(visit.cpu_per_100k(most), visit.cpu_per_100k(least))
            };
            rows.push(headings(&format!("{subject}, {what}: requests/s"), rps.into_iter().chain([NOTHING.to_owned()])));
            let growth = with_range(results.spread(subject, least_and_most), 2);
            rows.push(headings(&format!("{subject}, {what}: CPU s per 100k"), cpu.into_iter().chain([growth])));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns = SCALES.map(|scale| scale.to_string()).into_iter().chain(["1,000 / 1".to_owned()]);
    let text = table(&headings("number of", columns), &rows);
    format!("{text}\nRequests match the last route of a ServiceProfile; endpoints are that many addresses.\n")
}

fn meshed(results: &Results) -> String {
    let mut rows = Vec::new();
    for subject in &results.subjects {
        for http2 in [false, true] {
            let [plain, tls] = [false, true].map(|tls| Row::Meshed { tls, http2 });
            if !results.has(subject, plain) {
                continue;
            }
            let cpu = |row| median(results.spread(subject, |visit| visit.cpu_per_100k(row)), 2);
            let rps = |row| median(results.spread(subject, |visit| visit.per_second(row)), 0);
            let both = results.spread(subject, |visit| ratio(visit.cpu_per_100k(tls), visit.cpu_per_100k(plain)));
            let wire = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            rows.push(vec![
                format!("{subject}, {wire} between the proxies"),
                cpu(plain),
                cpu(tls),
                with_range(both, 2),
                rps(plain),
                rps(tls),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns = ["CPU s per 100k, plain", "with TLS", "ratio", "requests/s, plain", "with TLS"];
    let text = table(&headings("", columns.map(str::to_owned)), &rows);
    format!(
        "{text}\nThe CPU time is that of the client's proxy. The backend's shares a core with load and backend, and limits the requests.\n"
    )
}

/// How much of the time something else ran on the cores. A backend's own proxy does so on purpose.
fn disturbance(results: &Results) -> String {
    let rows = results.rounds.iter().flatten().flat_map(|visit| &visit.rows);
    let shares = rows.filter(|(row, _)| !matches!(row, Row::Meshed { .. })).map(|(_, throughput)| throughput.disturbed);
    let Some(Spread { median, max, .. }) = Spread::of(shares.map(|share| share * 100.0)) else { return String::new() };
    let mut text = format!(
        "Proxy or load could have run, but something else did, for {median:.1} % of the time (median of all measurements; {max:.1} % at \
         most).\n"
    );
    if median > DISTURBED * 100.0 {
        text.push_str("**The machine was not quiet: run it again when nothing else does.**\n");
    }
    text
}

fn problems(results: &Results) -> String {
    let mut text = String::new();
    for subject in &results.subjects {
        let errors: u64 = results.visits(subject).map(Visit::errors).sum();
        if errors > 0 {
            let _ = writeln!(
                text,
                "- {subject}: {errors} requests failed, or were answered by something else than the backend"
            );
        }
        let mut problems: Vec<&str> = results.visits(subject).filter_map(|visit| visit.problem.as_deref()).collect();
        problems.dedup();
        for problem in problems {
            let _ = writeln!(text, "- {subject}: {}", problem.replace('\n', "\n      "));
        }
    }
    text
}

fn programs(results: &Results) -> String {
    let lines = results.subjects.iter().zip(&results.programs);
    lines.map(|(subject, program)| format!("- {subject}: {program}\n")).collect()
}

fn proxies(results: &Results) -> impl Iterator<Item = &String> {
    results.subjects.iter().filter(|subject| *subject != DIRECT)
}

fn is_measured(results: &Results, subject: &str) -> bool {
    results.has(subject, Row::Plain(COMPARED))
}

fn ratio(one: Option<f64>, two: Option<f64>) -> Option<f64> {
    Some(one? / two?)
}

fn added_p99(one: &Visit, direct: &Visit) -> Option<f64> {
    Some(one.latency?.p99 - direct.latency?.p99)
}

/// What two proxies add to the p99 of nothing, as a ratio. Where the other one adds nothing there is none.
fn added_ratio(results: &Results, subject: &str, other: &str) -> Option<Spread> {
    let added = |round: &[Visit], name: &str| {
        let find = |name: &str| round.iter().find(|visit| visit.subject == name);
        added_p99(find(name)?, find(DIRECT)?)
    };
    let ratios = results.rounds.iter().filter_map(|round| {
        let base = added(round, other).filter(|base| *base > 0.0)?;
        Some(added(round, subject)? / base)
    });
    Spread::of(ratios)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{load::Throughput, measure::Times};

    fn visit(subject: &str, requests: u64, cpu: Option<f64>, p99: f64) -> Visit {
        let rows = SHAPES.map(|shape| {
            let throughput = Throughput { requests, seconds: 1.0, cpu_seconds: cpu, ..Throughput::default() };
            (Row::Plain(shape), throughput)
        });
        let latency = Latency { requests: 1000, errors: 0, p50: p99 / 2.0, p99, p999: p99 * 2.0 };
        Visit { subject: subject.to_owned(), rows: rows.to_vec(), latency: Some(latency), ..Visit::default() }
    }

    #[test]
    fn ratios_problems_and_limits_are_shown() {
        let broken =
            Visit { subject: "envoy".to_owned(), problem: Some("it ended\nlog".to_owned()), ..Visit::default() };
        let results = Results {
            subjects: ["direct", "meshgate", "nginx", "envoy"].map(str::to_owned).to_vec(),
            programs: vec!["no proxy".to_owned(); 4],
            machine: "a machine".to_owned(),
            times: Times::of(Duration::from_secs(1)),
            rounds: vec![vec![
                visit("direct", 50_000, None, 100.0),
                visit("meshgate", 20_000, Some(1.0), 200.0),
                visit("nginx", 10_000, Some(0.5), 300.0),
                broken,
            ]],
        };
        let text = markdown(&results);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["| meshgate | 20,000 |", "10,000*", "| meshgate / direct | 0.40 |", "- envoy: it ended log"] {
            assert!(words.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(added_ratio(&results, "meshgate", "nginx").unwrap().median, 0.5);
        assert!(!text.contains("endpoints, 64") && !text.contains("TLS to"), "{text}");
    }
}
