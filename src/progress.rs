//! Progress on standard error: what each cell does, and every verdict that is not plainly green.
//!
//! On a terminal the last line is rewritten in place. In a log there is no such line: what is being awaited is not told each
//! time that it changes, and a heartbeat now and then says that, and where, the run still is. GitHub Actions folds what it is told
//! of a finished cell, and lists what is not green beside the run.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshgate_harness::event::Event;
use meshgate_harness::verdict::Verdict;

/// How often a log hears that the run goes on.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What fits into one line of most terminals; a longer one would wrap and could not be rewritten.
const COLUMNS: usize = 79;

/// Who reads along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A person at a terminal, whose last line can be rewritten in place.
    Terminal,
    /// A log.
    Log,
    /// The log of GitHub Actions, which follows its workflow commands.
    Actions,
}

impl Reader {
    /// Who reads standard error.
    pub fn of_standard_error() -> Self {
        match std::env::var_os("GITHUB_ACTIONS") {
            Some(yes) if yes == "true" => Self::Actions,
            _ if std::io::stderr().is_terminal() => Self::Terminal,
            _ => Self::Log,
        }
    }
}

/// The progress of a run.
pub struct Progress {
    reader: Reader,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    cells: Vec<String>,
    /// What each running cell is doing.
    doing: BTreeMap<usize, String>,
    /// By cell, once it began.
    told: BTreeMap<usize, Told>,
    /// Each once, whichever cells have it to say.
    notes: BTreeSet<String>,
    finished: usize,
}

/// What a cell told so far.
struct Told {
    began: Instant,
    passed: usize,
    findings: usize,
    /// Failed, flaky or not run.
    red: usize,
    /// A line per verdict.
    verdicts: Vec<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self { began: Instant::now(), passed: 0, findings: 0, red: 0, verdicts: Vec::new() }
    }
}

impl Told {
    fn counts(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        format!("{} passed, {} findings, {} not as promised, in {seconds:.1} s", self.passed, self.findings, self.red)
    }
}

/// What is to be written of an event.
enum Line {
    /// As it is.
    Plain(String),
    /// Something of a cell is not green.
    Red { cell: String, text: String },
    /// A cell is done, with a line for each of its verdicts.
    Done { text: String, verdicts: Vec<String> },
}

impl Progress {
    /// Tells of the cells of a run on `out`.
    pub fn new(reader: Reader, cells: Vec<String>, out: Box<dyn Write + Send>) -> Self {
        let state =
            State { out, cells, doing: BTreeMap::new(), told: BTreeMap::new(), notes: BTreeSet::new(), finished: 0 };
        Self { reader, started: Instant::now(), state: Mutex::new(state) }
    }

    /// Something that concerns no cell.
    pub fn note(&self, text: &str) {
        self.line(&mut self.state(), text);
    }

    /// An event of a cell.
    pub fn event(&self, index: usize, event: &Event) {
        let mut state = self.state();
        match state.take(index, event) {
            None => {}
            Some(Line::Plain(text)) => self.line(&mut state, &text),
            Some(Line::Red { cell, text }) if self.reader == Reader::Actions => {
                state.write(&format!("::error title={}::{}\n", property(&cell), message(&text)));
            }
            Some(Line::Red { cell, text }) => self.line(&mut state, &format!("{cell}: {text}")),
            Some(Line::Done { text, verdicts }) if self.reader == Reader::Actions => {
                state.write(&format!("::group::{}\n", message(&text)));
                for verdict in verdicts {
                    self.line(&mut state, &verdict);
                }
                state.write("::endgroup::\n");
            }
            Some(Line::Done { text, .. }) => self.line(&mut state, &text),
        }
        if self.reader == Reader::Terminal {
            let status: String = state.status().chars().take(COLUMNS).collect();
            state.write(&format!("\r\x1b[2K{status}"));
        }
    }

    /// Tells a log again and again that the run goes on. Does not end; to be dropped with the run.
    pub async fn beat(&self) -> Infallible {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if self.reader != Reader::Terminal {
                self.heartbeat();
            }
        }
    }

    /// Clears the status line.
    pub fn done(&self) {
        if self.reader == Reader::Terminal {
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
        let clear = if self.reader == Reader::Terminal { "\r\x1b[2K" } else { "" };
        state.write(&format!("{clear}[{:5.1}s] {}\n", self.started.elapsed().as_secs_f64(), printable(text)));
    }
}

