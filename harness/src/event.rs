//! What a cell tells its parent: one JSON object per line on its standard output.

use serde::{Deserialize, Serialize};

use crate::report::CaseReport;

/// An event of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// What is being done or awaited.
    Progress {
        /// In a few words.
        text: String,
    },
    /// Something that a person should know, and that is no reason to stop.
    Note {
        /// In one sentence.
        text: String,
    },
    /// The cell is ready for its first case.
    Ready {
        /// Since the cell's process started, in seconds.
        seconds: f64,
    },
    /// A case begins.
    CaseStarted {
        /// Its id.
        id: String,
    },
    /// A case has its verdict.
    CaseFinished {
        /// The verdict and what belongs to it.
        report: Box<CaseReport>,
    },
    /// The cell could not be set up, or broke; what ran before stands.
    Broken {
        /// Why, and what to look at.
        reason: String,
        /// Files that show it, relative to the report folder.
        artefacts: Vec<String>,
    },
    /// All cases have their verdict.
    Finished,
}
