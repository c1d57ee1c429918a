//! However a run ends, nothing of it is left.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// A folder with scripts in the places of programs.
fn commands(bench: &Bench, scripts: &[(&str, &str)]) -> PathBuf {
    let folder = bench.join("bin");
    std::fs::create_dir(&folder).unwrap();
    for (name, script) in scripts {
        // By a process of its own: a file that a test has open for writing, and so its children for a moment, cannot be run.
        let write = "printf %s \"$1\" >\"$0\" && chmod +x \"$0\"";
        let written = Command::new("sh").args(["-c", write]).arg(folder.join(name)).arg(script).status().unwrap();
        assert!(written.success());
    }
    folder
}

/// A program of somebody else's that hangs, once it has written its process id into a file. It prints an object if its arguments are so.
pub struct Hanging {
    pub folder: PathBuf,
    pid: PathBuf,
}

impl Hanging {
    pub fn named(name: &str, bench: &Bench, answers: &str) -> Self {
        let pid = bench.join("pid");
        let object = "apiVersion: v1, kind: Namespace, metadata: {name: linkerd}";
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in {answers}) echo '{{{object}}}'; exit 0;; esac\necho $$ >{}\nexec sleep 600\n",
            pid.display()
        );
        Self { folder: commands(bench, &[(name, &script)]), pid }
    }

    /// Before everything else that there is.
    fn path(&self) -> String {
        format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap())
    }

    fn started(&self) -> String {
        // On a cluster that is not embedded a case begins late.
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let read = std::fs::read_to_string(&self.pid).unwrap_or_default();
            if read.ends_with('\n') {
                return read.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "nothing hangs within 120 s");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends `meshgate` while a program that it runs hangs, and looks what is left.
pub fn end_while_hanging(mut command: Command, hanging: &Hanging, temporary: &Path) -> Done {
    let child = command.env("PATH", hanging.path()).env("TMPDIR", temporary);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let program = hanging.started();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let done = Done::from(child.wait_with_output().unwrap());
    let stat = || std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
    eventually("the program has ended", || (stat().is_empty() || stat().contains(") Z ")).then_some(()));
    let left: Vec<_> = std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    done
}

/// A kubeconfig of a cluster that nobody has.
fn kubeconfig(bench: &Bench) -> PathBuf {
    let path = bench.join("kubeconfig");
    let config = "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x}}],
        clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}]}";
    std::fs::write(&path, config).unwrap();
    path
}

#[test]
fn a_dry_run_that_is_ended_leaves_no_key_and_no_command() {
    let bench = Bench::new();
    let hanging = Hanging::named("linkerd", &bench, "*--crds*");
    let temporary = bench.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let kubeconfig = kubeconfig(&bench);
    let run = format!("run {SMALL} --cluster existing --mesh linkerd --dry-run --kubeconfig {}", kubeconfig.display());
    // It hangs where it has been given the key of a certificate authority.
    end_while_hanging(bench.command(&run), &hanging, &temporary).expect(2, &["interrupted"]);
}

#[test]
fn a_run_that_is_ended_while_a_chart_is_rendered_leaves_nothing() {
    let bench = Bench::new();
    let hanging = Hanging::named("helm", &bench, "nothing");
    let temporary = bench.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let run = "run --install helm --controllers traefik --recipe ingress-nativelb --case routing/host";
    end_while_hanging(bench.command(run), &hanging, &temporary).expect(2, &["meshgate: interrupted"]);
}

#[test]
fn a_doctor_who_is_ended_leaves_no_command() {
    let bench = Bench::new();
    let hanging = Hanging::named("kind", &bench, "nothing");
    let temporary = bench.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    end_while_hanging(bench.command("doctor --cluster kind"), &hanging, &temporary).expect(2, &["interrupted"]);
}

#[test]
fn a_run_that_is_ended_while_it_packs_images_leaves_no_files() {
    let bench = Bench::new();
    let temporary = bench.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    // As far as it is asked before there is a cluster.
    let answers = "#!/bin/sh\necho 'kind v0.33.0 go1.26.0 linux/amd64'\n";
    let folder = commands(&bench, &[("kind", answers), ("docker", "#!/bin/sh\necho /\n")]);
    let mut command = bench.command("run --cluster kind --native-images --controllers traefik");
    command.env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()));
    command.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let files = || std::fs::read_dir(&temporary).unwrap().count();
    eventually("an archive is begun", || (files() > 0).then_some(()));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let done = Done::from(child.wait_with_output().unwrap());
    done.expect(2, &[]);
    assert_eq!(files(), 0, "{done:#?}");
}
