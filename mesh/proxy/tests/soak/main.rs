//! A mesh under load while its pods are killed, its certificates rotate and its control plane goes and comes. Nothing is lost but what
//! the model in `model.rs` allows, and the proxies' memory stays as it is.
//!
//! ```sh
//! SOAK_SECONDS=600 cargo test --release -p meshgate-proxy --test soak -- --nocapture
//! ```
//!
//! `SOAK_SECONDS` is 5 if it is not set, `SOAK_LOAD` multiplies the clients, `SOAK_SEED` repeats the order of what happens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod app;
mod child;
mod faults;
mod ledger;
mod load;
mod mesh;
mod model;
#[path = "../proxy"]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the other tests use the rest of it")]
    pub mod support;
}
mod watch;

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use faults::Faults;
use ledger::Ledger;
use load::{Client, Clients};
use mesh::{CLIENT, CLIENTS, MARKED, Mesh, Scrape};
use model::Verdict;
use shared::support;
use watch::Watch;

/// A shorter run is over before allocators and pools have what they need.
const LEAST_FOR_TRENDS: u64 = 60;
const TOLERANCE_KIB: f64 = 2048.0;
const TOLERANCE_FILES: f64 = 12.0;
const PATIENCE: Duration = Duration::from_secs(30);
const LAST_EVENTS: usize = 40;
const SHOWN: usize = 20;

/// How many clients of each kind there are, per `SOAK_LOAD`.
const MIX: [(Client, usize); 5] =
    [(Client::Kept, 6), (Client::New, 3), (Client::Streams, 2), (Client::Upgrading, 1), (Client::Opaque, 1)];
const MARKED_CLIENTS: usize = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_but_what_the_model_allows() {
    let seconds = number("SOAK_SECONDS", 5);
    let seed = number("SOAK_SEED", rand::random());
    println!("SOAK_SECONDS={seconds} SOAK_SEED={seed}");
    let ledger = Arc::new(Ledger::new());
    let mut rng = StdRng::seed_from_u64(seed);
    let mesh = Mesh::start(&ledger).await;
    let [client, marked] = &mesh.proxies;
    let mut watches = vec![Watch::start("client", client.pid()), Watch::start("marked", marked.pid())];
    watches.extend(mesh.pods.iter().map(|leg| Watch::start(format!("pod {}", leg[0].number), leg[0].proxy.pid())));

    let (stop, mut load) = (CancellationToken::new(), JoinSet::new());
    let clients = |proxy: &child::ProxyProcess, identity, marked| Clients {
        ledger: Arc::clone(&ledger),
        from: support::client(CLIENTS),
        proxy: proxy.outbound,
        identity,
        marked,
        stop: stop.clone(),
    };
    let (plain, marked) = (clients(client, CLIENT, false), clients(marked, MARKED, true));
    for _ in 0..number("SOAK_LOAD", 1) {
        for (client, count) in MIX {
            (0..count).for_each(|_| plain.spawn(client, rng.random(), &mut load));
        }
        (0..MARKED_CLIENTS).for_each(|_| marked.spawn(Client::Kept, rng.random(), &mut load));
    }

    let begun = Instant::now();
    let mut faults = Faults::new(mesh, StdRng::seed_from_u64(rng.random()));
    faults.run(time::Instant::now() + Duration::from_secs(seconds)).await;
    let lasted = begun.elapsed();
    stop.cancel();
    while let Some(ended) = load.join_next().await {
        ended.expect("a client failed");
    }
    let requests = ledger.requests();
    let Verdict { summary, mut violations, answered } = model::judge(&ledger);
    let memory: Vec<_> = watches.iter().map(|watch| (watch.name.clone(), watch.memory(), watch.files())).collect();
    drop(watches);
    let rotations = settle(&faults.mesh, answered, &mut violations).await;

    let mut report =
        format!("{requests} requests in {lasted:.1?}, {rotations} new certificates, {:?}\n", faults.counts);
    report.push_str(&summary);
    for (name, memory, files) in memory {
        let _ = writeln!(
            report,
            "  {name:<8} RSS {:>6.0} -> {:>6.0} KiB (at most {:.0}), files {:.0} -> {:.0} (at most {:.0})",
            memory.first, memory.last, memory.highest, files.first, files.last, files.highest
        );
        let flat = memory.is_flat(TOLERANCE_KIB) && files.is_flat(TOLERANCE_FILES);
        if seconds >= LEAST_FOR_TRENDS && !flat {
            violations.push(format!("the proxy {name} grows"));
        }
    }
    println!("{report}");
    if !violations.is_empty() {
        let events = ledger.events();
        let events = events[events.len().saturating_sub(LAST_EVENTS)..].join("\n");
        let shown = violations[..violations.len().min(SHOWN)].join("\n");
        panic!(
            "SOAK_SECONDS={seconds} SOAK_SEED={seed}: {} findings, of which the first are\n{shown}\nThe last events:\n{events}",
            violations.len()
        );
    }
}

/// Waits until the proxies have nothing to do, and compares what they have counted. How many certificates they had.
async fn settle(mesh: &Mesh, answered: [usize; 2], violations: &mut Vec<String>) -> i64 {
    let [client, marked] = &mesh.proxies;
    let survivors = mesh.pods.iter().flatten().map(|pod| (format!("pod {}", pod.number), &pod.proxy, "inbound", None));
    let proxies = [("client", client, answered[0]), ("marked", marked, answered[1])]
        .map(|(name, proxy, answered)| (name.to_owned(), proxy, "outbound", Some(answered as i64)));
    let mut rotations = 0;
    for (name, proxy, direction, answered) in proxies.into_iter().chain(survivors) {
        let side = format!("direction=\"{direction}\"");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let scrape = Scrape::of(proxy).await;
            let sum = |name: &str, more: &str| scrape.sum(&[name, &side, more]);
            let (sent, ended) = (sum("request_total", ""), sum("response_total", ""));
            let open = sum("tcp_open_connections", "");
            let (opened, closed) = (sum("tcp_open_total", ""), sum("tcp_close_total", ""));
            let good = sum("response_total", "status_code=\"200\"");
            let agrees = sent == ended && open == 0 && opened == closed && answered.is_none_or(|it| it == good);
            if !agrees && Instant::now() < deadline {
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            if !agrees {
                violations.push(format!(
                    "{name}, {direction}: request_total {sent}, response_total {ended}, of which 200: {good}; answers that came: \
                     {answered:?}; tcp_open_connections {open}, tcp_open_total {opened}, tcp_close_total {closed}"
                ));
            }
            rotations += scrape.sum(&["control_identity_cert_refreshes_total", "result=\"ok\""]);
            break;
        }
    }
    rotations
}
