//! The traffic generator: an author with two books comes and goes, over and over.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delay;
use crate::probe::{Client, Connection, Keep, Record, Request, Sockets};

/// The command line of the traffic generator.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Time before the first request, as a Go duration
    #[arg(long, default_value = "1m", value_parser = delay::parse)]
    pub initial_delay: Duration,
    /// Time after every request, as a Go duration
    #[arg(long, default_value = "100ms", value_parser = delay::parse)]
    pub sleep: Duration,
    /// The front end, `host:port`
    pub target: String,
}

/// Sends until `shutdown`. Ends with an error when an author or book cannot be made because one of the name is there.
pub async fn run(config: Config, shutdown: CancellationToken) -> io::Result<()> {
    tracing::info!(target = config.target, "traffic is ready");
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = generate(&config) => result,
    }
}

struct Session<'c> {
    config: &'c Config,
    client: Client<'c>,
}

async fn generate(config: &Config) -> io::Result<()> {
    tokio::time::sleep(config.initial_delay).await;
    let mut session = Session { config, client: Client::new(&Sockets) };
    while !session.get("/reset").await.is(204) {}
    loop {
        session.get("/").await;
        let author = session.post("/authors", "first_name=Ernest&last_name=Cline").await?;
        let id = author.rsplit('/').next().unwrap_or_default().to_owned();
        session.get(&author).await;
        let book = |title: &str, pages: u32| format!("title=Ready+Player+{title}&author_id={id}&pages={pages}");
        let first = session.post("/books", &book("One", 345)).await?;
        session.get(&first).await;
        let second = session.post("/books", &book("Two", 456)).await?;
        session.get(&second).await;
        session.post(&format!("{second}/edit"), &book("Three", 567)).await?;
        // Where a deletion leads to says nothing.
        session.form(&format!("{second}/delete"), "").await;
        session.form(&format!("{author}/delete"), "").await;
    }
}

impl Session<'_> {
    async fn get(&mut self, path: &str) -> Record {
        self.send(Request::get(&self.config.target, path)).await
    }

    /// Posts a form until it is taken, and gives the path of what it made.
    async fn post(&mut self, path: &str, form: &str) -> io::Result<String> {
        let record = self.form(path, form).await;
        let location = record.header("location").next().unwrap_or_default();
        let made = location.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        match made {
            Some(made) if made != "/" => Ok(made.to_owned()),
            _ => Err(io::Error::other(format!(
                "expected POST {path} to lead to what it made, found \"{location}\"; delete the author Ernest Cline first"
            ))),
        }
    }

    /// Posts a form until it is answered by a redirect.
    async fn form(&mut self, path: &str, form: &str) -> Record {
        loop {
            let request = Request::get(&self.config.target, path).body("POST", form);
            let record = self.send(request.header("Content-Type", "application/x-www-form-urlencoded")).await;
            if record.is(303) {
                return record;
            }
        }
    }

    async fn send(&mut self, request: Request) -> Record {
        let record = self.client.send(&request.on(Connection::PerWorker), Keep::All).await;
        tracing::info!(path = record.id, status = %record.outcome(), "sent");
        tokio::time::sleep(self.config.sleep).await;
        record
    }
}
