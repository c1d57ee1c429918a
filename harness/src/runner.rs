//! The parent: a process per cell, their events, the report.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use meshgate_clusters::scratch::Room;
use meshgate_clusters::{PROXIES, Player};
use meshgate_fixtures::{Fixtures, Implementation};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::case::Case;
use crate::cell::Spec;
use crate::event::Event;
use crate::report::{CaseReport, CellReport};
use crate::verdict::Verdict;
use crate::world;

/// How cells are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and arguments that become a cell, to which the spec is appended: `meshgate cell`.
    pub command: Vec<OsString>,
    /// How many cells at once.
    pub parallel: usize,
    /// How long a whole cell may take before it is ended.
    pub cell_limit: Duration,
}

/// How many cells at once keep a machine busy: most of the time a cell waits for something to happen. It takes some 200 MB.
pub fn usual_parallel() -> usize {
    const KB_OF_ONE: usize = 400_000;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    available.map_or(usize::MAX, |available| available / KB_OF_ONE).clamp(1, 3 * processors)
}

/// A cell to run and who plays its controller.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the child is told.
    pub spec: Spec,
    /// For the report.
    pub implementation: Implementation,
    /// How many of its cases apply.
    pub work: usize,
}

impl Job {
    /// A job from its spec; `player` is who plays the controller, `cases` are all there are.
    pub fn new(mut spec: Spec, player: &Player, fixtures: &Fixtures, cases: &[&Case]) -> anyhow::Result<Self> {
        spec.cell.lacks.clone_from(&player.lacks);
        let controller = fixtures.controller(&spec.cell.controller)?;
        let recipe = spec.recipe(controller)?;
        let applies = |case: &&&Case| case.not_applicable(&spec.cell, &recipe).is_none();
        let work = cases.iter().filter(|case| spec.cases.iter().any(|id| id == case.id)).filter(applies).count();
        let mut implementation = controller.implementation.clone();
        if let Some(program) = &player.instead {
            implementation.control_plane = program.display().to_string();
        }
        Ok(Self { implementation, spec, work })
    }
}

/// Runs all jobs and returns their reports in the order of the jobs. `listen` hears every event with the index of its job.
///
/// A cell that crashes, hangs or tells nonsense costs only itself: its cases without a verdict are `not-run`. Cancelling ends the
/// cells that run and starts no more.
pub async fn run(
    jobs: &[Job],
    options: &Options,
    cancel: &CancellationToken,
    listen: &(dyn Fn(usize, &Event) + Sync),
) -> Vec<CellReport> {
    // Setting up keeps every core busy, cases wait a lot: two cells that begin together would both be slow, and then both idle.
    let setting_up = Semaphore::new(1);
    let setting_up = &setting_up;
    let reports: BTreeMap<usize, CellReport> = stream::iter(started_in_order(jobs))
        .map(|(index, job)| async move { (index, run_one(index, job, options, setting_up, cancel, listen).await) })
        .buffer_unordered(options.parallel.max(1))
        .collect()
        .await;
    reports.into_values().collect()
}

/// The jobs with their numbers, those with most to do first: what is short fills the end.
fn started_in_order(jobs: &[Job]) -> Vec<(usize, &Job)> {
    let mut order: Vec<_> = jobs.iter().enumerate().collect();
    order.sort_by_key(|(_, job)| std::cmp::Reverse(job.work));
    order
}

async fn run_one(
    index: usize,
    job: &Job,
    options: &Options,
    setting_up: &Semaphore,
    cancel: &CancellationToken,
    listen: &(dyn Fn(usize, &Event) + Sync),
) -> CellReport {
    let cell = &job.spec.cell;
    let mut report = CellReport {
        id: cell.id(),
        controller: cell.controller.clone(),
        version: cell.version.clone(),
        recipe: cell.recipe.clone(),
        mode: cell.mode,
        dialect: cell.dialect,
        cluster: cell.cluster.as_str().to_owned(),
        mesh: cell.mesh,
        implementation: job.implementation.clone(),
        repeat: Some(world::repeat(&job.spec)),
        setup_seconds: None,
        broken: None,
        cases: Vec::new(),
    };
    // Held until the cell is ready. The semaphore is never closed, so there is always a permit to be had.
    let slot = setting_up.acquire().await.ok();
    let started = Instant::now();
    if let Err(error) = follow(index, job, options, slot, cancel, listen, &mut report).await {
        // What the cell told of itself says more than how its process ended.
        if report.broken.is_none() {
            listen(index, &Event::Broken { reason: error.clone(), artefacts: Vec::new() });
            report.broken = Some(error);
        }
    }
    let missing = report.broken.clone().unwrap_or_else(|| "the cell ended without a verdict on it".to_owned());
    let mut verdicts: BTreeMap<String, CaseReport> =
        std::mem::take(&mut report.cases).into_iter().map(|case| (case.id.clone(), case)).collect();
    report.cases = job
        .spec
        .cases
        .iter()
        .map(|id| {
            verdicts.remove(id).unwrap_or_else(|| {
                let case = CaseReport {
                    id: id.clone(),
                    verdict: Verdict::NotRun,
                    seconds: started.elapsed().as_secs_f64(),
                    attempts: 0,
                    flaky: false,
                    reason: Some(missing.clone()),
                    claims: BTreeMap::new(),
                    artefacts: Vec::new(),
                    observations: None,
                };
                listen(index, &Event::CaseFinished { report: Box::new(case.clone()) });
                case
            })
        })
        .collect();
    report
}

