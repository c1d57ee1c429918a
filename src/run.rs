//! `meshgate run`: the main job.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use meshgate_clusters::remote::Reach;
use meshgate_clusters::{Backend, Kind, Player, scratch, told};
use meshgate_fixtures::{Controller, Fixtures, Recipe, did_you_mean};
use meshgate_harness::blueprint;
use meshgate_harness::case::Case;
use meshgate_harness::cell::Spec;
use meshgate_harness::injection::Foreign;
use meshgate_harness::matrix::{self, Cell, Dialect, Mesh, Selection};
use meshgate_harness::report::{CaseReport, Environment, Report};
use meshgate_harness::runner::{self, Job, Options};
use meshgate_harness::verdict::Verdict;
use meshgate_images::Catalogue;
use tokio_util::sync::CancellationToken;

use crate::charts::{self, Charts};
use crate::interruption::{Signals, unless_interrupted};
use crate::progress::{Progress, Reader};
use crate::site::{Groundwork, Site};
use crate::target::Target;
use crate::{fail, output, site, variables};

mod cited;
mod dry;
mod folder;
mod official;

use dry::Inquiry;
use folder::Folder;

/// What to run and where the report goes.
#[derive(clap::Args, Clone)]
#[group(id = "run")]
#[command(after_help = EXIT_STATUS)]
pub struct Args {
    /// Controllers, `name` or `name@version`; all on their newest version when left out
    #[arg(long, value_delimiter = ',')]
    pub controllers: Vec<String>,
    /// Recipes by name, or one folder with a recipe of your own (`--recipe DIR`)
    #[arg(long = "recipe", value_delimiter = ',', value_name = "NAME|DIR")]
    pub recipes: Vec<String>,
    /// Modes of the proxy beside the controller: default, ingress, outside; all when left out
    #[arg(long = "mode", value_delimiter = ',')]
    pub modes: Vec<String>,
    /// Dialects of the proxy in ingress mode: documented and modern when left out; Linkerd's eras are 2.8, 2.9, 2.10.0, 2.11, 2.13.0
    #[arg(long = "dialect", value_delimiter = ',')]
    pub dialects: Vec<String>,
    /// Only cases whose id contains one of these
    #[arg(long = "case", value_delimiter = ',')]
    pub cases: Vec<String>,
    /// Judge every case in every cell, also what comes to the same in another cell of the run
    #[arg(long)]
    pub exhaustive: bool,
    /// How many cells at once; three per processor when left out
    #[arg(long)]
    pub parallel: Option<usize>,
    /// The report folder
    #[arg(long, default_value = "report", value_name = "DIR")]
    pub report_dir: PathBuf,
    /// Fixtures from a folder instead of the built-in ones, but for images.yaml
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    #[command(flatten)]
    pub target: Target,
    /// Seconds that setting a cell up may take; 60 when left out, 300 on a cluster that is not embedded
    #[arg(long, value_name = "SECONDS")]
    pub setup_timeout: Option<u64>,
    /// Seconds that one case may take; 120 for each of --patience when left out
    #[arg(long, value_name = "SECONDS")]
    pub case_timeout: Option<u64>,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  every verdict is as the recipes promise
  1  a verdict is not, or a cell could not be judged while others were
  2  nothing could be judged: bad arguments, fixtures or recipe, something missing on this machine, no cell that came up, no case \
that applies, or an interruption";

/// Runs and reports; ends with the status that [`EXIT_STATUS`] explains.
pub fn main(args: Args) -> ExitCode {
    if args.target.dry_run {
        let told = outlook(&args).and_then(|outlook| outlook.print());
        return match told {
            Ok(status) => ExitCode::from(status),
            Err(error) => fail(2, &error),
        };
    }
    let result = execute(&args).and_then(|Ran { report, ended }| {
        let matrix = meshgate_harness::report::terminal::render(&report, output::width());
        output::print(&format!("\n{matrix}"))?;
        ended?;
        output::print(&format!("report: {}\n", args.report_dir.join("report.html").display()))?;
        if let Some(why) = nothing_judged(&report) {
            output::tell(&format!("meshgate: {why}\n"));
        }
        Ok(status(&report))
    });
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(2, &error),
    }
}

