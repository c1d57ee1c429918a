//! `cargo test --test conformance`: every case in every cell, as trials `cell::area::case`.
//!
//! Nothing is created before the first trial runs, so `--list` creates nothing. The first trial starts the cells of all
//! selected trials as `meshgate run` does, each in a process of its own; every trial then waits for its verdict.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use meshgate_clusters::Backend;
use meshgate_fixtures::Fixtures;
use meshgate_harness::blueprint;
use meshgate_harness::cell::Spec;
use meshgate_harness::event::Event;
use meshgate_harness::matrix::{self, Cell, Place, Selection};
use meshgate_harness::report::CaseReport;
use meshgate_harness::runner::{self, Job, Options};
use meshgate_harness::verdict::Verdict;
use meshgate_images::Catalogue;

/// The binary under test: it runs the cells and is every Meshgate image in them.
const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");

/// A cell's index and a case's id.
type Key = (usize, &'static str);

/// The verdicts so far.
#[derive(Default)]
struct Board {
    verdicts: Mutex<BTreeMap<(usize, String), CaseReport>>,
    broken: Mutex<Option<String>>,
    news: Condvar,
}

impl Board {
    fn post(&self, index: usize, report: CaseReport) {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).insert((index, report.id.clone()), report);
        self.news.notify_all();
    }

    fn give_up(&self, reason: String) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.news.notify_all();
    }

    fn wait(&self, (index, id): Key) -> Result<CaseReport, Failed> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(report) = verdicts.remove(&(index, id.to_owned())) {
                return Ok(report);
            }
            if let Some(reason) = &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(format!("not run: {reason}").into());
            }
            // The time limit only covers a notification between the two looks above.
            verdicts =
                self.news.wait_timeout(verdicts, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let fixtures = match Fixtures::built_in() {
        Ok(fixtures) => fixtures,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let cells = match matrix::cells(&fixtures, &Selection::default(), Place::USUAL) {
        Ok(cells) => cells,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let board = Arc::new(Board::default());
    let selected: Arc<OnceLock<Vec<Key>>> = Arc::default();
    let start = Arc::new(OnceLock::new());
    let world = Arc::new((fixtures, cells));
    let mut trials = Vec::new();
    let mut keys = Vec::new();
    for (index, cell) in world.1.iter().enumerate() {
        for case in meshgate_suites::cases() {
            let key = (index, case.id);
            let (board, selected, start, world) =
                (Arc::clone(&board), Arc::clone(&selected), Arc::clone(&start), Arc::clone(&world));
            let name = format!("{}::{}", cell.id().replace('/', "::"), case.id.replace('/', "::"));
            let trial = Trial::ignorable_test(name, move || {
                start.get_or_init(|| {
                    let board = Arc::clone(&board);
                    let keys = selected.get().cloned().unwrap_or_default();
                    std::thread::spawn(move || {
                        if let Err(error) = run(&world.0, &world.1, &keys, &board) {
                            board.give_up(format!("{error:#}"));
                        }
                    });
                });
                conclude(board.wait(key)?)
            });
            if !arguments.is_filtered_out(&trial) {
                keys.push(key);
            }
            trials.push(trial);
        }
    }
    let _ = selected.set(keys);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs the cells of the selected trials, with the selected cases of each.
fn run(fixtures: &Fixtures, cells: &[Cell], keys: &[Key], board: &Board) -> anyhow::Result<()> {
    let mut cases: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, id) in keys {
        cases.entry(*index).or_default().push((*id).to_owned());
    }
    let mut images = Vec::new();
    for index in cases.keys() {
        images.extend(blueprint::images(fixtures.controller(&cells[*index].controller)?, &cells[*index].version)?);
    }
    images.sort();
    images.dedup();
    let prepared = meshgate_clusters::embedded::prepare(MESHGATE.into(), &images, &|text| eprintln!("{text}"))?;
    let backend = Backend::Embedded(prepared);
    let report_dir = std::path::absolute(concat!(env!("CARGO_TARGET_TMPDIR"), "/conformance"))?;
    let indices: Vec<usize> = cases.keys().copied().collect();
    let catalogue = Catalogue::built_in(MESHGATE);
    let jobs: Vec<Job> = cases
        .into_iter()
        .map(|(index, cases)| {
            let controller = fixtures.controller(&cells[index].controller)?;
            let player = catalogue.player(&blueprint::images(controller, &cells[index].version)?)?;
            let spec = Spec {
                cell: cells[index].clone(),
                cases,
                fixtures: None,
                recipe: None,
                report_dir: report_dir.clone(),
                setup_seconds: 120,
                case_seconds: 120,
                pace: 1,
                backend: backend.clone(),
                mesh: None,
                chart: None,
                where_to: String::new(),
            };
            Job::new(spec, &player, fixtures, &meshgate_suites::cases())
        })
        .collect::<anyhow::Result<_>>()?;
    let options = Options {
        command: vec![MESHGATE.into(), "cell".into()],
        parallel: runner::usual_parallel(),
        cell_limit: Duration::from_secs(900),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listen = |job: usize, event: &Event| {
            if let Event::CaseFinished { report } = event {
                board.post(indices[job], CaseReport::clone(report));
            }
        };
        runner::run(&jobs, &options, &Default::default(), &listen).await;
    });
    Ok(())
}

/// A verdict as libtest knows it.
fn conclude(report: CaseReport) -> Result<Completion, Failed> {
    let reason = report.reason.unwrap_or_default();
    match report.verdict {
        Verdict::Pass | Verdict::Finding if !report.flaky => Ok(Completion::Completed),
        Verdict::NotApplicable => Ok(Completion::ignored_with(reason)),
        verdict => {
            let artefacts: String = report.artefacts.iter().map(|file| format!("\n  {file}")).collect();
            Err(format!("{verdict}: {reason}{artefacts}").into())
        }
    }
}
