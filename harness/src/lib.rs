//! From the matrix to the verdict.
//!
//! ```text
//! matrix -> cells -> [ cluster up -> mesh, controller, apps in -> cases -> verdicts ] -> report -> gate
//!           parent     one child process per cell, events as JSON lines                  parent
//! ```
//!
//! [`matrix`] turns what was asked for into [`matrix::Cell`]s, [`jobs`] cuts it into what a CI service runs side by side. [`runner`]
//! (the parent) starts one process per cell and collects its [`event::Event`]s; [`cell`] (the child) sets up the [`world`], runs the
//! [`case`]s and tells their [`verdict`]s. [`report`] writes what came of it, [`gate`] compares two reports.
//!
//! What a cell consists of is its [`blueprint`]; on a cluster that is not Meshgate's own, [`tenancy`] says how it is put there,
//! `adoption` which objects of others its controller would take for its own, and [`injection`] whether the webhook of another mesh gave every pod its proxy.
//!
//! A case sees the world through a [`context::Context`]: it sends requests by the [`probe`], waits by
//! [`convergence`], reads [`metrics`], judges counts by [`statistics`], and says what it found by [`verdict`]. What passes through
//! the context is in the report as its [`observations`].
//! Nothing here knows a controller by name.

mod adoption;
pub mod blueprint;
pub mod case;
pub mod cell;
pub mod context;
pub mod convergence;
mod definitions;
pub mod event;
#[cfg(test)]
mod fake;
pub mod injection;
pub mod jobs;
pub mod kubernetes;
pub mod matrix;
pub mod metrics;
pub mod observations;
pub mod plan;
pub mod probe;
mod refusal;
pub mod report;
pub mod runner;
pub mod statistics;
pub mod tenancy;
mod undo;
pub mod verdict;
pub mod world;
