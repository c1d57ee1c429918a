//! A cluster that is away for a while, in the midst of cases.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::existing::{Cluster, verdicts};

/// The way to an API server, which can be cut.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    carried: Arc<Mutex<Vec<TcpStream>>>,
    refused: Arc<AtomicUsize>,
    /// Carried so far, in both directions.
    bytes: Arc<AtomicUsize>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            address: listener.local_addr().unwrap(),
            cut: Default::default(),
            carried: Default::default(),
            refused: Default::default(),
            bytes: Default::default(),
        };
        let (cut, carried, refused, bytes) =
            (wire.cut.clone(), wire.carried.clone(), wire.refused.clone(), wire.bytes.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut carried = carried.lock().unwrap();
                if cut.load(Ordering::SeqCst) {
                    refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                for (mut from, mut to) in [(&client, &server), (&server, &client)]
                    .map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    let bytes = bytes.clone();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 8192];
                        while let Ok(read @ 1..) = from.read(&mut buffer) {
                            bytes.fetch_add(read, Ordering::SeqCst);
                            if to.write_all(&buffer[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
                carried.extend([client, server]);
            }
        });
        wire
    }

    /// Once so many more bytes were carried, ends all connections, and carries none until so many were tried.
    fn away_until_missed(&self, after: usize, times: usize) {
        let so_far = self.bytes.load(Ordering::SeqCst);
        crate::bench::eventually("something is carried", || {
            (self.bytes.load(Ordering::SeqCst) - so_far >= after).then_some(())
        });
        {
            let mut carried = self.carried.lock().unwrap();
            self.cut.store(true, Ordering::SeqCst);
            for stream in carried.drain(..) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        crate::bench::eventually("the cluster is missed", || {
            (self.refused.load(Ordering::SeqCst) >= times).then_some(())
        });
        self.cut.store(false, Ordering::SeqCst);
    }
}

#[test]
fn what_a_cluster_was_away_in_is_looked_at_again_when_it_is_back() {
    let cluster = Cluster::up();
    let mut config: Value =
        serde_json::to_value(kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap()).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let wire = Wire::to(server.trim_start_matches("https://").trim_end_matches('/').parse().unwrap());
    config["clusters"][0]["cluster"]["server"] = format!("https://{}", wire.address).into();
    let kubeconfig = cluster.state.path().join("wired");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();

    let report = tempfile::tempdir().unwrap();
    let mut command = cluster.command(&["run", "--cluster", "existing", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    command.args(["--controllers", "traefik", "--recipe", "ingress-middleware", "--dialect", "modern"]);
    command.args(["--case", "routing/host,routing/body-1mib,traffic_split/half,traffic_split/ninety-ten"]);
    command.arg("--report-dir").arg(report.path()).stderr(std::process::Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut said = std::io::BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains(": ready after ")));
    // In the midst of a body of a MiB.
    wire.away_until_missed(512 * 1024, 3);
    let rest: Vec<String> = said.collect();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{rest:#?}");

    let verdicts = verdicts(report.path());
    let judged: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict != "not-applicable").collect();
    assert!(judged.len() == 4 && judged.iter().all(|(_, verdict)| verdict == "pass"), "{judged:?}");
    let written: Value = serde_json::from_slice(&std::fs::read(report.path().join("report.json")).unwrap()).unwrap();
    let cases = written["cells"][0]["cases"].as_array().unwrap();
    assert!(cases.iter().any(|case| case["attempts"] == 2 && case["flaky"].is_null()), "none was under way");
}
