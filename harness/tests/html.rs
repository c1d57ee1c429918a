//! The report's page in a browser: what a person filters, opens and sees, and that nothing leaves.
//!
//! Chromium loads the page with the state in its fragment and prints the document as it stands then. It is looked up as
//! `MESHGATE_CHROMIUM` or in PATH; where there is none the tests say so and are skipped, but with `CI` set they fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use meshgate_harness::report::{Report, html};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--dump-dom",
];

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures the page from within, when it has drawn what it was asked for.
const MEASURE: &str = r#"setTimeout(() => {
    const page = document.documentElement;
    const told = {
        width: page.scrollWidth, viewport: innerWidth, title: document.title,
        loaded: performance.getEntriesByType("resource").length };
    Object.assign(page.dataset, told);
    parent.postMessage(told, "*");
}, 500);"#;

/// A window as narrow as it has to be: Chromium's own has 500 columns at least.
const FRAME: &str = r#"<!DOCTYPE html><html><head></head><body>
<script>onmessage = (event) => Object.assign(document.documentElement.dataset, event.data);</script>
<iframe width="WIDTH" height="900" style="border: 0" src="report.html#FRAGMENT"></iframe></body></html>"#;

/// A page in a browser.
struct Browser {
    chromium: PathBuf,
    dir: tempfile::TempDir,
}

/// What the browser made of a page.
struct Seen {
    dom: String,
    log: String,
}

impl Browser {
    /// With the fixture's page, or `None` where there is no Chromium.
    fn open(change: impl Fn(String) -> String) -> Option<Self> {
        let Some(chromium) = chromium() else {
            let mend = "apt-get install -y chromium, or MESHGATE_CHROMIUM=/path/to/chromium";
            assert!(std::env::var_os("CI").is_none(), "no Chromium, and CI is set: {mend}");
            eprintln!("skipped: no Chromium to look at the page with; {mend}");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("artefacts/one");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("proxy.log"), "a line <i>of the log</i>\n").unwrap();
        let page = html::render(&fixture(), dir.path());
        let measure = format!("script-src 'sha256-{}' ", BASE64.encode(Sha256::digest(MEASURE)));
        let page = page.replacen("script-src ", &measure, 1);
        let page = page.replacen("</body>", &format!("<script>{MEASURE}</script></body>"), 1);
        std::fs::write(dir.path().join("report.html"), change(page)).unwrap();
        Some(Self { chromium, dir })
    }

    /// Loads the page with a fragment.
    fn look(&self, fragment: &str) -> Seen {
        self.load(&format!("report.html#{fragment}"))
    }

    /// Loads the page with a fragment in a frame so wide; only what the page measured of itself is seen.
    fn look_within(&self, fragment: &str, width: u32) -> Seen {
        let frame = FRAME.replace("WIDTH", &width.to_string()).replace("FRAGMENT", fragment);
        std::fs::write(self.dir.path().join("frame.html"), frame).unwrap();
        self.load("frame.html")
    }

    fn load(&self, page: &str) -> Seen {
        let profile = tempfile::tempdir().unwrap();
        let url = format!("file://{}/{page}", self.dir.path().display());
        let mut arguments: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        arguments.push("--window-size=1400,900".to_owned());
        arguments.push(url);
        let running =
            duct::cmd(&self.chromium, arguments).stdout_capture().stderr_capture().unchecked().start().unwrap();
        let output = match running.wait_timeout(LIMIT).unwrap() {
            Some(output) => output.clone(),
            None => {
                running.kill().unwrap();
                panic!("Chromium still ran after {LIMIT:?}");
            }
        };
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(dom.contains("</html>"), "no page: {log}");
        // What follows is the report as data, in which everything is, drawn or not.
        let drawn = dom.split_once("<script id=\"data\"").map_or(dom.as_str(), |(drawn, _)| drawn).to_owned();
        Seen { dom: drawn, log }
    }
}

impl Seen {
    /// What the page measured of itself.
    fn told(&self, name: &str) -> &str {
        let from = self.dom.split_once(&format!("data-{name}=\"")).map(|(_, rest)| rest);
        from.and_then(|rest| rest.split_once('"')).map_or("", |(value, _)| value)
    }

    fn number(&self, name: &str) -> u32 {
        self.told(name).parse().unwrap_or_else(|_| panic!("no {name}: {}", self.log))
    }

    /// The recipes whose rows are shown.
    fn rows(&self) -> Vec<&str> {
        ["plain", "ingress-middleware", "custom-headers-as-printed"]
            .into_iter()
            .enumerate()
            .filter(|(index, _)| self.dom.contains(&format!("<tr data-cell=\"{index}\">")))
            .map(|(_, name)| name)
            .collect()
    }

