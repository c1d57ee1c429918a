//! `meshgate image`: container images of this binary and of the programs in the catalogue, without Docker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use meshgate_clusters::IMAGE;
use meshgate_clusters::archive::{Archive, ArchiveError, archive};
use meshgate_fixtures::did_you_mean;
use meshgate_harness::matrix;
use meshgate_images::{Catalogue, ImageError};

use crate::{fail, output, variables};

const HOW_TO_LOAD: &str = "\
Load it with one of:
  kind load image-archive FILE
  k3s ctr images import FILE
  docker load --input FILE";

/// Which images, and where to.
#[derive(clap::Args)]
#[command(after_help = HOW_TO_LOAD)]
pub struct Args {
    /// The archive
    #[arg(long, short, default_value = "meshgate.tar", value_name = "FILE.tar")]
    output: PathBuf,
    /// All images that a cluster with these controllers needs, `name` or `name@version`, Meshgate's own among them
    #[arg(long, value_delimiter = ',')]
    controllers: Vec<String>,
    /// Images by the names that manifests have, or `meshgate.dev/linkerd-proxy:dev`, the proxy for pods that Linkerd's injector makes; Meshgate's
    /// own when nothing is said
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Fixtures from a folder instead of the built-in ones; which program an image is, is compiled in, so its `images.yaml` is not read
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

/// Writes the archive and says what is in it.
pub fn main(args: Args) -> ExitCode {
    let written = images(&args).and_then(|images| {
        let program = std::env::current_exe().context("where this program is")?;
        variables::check(&Catalogue::built_in(&program))?;
        archive(&program, &images, &args.output, &|text| output::tell(&format!("{text}\n"))).map_err(with_nearest)
    });
    match written.and_then(|archive| output::print(&describe(&archive))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn images(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut images = args.images.clone();
    if !args.controllers.is_empty() {
        let fixtures = crate::run::fixtures(args.fixtures.as_deref())?;
        images.push(IMAGE.to_owned());
        for wanted in &args.controllers {
            let (controller, version) = matrix::controller_at(&fixtures, wanted)?;
            images.extend(meshgate_harness::blueprint::images(controller, &version)?);
        }
    }
    if images.is_empty() {
        images.push(IMAGE.to_owned());
    }
    Ok(images)
}

/// An unknown image is most often a known one with a slip in it.
fn with_nearest(error: ArchiveError) -> anyhow::Error {
    if let ArchiveError::Image(ImageError::Unknown { image, known }) = &error {
        let name = image.rsplit_once(':').map_or(image.as_str(), |(name, _)| name);
        return anyhow!("{error}{}", did_you_mean(name, known.split(", ")));
    }
    error.into()
}

fn describe(archive: &Archive) -> String {
    let mut text = String::new();
    for image in &archive.images {
        for reference in &image.references {
            text.push_str(&format!("{reference}  {}  {}\n", image.digest, megabytes(image.size)));
        }
    }
    text.push_str(&format!("{}  {}\n", archive.path.display(), megabytes(archive.size)));
    text
}

/// A size for people.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
