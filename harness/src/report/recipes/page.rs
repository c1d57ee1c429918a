//! What the page says that no longer holds, and what to do instead.

use std::fmt::Write;

use meshgate_fixtures::{Controller, Fixtures};

use super::link;
use crate::report::{ClaimReport, ClaimVerdict, Report};

/// The refuted claims, each of one controller or of none in particular.
pub(super) struct Refuted<'a> {
    fixtures: &'a Fixtures,
    claims: Vec<(&'a ClaimReport, Vec<&'a str>)>,
}

impl<'a> Refuted<'a> {
    pub(super) fn of(report: &'a Report, fixtures: &'a Fixtures) -> Self {
        let refuted = report.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Refuted);
        let claims = refuted.map(|claim| {
            let section = fixtures.claims.get(&claim.id).map(|claim| claim.section.as_str());
            let about = |name: &&str| {
                let controller = fixtures.controllers.get(*name);
                section.is_some() && controller.and_then(|controller| controller.section.as_deref()) == section
            };
            (claim, report.witnesses(claim).controllers.into_iter().filter(about).collect())
        });
        Self { fixtures, claims: claims.collect() }
    }

    /// Those of the section about this controller that its own cells refute.
    pub(super) fn of_controller(&self, controller: &Controller, out: &mut String) -> std::fmt::Result {
        let own = |(_, controllers): &&(&ClaimReport, Vec<&str>)| controllers.contains(&controller.name.as_str());
        self.table(
            self.claims.iter().filter(own),
            &format!("### {}: what the page says that no longer holds", controller.name),
            out,
        )
    }

    /// The others.
    pub(super) fn in_general(&self, out: &mut String) -> std::fmt::Result {
        let general = self.claims.iter().filter(|(_, controllers)| controllers.is_empty());
        self.table(general, "## What the page says of all controllers that no longer holds", out)
    }

    fn table<'b>(
        &self,
        claims: impl Iterator<Item = &'b (&'a ClaimReport, Vec<&'a str>)>,
        title: &str,
        out: &mut String,
    ) -> std::fmt::Result
    where
        'a: 'b,
    {
        let mut claims = claims.peekable();
        if claims.peek().is_none() {
            return Ok(());
        }
        writeln!(out, "\n{title}\n\n| the page | instead |\n|---|---|")?;
        for (claim, _) in claims {
            let instead = self.fixtures.claims.get(&claim.id).and_then(|claim| claim.instead.as_deref());
            let once = match claim.documented {
                Some(ClaimVerdict::Confirmed) => " (It holds under the dialect `documented`.)",
                _ => "",
            };
            writeln!(out, "| {}{once} | {} |", cell(&claim.text), cell(&self.linked(instead.unwrap_or_default())))?;
        }
        Ok(())
    }

    /// With the recipes that are named made links.
    fn linked(&self, instead: &str) -> String {
        let mut text = instead.to_owned();
        for controller in self.fixtures.controllers.values() {
            for recipe in controller.recipes.keys() {
                let path = format!("{}/{recipe}", controller.name);
                let word = |end: &str| (format!("{path}{end}"), format!("{}{end}", link(&controller.name, recipe)));
                // A name may be the beginning of another one.
                for (plain, linked) in [" ", ",", ":", ";"].map(word) {
                    text = text.replace(&plain, &linked);
                }
                if let Some(start) = text.strip_suffix(&path) {
                    text = format!("{start}{}", link(&controller.name, recipe));
                }
            }
        }
        text
    }
}

/// As it may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
