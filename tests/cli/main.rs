//! The binary as people meet it: exit codes, messages, files, and what is left when it ends.
//!
//! Every test runs `meshgate` itself in a folder of its own. What takes a whole cell takes the smallest there is: one recipe,
//! one dialect, one case.

// Clippy knows tests by their attribute; the helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

mod away;
mod bench;
mod ci;
mod cluster;
mod endings;
mod eras;
mod existing;
mod gate;
mod image;
mod injector;
mod machine;
mod names;
mod processes;
mod recipes;
mod reports;
mod stalls;
