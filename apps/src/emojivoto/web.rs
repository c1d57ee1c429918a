//! The web front end: pages for people, an API for their scripts, gRPC behind.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use super::proto::{
    EMOJI_SERVICE, Emoji, FindByShortcodeRequest, FindByShortcodeResponse, ListAllEmojiRequest, ListAllEmojiResponse,
    ResultsRequest, ResultsResponse, VOTING_SERVICE, VoteRequest, VoteResponse,
};
use super::table;
use crate::grpc;
use crate::serve::{self, Body, Http};

const JSON: &str = "application/json; charset=UTF-8";

/// The page's script when INDEX_BUNDLE names no file.
const SCRIPT: &str = include_str!("web.js");

/// The longest form that is read.
const FORM_BYTES: usize = 64 * 1024;

/// The environment of the front end.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the front end
    #[arg(long, env = "WEB_PORT")]
    pub web_port: u16,
    /// The emoji service, `host:port`
    #[arg(long, env = "EMOJISVC_HOST")]
    pub emojisvc_host: String,
    /// The voting service, `host:port`
    #[arg(long, env = "VOTINGSVC_HOST")]
    pub votingsvc_host: String,
    /// The page's script; a built-in one when there is no such file
    #[arg(long, env = "INDEX_BUNDLE")]
    pub index_bundle: PathBuf,
    /// Shown on every page
    #[arg(long, env = "MESSAGE_OF_THE_DAY", default_value = "")]
    pub message_of_the_day: String,
}

/// The front end with its port bound.
pub struct Web {
    listener: TcpListener,
    app: Arc<App>,
}

struct App {
    emoji: Channel,
    voting: Channel,
    index: String,
    bundle: PathBuf,
}

/// An emoji as the API shows it.
#[derive(Serialize)]
struct Listed {
    shortcode: String,
    unicode: String,
}

/// A line of the leaderboard. Votes are a string: upstream encodes a map of strings.
#[derive(Serialize)]
struct Standing {
    shortcode: String,
    unicode: String,
    votes: String,
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

/// Why the API gives no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// No choice was named.
    #[error("Emoji choice [] is mandatory")]
    NoChoice,
    /// The emoji service does not know the choice. (The spelling is upstream's.)
    #[error("Choosen emoji shortcode [{0}] doesnt exist")]
    Unknown(String),
    /// A service failed; printed as Go's gRPC prints it.
    #[error("rpc error: code = {} desc = {}", grpc::code_name(.0.code()), .0.message())]
    Call(#[from] Status),
}

impl Web {
    /// Binds the port; 0 takes any. The services are connected to when they are first needed.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let channel = |host: &str| {
            grpc::channel(host).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("expected host:port, found \"{host}\": {error}"))
            })
        };
        let app = App {
            emoji: channel(&config.emojisvc_host)?,
            voting: channel(&config.votingsvc_host)?,
            index: index(&config.message_of_the_day),
            bundle: config.index_bundle,
        };
        Ok(Self { listener: serve::bind(config.web_port).await?, app: Arc::new(app) })
    }

    /// The port of the front end.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(port = self.port()?, "web is ready");
        let app = self.app;
        Http::plain(self.listener)
            .serve(shutdown, move |request, _| {
                let app = Arc::clone(&app);
                async move { Ok(app.answer(request).await) }
            })
            .await
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/api/list" => finish(self.list().await),
            "/api/leaderboard" => finish(self.leaderboard().await),
            "/api/vote" => match self.vote(request).await {
                Ok(()) => Response::new(Body::empty()),
                Err(error) => problem(&error),
            },
            "/js" => {
                let script = tokio::fs::read(&self.bundle).await.unwrap_or_else(|_| SCRIPT.into());
                serve::text(StatusCode::OK, "text/javascript", script)
            }
            path if path == "/img/favicon.ico" || path.starts_with("/dist/") => {
                serve::text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
            }
            // Upstream's root route takes every path that no other takes.
            _ => serve::text(StatusCode::OK, "text/html", self.index.clone()),
        }
    }

    async fn list(&self) -> Result<Vec<Listed>, Error> {
        let path = format!("/{EMOJI_SERVICE}/ListAll");
        let all: ListAllEmojiResponse = grpc::call(&self.emoji, &path, ListAllEmojiRequest {}).await?;
        let listed = |emoji: Emoji| Listed { shortcode: emoji.shortcode, unicode: emoji.unicode };
        Ok(all.list.into_iter().map(listed).collect())
    }

    async fn leaderboard(&self) -> Result<Vec<Standing>, Error> {
        let path = format!("/{VOTING_SERVICE}/Results");
        let standings: ResultsResponse = grpc::call(&self.voting, &path, ResultsRequest {}).await?;
        let mut board = Vec::with_capacity(standings.results.len());
        for result in standings.results {
            let emoji = self.find(&result.shortcode).await?.unwrap_or_default();
            board.push(Standing {
                shortcode: emoji.shortcode,
                unicode: emoji.unicode,
                votes: result.votes.to_string(),
            });
        }
        Ok(board)
    }

    async fn vote(&self, request: Request<Incoming>) -> Result<(), Error> {
        let choice = choice(request).await.filter(|choice| !choice.is_empty()).ok_or(Error::NoChoice)?;
        let emoji = self.find(&choice).await?.ok_or_else(|| Error::Unknown(choice.clone()))?;
        let path = format!("/{VOTING_SERVICE}/{}", table::method(&emoji.shortcode));
        let _: VoteResponse = grpc::call(&self.voting, &path, VoteRequest {}).await?;
        Ok(())
    }

    async fn find(&self, shortcode: &str) -> Result<Option<Emoji>, Status> {
        let path = format!("/{EMOJI_SERVICE}/FindByShortcode");
        let request = FindByShortcodeRequest { shortcode: shortcode.to_owned() };
        let found: FindByShortcodeResponse = grpc::call(&self.emoji, &path, request).await?;
        Ok(found.emoji)
    }
}

/// The form value `choice`: a posted form goes before the query.
async fn choice(request: Request<Incoming>) -> Option<String> {
    let value = |form: &[u8]| {
        let fields: HashMap<_, _> = form_urlencoded::parse(form).collect();
        fields.get("choice").map(|choice| choice.clone().into_owned())
    };
    let query = request.uri().query().map(str::to_owned).unwrap_or_default();
    let posted = if request.method() == Method::POST {
        Limited::new(request.into_body(), FORM_BYTES).collect().await.ok().map(|body| body.to_bytes())
    } else {
        None
    };
    posted.and_then(|form| value(&form)).or_else(|| value(query.as_bytes()))
}

fn finish(result: Result<Vec<impl Serialize>, Error>) -> Response<Body> {
    match result {
        Ok(list) => serve::json(StatusCode::OK, JSON, &list),
        Err(error) => problem(&error),
    }
}

fn problem(error: &Error) -> Response<Body> {
    let status = match error {
        Error::NoChoice | Error::Unknown(_) => StatusCode::BAD_REQUEST,
        Error::Call(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::debug!(%error, %status, "a request failed");
    serve::json(status, JSON, &Problem { error: error.to_string() })
}

/// The page. The message is markup, as upstream's is: whoever sets it writes the page.
fn index(message: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"UTF-8\">\n<title>Emoji Vote</title>\n</head>\n<body>\n\
         <div id=\"motd\" class=\"motd\">{message}</div>\n<div id=\"main\" class=\"main\"></div>\n\
         <script src=\"/js\" async></script>\n</body>\n</html>\n"
    )
}
