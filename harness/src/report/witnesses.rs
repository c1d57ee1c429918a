//! Who says what a claim's verdict is: the cells, and whether any of them is of a controller that is itself and no stand-in.

use std::collections::BTreeSet;

use crate::matrix::Dialect;
use crate::report::{CellReport, ClaimReport, Report};

/// The control plane of a controller that something else plays.
const STAND_IN: &str = "stand-in";

/// Who says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnesses<'a> {
    /// The controllers by name.
    pub controllers: BTreeSet<&'a str>,
    /// Whether there are some and all of them are played by stand-ins.
    pub stand_ins_alone: bool,
}

impl Report {
    /// Whose cells say that the claim has the verdict which it has.
    pub fn witnesses(&self, claim: &ClaimReport) -> Witnesses<'_> {
        let says =
            |cell: &&CellReport| cell.cases.iter().any(|case| case.claims.get(&claim.id) == Some(&claim.verdict));
        let all: Vec<&CellReport> = self.cells.iter().filter(says).collect();
        let today = |cell: &&&CellReport| matches!(cell.dialect, None | Some(Dialect::Modern));
        // The verdict is theirs as soon as one of them has one.
        let today: Vec<&CellReport> = all.iter().filter(today).copied().collect();
        let cells = if today.is_empty() { all } else { today };
        Witnesses {
            controllers: cells.iter().map(|cell| cell.controller.as_str()).collect(),
            stand_ins_alone: !cells.is_empty() && cells.iter().all(|cell| cell.is_stand_in()),
        }
    }
}

impl CellReport {
    /// Whether a stand-in plays the controller.
    pub fn is_stand_in(&self) -> bool {
        self.implementation.control_plane == STAND_IN
    }
}

#[cfg(test)]
mod tests {
    use crate::matrix::Dialect;
    use crate::report::tests::{case, cell, report};
    use crate::report::{CaseReport, CellReport, ClaimVerdict, Report};
    use crate::verdict::Verdict;

    fn says(id: &str, verdict: ClaimVerdict) -> Vec<CaseReport> {
        let mut case = case("a/b", Verdict::Pass);
        case.claims.insert(id.into(), verdict);
        vec![case]
    }

    fn played(controller: &str, by: &str, cell: CellReport) -> CellReport {
        let mut cell = cell;
        cell.controller = controller.into();
        cell.implementation.control_plane = by.into();
        cell
    }

    #[test]
    fn who_says_so_is_who_says_the_verdict_today() {
        use ClaimVerdict::{Confirmed, Refuted};
        let witnesses = |cells| {
            let report: Report = report(cells);
            let found = report.witnesses(&report.claims[0]);
            (found.controllers.into_iter().map(str::to_owned).collect::<Vec<_>>(), found.stand_ins_alone)
        };
        let stand_in = || played("s", "stand-in", cell("a", None, says("one", Refuted)));
        let real = |verdict| played("r", "real", cell("b", Some(Dialect::Modern), says("one", verdict)));
        let past = played("r", "real", cell("b", Some(Dialect::Documented), says("one", Refuted)));
        assert_eq!(witnesses(vec![]), (vec![], false));
        assert_eq!(witnesses(vec![stand_in()]), (vec!["s".into()], true));
        assert_eq!(witnesses(vec![stand_in(), real(Confirmed)]), (vec!["s".into()], true), "it says something else");
        assert_eq!(witnesses(vec![stand_in(), past.clone()]), (vec!["s".into()], true), "it says it of the past");
        assert_eq!(witnesses(vec![stand_in(), real(Refuted)]), (vec!["r".into(), "s".into()], false));
        assert_eq!(witnesses(vec![past]), (vec!["r".into()], false), "nobody speaks for today");
    }
}
