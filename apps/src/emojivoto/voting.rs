//! The voting service: one method per emoji, and the standings.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::metrics::Metrics;
use super::proto::{ResultsRequest, ResultsResponse, VOTING_SERVICE, VoteRequest, VoteResponse, VotingResult};
use super::table;
use crate::chance::{self, Chance};
use crate::serve::{self, Body, Http};
use crate::{delay, grpc};

/// The environment of the voting service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the gRPC service
    #[arg(long, env = "GRPC_PORT")]
    pub grpc_port: u16,
    /// Port of the metrics; none when left out
    #[arg(long, env = "PROM_PORT")]
    pub prom_port: Option<u16>,
    /// Share of the votes for the doughnut that fail, 0 to 1; all when left out, as in v11
    #[arg(long, env = "FAILURE_RATE", value_parser = chance::share)]
    pub failure_rate: Option<f64>,
    /// Which votes fail by counting, instead of the doughnut's: `3` every third vote, `doughnut:3` every third for it
    #[arg(long, env = "FAIL_EVERY")]
    pub fail_every: Option<FailEvery>,
    /// How long every vote takes, as a Go duration
    #[arg(long, env = "ARTIFICIAL_DELAY", value_parser = delay::parse)]
    pub artificial_delay: Option<Duration>,
    /// Fixes the random numbers behind FAILURE_RATE
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
}

/// Every n-th vote, of all or of one emoji's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailEvery {
    /// The emoji without colons; every emoji when none.
    pub name: Option<String>,
    /// 1 is every vote.
    pub every: u64,
}

impl FromStr for FailEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, every) = text.rsplit_once(':').map_or((None, text), |(name, every)| (Some(name), every));
        let name = name.map(|name| name.trim_matches(':').to_owned());
        match every.parse() {
            Ok(every) if every > 0 && name.as_deref().is_none_or(|name| table::names().any(|known| known == name)) => {
                Ok(Self { name, every })
            }
            _ => Err(format!(
                "expected a number above 0, or an emoji's name and one as in \"doughnut:3\", found \"{text}\""
            )),
        }
    }
}

/// The voting service with its ports bound.
pub struct Voting {
    grpc: TcpListener,
    prom: Option<TcpListener>,
    poll: Arc<Poll>,
}

/// The votes, and which of them fail.
struct Poll {
    metrics: Metrics,
    /// Name and method of every emoji by the method's name.
    methods: HashMap<&'static str, Choice>,
    votes: Mutex<BTreeMap<&'static str, i32>>,
    failures: Mutex<Failures>,
    delay: Duration,
}

#[derive(Clone, Copy)]
struct Choice {
    /// With colons.
    shortcode: &'static str,
    method: &'static str,
}

/// Which votes fail.
struct Failures {
    /// The emoji without colons that alone can fail.
    only: Option<String>,
    chance: Chance,
}

impl Failures {
    fn new(config: &Config) -> Self {
        let rate = config.failure_rate.unwrap_or(1.0);
        let (only, every) = match config.fail_every.clone() {
            Some(FailEvery { name, every }) => (name, Some(every)),
            None => (Some("doughnut".to_owned()), None),
        };
        Self { only, chance: Chance::new(rate, every, config.seed) }
    }

    /// Whether a vote for this shortcode fails. Counts it.
    fn fails(&mut self, shortcode: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == shortcode.trim_matches(':')) && self.chance.strikes()
    }
}

