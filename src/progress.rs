//! Live progress on standard error: what each cell does, and every verdict that is not plainly green.

use std::collections::BTreeMap;
use std::io::Write;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use meshgate_harness::event::Event;
use meshgate_harness::verdict::Verdict;

/// The progress of a run.
pub struct Progress {
    /// Whether a status line can be rewritten in place.
    live: bool,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    cells: Vec<String>,
    /// What each running cell is doing.
    doing: BTreeMap<usize, String>,
    /// Verdicts by cell.
    counts: BTreeMap<usize, [usize; 2]>,
    finished: usize,
}

impl Progress {
    /// For the cells of a run.
    pub fn new(live: bool, cells: Vec<String>) -> Self {
        let state = State { cells, doing: BTreeMap::new(), counts: BTreeMap::new(), finished: 0 };
        Self { live, started: Instant::now(), state: Mutex::new(state) }
    }

    /// Something that concerns no cell.
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// An event of a cell.
    pub fn event(&self, index: usize, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = state.cells.get(index).cloned().unwrap_or_default();
        let line = match event {
            Event::Progress { text } => {
                state.doing.insert(index, text.clone());
                (!self.live).then(|| format!("{cell}: {text}"))
            }
            Event::Ready { seconds } => {
                state.doing.insert(index, "running".into());
                Some(format!("{cell}: ready after {seconds:.1} s"))
            }
            Event::CaseStarted { id } => {
                state.doing.insert(index, id.clone());
                None
            }
            Event::CaseFinished { report } => {
                let counts = state.counts.entry(index).or_default();
                match report.verdict {
                    Verdict::Pass | Verdict::Finding => counts[0] += 1,
                    Verdict::Fail | Verdict::NotRun => counts[1] += 1,
                    Verdict::NotApplicable => {}
                }
                (!report.verdict.is_green()).then(|| {
                    let reason = report.reason.as_deref().unwrap_or_default();
                    format!("{cell}: {} {}: {reason}", report.verdict, report.id)
                })
            }
            Event::Broken { reason, .. } => {
                state.doing.remove(&index);
                state.finished += 1;
                Some(format!("{cell}: broken: {reason}"))
            }
            Event::Finished => {
                state.doing.remove(&index);
                state.finished += 1;
                let [green, red] = state.counts.get(&index).copied().unwrap_or_default();
                Some(format!("{cell}: done, {green} as promised, {red} not"))
            }
        };
        let status = state.status();
        drop(state);
        if let Some(line) = line {
            self.line(&line);
        }
        if self.live {
            eprint!("\r\x1b[2K{}", status.chars().take(110).collect::<String>());
            let _ = std::io::stderr().flush();
        }
    }

    /// Clears the status line.
    pub fn done(&self) {
        if self.live {
            eprint!("\r\x1b[2K");
        }
    }

    fn line(&self, text: &str) {
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}[{:5.1}s] {text}", self.started.elapsed().as_secs_f64());
    }
}

impl State {
    fn status(&self) -> String {
        let doing: Vec<String> = self
            .doing
            .iter()
            .map(|(index, text)| format!("{}: {text}", self.cells.get(*index).map_or("", |id| short(id))))
            .collect();
        format!("{}/{} cells · {}", self.finished, self.cells.len(), doing.join(" · "))
    }
}

/// A cell without its controller.
fn short(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, rest)| rest)
}
