//! The node with real processes: Pods are written into the store, and what they become is asserted.
//!
//! The process first enters namespaces of its own, so that it needs no rights and leaves nothing; without a harness,
//! because that has to happen before any thread exists, and because the same file is the node's helper (`pod-exec`).

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

mod cluster;
mod containers;
mod network;
mod pods;

use cluster::Cluster;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|role| role == "pod-exec") {
        return meshgate_node::pod_exec_main(arguments);
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread.
        if let Err(error) = meshgate_net::namespaces::enter() {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let cluster = (!arguments.list).then(Cluster::start);
    let trials = [containers::TESTS, pods::TESTS, network::TESTS].concat().into_iter().map(|(name, test)| {
        let cluster = cluster.clone();
        Trial::test(name, move || match cluster {
            Some(cluster) => cluster.run(name, test),
            None => Ok(()),
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Some(leftover) = cluster.and_then(Cluster::stop) {
        eprintln!("processes outlived their node:\n{leftover}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
