//! Comparing the verdicts of two reports: what an upgrade would change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::report::expected::{Judged, Verdicts};
use crate::verdict::Verdict;

/// What changed between two reports, recipe by recipe and case by case.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Every difference, regressions first.
    pub changes: Vec<Change>,
    /// Verdicts that are the same on both sides.
    pub unchanged: usize,
    /// Whether anything was judged, on either side: a comparison of nothing vouches for nothing.
    pub judged: bool,
    /// Cells that only one of the reports has.
    pub one_sided: BTreeSet<String>,
    /// Where each side was judged, if that is known of both and not the same: what differs may then differ for that.
    pub elsewhere: Option<[BTreeSet<String>; 2]>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `recipe/variant`, without the version.
    pub cell: String,
    /// The case.
    pub case: String,
    /// What it means for the upgrade.
    pub kind: Kind,
    /// The verdict before; `None` when the cell or case was not there.
    pub before: Option<Verdict>,
    /// The verdict after.
    pub after: Option<Verdict>,
    /// The reason given with the later verdict, else the earlier.
    pub reason: Option<String>,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Green before, not green now.
    Regression,
    /// Something that ran before does not run any more, without being red: a cell or case is gone, or no longer applies.
    Lost,
    /// Not green before, green now.
    Improvement,
    /// There is something new.
    Gained,
    /// Another verdict of the same colour, or what did not run and is gone.
    Other,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Lost => "lost",
            Self::Improvement => "improvement",
            Self::Gained => "new",
            Self::Other => "changed",
        }
    }
}

impl Comparison {
    /// Compares a candidate with its baseline. Cells are matched without their versions.
    pub fn of(baseline: &Verdicts, candidate: &Verdicts) -> Self {
        let all: BTreeSet<(&str, &str)> = [baseline, candidate]
            .into_iter()
            .flat_map(|side| &side.cells)
            .flat_map(|(cell, cases)| cases.keys().map(move |case| (cell.as_str(), case.as_str())))
            .collect();
        let mut changes = Vec::new();
        let mut unchanged = 0;
        for (cell, case) in all {
            let (old, new) = (baseline.get(cell, case), candidate.get(cell, case));
            let Some(kind) = kind(old, new) else {
                unchanged += 1;
                continue;
            };
            let reason = new.and_then(|case| case.reason.clone()).or_else(|| old.and_then(|case| case.reason.clone()));
            changes.push(Change {
                cell: cell.to_owned(),
                case: case.to_owned(),
                kind,
                before: old.map(|case| case.verdict),
                after: new.map(|case| case.verdict),
                reason,
            });
        }
        changes.sort_by_key(|change| change.kind);
        let mut every =
            [baseline, candidate].into_iter().flat_map(|side| side.cells.values().flat_map(BTreeMap::values));
        let judged = every.any(|case| matches!(case.verdict, Verdict::Pass | Verdict::Finding | Verdict::Fail));
        let cells = |side: &Verdicts| side.cells.keys().cloned().collect::<BTreeSet<_>>();
        let one_sided = cells(baseline).symmetric_difference(&cells(candidate)).cloned().collect();
        let sides = [&baseline.places, &candidate.places];
        let known = sides.iter().all(|places| !places.is_empty());
        let elsewhere = (known && sides[0] != sides[1]).then(|| sides.map(Clone::clone));
        Self { changes, unchanged, judged, one_sided, elsewhere }
    }

    /// Whether a change is one of a cell that is on one side only. What is red there is told case by case all the same.
    fn is_of_a_whole_cell(&self, change: &Change) -> bool {
        matches!(change.kind, Kind::Gained | Kind::Lost | Kind::Other) && self.one_sided.contains(&change.cell)
    }

    /// Whether the candidate may not pass: a regression, or something that ran and is gone.
    pub fn regressed(&self) -> bool {
        self.changes.iter().any(|change| matches!(change.kind, Kind::Regression | Kind::Lost))
    }

    /// Whether nothing at all is different, better or worse.
    pub fn is_same(&self) -> bool {
        self.changes.is_empty()
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Some([baseline, candidate]) = &self.elsewhere {
            let places = |side: &BTreeSet<String>| side.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            let _ = writeln!(
                text,
                "note        not judged in the same place: the baseline in {}, the candidate in {}",
                places(baseline),
                places(candidate)
            );
        }
        let verdict = |verdict: Option<Verdict>| verdict.map_or("absent", Verdict::as_str);
        let mut whole: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
        for change in self.changes.iter().filter(|change| self.is_of_a_whole_cell(change)) {
            *whole.entry((change.kind, &change.cell)).or_default() += 1;
        }
        for ((kind, cell), cases) in whole {
            let what = if kind == Kind::Gained { "in the candidate only" } else { "in the baseline only" };
            let _ = writeln!(text, "{:<11} {cell}: the whole cell, {cases} cases, {what}", kind.word());
        }
        for change in self.changes.iter().filter(|change| !self.is_of_a_whole_cell(change)) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<11} {} {}: {} -> {}{}",
                change.kind.word(),
                change.cell,
                change.case,
                verdict(change.before),
                verdict(change.after),
                change.reason.as_ref().map(|reason| format!("\n            {reason}")).unwrap_or_default()
            );
        }
        let count = |kind| self.changes.iter().filter(|change| change.kind == kind).count();
        let _ = writeln!(
            text,
            "{} regressions, {} lost, {} improvements, {} new, {} otherwise changed, {} unchanged",
            count(Kind::Regression),
            count(Kind::Lost),
            count(Kind::Improvement),
            count(Kind::Gained),
            count(Kind::Other),
            self.unchanged
        );
        text
    }
}

fn kind(before: Option<&Judged>, after: Option<&Judged>) -> Option<Kind> {
    let green = |case: &Judged| case.verdict.is_green() && !case.flaky;
    let applies = |case: &Judged| case.verdict != Verdict::NotApplicable;
    match (before, after) {
        (None, None) => None,
        (None, Some(after)) => applies(after).then_some(if green(after) { Kind::Gained } else { Kind::Regression }),
        // What never ran is no loss, but an expected report that has it is not as expected.
        (Some(before), None) if before.verdict == Verdict::NotRun => Some(Kind::Other),
        (Some(before), None) => applies(before).then_some(Kind::Lost),
        (Some(before), Some(after)) => match (green(before), green(after)) {
            (true, false) => Some(Kind::Regression),
            (false, true) => Some(Kind::Improvement),
            _ if before.verdict == after.verdict => None,
            _ if applies(before) && !applies(after) => Some(Kind::Lost),
            _ if !applies(before) && applies(after) => Some(Kind::Gained),
            _ => Some(Kind::Other),
        },
    }
}