    fn has(&self, part: &str) {
        let body = self.dom.split_once("<body>").map_or("", |(_, body)| body);
        assert!(body.contains(part), "no {part:?} in\n{body}");
    }

    fn is_quiet(&self) {
        let said: Vec<&str> = self.log.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(said.is_empty(), "{said:#?}");
        assert_eq!(self.number("loaded"), 0, "something was loaded");
        assert_ne!(self.told("title"), "taken over");
    }
}

fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MESHGATE_CHROMIUM") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|candidate| Path::new(candidate).is_file())
}

/// A report with every verdict and every kind of evidence.
fn fixture() -> Report {
    let seen = json!({
        "service": "echo-a", "pod": "echo-a-7d9f", "line": "HTTP/1.1 a.test/x",
        "headers": ["host: a.test", "x-own: 1", "x-forwarded-for: 198.51.100.10",
            "l5d-client-id: controller.edge.serviceaccount.identity.linkerd.cluster.local"],
    });
    let sample = |outcome: &str| {
        json!({
            "from": "outside", "times": 1, "controller": true, "sent": "GET http://a.test/x", "target": "203.0.113.10:80",
            "headers": ["X-Own: 1", "l5d-dst-override: echo-b.bench.svc.cluster.local:80"], "outcome": outcome, "ms": 3.5,
        })
    };
    let with = |mut sample: Value, name: &str, value: Value| {
        sample[name] = value;
        sample
    };
    let hostile = "<script>document.title = 'taken over'</script><img src=http://127.0.0.1:9/leak>";
    let observations = json!({
        "requests": 1003,
        "samples": [
            with(with(sample("200"), "times", json!(1000)), "answers", json!({"200 from echo-a": 702, "200 from echo-b": 298})),
            with(sample("200"), "seen", seen), with(sample("502"), "text", json!(hostile))],
        "shares": [{
            "what": "the requests that echo-a answered", "n": 1000, "count": 702, "expected": 0.7, "off": 0.15,
            "accepted": [651, 747], "false_alarm": 1e-6, "miss": 1e-3, "held": true,
        }],
        "latency": {"n": 1000, "p50": 1.2, "p90": 3.9, "p99": 9.0, "max": 12.5, "histogram": [0, 0, 0, 2, 180, 540, 200, 60, 18]},
    });
    let case = |id: &str, verdict: &str, reason: Value| {
        json!({
            "id": id, "verdict": verdict, "seconds": 0.4, "attempts": if verdict.starts_with("not") { 0 } else { 1 },
            "reason": reason, "claims": {}, "artefacts": [],
        })
    };
    let areas = [
        "routing",
        "modes",
        "route_metrics",
        "traffic_split",
        "loops",
        "headers",
        "resilience",
        "tls",
        "policies",
        "recipe",
    ];
    let passed: Vec<Value> = areas.iter().map(|area| case(&format!("{area}/plain"), "pass", Value::Null)).collect();
    let cell = |id: &str, cases: Vec<Value>| {
        let parts: Vec<&str> = id.split('/').collect();
        let ingress = parts[2] != "default";
        json!({
            "id": id, "controller": parts[0].split('@').next(), "version": "3.7.15", "recipe": parts[1],
            "mode": if ingress { "ingress" } else { "default" }, "dialect": if ingress { json!(parts[2]) } else { Value::Null },
            "cluster": "embedded", "implementation": {"control_plane": "real", "data_plane": "traefik"},
            "repeat": "meshgate run --controllers traefik@3.7.15", "setup_seconds": 4.2,
            "cases": cases,
        })
    };
    let mut failed =
        case("traffic_split/shares", "fail", json!("the answer: expected \"echo-a\", found \"<b>echo-b</b>\""));
    failed["observations"] = observations.clone();
    failed["artefacts"] = json!(["artefacts/one/proxy.log"]);
    failed["attempts"] = json!(2);
    let mut flaky = case("tls/flaky", "fail", json!("flaky: failed at first (x), pass at the second look"));
    flaky["flaky"] = json!(true);
    let mut measured = case("traffic_split/shares", "pass", Value::Null);
    measured["observations"] = observations;
    measured["claims"] = json!({"ingress.split": "confirmed"});
    let odd = vec![
        failed,
        flaky,
        case("headers/open", "finding", json!("open-relay: a client chooses. Replace the header")),
        case("recipe/lost", "not-run", json!("the cell ended")),
        case("loops/hairpin", "not-applicable", json!("the proxy chooses the pod")),
    ];
    let cells = vec![
        cell("traefik@3.7.15/plain/default", passed.clone()),
        cell("traefik@3.7.15/ingress-middleware/modern", passed.iter().cloned().chain([measured]).collect()),
        cell("ingress-nginx@3.7.15/custom-headers-as-printed/documented", odd),
    ];
    serde_json::from_value(json!({
        "schema": "meshgate.report/v1",
        "environment": {
            "meshgate": "0.1.0", "started": "2026-01-02T03:04:05Z", "seconds": 61.0, "os": "linux x86_64", "kernel": "6.1", "cpus": 2,
        },
        "cells": cells,
        "cases": [{
            "id": "traffic_split/shares", "summary": "Traffic is split as the weights say", "stage": "shared",
            "needs": ["promised traffic splits"],
        }],
        "claims": [{"id": "ingress.split", "text": "enable traffic splitting", "verdict": "confirmed", "cases": ["traffic_split/shares"]}],
        "totals": {"pass": 21, "finding": 1, "not-applicable": 1, "fail": 2, "not-run": 1, "flaky": 1},
    }))
    .unwrap()
}

