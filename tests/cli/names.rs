//! What there is to choose from, and choices that mean nothing.

use std::ffi::OsStr;
use std::io::pipe;
use std::os::unix::ffi::OsStrExt;

use crate::bench::{Bench, Done};

#[test]
fn lists_print_and_create_nothing() {
    let bench = Bench::new();
    for (what, shown) in [
        ("controllers", "traefik"),
        ("recipes", "traefik/ingress-middleware (ingress mode)"),
        ("cells", "/ingress-middleware/modern"),
        ("jobs", "\"slug\":\"traefik-ingress\""),
        ("cases", "routing/host"),
        ("claims", "default.honours-choice"),
        ("", "/ingress-middleware/documented"),
    ] {
        let mut command = bench.command(&format!("list {what}"));
        command.env("HOME", bench.join("home")).env("MESHGATE_CACHE", bench.join("cache"));
        let done = Done::from(command.output().unwrap());
        done.expect(0, &[]);
        assert!(done.stdout.contains(shown), "list {what}: {}", done.stdout);
        assert_eq!(done.stderr, "");
    }
    assert_eq!(bench.entries(), [""; 0]);
}

#[test]
fn recipes_are_listed_of_the_controllers_and_modes_that_are_asked_for() {
    let bench = Bench::new();
    let listed = |arguments: &str| -> Vec<String> {
        let done = bench.run(&format!("list recipes {arguments}"));
        done.expect(0, &[]);
        let names = done.stdout.lines().filter(|line| !line.starts_with(' '));
        names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let (all, of_one, of_mode) =
        (listed(""), listed("--controllers gce"), listed("--controllers traefik --mode default"));
    assert!(!of_one.is_empty() && of_one.iter().all(|name| name.starts_with("gce/")), "{of_one:?}");
    assert!(all.len() > of_one.len() && of_one.iter().all(|name| all.contains(name)), "{all:?}");
    assert!(of_mode.contains(&"traefik/ingress-pod-ip".to_owned()), "{of_mode:?}");
    assert!(!of_mode.contains(&"traefik/ingress-middleware".to_owned()), "{of_mode:?}");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_one() {
    let bench = Bench::new();
    for (arguments, answer) in [
        ("run --controllers trafik", "did you mean \"traefik\""),
        ("run --controllers traefik@3.7.14", "did you mean \"3.7.15\""),
        ("run --recipe ingres-middleware", "did you mean \"ingress-middleware\""),
        ("run --recipe ./my-recipe", "--recipe ./my-recipe: no such folder"),
        ("run --mode ingres", "did you mean \"ingress\""),
        ("run --controllers gce --mode ingress", "the selection is empty: "),
        ("run --dialect 2.10", "no dialect \"2.10\"; did you mean \"2.10.0\"?"),
        ("run --controllers nope", "no controller \"nope\" (known: "),
        ("run --dialect moderm", "did you mean \"modern\""),
        ("run --case routing/hots", "did you mean \"routing/host\""),
        ("run --case routing/host,nothing-of-this-name", "no case matches \"nothing-of-this-name\""),
        ("run --fixtures nowhere", "the fixtures in nowhere"),
        ("run --recipee ingress-middleware", "'--recipe'"),
        ("run --install helms", "expected one of manifests, helm"),
        ("run --install helm --controllers gce", "no chart is known for gce"),
        ("run --install helm --controllers trafik", "did you mean \"traefik\""),
        ("run --install helm --controllers traefik@3.7.15", "(known: 3.4.3 by 36.3.0, "),
        ("run --install helm --chart-version 1.0.0", "--chart-version is one chart's"),
        (
            "run --install helm --chart-repository https://user:secret@charts.example/x",
            "expected a URL without a user's name and password",
        ),
        ("run --chart-version 1.0.0", "--chart-version goes with --install helm"),
        ("gate --install helm --controller traefik --from 3.7.9 --to 3.7.15", "known to install traefik 3.7.15"),
        ("image docker.io/library/trafik:v3.7.15", "did you mean \"docker.io/library/traefik\""),
        ("image --controllers trafik", "did you mean \"traefik\""),
        ("repport", "'report'"),
        ("list case", "'cases'"),
        ("list cases --controllers traefik", "--controllers chooses among recipes, cells and jobs"),
        ("list claims --mode ingress", "--mode chooses among recipes, cells and jobs"),
        ("list recipes --controllers trafik", "did you mean \"traefik\""),
        ("report --format markdwon", "'markdown'"),
        (
            "report --report-dir nowhere",
            "nowhere/report.json: No such file or directory (os error 2); run `meshgate run` first",
        ),
        ("claims --report-dir nowhere", "or say with --report-dir where a report is"),
        ("explain nonsense", "nothing is called \"nonsense\"\n"),
        ("explain ingress-middleware/modern", "name a case with it: meshgate explain ingress-middleware/modern/CASE"),
        ("explain traefik/ingress-middleware", "name a case with it: meshgate explain traefik/ingress-middleware/CASE"),
        ("explain routing/hots/", "nothing is called \"routing/hots\"; did you mean \"routing/host\"?"),
        ("explain traefik/ingress-middleware/modern/routing/host", "meshgate: report/report.json: No such file"),
        ("gate --controller trafik --from 3.0.4 --to 3.7.15", "did you mean \"traefik\""),
        ("gate --controller traefik --from 3.0.5 --to 3.7.15", "did you mean \"3.0.4\""),
        ("gate --controller traefik --from 3.0.4", "--to"),
        ("gate one.json", "<CANDIDATE>"),
        ("cluster upp", "'up'"),
        ("cluster down --name Nobody", "--name \"Nobody\": expected lower-case letters"),
        ("inject nowhere.yaml", "cannot read nowhere.yaml: No such file"),
    ] {
        let mut command = bench.command(arguments);
        command.env("MESHGATE_CACHE", bench.join("cache"));
        let done = Done::from(command.output().unwrap());
        assert_eq!(done.code, Some(2), "{arguments}: {done:#?}");
        assert!(done.stderr.contains(answer), "{arguments}: expected {answer:?} in {}", done.stderr);
        assert_eq!(done.stdout, "", "{arguments}");
        assert!(done.stderr.matches("os error").count() <= 1, "{arguments}: a cause is told once: {}", done.stderr);
    }
    assert_eq!(bench.entries(), [""; 0], "nothing is made before the arguments are understood");
}

#[test]
fn a_report_folder_that_no_report_can_name_is_refused() {
    let bench = Bench::new();
    let mut command = bench.command("run --report-dir");
    let done = Done::from(command.arg(OsStr::from_bytes(b"\xff")).output().unwrap());
    done.expect(2, &["--report-dir: expected a path in UTF-8, found "]);
    assert_eq!(bench.entries(), [""; 0]);
}

#[test]
fn the_help_of_what_ends_as_a_run_does_says_so() {
    let bench = Bench::new();
    for (command, shown) in
        [("run", "Exit status:"), ("report", "is that of its run:"), ("claims", "is that of its run:")]
    {
        let done = bench.run(&format!("{command} --help"));
        done.expect(0, &[]);
        assert!(done.stdout.contains(shown), "{command}: {}", done.stdout);
    }
}

#[test]
fn a_reader_that_leaves_is_no_reason_to_panic() {
    let bench = Bench::new();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = bench.command("list cases").stdout(writer.try_clone().unwrap()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let status = bench.command("run --controllers trafik").stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
