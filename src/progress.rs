//! Progress on standard error: what each cell does, and every verdict that is not plainly green.
//!
//! On a terminal the last line is rewritten in place. In a log there is no such line: what is being awaited is not told each
//! time that it changes, and a heartbeat now and then says that, and where, the run still is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshgate_harness::event::Event;
use meshgate_harness::verdict::Verdict;

/// How often a log hears that the run goes on.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What fits into one line of most terminals; a longer one would wrap and could not be rewritten.
const COLUMNS: usize = 79;

/// The progress of a run.
pub struct Progress {
    /// Whether a status line can be rewritten in place.
    live: bool,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    cells: Vec<String>,
    /// What each running cell is doing.
    doing: BTreeMap<usize, String>,
    /// Verdicts by cell: as promised, and not.
    counts: BTreeMap<usize, [usize; 2]>,
    finished: usize,
}

impl Progress {
    /// Tells of the cells of a run on `out`.
    pub fn new(live: bool, cells: Vec<String>, out: Box<dyn Write + Send>) -> Self {
        let state = State { out, cells, doing: BTreeMap::new(), counts: BTreeMap::new(), finished: 0 };
        Self { live, started: Instant::now(), state: Mutex::new(state) }
    }

    /// Something that concerns no cell.
    pub fn note(&self, text: &str) {
        self.line(&mut self.state(), text);
    }

    /// An event of a cell.
    pub fn event(&self, index: usize, event: &Event) {
        let mut state = self.state();
        if let Some(line) = state.take(index, event) {
            self.line(&mut state, &line);
        }
        if self.live {
            let status: String = state.status().chars().take(COLUMNS).collect();
            state.write(&format!("\r\x1b[2K{status}"));
        }
    }

    /// Tells a log again and again that the run goes on. Does not end; to be dropped with the run.
    pub async fn beat(&self) -> Infallible {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if !self.live {
                self.heartbeat();
            }
        }
    }

    /// Clears the status line.
    pub fn done(&self) {
        if self.live {
            self.state().write("\r\x1b[2K");
        }
    }

    fn heartbeat(&self) {
        let mut state = self.state();
        let status = state.status();
        self.line(&mut state, &status);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, state: &mut State, text: &str) {
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        state.write(&format!("{clear}[{:5.1}s] {text}\n", self.started.elapsed().as_secs_f64()));
    }
}

impl State {
    /// Takes an event in; what is worth a line of its own is returned.
    fn take(&mut self, index: usize, event: &Event) -> Option<String> {
        let cell = self.cells.get(index).cloned().unwrap_or_default();
        match event {
            Event::Progress { text } => {
                self.doing.insert(index, text.clone());
                None
            }
            Event::Ready { seconds } => {
                self.doing.insert(index, "running".into());
                Some(format!("{cell}: ready after {seconds:.1} s"))
            }
            Event::CaseStarted { id } => {
                self.doing.insert(index, id.clone());
                None
            }
            Event::CaseFinished { report } => {
                let counts = self.counts.entry(index).or_default();
                match report.verdict {
                    Verdict::Pass | Verdict::Finding if !report.flaky => counts[0] += 1,
                    Verdict::NotApplicable => {}
                    _ => counts[1] += 1,
                }
                // Cases that never began share one reason, which the cell tells once.
                let told_by_the_cell = report.verdict == Verdict::NotRun && report.attempts == 0;
                let green = report.verdict.is_green() && !report.flaky;
                (!green && !told_by_the_cell).then(|| {
                    let reason = report.reason.as_deref().unwrap_or_default();
                    format!("{cell}: {} {}: {reason}", report.verdict, report.id)
                })
            }
            Event::Broken { reason, .. } => {
                self.doing.remove(&index);
                self.finished += 1;
                Some(format!("{cell}: not-run: {reason}"))
            }
            Event::Finished => {
                self.doing.remove(&index);
                self.finished += 1;
                let [green, red] = self.counts.get(&index).copied().unwrap_or_default();
                Some(format!("{cell}: done, {green} as promised, {red} not"))
            }
        }
    }

    fn status(&self) -> String {
        let doing: Vec<String> = self
            .doing
            .iter()
            .map(|(index, text)| format!("{}: {text}", self.cells.get(*index).map_or("", |id| short(id))))
            .collect();
        format!("{}/{} cells · {}", self.finished, self.cells.len(), doing.join(" · "))
    }

    /// Nobody may be reading any more, which is no reason to end.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// A cell without its controller.
fn short(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use meshgate_harness::report::CaseReport;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// The lines without their times.
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.split_once("] ").unwrap().1.to_owned()).collect()
        }
    }

    fn judged(id: &str, verdict: Verdict, attempts: u32) -> Event {
        let report = CaseReport {
            id: id.into(),
            verdict,
            seconds: 0.1,
            attempts,
            flaky: false,
            reason: Some("because".into()),
            claims: BTreeMap::new(),
            artefacts: Vec::new(),
            observations: None,
        };
        Event::CaseFinished { report: Box::new(report) }
    }

    #[test]
    fn a_log_gets_what_is_worth_a_line() {
        let log = Log::default();
        let progress = Progress::new(false, vec!["c@1/a/modern".into(), "c@1/b/default".into()], Box::new(log.clone()));
        progress.event(0, &Event::Progress { text: "awaiting c/c 0/1".into() });
        progress.event(0, &Event::Ready { seconds: 1.25 });
        progress.event(0, &Event::CaseStarted { id: "routing/host".into() });
        progress.event(1, &Event::Progress { text: "awaiting c/c 0/1".into() });
        progress.heartbeat();
        progress.event(0, &judged("routing/host", Verdict::Pass, 1));
        progress.event(0, &judged("routing/path", Verdict::Fail, 2));
        progress.event(0, &Event::Finished);
        progress.event(1, &judged("routing/host", Verdict::NotRun, 0));
        progress.event(1, &Event::Broken { reason: "no controller".into(), artefacts: Vec::new() });
        assert_eq!(
            log.lines(),
            [
                "c@1/a/modern: ready after 1.2 s",
                "0/2 cells · a/modern: routing/host · b/default: awaiting c/c 0/1",
                "c@1/a/modern: fail routing/path: because",
                "c@1/a/modern: done, 1 as promised, 1 not",
                "c@1/b/default: not-run: no controller",
            ]
        );
    }

    #[test]
    fn a_terminal_sees_what_is_awaited_in_a_line_that_never_wraps() {
        let log = Log::default();
        let progress = Progress::new(true, vec!["c@1/a/modern".into()], Box::new(log.clone()));
        progress.event(0, &Event::Progress { text: format!("awaiting {}", "x".repeat(200)) });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let line = text.rsplit("\x1b[2K").next().unwrap();
        assert!(line.starts_with("0/1 cells · a/modern: awaiting x"), "{line}");
        assert_eq!(line.chars().count(), COLUMNS);
        assert!(!text.contains('\n'));
    }
}
