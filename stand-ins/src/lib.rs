//! Stand-ins: control planes of our own in front of real data planes, for controllers whose own control plane cannot be had as
//! a native program.
//!
//! A stand-in reads the same objects as the controller it stands for, writes the configuration that this controller would
//! generate for the same data plane, and answers bad objects as it does. What it is measured by is what comes out at the data
//! plane: which address is dialled, with which headers, in which order.
//!
//! ```text
//! API server ─ watches ─> Objects ─ Controller::translate ─> Translation ─┬─> DataPlane (nginx, Envoy: mostly a child process)
//!                                   (pure)                                ├─> statuses of the objects
//!                                                                         └─> complaints: events and log
//! ```
//!
//! [`run`] is the loop around it and the same for all. What a controller would not take for one bad object its translation holds back. A
//! controller is a module with its translation; nothing outside this crate and `fixtures/` knows one by name. Where a
//! controller is several programs, each has its stand-in: [`kong::gateway`], which a controller, ours or the real one, tells by an API of its
//! own what to serve, and what is beside [`gloo`].

use std::ffi::OsString;
use std::process::ExitCode;

use futures::future::BoxFuture;
use tracing_subscriber::EnvFilter;

mod contour;
mod data_plane;
mod emissary;
mod envoy;
mod flags;
mod gce;
mod gloo;
mod haproxytech;
mod health;
mod kong;
mod names;
mod nginx;
mod objects;
mod run;
mod secrets;
mod services;
mod status;
mod traefik;

use flags::Flags;

/// A stand-in: the name that the catalogue of images knows it by, and its main function.
type StandIn = (&'static str, fn(Flags) -> BoxFuture<'static, anyhow::Result<()>>);

const STAND_INS: &[StandIn] = &[
    ("contour", |flags| Box::pin(contour::main(flags))),
    ("emissary", |flags| Box::pin(emissary::main(flags))),
    ("gce", |flags| Box::pin(gce::main(flags))),
    ("gloo", |flags| Box::pin(gloo::main(flags))),
    ("gloo-discovery", |flags| Box::pin(gloo::discovery::main(flags))),
    ("gloo-envoy", |flags| Box::pin(gloo::envoy_init::main(flags))),
    ("haproxytech", |flags| Box::pin(haproxytech::main(flags))),
    ("ingress-nginx", |flags| Box::pin(nginx::main(flags))),
    ("kong", |flags| Box::pin(kong::main(flags))),
    ("kong-gateway", |flags| Box::pin(kong::gateway::main(flags))),
    ("traefik-1x", |flags| Box::pin(traefik::main(flags))),
];

/// `meshgate stand-in NAME ARGUMENTS...`, the arguments being those of the program that it stands for. Returns at SIGTERM, when
/// the data plane ends, or when a subcommand is done.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = arguments.into_iter().map(|word| word.to_string_lossy().into_owned());
    let name = words.next().unwrap_or_default();
    let Some((_, start)) = STAND_INS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = STAND_INS.iter().map(|(name, _)| *name).collect();
        eprintln!("meshgate stand-in: expected one of {}, found {name:?}", known.join(", "));
        return ExitCode::from(2);
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(start(Flags::new(words))));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshgate stand-in {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
