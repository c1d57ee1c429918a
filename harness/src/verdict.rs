//! What a case found.

use std::fmt;

use meshgate_clusters::told;
use serde::{Deserialize, Serialize};

/// The verdict on a case in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It behaves as the recipe promises.
    Pass,
    /// A weakness that the recipe declares, observed as declared.
    Finding,
    /// The recipe does not promise what the case is about.
    NotApplicable,
    /// It does not behave as the recipe promises.
    Fail,
    /// The infrastructure failed before the behaviour could be judged. Never green.
    NotRun,
}

impl Verdict {
    /// Whether the verdict is as the recipe promises.
    pub fn is_green(self) -> bool {
        matches!(self, Self::Pass | Self::Finding | Self::NotApplicable)
    }

    /// As it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Finding => "finding",
            Self::NotApplicable => "not-applicable",
            Self::Fail => "fail",
            Self::NotRun => "not-run",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a case that ran to its end came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As promised.
    Pass,
    /// The cluster lacks what the case needs, which shows only there.
    NotApplicable {
        /// What it lacks.
        why: String,
    },
    /// A weakness, observed; it is a `finding` when the recipe declares it by this name and a failure otherwise.
    Weakness {
        /// The name under `findings` in `recipe.yaml`.
        name: &'static str,
        /// What was observed.
        observed: String,
    },
}

/// Why a case did not come out as promised.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The behaviour differs from what was promised.
    #[error("{what}: expected {expected}, found {found}")]
    Behaviour {
        /// What was looked at.
        what: String,
        /// What should have been.
        expected: String,
        /// What was.
        found: String,
    },
    /// The check could not be made: the world around it failed.
    #[error("{}", told(.0.as_ref()))]
    Infrastructure(#[from] anyhow::Error),
}

/// What a case returns.
pub type CaseResult = Result<Outcome, Failure>;

/// Begins a check: `check("status").equal(record.status, 200)?`.
pub fn check(what: impl Into<String>) -> Check {
    Check { what: what.into() }
}

/// A check under way.
#[derive(Clone, Debug)]
pub struct Check {
    what: String,
}

impl Check {
    /// The two are equal.
    pub fn equal<A: PartialEq<B> + fmt::Debug, B: fmt::Debug>(self, found: A, expected: B) -> Result<(), Failure> {
        if found == expected { Ok(()) } else { Err(self.failure(format!("{expected:?}"), format!("{found:?}"))) }
    }

    /// The condition holds; `expected` and `found` are for the reader.
    pub fn that(self, holds: bool, expected: impl Into<String>, found: impl Into<String>) -> Result<(), Failure> {
        if holds { Ok(()) } else { Err(self.failure(expected, found)) }
    }

    /// The failure itself.
    pub fn failure(self, expected: impl Into<String>, found: impl Into<String>) -> Failure {
        Failure::Behaviour { what: self.what, expected: expected.into(), found: found.into() }
    }
}