impl State {
    /// Takes an event in; what is worth a line of its own is returned.
    fn take(&mut self, index: usize, event: &Event) -> Option<Line> {
        let cell = self.cells.get(index).cloned().unwrap_or_default();
        let told = self.told.entry(index).or_default();
        match event {
            Event::Progress { text } => {
                self.doing.insert(index, text.clone());
                None
            }
            Event::Note { text } => self.notes.insert(text.clone()).then(|| Line::Plain(text.clone())),
            Event::Ready { seconds } => {
                self.doing.insert(index, "running".into());
                Some(Line::Plain(format!("{cell}: ready after {seconds:.1} s")))
            }
            Event::CaseStarted { id } => {
                self.doing.insert(index, id.clone());
                None
            }
            Event::CaseFinished { report } => {
                match report.verdict {
                    Verdict::Pass if !report.flaky => told.passed += 1,
                    Verdict::Finding if !report.flaky => told.findings += 1,
                    Verdict::NotApplicable => {}
                    _ => told.red += 1,
                }
                let reason = report.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
                let text = format!("{} {}{reason}", report.verdict, report.id);
                if report.verdict != Verdict::NotApplicable {
                    told.verdicts.push(format!("{:6.2} s  {text}", report.seconds));
                }
                // Cases that never began share one reason, which the cell tells once.
                let told_by_the_cell = report.verdict == Verdict::NotRun && report.attempts == 0;
                let green = report.verdict.is_green() && !report.flaky;
                (!green && !told_by_the_cell).then_some(Line::Red { cell, text })
            }
            Event::Broken { reason, .. } => {
                self.doing.remove(&index);
                self.finished += 1;
                Some(Line::Red { cell, text: format!("not-run: {reason}") })
            }
            Event::Finished => {
                self.doing.remove(&index);
                self.finished += 1;
                let text = format!("{cell}: done, {}", told.counts());
                Some(Line::Done { text, verdicts: std::mem::take(&mut told.verdicts) })
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

/// On one line, and without what a terminal or a log would take as a command: a reason may quote what a backend sent.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The message of a workflow command.
fn message(text: &str) -> String {
    printable(text).replace('%', "%25")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
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
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        /// The lines without their times.
        fn lines(&self) -> Vec<String> {
            self.text().lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest).to_owned()).collect()
        }
    }

    fn judged(id: &str, verdict: Verdict, attempts: u32) -> Event {
        let report = CaseReport {
            id: id.into(),
            verdict,
            seconds: 0.1,
            attempts,
            flaky: false,
            reason: (verdict != Verdict::Pass).then(|| "because\n::error::\x1b[2J".into()),
            claims: BTreeMap::new(),
            artefacts: Vec::new(),
            observations: None,
        };
        Event::CaseFinished { report: Box::new(report) }
    }

    #[test]
    fn a_log_gets_what_is_worth_a_line() {
        let log = Log::default();
        let progress =
            Progress::new(Reader::Log, vec!["c@1/a/modern".into(), "c@1/b/default".into()], Box::new(log.clone()));
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
                "c@1/a/modern: fail routing/path: because ::error:: [2J",
                "c@1/a/modern: done, 1 passed, 0 findings, 1 not as promised, in 0.0 s",
                "c@1/b/default: not-run: no controller",
            ]
        );
    }

    #[test]
    fn github_actions_folds_finished_cells_and_lists_what_is_not_green() {
        let log = Log::default();
        let cells = vec!["c@1/a/modern".into(), "c@1/b/default".into()];
        let progress = Progress::new(Reader::Actions, cells, Box::new(log.clone()));
        progress.event(0, &judged("routing/host", Verdict::Pass, 1));
        progress.event(0, &judged("routing/path", Verdict::Fail, 2));
        progress.event(0, &judged("tls/x", Verdict::NotApplicable, 0));
        progress.event(0, &Event::Finished);
        progress.event(1, &Event::Broken { reason: "50 % of it".into(), artefacts: Vec::new() });
        assert_eq!(
            log.lines(),
            [
                "::error title=c@1/a/modern::fail routing/path: because ::error:: [2J",
                "::group::c@1/a/modern: done, 1 passed, 0 findings, 1 not as promised, in 0.0 s",
                "  0.10 s  pass routing/host",
                "  0.10 s  fail routing/path: because ::error:: [2J",
                "::endgroup::",
                "::error title=c@1/b/default::not-run: 50 %25 of it",
            ]
        );
        assert!(!log.text().contains('\x1b'));
    }

    #[test]
    fn a_terminal_sees_what_is_awaited_in_a_line_that_never_wraps() {
        let log = Log::default();
        let progress = Progress::new(Reader::Terminal, vec!["c@1/a/modern".into()], Box::new(log.clone()));
        progress.event(0, &Event::Progress { text: format!("awaiting {}", "x".repeat(200)) });
        let text = log.text();
        let line = text.rsplit("\x1b[2K").next().unwrap();
        assert!(line.starts_with("0/1 cells · a/modern: awaiting x"), "{line}");
        assert_eq!(line.chars().count(), COLUMNS);
        assert!(!text.contains('\n'));
    }
}
