//! What may be lost, and what may not.
//!
//! A proxy keeps no copy of a body, so a request with one is lost with the connection it is on; and when an application refuses
//! connections, its proxy has taken the body already. A request without a body is sent again as long as nothing was answered, if it is
//! idempotent. So each loss must have a disturbance to blame, and no disturbance may cost more than was under way then.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    time::Instant,
};

use crate::ledger::{Class, Disturbance, Finished, Ledger, Outcome, Seen, Window};

/// While an application refuses connections it is tried again now and then by each of two proxies, at growing intervals from 100 ms.
const TRIALS: usize = 8;

/// Losses of one class by one kind of disturbance.
#[derive(Default)]
struct Line {
    lost: usize,
    bound: usize,
    examples: BTreeMap<String, usize>,
}

pub struct Verdict {
    pub summary: String,
    pub violations: Vec<String>,
    /// Requests that were answered, of the unmarked and the marked clients, other than upgrades and opaque connections.
    pub answered: [usize; 2],
}

struct Judge<'a> {
    ledger: &'a Ledger,
    finished: &'a [Finished],
    windows: &'a [Window],
    seen: &'a HashMap<u64, Seen>,
    violations: Vec<String>,
    /// By window and class.
    lost: BTreeMap<(usize, Class), Vec<&'a Finished>>,
}

pub fn judge(ledger: &Ledger) -> Verdict {
    let (mut finished, windows) = ledger.take();
    finished.sort_by_key(|request| request.from);
    let seen = ledger.seen();
    let mut judge = Judge {
        ledger,
        finished: &finished,
        windows: &windows,
        seen: &seen,
        violations: Vec::new(),
        lost: BTreeMap::new(),
    };
    for request in &finished {
        judge.request(request);
    }
    let summary = judge.losses();
    let answered = |request: &&Finished| request.outcome == Outcome::Answered && request.class != Class::Connection;
    let marked = finished.iter().filter(answered).filter(|request| request.class == Class::Marked).count();
    let all = finished.iter().filter(answered).count();
    Verdict { summary, violations: judge.violations, answered: [all - marked, marked] }
}

impl<'a> Judge<'a> {
    fn request(&mut self, request: &'a Finished) {
        let nothing = Seen::default();
        let seen = self.seen.get(&request.id).unwrap_or(&nothing);
        if seen.wrong > 0 {
            self.violation(request, "an application got another body than was sent");
        }
        let unretried = !self.during(request, |it| *it == Disturbance::Retrying);
        let singly = matches!(request.class, Class::Once | Class::Body { .. });
        if singly && unretried && seen.pods.len() > 1 {
            self.violation(request, "it was sent more than once, and nothing allows that");
        }
        match &request.outcome {
            Outcome::Answered if request.class == Class::Connection => {}
            Outcome::Answered => {
                if seen.whole == 0 {
                    self.violation(request, "no application got it whole");
                }
                if request.class == Class::Marked && !self.during(request, |it| *it == Disturbance::Allowing) {
                    self.violation(request, "no policy let this client in");
                }
            }
            Outcome::Forbidden => {
                let denied = self.during(request, |it| *it == Disturbance::Denying);
                if request.class != Class::Marked || !denied {
                    self.violation(request, "no policy refuses this client");
                }
            }
            Outcome::Wrong(_) | Outcome::TimedOut => self.violation(request, "this may never be"),
            Outcome::Failed(_) | Outcome::Unanswered(_) | Outcome::Cut(_) => {
                let excuse = self.windows.iter().position(|window| excuses(window, request, seen));
                match excuse {
                    Some(window) => self.lost.entry((window, request.class)).or_default().push(request),
                    None => self.violation(request, "nothing happened that could have cost it"),
                }
            }
        }
    }

    fn during(&self, request: &Finished, what: impl Fn(&Disturbance) -> bool) -> bool {
        self.windows.iter().any(|window| what(&window.what) && request.overlaps(window.from, window.until))
    }

    fn violation(&mut self, request: &Finished, why: &str) {
        let Finished { id, class, from, until, outcome } = request;
        let seen = self.seen.get(id).cloned().unwrap_or_default();
        self.violations.push(format!(
            "request {id} ({class:?}) from {:.3} to {:.3}: {outcome:?}, seen by pods {:?}, {} times whole: {why}",
            self.ledger.at(*from),
            self.ledger.at(*until),
            seen.pods,
            seen.whole
        ));
    }

