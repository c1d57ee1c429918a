//! `meshgate cluster up`.

use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use meshgate_images::Catalogue;

use super::{Name, keeper};
use crate::{output, variables};

/// How.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// The API server's port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    api_port: u16,
    /// The port on 127.0.0.1 that leads to port 80 of the first load balancer; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    ingress_port: u16,
    /// A port of the node, for instance a NodePort, to be reached on 127.0.0.1, and at which port there; a free one when left out
    #[arg(long = "node-port", value_name = "NODE[:HOST]")]
    node_ports: Vec<keeper::NodePort>,
    /// Images to have at hand besides the newest of every known controller
    #[arg(long = "image")]
    images: Vec<String>,
}

/// Starts the keeper, waits until the cluster is ready and says how to reach it.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    variables::check(&Catalogue::built_in(std::env::current_exe()?))?;
    let dir = args.name.dir()?;
    if let Some(pid) = keeper::running(&dir) {
        bail!(
            "the cluster \"{name}\" is already running (process {pid}); end it: meshgate cluster down --name {name}",
            name = args.name.name
        );
    }
    meshgate_net::namespaces::check()?;
    let fixtures = crate::run::fixtures(None)?;
    let mut images = args.images.clone();
    for controller in fixtures.controllers.values() {
        images.extend(meshgate_harness::blueprint::images(controller, controller.newest())?);
    }
    let prepared = meshgate_clusters::embedded::prepare(std::env::current_exe()?, &images, &|text| {
        output::tell(&format!("{text}\n"));
    })?;
    // What a cluster that was killed left there: its sockets could not be bound again.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(|| dir.display().to_string())?;
    // Held open, because a keeper that fails removes the folder.
    let mut log =
        std::fs::OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(dir.join("log"))?;
    let spec = keeper::Spec {
        dir: dir.clone(),
        api_port: args.api_port,
        ingress_port: args.ingress_port,
        node_ports: args.node_ports.clone(),
        prepared,
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(keeper::ROLE)
        .arg(serde_json::to_string(&spec)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("cannot start the keeper")?;
    let stdout = child.stdout.take().context("the keeper's output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let Ok(keeper::Ready { api, ingress, node_ports }) = serde_json::from_str(&line) else {
        let _ = child.wait();
        let mut text = String::new();
        log.rewind()?;
        log.read_to_string(&mut text)?;
        bail!("the cluster did not start: {}", text.trim());
    };
    let node_ports: String =
        node_ports.iter().map(|port| format!("  port {} of the node: 127.0.0.1:{}\n", port.node, port.host)).collect();
    let kubeconfig = dir.join("kubeconfig");
    let name = &args.name.name;
    output::print(&format!(
        "cluster \"{name}\" is up, API on https://127.0.0.1:{api}\n  export KUBECONFIG={}\n  the first load balancer: \
         http://127.0.0.1:{ingress}\n{node_ports}  meshgate cluster down --name {name}\n",
        kubeconfig.display()
    ))
}
