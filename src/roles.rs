//! The roles that this binary plays, in a cluster and for itself, each with a command line of its own.
//!
//! They are told apart before the command line for people is read, which knows every command and option before it reads the first
//! argument: a container of Meshgate's own image starts this binary twice. So people are offered none of them.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use serde::de::DeserializeOwned;

use crate::{cell, cluster, linkerd_await};

/// How a role is played, with the arguments behind its name.
pub type Play = fn(Vec<OsString>) -> ExitCode;

/// Each role by its name.
const ROLES: &[(&str, Play)] = &[
    // The mesh proxy.
    ("proxy", |_| meshgate_proxy::main_from_env()),
    // The init container that redirects a pod's traffic to the proxy.
    ("proxy-init", meshgate_proxy::init::main),
    // What Linkerd's chart waits with until the proxy is ready.
    (linkerd_await::ROLE, linkerd_await::main),
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
    // One cell of the matrix, started by `run`.
    (cell::ROLE, cell::main),
    // What keeps a cluster of `cluster up` running, and the cluster itself.
    (cluster::keeper::ROLE, |arguments| told(&arguments, cluster::keeper::execute)),
    (cluster::inside::ROLE, |arguments| told(&arguments, cluster::inside::execute)),
];

/// The role of a program of Linkerd's proxy image, whose name this binary may have. `linkerd2-proxy-identity` is the entrypoint, which makes
/// a key and becomes the proxy.
pub fn by_program(name: &str) -> Option<&'static str> {
    match name {
        "linkerd2-proxy-identity" => Some("proxy"),
        linkerd_await::ROLE => Some(linkerd_await::ROLE),
        _ => None,
    }
}

/// Plays the role that the first argument names, if it names one. Roles set up their own log, or have none.
pub fn play(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.get(1..)?.split_first()?;
    let play = of(name.to_str()?)?;
    Some(play(rest.to_vec()))
}

/// How a role is played.
pub fn of(name: &str) -> Option<Play> {
    ROLES.iter().find(|(role, _)| name == *role).map(|(_, play)| *play)
}

/// Plays a role of this program's own processes, whose only argument is what it is told, as JSON.
fn told<T: DeserializeOwned>(arguments: &[OsString], play: fn(&T) -> anyhow::Result<()>) -> ExitCode {
    crate::log();
    ended(spec(arguments).and_then(|spec| play(&spec)))
}

/// What such a role is told.
pub fn spec<T: DeserializeOwned>(arguments: &[OsString]) -> anyhow::Result<T> {
    let text =
        arguments.first().and_then(|argument| argument.to_str()).context("this role is told what to do as JSON")?;
    serde_json::from_str(text).context("what this role is told is not understood")
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(1, &error),
    }
}
