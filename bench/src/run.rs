//! The command `run`: what is to be measured, and what becomes of the numbers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use meshgate_images::{Catalogue, Program};

use crate::{
    inside::{Spec, rounds_file},
    measure::Times,
    report,
    results::Results,
    subject::{Kind, Peer, Subject},
};

const DIRECT: &str = "direct";
const BUNDLED: &str = "meshgate";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A further proxy that takes Linkerd's environment, such as `linkerd=/path/to/linkerd2-proxy`
    #[arg(long, value_name = "NAME=PATH", value_parser = named_proxy)]
    proxy: Vec<(String, PathBuf)>,
    /// Only these, such as `meshgate,haproxy`; `direct` is always there
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each of them is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// One short run, to see that everything works
    #[arg(long)]
    quick: bool,
    /// The folder that table, plot and raw numbers are written to
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

/// Measures and reports.
pub(crate) fn main(args: Args) -> anyhow::Result<ExitCode> {
    let (rounds, seconds) = if args.quick { (1, 0.7) } else { (args.runs, args.seconds) };
    ensure!(rounds > 0, "--runs: expected one at least");
    ensure!((0.1..=600.0).contains(&seconds), "--seconds: expected 0.1 to 600, found {seconds}");
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let out = fs::canonicalize(&args.out)?;
    let own = std::env::current_exe().context("this program's own path")?;
    let bundled = vec![own.clone(), PathBuf::from("proxy")];
    let catalogue = Catalogue::built_in(&own);
    let progress = |message: &str| eprintln!("{message}");
    let subjects = subjects(&args, &bundled, |peer| fetch(&catalogue, peer, &progress))?;
    let spec = Spec {
        subjects,
        rounds,
        times: Times::of(Duration::from_secs_f64(seconds)),
        nft: catalogue.nft(&progress)?,
        inbound: bundled,
        results: rounds_file(&out),
    };
    let mut inside = Command::new(&own)
        .arg("inside")
        .arg(serde_json::to_string(&spec)?)
        // It ends when this process does.
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start this program once more")?;
    let held = inside.stdin.take();
    let status = inside.wait()?;
    drop(held);
    if !status.success() {
        bail!("the measurement ended early ({status})");
    }
    let json = fs::read(&spec.results).with_context(|| spec.results.display().to_string())?;
    fs::remove_file(&spec.results)?;
    let results = Results {
        subjects: spec.subjects.iter().map(|subject| subject.name.clone()).collect(),
        programs: spec.subjects.iter().map(|subject| describe(&subject.kind)).collect(),
        machine: machine(),
        times: spec.times,
        rounds: serde_json::from_slice(&json)?,
    };
    write(&results, &out)?;
    Ok(ExitCode::SUCCESS)
}