/// The exit status that a report stands for.
pub fn status(report: &Report) -> u8 {
    match report.is_green() {
        true => 0,
        false if nothing_judged(report).is_some() => 2,
        false => 1,
    }
}

/// Why no cell came up: none could, or none had to, for no case applies. `None` where one did.
pub fn nothing_judged(report: &Report) -> Option<String> {
    if report.cells.iter().any(|cell| cell.setup_seconds.is_some()) {
        return None;
    }
    let cases = || report.cells.iter().flat_map(|cell| cell.cases.iter().map(move |case| (cell, case)));
    // What is further said of a cell is where its logs are.
    let reason =
        |case: &CaseReport| case.reason.as_deref().and_then(|why| why.lines().next()).unwrap_or("?").to_owned();
    if let Some((cell, case)) = cases().find(|(_, case)| case.verdict != Verdict::NotApplicable) {
        return Some(format!("no cell could be set up; {}: {}", cell.id, reason(case)));
    }
    Some(match cases().next() {
        Some((cell, case)) => {
            format!("no chosen case applies to any chosen cell; {} in {}: {}", case.id, cell.id, reason(case))
        }
        None => "there is no case in the report".to_owned(),
    })
}

/// What a run would make on a cluster, and whether it would get anywhere.
pub struct Outlook {
    /// For a person.
    pub text: String,
    /// Whether it would not begin.
    pub blocked: bool,
}

impl Outlook {
    /// Prints it; returns the exit status that it stands for.
    pub fn print(&self) -> anyhow::Result<u8> {
        output::print(&self.text)?;
        Ok(if self.blocked { 2 } else { 0 })
    }
}

/// Asks a cluster what a run would make there. Writes nothing, neither there nor here.
pub fn outlook(args: &Args) -> anyhow::Result<Outlook> {
    args.target.check()?;
    let fixtures = fixtures_of(args, &|text| output::tell(&format!("{text}\n")))?;
    let plan = plan(args, &fixtures)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (context, outlook) = runtime.block_on(unless_interrupted(async {
        let reach = args.target.existing()?;
        let charts = Charts::render(&args.target, &plan.cells, &fixtures, &|_| {}).await?;
        let mesh = match args.target.mesh {
            Mesh::Bundled => None,
            Mesh::Linkerd => Some(site::linkerd(&reach, plan.splits(&fixtures)?).await?),
        };
        let mesh = mesh.as_ref();
        let inquiry = Inquiry { reach: &reach, plan: &plan, fixtures: &fixtures, charts: &charts, mesh };
        let outlook = inquiry.outlook().await?;
        anyhow::Ok((reach.context, outlook))
    }))?;
    Ok(Outlook { text: outlook.render(&context), blocked: outlook.is_blocked() })
}

/// What a run came to.
pub struct Ran {
    /// What was judged.
    pub report: Report,
    /// Whether the report was written, and the cluster left as it was found. What was judged is known in any case.
    pub ended: anyhow::Result<()>,
}

