//! The roles that this binary plays in a cluster, each with a command line of its own.
//!
//! They are told apart before the command line for people is read, which knows every command and option before it reads the first
//! argument: a container of Meshgate's own image starts this binary twice.

use std::ffi::OsString;
use std::process::ExitCode;

/// How a role is played, with the arguments behind its name.
type Play = fn(Vec<OsString>) -> ExitCode;

/// Each role by its name.
const ROLES: &[(&str, Play)] = &[
    // The mesh proxy.
    ("proxy", |_| meshgate_proxy::main_from_env()),
    // The init container that redirects a pod's traffic to the proxy.
    ("proxy-init", meshgate_proxy::init::main),
    // The mesh's control plane.
    ("control-plane", |_| ended(meshgate_control_plane::main_from_env())),
    // The webhook that adds the mesh proxy to new pods.
    ("proxy-injector", |_| ended(meshgate_control_plane::injector_main_from_env())),
    // A demo application.
    ("app", meshgate_apps::main),
    // The control plane of a controller that cannot be had as a native program.
    ("stand-in", meshgate_stand_ins::main),
    // The first process of a container on the embedded cluster.
    ("pod-exec", meshgate_node::pod_exec_main),
];

/// Plays the role that the first argument names, if it names one. Roles set up their own log, or have none.
pub fn play(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.get(1..)?.split_first()?;
    let (_, play) = ROLES.iter().find(|(role, _)| name == role)?;
    Some(play(rest.to_vec()))
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(1, &error),
    }
}
