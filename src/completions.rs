//! `meshgate completions` and `meshgate man`: what a shell and `man` should know of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use meshgate_clusters::Kind;
use meshgate_clusters::remote::By;
use meshgate_fixtures::{Fixtures, Mode};
use meshgate_harness::matrix::{Dialect, Mesh};

use crate::target::Install;
use crate::{Cli, fail, output};

/// For which shell.
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Where the manual pages go.
#[derive(clap::Args)]
pub struct ManArgs {
    /// The folder for the pages
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// Prints a completion script.
pub fn main(args: Args) -> ExitCode {
    let script = || {
        let mut command = with_names(Cli::command(), &crate::run::fixtures(None)?);
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut command, "meshgate", &mut script);
        output::print(&String::from_utf8(script)?)
    };
    match script() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

/// Writes a manual page per command.
pub fn man(args: ManArgs) -> ExitCode {
    let write = || {
        std::fs::create_dir_all(&args.output)?;
        clap_mangen::generate_to(Cli::command(), &args.output)
    };
    match write().with_context(|| format!("cannot write manual pages to {}", args.output.display())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

/// With the names that there are: a shell offers the controllers, recipes, dialects and cases of this version, and what stands where there are few words to choose from. The parser itself takes
/// more, such as `traefik@3.6.15` and parts of a case's id, and answers a wrong name with the nearest one.
fn with_names(command: Command, fixtures: &Fixtures) -> Command {
    // The parser keeps names for as long as the process lives, which ends with the script.
    let lasting = |name: &String| -> &'static str { name.clone().leak() };
    let controllers: Vec<&str> = fixtures.controllers.keys().map(lasting).collect();
    let mut recipes: Vec<&str> =
        fixtures.controllers.values().flat_map(|controller| controller.recipes.keys()).map(lasting).collect();
    recipes.sort_unstable();
    recipes.dedup();
    let dialects = Dialect::ALL.map(Dialect::as_str).to_vec();
    let modes = Mode::ALL.map(Mode::as_str).to_vec();
    let clusters = Kind::ALL.map(Kind::as_str).to_vec();
    let meshes = Mesh::ALL.map(Mesh::as_str).to_vec();
    let installs = Install::ALL.map(Install::as_str).to_vec();
    let entrances = By::ALL.map(By::as_str).to_vec();
    let cases: Vec<&str> = meshgate_suites::cases().iter().map(|case| case.id).collect();
    let offers = [
        ("controllers", &controllers),
        ("controller", &controllers),
        ("recipes", &recipes),
        ("dialects", &dialects),
        ("modes", &modes),
        ("cluster", &clusters),
        ("clusters", &clusters),
        ("mesh", &meshes),
        ("install", &installs),
        ("entrance", &entrances),
        ("cases", &cases),
    ];
    let offer = |command: Command, name: &'static str, names: &[&'static str]| {
        if command.get_arguments().any(|argument| argument.get_id() == name) {
            command.mut_arg(name, |argument| argument.value_parser(PossibleValuesParser::new(names.to_vec())))
        } else {
            command
        }
    };
    let subcommands: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    subcommands.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            let command = offers.iter().fold(command, |command, (argument, names)| offer(command, argument, names));
            if name == "explain" { offer(command, "name", &cases) } else { command }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles;

    fn script(shell: Shell) -> String {
        let mut command = with_names(Cli::command(), &Fixtures::built_in().unwrap());
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "meshgate", &mut script);
        String::from_utf8(script).unwrap()
    }

    #[test]
    fn shells_offer_commands_and_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell);
            assert!(script.contains("explain"), "{shell}");
        }
        let bash = script(Shell::Bash);
        for name in [
            "traefik",
            "ingress-middleware",
            "routing/host",
            "documented",
            "outside",
            "k3s",
            "linkerd",
            "helm",
            "node-port",
        ] {
            assert!(bash.contains(name), "{name}");
        }
    }

    /// A shell offers hidden commands as well, so there are to be none: a role is not a command.
    #[test]
    fn no_command_is_a_role() {
        fn look(command: &Command) {
            assert!(!command.is_hide_set() && roles::of(command.get_name()).is_none(), "{}", command.get_name());
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
        assert!(roles::of("cluster-keeper").is_some());
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
        let page = |name: &str| dir.path().join(name).exists();
        assert!(page("meshgate.1") && page("meshgate-run.1") && page("meshgate-explain.1"));
    }
}