/// Starts the child and takes its events into the report. The error says how it ended when it did not end well.
async fn follow(
    index: usize,
    job: &Job,
    options: &Options,
    mut slot: Option<SemaphorePermit<'_>>,
    cancel: &CancellationToken,
    listen: &(dyn Fn(usize, &Event) + Sync),
    report: &mut CellReport,
) -> Result<(), String> {
    if cancel.is_cancelled() {
        return Err("the run was interrupted".to_owned());
    }
    let spec = serde_json::to_string(&job.spec).map_err(|error| format!("cannot describe the cell: {error}"))?;
    let (program, arguments) = options.command.split_first().ok_or("no command to start a cell with")?;
    let mut command = Command::new(program);
    // Kept until the process has ended: on a cluster of others, what it leaves there is credentials for kubectl.
    let mut room = None;
    if job.spec.backend.needs_namespaces() {
        // In a network of its own there is no way to a proxy, and kubectl would look for it.
        for name in PROXIES {
            command.env_remove(name);
        }
    } else {
        let made = Room::new().map_err(|error| format!("no folder for the cell's files: {error}"))?;
        command.env("TMPDIR", made.path());
        room = Some(made);
    }
    let mut child = command
        .args(arguments)
        .arg(spec)
        // Held open: the child ends when it closes, however this process ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal reaches a whole process group; here it is for this process to hear, which then ends its cells.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", PathBuf::from(program).display()))?;
    let stdin = child.stdin.take();
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the cell's output could not be opened".to_owned());
    };
    let errors = tokio::spawn(tail(stderr));
    let mut lines = BufReader::new(stdout).lines();
    let deadline = tokio::time::sleep(options.cell_limit);
    tokio::pin!(deadline);
    let mut finished = false;
    let ended = loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            () = &mut deadline => break Some(format!("the cell took longer than {} s", options.cell_limit.as_secs())),
            () = cancel.cancelled() => break Some("the run was interrupted".to_owned()),
        };
        match line {
            Ok(Some(line)) => match serde_json::from_str::<Event>(&line) {
                Ok(event) => {
                    finished |= matches!(event, Event::Finished | Event::Broken { .. });
                    if matches!(event, Event::Ready { .. }) {
                        drop(slot.take());
                    }
                    listen(index, &event);
                    take(event, report);
                }
                Err(error) => break Some(format!("the cell said something that is not an event ({error}): {line}")),
            },
            Ok(None) => break None,
            Err(error) => break Some(format!("the cell's output could not be read: {error}")),
        }
    };
    drop(stdin);
    if ended.is_some() {
        kill(&child);
    }
    let status = match tokio::time::timeout(Duration::from_secs(10), child.wait()).await {
        Ok(status) => status.map_err(|error| error.to_string())?,
        Err(_) => {
            let _ = child.kill().await;
            return Err("the cell did not end".to_owned());
        }
    };
    let stderr = errors.await.unwrap_or_default();
    drop(room);
    match ended {
        Some(reason) => Err(with_output(reason, &stderr)),
        None if finished => Ok(()),
        None => Err(with_output(format!("the cell's process ended early ({status})"), &stderr)),
    }
}

