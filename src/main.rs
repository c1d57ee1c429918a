//! The one binary: the command line for people, and every role that Meshgate plays (`roles`).
//!
//! Arguments are parsed here and nothing else happens here; the work is in the libraries.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use meshgate_clusters::archive::ROLE;
use meshgate_clusters::told;
use tracing_subscriber::EnvFilter;

mod cell;
mod charts;
mod claims;
mod cluster;
mod completions;
mod doctor;
mod explain;
mod gate;
mod image;
mod inject;
mod interruption;
mod linkerd_await;
mod list;
mod output;
mod progress;
mod report;
mod roles;
mod run;
mod site;
mod target;
mod variables;

/// Proves that an ingress controller and a Linkerd-style service mesh work together.
#[derive(Parser)]
#[command(name = "meshgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases on every cell of the matrix and write the report
    Run(run::Args),
    /// List controllers, recipes, cells, cases or claims
    List(list::Args),
    /// Compare two versions of a controller, or two reports: exit 0 no regression, 1 regression, 2 could not run
    Gate(gate::Args),
    /// Say what a case is about, or what the verdict on it in a cell rests on
    Explain(explain::Args),
    /// Print a report as matrix, Markdown or a page for browsers
    Report(report::Args),
    /// Print the page's sentences with the verdicts of a report, and what to do instead of the refuted ones
    Claims(claims::Args),
    /// Leave an embedded cluster running for a person
    Cluster(cluster::Args),
    /// Add the mesh proxy to manifests, as `linkerd inject` does
    Inject(inject::Args),
    /// Write container images of this binary and of known programs into an archive, without Docker
    Image(image::Args),
    /// Say what is missing on this machine, why it matters and how to mend it
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write manual pages
    Man(completions::ManArgs),
}

/// Logs warnings to standard error, or what `MESHGATE_LOG` asks for, such as `debug` or `meshgate_node=trace`.
fn log() {
    // What the Kubernetes client warns of, it returns as an error as well, which is told with what it means.
    let filter = EnvFilter::try_from_env("MESHGATE_LOG").unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    let coloured = coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}

/// Whether the log has colours: on a terminal whose user does not refuse them, see <https://no-color.org/>.
fn coloured(terminal: bool, no_color: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// The arguments. In the image of a stand-in this binary has the name of the program that it stands for, and its role is a
/// variable: manifests give that program's arguments and nothing else. So it is in Linkerd's pods, where the name is the role.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().and_then(|called| Path::new(called).file_name()).and_then(|name| name.to_str());
    let another = called.filter(|name| *name != env!("CARGO_PKG_NAME"));
    let role = another.and_then(|name| roles::by_program(name).map(str::to_owned).or_else(|| std::env::var(ROLE).ok()));
    if let Some(role) = role {
        arguments.splice(1..1, role.split_whitespace().map(OsString::from));
    }
    arguments
}

fn main() -> ExitCode {
    // No thread may exist before this point, and roles that enter namespaces need it to stay so.
    let arguments = arguments();
    if let Some(ended) = roles::play(&arguments) {
        return ended;
    }
    let command = Cli::parse_from(arguments).command;
    log();
    match command {
        Command::Run(args) => run::main(args),
        Command::List(args) => list::main(args),
        Command::Gate(args) => gate::main(args),
        Command::Explain(args) => explain::main(args),
        Command::Report(args) => report::main(args),
        Command::Claims(args) => claims::main(args),
        Command::Cluster(args) => cluster::main(args),
        Command::Inject(args) => inject::main(args),
        Command::Image(args) => image::main(args),
        Command::Doctor(args) => doctor::main(args),
        Command::Completions(args) => completions::main(args),
        Command::Man(args) => completions::man(args),
    }
}

/// Ends a command with an error and its causes.
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    output::tell(&format!("meshgate: {}\n", told(error.as_ref())));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_colours_for_people_who_want_them() {
        assert!(coloured(true, None) && coloured(true, Some("".into())));
        assert!(!coloured(true, Some("1".into())) && !coloured(false, None));
    }
}
