//! A proxy as a process of its own, whose memory is its alone: this binary again, with an environment that says so.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use meshgate_proxy::{Config, FixedDst, OriginalDst, ProcessEnvironment, Proxy};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time,
};

use crate::support::Setup;

const ORIGINALS: &str = "SOAK_ORIGINALS";
const LISTENS: &str = "soak-proxy listens ";
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection from `client` is for `original`, and policies see its client at `seen`.
pub struct Original {
    pub client: IpAddr,
    pub original: SocketAddr,
    pub seen: IpAddr,
}

/// A running proxy.
pub struct ProxyProcess {
    child: Child,
    pub outbound: SocketAddr,
    pub inbound: SocketAddr,
    pub admin: SocketAddr,
}

impl ProxyProcess {
    pub async fn start(setup: Setup, originals: &[Original]) -> Self {
        let originals: Vec<_> =
            originals.iter().map(|it| format!("{} {} {}", it.client, it.original, it.seen)).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            // With one thread the test runs on the main one, as a proxy does.
            .args(["child::proxy_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .envs(setup.into_variables())
            .env(ORIGINALS, originals.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, addresses)) = line.split_once(LISTENS) {
                    return addresses.split(' ').map(|it| it.parse().unwrap()).collect::<Vec<SocketAddr>>();
                }
            }
            panic!("a proxy ended before it listened");
        };
        let addresses = time::timeout(PATIENCE, listens).await.expect("a proxy does not listen in time");
        // The end of the process must not meet a pipe that nobody reads.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let [outbound, inbound, admin] = addresses[..] else { panic!("expected three addresses, found {addresses:?}") };
        Self { child, outbound, inbound, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process has not been waited for")
    }

    /// SIGKILL; returns when the kernel has closed its sockets.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Lets it finish what it has begun.
    pub async fn stop(mut self) -> ExitStatus {
        self.child.stdin.take().unwrap().write_all(b"stop\n").await.unwrap();
        time::timeout(PATIENCE, self.child.wait()).await.expect("a proxy does not stop in time").unwrap()
    }
}

#[test]
#[ignore = "the soak runs it, as another process"]
fn proxy_process() {
    let Ok(originals) = std::env::var(ORIGINALS) else { return };
    if let Ok(directives) = std::env::var("SOAK_LOG") {
        tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr).init();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let config = Config::from_strings(&ProcessEnvironment).unwrap();
        let proxy = Proxy::start(config, OriginalDst::Fixed(Arc::new(parse(&originals))), None).await.unwrap();
        let addresses = proxy.addresses();
        println!("\n{LISTENS}{} {} {}", addresses.outbound[0], addresses.inbound, addresses.admin);
        let mut word = [0; 5];
        // The end of standard input is the end of the test, whatever it came to.
        if tokio::io::stdin().read_exact(&mut word).await.is_ok() {
            assert!(proxy.stop(PATIENCE / 2).await, "connections were still open at the end of the grace period");
        }
    });
}

fn parse(originals: &str) -> HashMap<IpAddr, FixedDst> {
    let parts = originals.split(',').map(|entry| entry.split(' ').collect::<Vec<_>>());
    let entry = |parts: Vec<&str>| {
        let [client, original, seen] = parts[..] else { panic!("expected three addresses, found {parts:?}") };
        let fixed = FixedDst { original: original.parse().unwrap(), client: Some(seen.parse().unwrap()) };
        (client.parse().unwrap(), fixed)
    };
    parts.map(entry).collect()
}
