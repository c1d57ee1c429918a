//! Measures the bundled mesh proxy side by side with other proxies, as the sidecar of a client: `cargo run --release -p
//! meshgate-bench -- run`.
//!
//! ```text
//! run     fetches the peers, says what is to be measured (Spec), starts `inside`, and writes the report
//! inside  enters namespaces, makes the world, starts control plane and backend, and then goes round:
//!           each round, each subject: start it, put load on it, look at its CPU time and memory, stop it
//! proxy   the bundled proxy, as the binary `meshgate` has it: the same function, the same runtime
//! ```
//!
//! The proxy that is measured has a core of its own. Load, backend and control plane share the other one, and one thread, so
//! that as little as possible of that core goes to anything but requests. Every subject is measured in every round, so that
//! slow minutes of the machine hit all of them, and ratios are made within a round.

mod authority;
mod backend;
mod control_plane;
mod http1;
mod inside;
mod load;
mod measure;
mod process;
mod report;
mod results;
mod run;
mod services;
mod statistics;
mod subject;
mod world;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Measures the mesh proxy side by side with other proxies.
#[derive(Parser)]
#[command(name = "meshgate-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, print a table, and write table, plot and raw numbers
    Run(run::Args),
    /// Role: what `run` starts in namespaces of its own
    #[command(hide = true)]
    Inside(inside::Args),
    /// Role: the bundled proxy
    #[command(hide = true, disable_help_flag = true)]
    Proxy {
        /// None are looked at; everything is in the environment.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // No thread may exist before this point: `inside` enters namespaces.
    let result = match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Inside(args) => inside::main(&args),
        Command::Proxy { .. } => return meshgate_proxy::main_from_env(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("meshgate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
