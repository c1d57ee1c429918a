//! `meshgate app ROLE`: from arguments and environment to a running application.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::books::{authors, catalogue, traffic, webapp};
use crate::emojivoto::{bot, emoji, voting, web};
use crate::{echo, kuard, probe, vantage};

/// The demo applications.
#[derive(Parser)]
#[command(name = "meshgate app", no_binary_name = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// emojivoto's web front end
    Web(web::Config),
    /// emojivoto's emoji service
    Emoji(emoji::Config),
    /// emojivoto's voting service
    Voting(voting::Config),
    /// emojivoto's traffic generator
    VoteBot(bot::Config),
    /// The front end of books
    Webapp(webapp::Config),
    /// The authors of books
    Authors(authors::Config),
    /// The books themselves
    Books(catalogue::Config),
    /// The traffic generator of books
    Traffic(traffic::Config),
    /// The demo service of Contour
    Kuard(kuard::Config),
    /// The backend that says what it saw
    Echo(echo::Config),
    /// Sends requests from inside a pod
    Probe(probe::role::Config),
    /// Carries connections of a client outside into the cluster
    Vantage(vantage::Config),
}

/// Runs the role that the arguments name, without a program name before them. Returns when the role ends: after SIGTERM or
/// SIGINT with what was in flight answered, or at once when it cannot start, with the reason on stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    match run(cli.role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshgate app: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("finishing what is in flight");
            token.cancel();
        });
        match role {
            Role::Web(config) => web::Web::bind(config).await?.serve(shutdown).await,
            Role::Emoji(config) => emoji::Emoji::bind(config).await?.serve(shutdown).await,
            Role::Voting(config) => voting::Voting::bind(config).await?.serve(shutdown).await,
            Role::VoteBot(config) => bot::run(config, shutdown).await,
            Role::Webapp(config) => webapp::Webapp::bind(&config).await?.serve(shutdown).await,
            Role::Authors(config) => authors::Authors::bind(&config).await?.serve(shutdown).await,
            Role::Books(config) => catalogue::Catalogue::bind(&config).await?.serve(shutdown).await,
            Role::Traffic(config) => traffic::run(config, shutdown).await,
            Role::Kuard(config) => kuard::Kuard::bind(&config).await?.serve(shutdown).await,
            Role::Echo(config) => echo::Echo::bind(config).await?.serve(shutdown).await,
            Role::Probe(config) => probe::role::Role::bind(config).await?.serve(shutdown).await,
            Role::Vantage(config) => vantage::Vantage::bind(config).await?.serve(shutdown).await,
        }
    })
}
