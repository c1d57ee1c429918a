//! However a run ends, nothing of it is left.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Done, SMALL, eventually};
use crate::processes::Family;

/// A run whose cell has its pods, as the control that there is something to be left.
struct Running {
    bench: Bench,
    child: Child,
    family: Family,
}

fn start() -> Running {
    let bench = Bench::new();
    let report = bench.join("report");
    let mut command = bench.command(&format!("run {SMALL} --report-dir {}", report.display()));
    let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut family = Family::marked(&report);
    eventually("a cell with its pods", || (family.members().len() >= 12).then_some(()));
    Running { bench, child, family }
}

impl Running {
    fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits for the end of the run, and for that of everything that it started.
    fn end(mut self) -> (Bench, Done) {
        let done = self.child.wait_with_output().unwrap().into();
        eventually("no process is left", || self.family.members().is_empty().then_some(()));
        (self.bench, done)
    }

    /// An interrupted run says so, and its report does not claim anything.
    fn end_interrupted(self) {
        let (bench, done) = self.end();
        done.expect(2, &["the run was interrupted; what was judged before stands in"]);
        let report = std::fs::read_to_string(bench.join("report/report.json")).unwrap();
        assert!(report.contains("\"not-run\"") && report.contains("the run was interrupted"), "{report}");
    }
}

#[test]
fn ctrl_c() {
    let running = start();
    // A terminal sends it to every process of the foreground group.
    kill(Pid::from_raw(-running.id()), Signal::SIGINT).unwrap();
    running.end_interrupted();
}

#[test]
fn sigint() {
    let running = start();
    kill(Pid::from_raw(running.id()), Signal::SIGINT).unwrap();
    running.end_interrupted();
}

#[test]
fn sigterm() {
    let running = start();
    kill(Pid::from_raw(running.id()), Signal::SIGTERM).unwrap();
    running.end_interrupted();
}

#[test]
fn sighup() {
    let running = start();
    kill(Pid::from_raw(running.id()), Signal::SIGHUP).unwrap();
    running.end_interrupted();
}

#[test]
fn sigkill() {
    let running = start();
    kill(Pid::from_raw(running.id()), Signal::SIGKILL).unwrap();
    let (_, done) = running.end();
    assert_eq!(done.code, None, "{done:#?}");
}