/// Kills a cell with the commands that it runs: kubectl, for instance, would live on.
fn kill(cell: &Child) {
    if let Some(Ok(pid)) = cell.id().map(i32::try_from) {
        // It may have ended by itself.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn with_output(reason: String, stderr: &str) -> String {
    if stderr.is_empty() { reason } else { format!("{reason}; its last words:\n{stderr}") }
}

fn take(event: Event, report: &mut CellReport) {
    match event {
        Event::Ready { seconds } => report.setup_seconds = Some(seconds),
        Event::CaseFinished { report: case } => report.cases.push(*case),
        Event::Broken { reason, .. } => report.broken = Some(reason),
        Event::Progress { .. } | Event::Note { .. } | Event::CaseStarted { .. } | Event::Finished => {}
    }
}

/// The last lines of a stream, read to its end.
async fn tail(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    const KEPT: usize = 8 * 1024;
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Cell, Dialect, Mesh};
    use meshgate_clusters::remote::{By, Reach};
    use meshgate_clusters::{Backend, Kind};
    use meshgate_fixtures::{Mode, Version};

    fn job(cases: &[&str]) -> Job {
        let cell = Cell {
            controller: "c".into(),
            version: Version("1.0.0".into()),
            recipe: "r".into(),
            mode: Mode::Ingress,
            dialect: Some(Dialect::Modern),
            beside: None,
            shared_in: None,
            alike_in: None,
            cluster: Kind::Embedded,
            mesh: Mesh::Bundled,
            lacks: Vec::new(),
        };
        let spec = Spec {
            cell,
            cases: cases.iter().map(|id| (*id).to_owned()).collect(),
            fixtures: None,
            recipe: None,
            report_dir: "report".into(),
            setup_seconds: 1,
            case_seconds: 1,
            pace: 1,
            // Never opened: what runs is a script.
            backend: Backend::Remote(Reach {
                kind: Kind::Existing,
                kubeconfig: "kubeconfig".into(),
                context: "c".into(),
                image: "i".into(),
                entrance: By::default(),
                publishes: false,
                merged: None,
            }),
            mesh: None,
            chart: None,
            where_to: String::new(),
        };
        let implementation = Implementation { control_plane: "real".into(), data_plane: "d".into() };
        Job { spec, implementation, work: 2 }
    }

    async fn run_script(script: &str, limit: Duration) -> CellReport {
        let options =
            Options { command: ["sh", "-c", script].map(OsString::from).to_vec(), parallel: 1, cell_limit: limit };
        let jobs = [job(&["a/x", "a/y"])];
        run(&jobs, &options, &CancellationToken::new(), &|_, _| {}).await.remove(0)
    }

    #[tokio::test]
    async fn a_crash_leaves_the_verdicts_it_told_and_not_run_for_the_rest() {
        let told = r#"{"event":"case-finished","report":{"id":"a/y","verdict":"pass","seconds":1,"attempts":1,"reason":null,"claims":{},"artefacts":[]}}"#;
        let report = run_script(&format!("echo '{told}'; echo oh no >&2; exit 3"), Duration::from_secs(10)).await;
        assert_eq!(report.cases.iter().map(|case| case.verdict).collect::<Vec<_>>(), [Verdict::NotRun, Verdict::Pass]);
        let broken = report.broken.unwrap();
        assert!(broken.contains("ended early") && broken.contains("oh no"), "{broken}");
    }

    #[tokio::test]
    async fn a_cell_that_hangs_is_ended_at_its_limit() {
        let report = run_script("exec sleep 600", Duration::from_millis(100)).await;
        assert!(report.broken.unwrap().contains("took longer"));
        assert!(report.cases.iter().all(|case| case.verdict == Verdict::NotRun));
    }

    #[tokio::test]
    async fn of_a_cell_that_is_ended_neither_files_nor_commands_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let script = format!("echo secret >$TMPDIR/config; sleep 600 & echo $TMPDIR $! >{}; wait", seen.display());
        run_script(&script, Duration::from_secs(2)).await;
        let seen = std::fs::read_to_string(seen).unwrap();
        let (room, pid) = seen.trim().split_once(' ').unwrap();
        assert!(!std::path::Path::new(room).exists(), "{room}");
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !stat().is_empty() && !stat().contains(") Z ") {
            assert!(Instant::now() < deadline, "it lives on: {}", stat());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_cell_with_most_to_do_begins_first_and_reports_keep_their_order() {
        let command = ["sh", "-c", "echo '{\"event\":\"finished\"}'"].map(OsString::from).to_vec();
        let options = Options { command, parallel: 1, cell_limit: Duration::from_secs(10) };
        let jobs = [("a", 1), ("b", 3), ("c", 2)].map(|(recipe, work)| {
            let mut job = job(&[]);
            job.spec.cell.recipe = recipe.into();
            Job { work, ..job }
        });
        let finished = parking_lot::Mutex::new(Vec::new());
        let listen = |index: usize, _: &Event| finished.lock().push(index);
        let reports = run(&jobs, &options, &CancellationToken::new(), &listen).await;
        assert_eq!(*finished.lock(), [1, 2, 0]);
        assert_eq!(reports.iter().map(|report| report.recipe.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn nonsense_is_not_a_verdict() {
        let report = run_script("echo fine, thanks", Duration::from_secs(10)).await;
        assert!(report.broken.unwrap().contains("not an event"));
    }
}
