//! What the proxy says of its process, its identity and its calls to the control plane.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Scrape, cluster_ip};
use crate::support::{App, Authority, ControlPlane, Setup};

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn the_process_is_what_the_kernel_says_it_is() {
    let before = now();
    let mesh = Setup::new().start().await;
    let scrape = Scrape::of(&mesh).await;
    let version = env!("CARGO_PKG_VERSION");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let built = [option_env!("MESHGATE_BUILD_DATE"), option_env!("MESHGATE_BUILD_GIT_SHA")];
    let [date, sha] = built.map(Option::unwrap_or_default);
    let build =
        format!("date=\"{date}\",git_sha=\"{sha}\",profile=\"{profile}\",vendor=\"meshgate\",version=\"{version}\"");
    assert_eq!(scrape.value(&format!("proxy_build_info{{{build}}}")), 1.0);
    // The suites are those of Linkerd's proxy, the rest is what this library has.
    let tls = "tls_suites=\"TLS13_AES_128_GCM_SHA256,TLS13_AES_256_GCM_SHA384,TLS13_CHACHA20_POLY1305_SHA256,\",\
               tls_kx_groups=\"X25519,secp256r1,secp384r1,\",tls_rand=\"Ring\",tls_key_provider=\"Ring\",tls_fips=\"false\"";
    assert_eq!(scrape.value(&format!("rustls_info{{{tls}}}")), 1.0);
    assert_eq!(scrape.value("tokio_rt_workers"), 1.0, "as many as the test's runtime has");
    // It has waited for this client's request at least, and then had something to do.
    assert!(scrape.value("tokio_rt_park_total") >= 1.0 && scrape.value("tokio_rt_busy_seconds_total") > 0.0);
    assert!(scrape.value("tokio_rt_injection_queue_depth") >= 0.0);
    // The clock tells the process microseconds.
    assert!((before - 0.001..=now()).contains(&scrape.value("process_start_time_seconds")));
    let (virtual_memory, resident) =
        (scrape.value("process_virtual_memory_bytes"), scrape.value("process_resident_memory_bytes"));
    assert!(virtual_memory >= resident && resident >= 1e6, "{virtual_memory} {resident}");
    let (open, most) = (scrape.value("process_open_fds"), scrape.value("process_max_fds"));
    assert!((3.0..=most).contains(&open), "{open} {most}");
    assert!(scrape.value("process_threads") >= 1.0);
    // That of this client at least, whose requests go over loopback.
    let network = ["receive", "transmit"].map(|way| format!("process_network_{way}_bytes_total"));
    assert!(network.iter().all(|name| scrape.value(name) > 0.0));

    let (uptime, cpu) = (scrape.value("process_uptime_seconds_total"), scrape.value("process_cpu_seconds_total"));
    // This takes time, of the processor too, until it shows.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline, "no time of the processor was used");
        let later = Scrape::of(&mesh).await;
        let used = later.value("process_cpu_seconds_total");
        assert!(later.value("process_uptime_seconds_total") > uptime);
        if used > cpu {
            break;
        }
    }
}

#[tokio::test]
async fn certificates_are_counted_and_dated() {
    let authority = Authority::start(Duration::from_secs(3600)).await;
    let before = now();
    let mesh =
        Setup::new().identified("web.ns.serviceaccount.identity.linkerd.cluster.local", &authority).start().await;
    let scrape = Scrape::once(&mesh, "control_identity_cert_refreshes_total{result=\"ok\"}", 1.0).await;
    assert_eq!(scrape.value("control_identity_cert_refreshes_total{result=\"error\"}"), 0.0);
    let refreshed = scrape.value("control_identity_cert_refresh_timestamp_seconds");
    assert!((before - 0.001..=now()).contains(&refreshed), "{refreshed}");
    let left = scrape.value("control_identity_cert_expiration_timestamp_seconds") - refreshed;
    assert!((3000.0..=3600.0).contains(&left), "{left}");
    let call = format!("addr=\"{}\",tls=\"no_identity\",no_tls_reason=\"loopback\"", authority.address());
    assert_eq!(scrape.value(&format!("control_request_total{{{call}}}")), 1.0);
    let end = "status_code=\"200\",classification=\"success\",grpc_status=\"0\",error=\"\"";
    assert_eq!(scrape.value(&format!("control_response_total{{{call},{end}}}")), 1.0);
    scrape.bounds("control_response_latency_ms", &format!("{call},status_code=\"200\""), 1.0);
}

#[tokio::test]
async fn calls_to_the_control_plane_are_timed_up_to_their_first_answer() {
    let app = App::named("web").await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    let call = format!("addr=\"{}\",tls=\"no_identity\",no_tls_reason=\"loopback\"", mesh.control.address());
    // A profile, a policy, and endpoints; the policy of the admin port, of which there is no answer yet. None of these streams has ended.
    let scrape = Scrape::of(&mesh).await;
    assert_eq!(scrape.value(&format!("control_request_total{{{call}}}")), 4.0);
    assert_eq!(scrape.series("control_response_total"), Vec::<&str>::new());
    let bounds = scrape.bounds("control_response_latency_ms", &format!("{call},status_code=\"200\""), 3.0);
    assert_eq!((bounds.len(), bounds[0], bounds[24]), (26, "1", "50000"));
}