impl Voting {
    /// Binds the ports; 0 takes any.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let prom = match config.prom_port {
            Some(port) => Some(serve::bind(port).await?),
            None => None,
        };
        let methods = choices().map(|choice| (choice.method, choice)).collect();
        let failures = Failures::new(&config);
        let poll = Arc::new(Poll {
            metrics: Metrics::new(VOTING_SERVICE),
            methods,
            votes: Mutex::default(),
            failures: Mutex::new(failures),
            delay: config.artificial_delay.unwrap_or_default(),
        });
        Ok(Self { grpc: serve::bind(config.grpc_port).await?, prom, poll })
    }

    /// The port of the gRPC service.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.grpc.local_addr()?.port())
    }

    /// The port of the metrics.
    pub fn prom_port(&self) -> io::Result<Option<u16>> {
        self.prom.as_ref().map(|prom| Ok(prom.local_addr()?.port())).transpose()
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(grpc = self.port()?, delay = ?self.poll.delay, "voting is ready");
        let poll = Arc::clone(&self.poll);
        let calls = Http::plain(self.grpc).serve(shutdown.clone(), move |request, _| {
            let poll = Arc::clone(&poll);
            async move { Ok(poll.answer(request).await) }
        });
        let poll = self.poll;
        let scrapes = async {
            match self.prom {
                Some(listener) => {
                    let handler =
                        move |request: Request<Incoming>, _| std::future::ready(Ok(poll.metrics.answer(&request)));
                    Http::plain(listener).serve(shutdown, handler).await
                }
                None => Ok(()),
            }
        };
        tokio::try_join!(calls, scrapes).map(|_| ())
    }
}

impl Poll {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(VOTING_SERVICE)?.strip_prefix('/'));
        match method {
            Some("Results") => {
                grpc::unary(request, |_: tonic::Request<ResultsRequest>| {
                    self.metrics.count("Results", async { Ok(tonic::Response::new(self.results())) })
                })
                .await
            }
            Some(method) => match self.methods.get(method).copied() {
                Some(choice) => {
                    grpc::unary(request, |_: tonic::Request<VoteRequest>| {
                        self.metrics.count(choice.method, self.vote(choice.shortcode))
                    })
                    .await
                }
                None => grpc::unimplemented(&path),
            },
            None if path == "/healthz" => serve::text(StatusCode::OK, "text/plain", "ok\n"),
            None => grpc::unimplemented(&path),
        }
    }

    async fn vote(&self, shortcode: &'static str) -> Result<tonic::Response<VoteResponse>, Status> {
        tokio::time::sleep(self.delay).await;
        if self.failures.lock().fails(shortcode) {
            return Err(Status::unknown("ERROR"));
        }
        *self.votes.lock().entry(shortcode).or_default() += 1;
        self.metrics.vote(shortcode);
        Ok(tonic::Response::new(VoteResponse {}))
    }

    fn results(&self) -> ResultsResponse {
        let mut results: Vec<VotingResult> = self
            .votes
            .lock()
            .iter()
            .map(|(shortcode, votes)| VotingResult { shortcode: (*shortcode).to_owned(), votes: *votes })
            .collect();
        results.sort_by_key(|result| std::cmp::Reverse(result.votes));
        ResultsResponse { results }
    }
}

/// Every choice; made once per process, so that names can be borrowed for as long as it lives.
fn choices() -> impl Iterator<Item = Choice> {
    static CHOICES: std::sync::LazyLock<Vec<(String, String)>> =
        std::sync::LazyLock::new(|| table::names().map(|name| (format!(":{name}:"), table::method(name))).collect());
    CHOICES.iter().map(|(shortcode, method)| Choice { shortcode, method })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(every: Option<&str>, rate: f64) -> Failures {
        Failures::new(&Config {
            grpc_port: 0,
            prom_port: None,
            failure_rate: Some(rate),
            fail_every: every.map(|text| text.parse().unwrap()),
            artificial_delay: None,
            seed: Some(0),
        })
    }

    #[test]
    fn counted_failures_are_exact() {
        let mut any = failures(Some("3"), 1.0);
        let failed: Vec<bool> =
            [":joy:", ":doughnut:", ":pig:", ":joy:", ":joy:", ":doughnut:"].map(|code| any.fails(code)).into();
        assert_eq!(failed, [false, false, true, false, false, true]);
        let mut one = failures(Some("doughnut:2"), 1.0);
        let failed: Vec<bool> = [":doughnut:", ":joy:", ":doughnut:", ":joy:"].map(|code| one.fails(code)).into();
        assert_eq!(failed, [false, false, true, false]);
        assert!("0".parse::<FailEvery>().is_err());
        assert!("donut:2".parse::<FailEvery>().is_err());
    }

    #[test]
    fn a_rate_concerns_only_the_doughnut() {
        assert!(!failures(None, 1.0).fails(":joy:"));
        assert!(failures(None, 1.0).fails(":doughnut:"));
        assert!(!failures(None, 0.0).fails(":doughnut:"));
    }
}
