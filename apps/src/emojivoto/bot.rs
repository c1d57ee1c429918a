//! The vote-bot: lists the emoji and votes for one, over and over.

use std::io;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::chance::generator;
use crate::probe::{Client, Connection, Keep, Record, Request, Sockets};

/// Share of the votes that go to the doughnut before all emoji are given their chance.
const DOUGHNUT_SHARE: f64 = 0.15;

/// The environment of the vote-bot.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// The front end, `host:port`
    #[arg(long, env = "WEB_HOST")]
    pub web_host: String,
    /// The Host header, when it is not WEB_HOST
    #[arg(long, env = "HOST_OVERRIDE")]
    pub host_override: Option<String>,
    /// Votes per second, at least 1
    #[arg(long, env = "REQUEST_RATE", default_value_t = 1)]
    pub request_rate: u32,
    /// Seconds until it ends; 0 or none is never
    #[arg(long, env = "TTL", default_value_t = 0)]
    pub ttl: u64,
    /// Fixes the choices
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
}

/// Votes until `shutdown`, or until its time is over. Failures are logged and nothing else, as upstream does.
pub async fn run(config: Config, shutdown: CancellationToken) -> io::Result<()> {
    tracing::info!(web = config.web_host, rate = config.request_rate, "vote-bot is ready");
    let end = async {
        match config.ttl {
            0 => std::future::pending().await,
            seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = end => {}
        () = vote(&config) => {}
    }
    Ok(())
}

async fn vote(config: &Config) {
    let pause = Duration::from_secs(1) / config.request_rate.max(1);
    let mut generator = generator(config.seed);
    let mut client = Client::new(&Sockets);
    loop {
        tokio::time::sleep(pause).await;
        let listed = client.send(&request(config, "/api/list".to_owned()), Keep::All).await;
        let Some(choice) = choose(&listed, &mut generator) else {
            tracing::warn!(answer = %listed.outcome(), "/api/list gave no emoji");
            continue;
        };
        let voted = client.send(&request(config, format!("/api/vote?choice={choice}")), Keep::Status).await;
        tracing::info!(choice, status = %voted.outcome(), "voted");
    }
}

fn request(config: &Config, path: String) -> Request {
    let mut request = Request::get(&config.web_host, path).header("User-Agent", "emojivoto-vote-bot");
    request.connection = Connection::PerWorker;
    request.host.clone_from(&config.host_override);
    request
}

fn choose(listed: &Record, generator: &mut StdRng) -> Option<String> {
    #[derive(Deserialize)]
    struct Listed {
        shortcode: String,
    }
    let mut list: Vec<Listed> = serde_json::from_str(&listed.body).ok()?;
    if list.is_empty() {
        return None;
    }
    if generator.random_bool(DOUGHNUT_SHARE) {
        return Some(":doughnut:".to_owned());
    }
    let index = generator.random_range(..list.len());
    Some(list.swap_remove(index).shortcode)
}