    /// Compares the losses of each disturbance with what it may cost.
    fn losses(&mut self) -> String {
        let mut lines: BTreeMap<(&str, Class), Line> = BTreeMap::new();
        let classes = [
            Class::Plain,
            Class::Once,
            Class::Body { idempotent: false },
            Class::Body { idempotent: true },
            Class::Connection,
            Class::Marked,
        ];
        for (index, window) in self.windows.iter().enumerate() {
            for class in classes {
                let Some((name, bound)) = self.bound(window, class) else { continue };
                let lost = self.lost.get(&(index, class)).map(Vec::as_slice).unwrap_or_default();
                if lost.len() > bound {
                    self.violations.push(format!(
                        "{:?} at {:.3} cost {} requests ({class:?}), where {bound} were under way; the first: {:?}",
                        window.what,
                        self.ledger.at(window.from),
                        lost.len(),
                        lost[0].outcome
                    ));
                }
                let line = lines.entry((name, class)).or_default();
                line.lost += lost.len();
                line.bound += bound;
                for request in lost {
                    *line.examples.entry(kind(&request.outcome)).or_default() += 1;
                }
            }
        }
        let mut text = String::new();
        for ((name, class), Line { lost, bound, examples }) in lines {
            let class = format!("{class:?}");
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {name:<9} {class:<28} {lost:>5} lost, {bound:>6} allowed");
            for (example, count) in examples {
                let _ = writeln!(text, "      {count:>5} {example}");
            }
        }
        text
    }

    /// How many requests of a class a disturbance may cost.
    fn bound(&self, window: &Window, class: Class) -> Option<(&'static str, usize)> {
        let under_way = |from, until| self.under_way(class, from, until);
        Some(match window.what {
            Disturbance::Killed { pod, dead } => {
                let ended = dead.unwrap_or(window.from);
                let there =
                    |request: &&Finished| self.seen.get(&request.id).is_some_and(|seen| seen.pods.contains(&pod));
                let bound = match class {
                    Class::Plain | Class::Marked => {
                        under_way(window.from, Some(ended)).iter().filter(|request| there(request)).count()
                    }
                    _ => under_way(window.from, Some(ended)).len(),
                };
                ("kill", bound)
            }
            Disturbance::Refusing { .. } => {
                let first = under_way(window.from, Some(window.from)).len();
                match class {
                    Class::Plain | Class::Marked => return None,
                    Class::Once => ("refusal", first),
                    Class::Body { .. } => ("refusal", first + TRIALS),
                    Class::Connection => ("refusal", under_way(window.from, window.until).len()),
                }
            }
            Disturbance::Nobody => ("nobody", under_way(window.from, window.until).len()),
            Disturbance::Retrying | Disturbance::Allowing | Disturbance::Denying => return None,
        })
    }

    fn under_way(&self, class: Class, from: Instant, until: Option<Instant>) -> Vec<&'a Finished> {
        // No request takes longer than its deadline, so nothing before that reaches into the time asked for.
        let earliest = self.finished.partition_point(|request| request.from + crate::load::DEADLINE * 2 < from);
        let later =
            self.finished[earliest..].iter().take_while(|request| until.is_none_or(|until| request.from <= until));
        later.filter(|request| request.class == class && request.overlaps(from, until)).collect()
    }
}

/// Whether a disturbance can have cost this request its answer.
fn excuses(window: &Window, request: &Finished, seen: &Seen) -> bool {
    let plain = matches!(request.class, Class::Plain | Class::Marked);
    match window.what {
        // A request that can be sent again is lost only with the application that was about to answer it, or was doing so.
        Disturbance::Killed { pod, dead } if plain => request.overlaps(window.from, dead) && seen.pods.contains(&pod),
        Disturbance::Killed { .. } => request.overlaps(window.from, window.until),
        Disturbance::Refusing { .. } => !plain && request.overlaps(window.from, window.until),
        Disturbance::Nobody => {
            let unserved = match &request.outcome {
                Outcome::Failed(status) => status.starts_with("503") || status.starts_with("504"),
                // The answer is there before the body has been read, and a client that still writes may see the connection's end first.
                Outcome::Unanswered(_) => matches!(request.class, Class::Body { .. } | Class::Connection),
                _ => request.class == Class::Connection,
            };
            unserved && request.overlaps(window.from, window.until)
        }
        Disturbance::Retrying | Disturbance::Allowing | Disturbance::Denying => false,
    }
}

/// Without what differs from one to the next.
fn kind(outcome: &Outcome) -> String {
    let text = format!("{outcome:?}");
    text.chars().map(|it| if it.is_ascii_digit() { '#' } else { it }).collect::<String>().replace("##", "#")
}