fn write(results: &Results, out: &Path) -> anyhow::Result<()> {
    let table = report::markdown(results);
    println!("{table}");
    let files = [
        ("bench.md", table.into_bytes()),
        ("bench.svg", report::plot(results).into_bytes()),
        ("bench.json", serde_json::to_vec_pretty(results)?),
    ];
    for (name, content) in files {
        let path = out.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    eprintln!("written: {0}/bench.md, {0}/bench.svg, {0}/bench.json", out.display());
    Ok(())
}

/// Everything that is to be measured, without fetching what is not.
fn subjects(
    args: &Args,
    bundled: &[PathBuf],
    fetch: impl Fn(Peer) -> Result<Program, String>,
) -> anyhow::Result<Vec<Subject>> {
    let both_modes = |name: &str, command: &[PathBuf]| {
        [(name.to_owned(), false), (format!("{name}-ingress"), true)]
            .map(|(name, ingress)| (name, Kind::Mesh { command: command.to_vec(), ingress }))
    };
    let mut all = vec![(DIRECT.to_owned(), Some(Kind::Direct))];
    all.extend(both_modes(BUNDLED, bundled).map(|(name, kind)| (name, Some(kind))));
    for (name, path) in &args.proxy {
        let path = fs::canonicalize(path).with_context(|| format!("--proxy {name}={}", path.display()))?;
        all.extend(both_modes(name, &[path]).map(|(name, kind)| (name, Some(kind))));
    }
    all.extend(Peer::ALL.map(|peer| (peer.name().to_owned(), None)));

    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(unknown) = args.only.iter().find(|only| !names.contains(&only.as_str())) {
        bail!("--only {unknown}: expected some of {}", names.join(", "));
    }
    let wanted = |name: &str| args.only.is_empty() || name == DIRECT || args.only.iter().any(|only| only == name);
    let subjects = all.into_iter().filter(|(name, _)| wanted(name)).filter_map(|(name, kind)| {
        let peer = || Peer::ALL.into_iter().find(|peer| peer.name() == name);
        let kind = kind.or_else(|| peer().map(|peer| Kind::Peer { peer, program: fetch(peer) }))?;
        Some(Subject { name, kind })
    });
    Ok(subjects.collect())
}

/// The program of a peer: what drives a controller that is made of it.
fn fetch(catalogue: &Catalogue, peer: Peer, progress: &dyn Fn(&str)) -> Result<Program, String> {
    let image = match peer {
        Peer::Envoy => "ghcr.io/emissary-ingress/emissary",
        Peer::Nginx => "registry.k8s.io/ingress-nginx/controller",
        Peer::Haproxy => "docker.io/haproxytech/kubernetes-ingress",
    };
    let controller = catalogue.fetch(image, progress).map_err(|error| error.to_string())?;
    let plane = controller.beside.iter().find(|(name, _)| name == peer.name());
    let (_, path) = plane.ok_or_else(|| format!("{image} comes without {}", peer.name()))?;
    Ok(Program { path: path.clone(), ..controller })
}

fn named_proxy(value: &str) -> Result<(String, PathBuf), String> {
    match value.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err(format!("expected NAME=PATH such as `linkerd=/path/to/linkerd2-proxy`, found `{value}`")),
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Direct => "no proxy".to_owned(),
        Kind::Mesh { command, ingress } => {
            let program = command.first().map(|path| path.display().to_string()).unwrap_or_default();
            let mode = if *ingress { "ingress" } else { "default" };
            format!("{program}, {mode} mode")
        }
        Kind::Peer { program: Ok(program), .. } => program.path.display().to_string(),
        Kind::Peer { program: Err(_), .. } => "not to be had".to_owned(),
    }
}

/// The processor, how many cores, and the kernel.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn names(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        let args = Cli::try_parse_from([&["run"], arguments].concat())?.args;
        let subjects = subjects(&args, &["/bin/true".into()], |_| Err("no network".to_owned()))?;
        Ok(subjects.into_iter().map(|subject| subject.name).collect())
    }

    #[test]
    fn everything_is_measured_unless_said_otherwise() {
        assert_eq!(names(&[]).unwrap(), ["direct", "meshgate", "meshgate-ingress", "envoy", "nginx", "haproxy"]);
        assert_eq!(names(&["--only", "haproxy"]).unwrap(), ["direct", "haproxy"]);
        let with = names(&["--proxy", "linkerd=/bin/sh", "--only", "linkerd,linkerd-ingress"]).unwrap();
        assert_eq!(with, ["direct", "linkerd", "linkerd-ingress"]);
    }

    #[test]
    fn mistakes_are_told() {
        let problem = |arguments: &[&str]| names(arguments).unwrap_err().to_string();
        assert!(problem(&["--only", "apache"]).contains("expected some of direct, meshgate,"));
        assert!(problem(&["--proxy", "linkerd"]).contains("expected NAME=PATH"));
        assert!(problem(&["--proxy", "linkerd=/no/such/file"]).contains("--proxy linkerd=/no/such/file"));
    }
}