/// Runs what the arguments say and writes the report.
pub fn execute(args: &Args) -> anyhow::Result<Ran> {
    args.target.check()?;
    variables::check(&Catalogue::built_in(std::env::current_exe()?))?;
    let report_dir = std::path::absolute(&args.report_dir)?;
    if report_dir.to_str().is_none() {
        // Cells are told in JSON where it is, and reports name what is in it.
        bail!("--report-dir: expected a path in UTF-8, found {}", report_dir.display());
    }
    let fixtures = fixtures_of(args, &|text| output::tell(&format!("{text}\n")))?;
    let plan = plan(args, &fixtures)?;
    if args.target.cluster == Kind::Embedded {
        // Once here rather than once in every cell.
        meshgate_net::namespaces::check()?;
    }
    let folder = Folder::take(&args.report_dir)?;
    let progress = Progress::new(
        Reader::of_standard_error(),
        plan.cells.iter().map(Cell::id).collect(),
        Box::new(std::io::stderr()),
    );
    progress.note(&format!("{}, {}", counted(plan.cells.len(), "cell"), counted(plan.cases.len(), "case")));
    if let Some(note) = matrix::without_dialect(&plan.cells, &args.dialects) {
        progress.note(&note);
    }
    let started = Instant::now();
    let time = now();
    let note = |text: &str| progress.note(text);
    // A thread beside this one, which hears signals while this one packs images.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (cancel, laid) = (CancellationToken::new(), CancellationToken::new());
    let charts = runtime.block_on(async {
        let signals = Signals::listen().context("cannot listen for signals")?;
        tokio::spawn(cancel_on_signals(signals, cancel.clone(), laid.clone(), args.target.cluster));
        site::unless(&cancel, async {
            let charts = Charts::render(&args.target, &plan.cells, &fixtures, &note).await?;
            site::possible(&args.target).await?;
            anyhow::Ok(charts)
        })
        .await
    })?;
    let groundwork = Groundwork::lay(&args.target, &images(&plan, &fixtures, &charts)?, &note)?;
    laid.cancel();
    let logs = args.report_dir.join("cluster-logs");
    let splits = plan.splits(&fixtures)?;
    let (cells, closed) = runtime.block_on(async {
        let admit = async |reach: &Reach, mesh: Option<&Foreign>| {
            Inquiry { reach, plan: &plan, fixtures: &fixtures, charts: &charts, mesh }.admitted().await
        };
        let site = Site::open(&args.target, groundwork, splits, admit, &logs, &cancel, &note).await?;
        let listen = |index: usize, event: &_| progress.event(index, event);
        let judged = async {
            let jobs = jobs(args, &plan, &fixtures, &charts, &site)?;
            folder.clear()?;
            anyhow::Ok(runner::run(&jobs, &options(args, &site.backend)?, &cancel, &listen).await)
        };
        let cells = tokio::select! {
            cells = judged => cells,
            never = progress.beat() => match never {},
        };
        let well = cells.as_ref().is_ok_and(|cells| cells.iter().all(|cell| cell.broken.is_none()));
        let closed = site.close(well, &logs, &note).await;
        anyhow::Ok((cells?, closed))
    })?;
    progress.done();
    let environment = Environment {
        meshgate: env!("CARGO_PKG_VERSION").to_owned(),
        started: time,
        seconds: started.elapsed().as_secs_f64(),
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let report = Report::new(environment, cells, &fixtures.claims).about(&plan.cases);
    let ended = match (report.write(&args.report_dir).context("cannot write the report"), closed) {
        (Err(unwritten), Err(left)) => Err(anyhow!("{}; {}", told(unwritten.as_ref()), told(left.as_ref()))),
        (written, closed) => written.and(closed),
    };
    if cancel.is_cancelled() {
        ended?;
        let so_far = args.report_dir.join("report.md");
        bail!("the run was interrupted; what was judged before stands in {}", so_far.display());
    }
    Ok(Ran { report, ended })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A job for each cell.
fn jobs(args: &Args, plan: &Plan, fixtures: &Fixtures, charts: &Charts, site: &Site) -> anyhow::Result<Vec<Job>> {
    let report_dir = std::path::absolute(&args.report_dir)?;
    let catalogue = Catalogue::built_in(std::env::current_exe()?);
    let official = args.target.runs_official_images();
    let job = |cell: &Cell| {
        let player = match official {
            true => Player::default(),
            false => catalogue.player(&blueprint::images(&*charts.controller(fixtures, cell)?, &cell.version)?)?,
        };
        let spec = Spec {
            cell: cell.clone(),
            cases: plan.cases.iter().map(|case| case.id.to_owned()).collect(),
            fixtures: args.fixtures.as_deref().map(std::path::absolute).transpose()?,
            recipe: plan.own_recipe.as_deref().map(std::path::absolute).transpose()?,
            report_dir: report_dir.clone(),
            setup_seconds: args.setup_timeout.unwrap_or(args.target.usual_setup_seconds()),
            case_seconds: args.case_timeout.unwrap_or_else(|| 120 * u64::from(args.target.pace())),
            pace: args.target.pace(),
            backend: site.backend.clone(),
            mesh: site.mesh(),
            chart: charts.file(cell),
            where_to: args.target.repeat(),
        };
        let mut job = Job::new(spec, &player, fixtures, &plan.cases)?;
        if official {
            job.implementation.control_plane = OFFICIAL.to_owned();
        }
        if let Some(rendered) = charts.of(cell) {
            job.implementation.control_plane += &format!(" (chart {})", rendered.version);
        }
        Ok(job)
    };
    plan.cells.iter().map(job).collect()
}

/// Who plays a controller where the cluster gets its image by itself: whatever that is there.
const OFFICIAL: &str = "image";

fn options(args: &Args, backend: &Backend) -> anyhow::Result<Options> {
    let own = backend.needs_namespaces();
    Ok(Options {
        command: vec![std::env::current_exe()?.into(), crate::cell::ROLE.into()],
        // Cells have the same namespaces: one cluster carries one at a time.
        parallel: if own { args.parallel.unwrap_or_else(runner::usual_parallel) } else { 1 },
        cell_limit: Duration::from_secs(600) * args.target.pace(),
    })
}

/// The fixtures that were asked for.
pub fn fixtures(dir: Option<&Path>) -> anyhow::Result<Fixtures> {
    match dir {
        Some(dir) => Fixtures::from_dir(dir).with_context(|| format!("the fixtures in {}", dir.display())),
        None => Ok(Fixtures::built_in()?),
    }
}

/// The fixtures that arguments ask for, as far as what they hold can be installed as the arguments say. `note` hears of what is left out.
pub fn fixtures_of(args: &Args, note: &dyn Fn(&str)) -> anyhow::Result<Fixtures> {
    let fixtures = official::suited(fixtures(args.fixtures.as_deref())?, &args.controllers, &args.target, note)?;
    charts::offered(fixtures, &args.controllers, &args.target)
}

/// What is to be run.
pub struct Plan {
    /// The cells in their order.
    pub cells: Vec<Cell>,
    /// The cases in theirs.
    pub cases: Vec<&'static Case>,
    /// The folder of the user's own recipe.
    pub own_recipe: Option<PathBuf>,
}

impl Plan {
    /// A cell's recipe: the user's own, or one of its controller's.
    fn recipe(&self, cell: &Cell, controller: &Controller) -> anyhow::Result<Recipe> {
        Ok(match &self.own_recipe {
            Some(dir) => Recipe::from_dir(dir)?,
            None => controller.recipe(&cell.recipe)?.clone(),
        })
    }

    /// Refuses recipes that speak of cases or claims which there are not.
    fn cites_what_there_is(&self, fixtures: &Fixtures) -> anyhow::Result<()> {
        for cell in &self.cells {
            let recipe = self.recipe(cell, fixtures.controller(&cell.controller)?)?;
            let place = match &self.own_recipe {
                Some(dir) => dir.join("recipe.yaml").display().to_string(),
                None => format!("{}/{}", cell.controller, cell.recipe),
            };
            cited::check(&place, &recipe, &fixtures.claims)?;
        }
        Ok(())
    }

    /// Whether a case applies in a cell.
    fn applies(&self, cell: &Cell, recipe: &Recipe) -> bool {
        self.cases.iter().any(|case| case.not_applicable(cell, recipe).is_none())
    }

    /// Whether a case that applies somewhere has TrafficSplits.
    fn splits(&self, fixtures: &Fixtures) -> anyhow::Result<bool> {
        for cell in &self.cells {
            let recipe = self.recipe(cell, fixtures.controller(&cell.controller)?)?;
            let applies = |case: &&&Case| case.not_applicable(cell, &recipe).is_none();
            if self.cases.iter().filter(applies).any(|case| case.splits()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Resolves the arguments against what there is.
pub fn plan(args: &Args, fixtures: &Fixtures) -> anyhow::Result<Plan> {
    let cases = cases(&args.cases)?;
    let modern = [Dialect::Modern.as_str().to_owned()];
    let dialects: &[String] = match args.target.mesh {
        Mesh::Bundled => &args.dialects,
        // A real Linkerd speaks as it speaks.
        Mesh::Linkerd if args.dialects.is_empty() || args.dialects == modern => &modern,
        Mesh::Linkerd => bail!("--dialect is for the bundled proxy; Linkerd's own is that of its version"),
    };
    let own_recipe = match args.recipes.as_slice() {
        [only] if Path::new(only).is_dir() => Some(PathBuf::from(only)),
        names if names.iter().any(|name| name.contains('/')) => {
            bail!("--recipe {}: no such folder; give one folder, or names of recipes", names.join(","))
        }
        _ => None,
    };
    let selection = Selection {
        controllers: args.controllers.clone(),
        recipes: args.recipes.clone(),
        modes: args.modes.clone(),
        dialects: dialects.to_vec(),
    };
    let mut cells = match &own_recipe {
        None => matrix::cells(fixtures, &selection, args.target.place())?,
        Some(dir) => {
            let recipe = Recipe::from_dir(dir)?;
            let [controller] = args.controllers.as_slice() else {
                bail!("a recipe of your own needs one controller to run it on: --controllers NAME[@VERSION]");
            };
            let (controller, version) = matrix::controller_at(fixtures, controller)?;
            matrix::of_own_recipe(controller, &version, &recipe, &selection, args.target.place())?
        }
    };
    if args.exhaustive {
        cells.iter_mut().for_each(Cell::judge_everything);
    }
    let plan = Plan { cells, cases, own_recipe };
    plan.cites_what_there_is(fixtures)?;
    Ok(plan)
}

/// The images that the cells need.
fn images(plan: &Plan, fixtures: &Fixtures, charts: &Charts) -> anyhow::Result<Vec<String>> {
    let mut images = Vec::new();
    for cell in &plan.cells {
        images.extend(blueprint::images(&*charts.controller(fixtures, cell)?, &cell.version)?);
    }
    images.sort();
    images.dedup();
    Ok(images)
}

/// The cases whose id contains one of the filters; a filter that matches nothing is an error.
pub fn cases(filters: &[String]) -> anyhow::Result<Vec<&'static Case>> {
    let all = meshgate_suites::cases();
    for filter in filters {
        if !all.iter().any(|case| case.id.contains(filter.as_str())) {
            let meant = did_you_mean(filter, all.iter().map(|case| case.id));
            bail!("no case matches \"{filter}\"{meant} (see `meshgate list cases`)");
        }
    }
    Ok(all
        .into_iter()
        .filter(|case| filters.is_empty() || filters.iter().any(|filter| case.id.contains(filter.as_str())))
        .collect())
}

/// The time of day, UTC, to the second.
fn now() -> String {
    meshgate_harness::report::timestamp()
}

/// How long what can be interrupted may take to end before a cluster is thought of.
const EARLY: Duration = Duration::from_millis(500);

/// Ctrl-C, SIGTERM and the end of the terminal end the cells, and with them everything they made. Giving a cluster back takes a while, for
/// which not everybody waits: the second ends the run as it is, and leaves the rest to the next one. Until the ground is `laid`, of which nothing
/// but files is made, the first does.
async fn cancel_on_signals(mut signals: Signals, cancel: CancellationToken, laid: CancellationToken, cluster: Kind) {
    signals.next().await;
    cancel.cancel();
    // Commands that are awaited are killed, and the run ends by that. Whatever blocks ends with the process.
    if tokio::time::timeout(EARLY, laid.cancelled()).await.is_err() {
        output::tell("\nmeshgate: interrupted\n");
        end();
    }
    let what = match cluster {
        Kind::Embedded => "ending the cells; again to end at once",
        _ => "giving the cluster back; again to leave it as it is",
    };
    output::tell(&format!("\n{what}\n"));
    signals.next().await;
    end();
}

/// Ends the process here and now. What is left on a cluster the next run sweeps away; files, with credentials in them, go.
fn end() -> ! {
    scratch::discard();
    std::process::exit(2);
}