const FAILED: &str = "cell=ingress-nginx@3.7.15/custom-headers-as-printed/documented&case=traffic_split/shares";

#[test]
fn filters_come_from_the_fragment() {
    let Some(browser) = Browser::open(|page| page) else { return };
    let all = browser.look("");
    all.is_quiet();
    assert_eq!(all.rows(), ["plain", "ingress-middleware", "custom-headers-as-printed"]);
    all.has("Not as promised");
    let controller = browser.look("controller=traefik&q=middleware");
    controller.is_quiet();
    assert_eq!(controller.rows(), ["ingress-middleware"]);
    controller.has("11 cases in 1 cells");
    let verdict = browser.look("verdict=not-run");
    assert_eq!(verdict.rows(), ["custom-headers-as-printed"]);
    verdict.has("1 cases in 1 cells");
    let area = browser.look("area=tls&mode=default");
    assert_eq!(area.rows(), ["plain"]);
    area.has("<td class=\"not-applicable\" data-area=\"modes\" hidden=\"\">");
}

#[test]
fn a_case_opens_with_its_evidence_as_text() {
    let Some(browser) = Browser::open(|page| page) else { return };
    let seen = browser.look(FAILED);
    seen.is_quiet();
    for part in [
        "<section id=\"overview\" hidden=\"\">",
        "Traffic is split as the weights say",
        "promised traffic splits",
        "&lt;b&gt;echo-b&lt;/b&gt;",
        "702 of 1000 are 70.2 %",
        "702 × 200 from echo-a, 298 × 200 from echo-b",
        "1000 answers: half within 1.20 ms",
        "+ x-forwarded-for: 198.51.100.10",
        "− l5d-dst-override: echo-b.bench.svc.cluster.local:80",
        "client (asks for a.test) → ingress-nginx 3.7.15 (at 203.0.113.10:80",
        "&lt;script&gt;document.title = 'taken over'&lt;/script&gt;",
        "a line &lt;i&gt;of the log&lt;/i&gt;",
        "meshgate run --controllers traefik@3.7.15 --case traffic_split/shares",
    ] {
        seen.has(part);
    }
    let missing = browser.look("cell=nobody/knows/it&case=a/b");
    missing.is_quiet();
    missing.has("It is not in this report.");
}

#[test]
fn nothing_is_wider_than_the_window() {
    let Some(browser) = Browser::open(|page| page) else { return };
    for (fragment, width) in [("", 1280), ("", 400), (FAILED, 1280), (FAILED, 400)] {
        let seen = browser.look_within(fragment, width);
        assert_eq!(seen.number("viewport"), width, "the window");
        assert!(seen.number("width") <= width, "{fragment} at {width}: {}", seen.number("width"));
    }
}

#[test]
fn nothing_leaves_the_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let asked = || asked.load(Ordering::SeqCst) > 0;
    let leak = |page: String| page.replacen("</main>", &format!("<img src=\"http://{address}/leak\"></main>"), 1);
    let Some(browser) = Browser::open(leak) else { return };
    let seen = browser.look("");
    assert!(seen.log.contains("Content Security Policy"), "{}", seen.log);
    assert!(!asked(), "the page asked {address}");
    // The control experiment: without its policy the same page asks.
    let open = |page: String| leak(page).replacen("http-equiv=\"Content-Security-Policy\"", "name=\"none\"", 1);
    Browser::open(open).unwrap().look("");
    assert!(asked(), "the check could not have failed");
}
