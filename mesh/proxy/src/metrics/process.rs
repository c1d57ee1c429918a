//! What the proxy says of its process and of what it was built from.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Counter, Gauge, Labels, Registry,
    registry::{Refresh, Seconds},
};
use crate::tls;

/// Linux counts the time of processes in hundredths of a second for whoever reads of them, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// When and from what this was built, which neither cargo nor the compiler knows: who builds a release says it in the build's
/// environment. Otherwise they are empty, as the same sources are to become the same program.
const BUILD_DATE: &str = match option_env!("MESHGATE_BUILD_DATE") {
    Some(date) => date,
    None => "",
};
const BUILD_GIT_SHA: &str = match option_env!("MESHGATE_BUILD_GIT_SHA") {
    Some(sha) => sha,
    None => "",
};

/// What is read from /proc when somebody asks.
pub(crate) struct Process {
    started: Instant,
    uptime: Arc<Seconds<true>>,
    cpu: Arc<Seconds<true>>,
    virtual_memory: Arc<Gauge>,
    resident_memory: Arc<Gauge>,
    threads: Arc<Gauge>,
    open_files: Arc<Gauge>,
    max_files: Arc<Gauge>,
    received: Arc<Counter>,
    sent: Arc<Counter>,
    /// They say the same all the time.
    _constants: (Arc<Gauge>, Arc<Gauge>, Arc<Seconds<false>>),
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        let none = Labels::new();
        let gauge = |name, help| registry.family::<Gauge>(name, help).hold(&none);
        let seconds = |name, help| registry.family::<Seconds<true>>(name, help).hold(&none);
        let counter = |name, help| registry.family::<Counter>(name, help).hold(&none);
        let build = Labels::new()
            .with("date", BUILD_DATE)
            .with("git_sha", BUILD_GIT_SHA)
            .with("profile", if cfg!(debug_assertions) { "debug" } else { "release" })
            .with("vendor", "meshgate")
            .with("version", env!("CARGO_PKG_VERSION"));
        let build = registry.family::<Gauge>("proxy_build_info", "What this proxy was built from.").hold(&build);
        build.set(1);
        let tls = registry.family::<Gauge>("rustls_info", "What this proxy's TLS can do.").hold(&tls_labels());
        tls.set(1);
        let start = "When the process started, in seconds of the Unix epoch.";
        let start = registry.family::<Seconds<false>>("process_start_time_seconds", start).hold(&none);
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let process = Arc::new(Self {
            started: Instant::now(),
            uptime: seconds("process_uptime_seconds_total", "How long the process has run."),
            cpu: seconds("process_cpu_seconds_total", "The time of processors that the process has used."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory."),
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory."),
            threads: gauge("process_threads", "Threads."),
            open_files: gauge("process_open_fds", "Open files."),
            max_files: gauge("process_max_fds", "How many files may be open."),
            received: counter("process_network_receive_bytes_total", "Bytes that have come into the pod."),
            sent: counter("process_network_transmit_bytes_total", "Bytes that have left it."),
            _constants: (build, tls, start),
        });
        let refreshed: std::sync::Weak<Self> = Arc::downgrade(&process);
        registry.refresh(refreshed);
        process
    }

    /// What `/proc/self/stat` says. Its fields are counted from behind the program's name, which may contain anything.
    fn read_stat(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = u32::try_from(field(14)? + field(15)?).ok()?;
        self.cpu.set(TICK * ticks);
        self.threads.set(field(20)?.cast_signed());
        self.virtual_memory.set(field(23)?.cast_signed());
        Some(())
    }

    /// Pages may have any size, but here the kernel tells kilobytes.
    fn read_resident(&self) -> Option<()> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: i64 = line.split_whitespace().next()?.parse().ok()?;
        self.resident_memory.set(kilobytes * 1024);
        Some(())
    }

    /// What the kernel counts by network namespace: the application's bytes are among them, as they are with Linkerd's proxy.
    fn read_network(&self) -> Option<()> {
        let netstat = fs::read_to_string("/proc/self/net/netstat").ok()?;
        let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let field = |name: &str| {
            let (_, value) = names.split(' ').zip(values.split(' ')).find(|(field, _)| *field == name)?;
            value.parse::<u64>().ok()
        };
        self.received.set(field("InOctets")?);
        self.sent.set(field("OutOctets")?);
        Some(())
    }

    fn read_files(&self) -> io::Result<()> {
        // Since Linux 6.2 the directory's size is the number of open files; before, it is 0.
        let open = match fs::metadata("/proc/self/fd")?.len() {
            0 => u64::try_from(fs::read_dir("/proc/self/fd")?.count()).unwrap_or(u64::MAX),
            open => open,
        };
        self.open_files.set(i64::try_from(open).unwrap_or(i64::MAX));
        let limits = fs::read_to_string("/proc/self/limits")?;
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        // `unlimited` is more than anybody has.
        let most = most.and_then(|line| line.split_whitespace().next()).and_then(|soft| soft.parse().ok());
        self.max_files.set(most.unwrap_or(i64::MAX));
        Ok(())
    }
}

/// Labels as Linkerd's (`linkerd/app/core/src/tls_info.rs`): lists have a comma behind each item.
fn tls_labels() -> Labels {
    let provider = tls::provider();
    let list = |items: &mut dyn Iterator<Item = Option<&'static str>>| -> String {
        items.flatten().flat_map(|item| [item, ","]).collect()
    };
    Labels::new()
        .with("tls_suites", &list(&mut provider.cipher_suites.iter().map(|suite| suite.suite().as_str())))
        .with("tls_kx_groups", &list(&mut provider.kx_groups.iter().map(|group| group.name().as_str())))
        .with("tls_rand", &format!("{:?}", provider.secure_random))
        .with("tls_key_provider", &format!("{:?}", provider.key_provider))
        .with_display("tls_fips", provider.fips())
}

impl Refresh for Process {
    fn refresh(&self) {
        self.uptime.set(self.started.elapsed());
        // Without /proc the series stay as they are.
        let _ = (self.read_stat(), self.read_resident(), self.read_files(), self.read_network());
    }
}