#[tokio::test]
async fn the_addresses_of_the_control_plane_are_endpoints() {
    let app = App::named("web").await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    let scrape = Scrape::of(&mesh).await;
    let addr = format!("addr=\"{}\"", mesh.control.address());
    // A profile and endpoints; a policy, and that of the admin port.
    for (client, calls) in [("destination", 2.0), ("policy", 2.0)] {
        let of =
            |name: &str, labels: &str| scrape.value(&format!("control_{client}_balancer_{name}{{{labels}{addr}}}"));
        let endpoints = ["ready", "pending"].map(|state| of("endpoints", &format!("endpoint_state=\"{state}\",")));
        assert_eq!((endpoints, of("p2c_endpoints", "")), ([1.0, 0.0], 1.0));
        let updates = ["Reset", "Add", "Remove"].map(|op| of("p2c_updates_total", &format!("op=\"{op}\",")));
        assert_eq!(updates, [1.0, 0.0, 0.0]);
        let queue = ["requests_total", "length", "gate_open_total", "gate_shut_total", "gate_shut_time_seconds"]
            .map(|name| of(&format!("queue_{name}"), ""));
        assert_eq!(queue, [calls, 0.0, 1.0, 0.0, 0.0]);
        assert!(of("queue_gate_open_time_seconds", "") >= scrape.value("process_start_time_seconds"));
        let bounds = scrape.bounds(&format!("control_{client}_balancer_queue_latency_seconds"), &addr, calls);
        assert_eq!(bounds, ["0.0005", "0.005", "0.05", "0.5", "1.0", "3.0", "+Inf"]);
        // Nothing is refused for how long something else has waited.
        assert_eq!(scrape.series(&format!("control_{client}_balancer_queue_gate_timeout_seconds")), Vec::<&str>::new());
    }
    assert_eq!(
        scrape.series("control_identity_balancer_p2c_endpoints"),
        Vec::<&str>::new(),
        "nobody is asked who it is"
    );
}

#[tokio::test]
async fn a_scrape_may_be_of_some_families_only() {
    let app = App::named("web").await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    let families = async |query: &str| -> Vec<String> {
        let text = mesh.admin().await.get(&format!("/metrics{query}"), &[]).await.body;
        text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned())).collect()
    };
    let durations = "outbound_http_route_request_duration_seconds";
    assert_eq!(families(&format!("?name[]={durations}&name[]=request_total")).await, ["request_total", durations]);
    let (all, others) = (families("").await, families(&format!("?exclude[]={durations}")).await);
    assert!(all.iter().any(|family| family == durations));
    assert_eq!(all.len(), others.len() + 1);
    let counts = families("?exclude[]=histogram").await;
    assert!(counts.iter().all(|family| all.contains(family)) && counts.contains(&"request_total".to_owned()));
    let text = mesh.admin().await.get("/metrics?exclude[]=histogram", &[]).await.body;
    assert!(mesh.metrics().await.contains("_bucket{") && !text.contains("_bucket{"));
}

#[tokio::test]
async fn names_of_the_control_plane_are_counted_when_they_are_looked_up() {
    let control = ControlPlane::start().await;
    let named = format!("localhost:{}", control.address().port());
    let mesh = Setup::new()
        .with("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &named)
        .with("LINKERD2_PROXY_POLICY_SVC_ADDR", "nobody.invalid:8090")
        .with("MESHGATE_PROXY_IDENTITY", "optional")
        .original(1, cluster_ip())
        .start_with(control)
        .await;
    let resolutions = |client: &str, result: &str| {
        let labels = format!("client=\"{client}\",record_type=\"A/AAAA\",result=\"{result}\"");
        format!("control_dns_resolutions_total{{{labels}}}")
    };
    // What is asked for has no answer without a policy.
    let mut waits = mesh.connect(1).await;
    waits.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let scrape = Scrape::once(&mesh, &resolutions("destination", "ok"), 1.0).await;
    assert_eq!(scrape.find(&resolutions("destination", "not_found")), None);
    // It is asked for again and again.
    let deadline = Instant::now() + Duration::from_secs(30);
    while Scrape::of(&mesh).await.find(&resolutions("policy", "not_found")).is_none() {
        assert!(Instant::now() < deadline, "a name that nobody has was not looked up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(Scrape::of(&mesh).await.find(&resolutions("policy", "ok")), None);

    // The control: an address is asked for nowhere.
    let app = App::named("web").await;
    let mesh = Setup::new().original(1, cluster_ip()).start().await;
    mesh.control.service("web", cluster_ip(), &[app.address]);
    assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, 200);
    assert_eq!(Scrape::of(&mesh).await.series("control_dns_resolutions_total"), Vec::<&str>::new());
}
