//! A machine that has no time for a process now and then: verdicts are the same on it.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Done, MESHGATE, SMALL};
use crate::processes::Family;

/// How long the process has no time, and how long it has some.
const STALLED: Duration = Duration::from_millis(200);
const RUNNING: Duration = Duration::from_millis(50);

/// The nginx of the controller's first instance reads its configurations late, so that what a case has deleted may only be coming
/// to be served. That of the other instance, which one of the cases has, does not.
#[test]
fn a_controller_that_lags_behind_another_instance() {
    let bench = Bench::new();
    let report = bench.join("report");
    let run = "run --controllers ingress-nginx --recipe snippet --dialect modern";
    let cases = "--case headers/own-default-backend,resilience/bad-neighbours";
    let mut command = bench.command(&format!("{run} {cases} --report-dir {}", report.display()));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut family = Family::marked(&report);
    let mut stalls = 0;
    while child.try_wait().unwrap().is_none() {
        if let Some(nginx) = lagging(&mut family) {
            // It may have ended.
            stalls += usize::from(kill(nginx, Signal::SIGSTOP).is_ok());
            std::thread::sleep(STALLED);
            let _ = kill(nginx, Signal::SIGCONT);
        }
        std::thread::sleep(RUNNING);
    }
    assert!(stalls > 3, "only {stalls} stalls");
    Done::from(child.wait_with_output().unwrap()).expect(0, &["2 findings, 0 not as promised"]);
}

/// What `ci/stalls` stops is there, and the verdict stands.
#[test]
fn programs_that_stand_still() {
    let bench = Bench::new();
    let mut stalls = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/ci/stalls"));
    stalls.arg(MESHGATE).arg("run").args(SMALL.split_whitespace()).current_dir(bench.path()).stdin(Stdio::null());
    let done = Done::from(stalls.output().unwrap());
    done.expect(0, &["1 passed", " stops of up to 300 ms"]);
    assert!(!done.stderr.contains("ci/stalls: 0 stops"), "{done:#?}");
}

/// The nginx that is to have no time.
fn lagging(family: &mut Family) -> Option<Pid> {
    let processes = family.processes();
    let is_other = |parent: i32| {
        processes.iter().any(|process| process.id == parent && process.command.contains("--default-backend-service"))
    };
    let mut masters = processes.iter().filter(|process| process.command.starts_with("nginx: master"));
    masters.find(|process| !is_other(process.parent)).map(|process| Pid::from_raw(process.id))
}
