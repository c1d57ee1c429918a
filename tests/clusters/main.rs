//! Clusters that are made by commands, with stand-ins for these commands.
//!
//! The stand-ins (`clusters/tests/commands`) come first on the PATH that a command is given; behind a cluster of theirs stands an embedded one of
//! this very binary. What is proved is Meshgate's half: what it asks of the commands, and what it makes of everything that they may say.

// Clippy knows tests by their attribute; the helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

mod bench;
mod charted;
mod charts;
mod helm;
mod k3s;
mod kind;
mod linkerd;
mod run;
