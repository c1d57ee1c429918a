//! Which recipe of a mode to use: by what it promises, and only where the report bears the promises out.

use std::cmp::Reverse;

use meshgate_fixtures::{Balances, ClientOverride, Mode, Promises, Recipe, Weights, is_of_controller};

use super::EXTRAS;
use crate::case::LeftTo;
use crate::matrix::Dialect;
use crate::report::{CaseReport, CellReport};
use crate::verdict::Verdict;

/// A recipe with its cells of a report.
pub(super) struct Judged<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) cells: Vec<&'a CellReport>,
    /// The cell that speaks for today: under the dialect `modern`, or without any.
    today: &'a CellReport,
    /// Whether what it leaves to another recipe's cell, since it comes to the same, is not as promised there.
    red_elsewhere: bool,
}

impl<'a> Judged<'a> {
    /// `None` without a cell; `all` are the controller's.
    pub(super) fn of(recipe: &'a Recipe, cells: Vec<&'a CellReport>, all: &[&CellReport]) -> Option<Self> {
        let speaks = |cell: &&&CellReport| matches!(cell.dialect, None | Some(Dialect::Modern));
        let today = *cells.iter().find(speaks).or_else(|| cells.first())?;
        let mut left = cells.iter().flat_map(|cell| cell.cases.iter().map(move |case| (cell, case)));
        let red_elsewhere = left.any(|(cell, case)| {
            let Some(LeftTo::Recipe(judge)) = case.reason.as_deref().and_then(LeftTo::of) else { return false };
            let judges = |other: &&&CellReport| (other.recipe.as_str(), variant(other)) == (judge, variant(cell));
            let mut cases = all.iter().filter(judges).flat_map(|other| &other.cases);
            cases.any(|other| other.id == case.id && is_red(other))
        });
        Some(Self { recipe, cells, today, red_elsewhere })
    }

    /// What it promises today.
    pub(super) fn promises(&self) -> &'a Promises {
        self.recipe.promises(variant(self.today))
    }

    /// Why it is not to be used, though its routes answer; `None` when it may be.
    pub(super) fn objection(&self) -> Option<String> {
        if self.is_open_relay() {
            return Some("a client chooses the destination by its own `l5d-dst-override`: an open relay".to_owned());
        }
        let cases = || self.cells.iter().flat_map(|cell| &cell.cases);
        let broken = self.cells.iter().any(|cell| cell.broken.is_some());
        if broken || self.red_elsewhere || cases().any(is_red) {
            return Some("the report does not bear out all that it promises".to_owned());
        }
        let judged = cases().any(|case| matches!(case.verdict, Verdict::Pass | Verdict::Finding));
        (!judged).then(|| "no case judged it".to_owned())
    }

    /// In the other modes nobody acts upon the header.
    fn is_open_relay(&self) -> bool {
        let passed = self.promises().client_override == ClientOverride::Passed;
        self.recipe.mode == Mode::Ingress && passed
    }

    /// What it is worth beside others of its mode, from what matters most on.
    fn worth(&self) -> impl Ord + use<> {
        let promises = self.promises();
        (
            promises.balances == Balances::Proxy,
            promises.route_metrics,
            promises.split,
            promises.weights == Some(Weights::Honoured),
            // In default mode the proxy acts upon nobody's.
            self.recipe.mode != Mode::Default && promises.client_override == ClientOverride::Replaced,
            // What a recipe cannot express has no weaknesses either.
            EXTRAS.iter().filter(|(name, _)| self.recipe.templates.contains_key(*name)).count(),
            // The controller's own are no other recipe's lack of them.
            Reverse(self.recipe.findings.keys().filter(|finding| !is_of_controller(finding)).count()),
        )
    }
}

/// The recipe to use, of those of one mode whose routes answer. Of several that are worth the same it is the first.
pub(super) fn best<'b, 'a>(recipes: &[&'b Judged<'a>]) -> Option<&'b Judged<'a>> {
    let fit = recipes.iter().copied().filter(|judged| judged.objection().is_none());
    // The last of the greatest would be the last by name.
    fit.rev().max_by_key(|judged| judged.worth())
}

/// The recipes that are worth as much as the one to use, which comes before them by its name alone.
pub(super) fn as_good<'b, 'a>(best: &Judged<'a>, recipes: &[&'b Judged<'a>]) -> Vec<&'b Judged<'a>> {
    let others = recipes.iter().copied().filter(|judged| judged.recipe.name != best.recipe.name);
    others.filter(|judged| judged.objection().is_none() && judged.worth() == best.worth()).collect()
}

fn is_red(case: &CaseReport) -> bool {
    !case.verdict.is_green() || case.flaky
}

/// `documented` or `modern` in ingress mode, else the mode.
pub(super) fn variant(cell: &CellReport) -> &'static str {
    cell.dialect.map_or(cell.mode.as_str(), Dialect::as_str)
}
