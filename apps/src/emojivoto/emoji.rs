//! The emoji service: which emoji there are.

use std::io;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::proto::{
    EMOJI_SERVICE, Emoji as Message, FindByShortcodeRequest, FindByShortcodeResponse, ListAllEmojiRequest,
    ListAllEmojiResponse,
};
use super::table::LISTED;
use crate::grpc;
use crate::serve::{self, Body, Http};

/// The environment of the emoji service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the gRPC service
    #[arg(long, env = "GRPC_PORT")]
    pub grpc_port: u16,
    /// Port of the metrics; none when left out
    #[arg(long, env = "PROM_PORT")]
    pub prom_port: Option<u16>,
}

/// The emoji service with its ports bound.
pub struct Emoji {
    grpc: TcpListener,
    prom: Option<TcpListener>,
}

impl Emoji {
    /// Binds the ports; 0 takes any.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let prom = match config.prom_port {
            Some(port) => Some(serve::bind(port).await?),
            None => None,
        };
        Ok(Self { grpc: serve::bind(config.grpc_port).await?, prom })
    }

    /// The port of the gRPC service.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.grpc.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(grpc = self.port()?, "emoji is ready");
        let metrics = Arc::new(Metrics::new(EMOJI_SERVICE));
        let counted = Arc::clone(&metrics);
        let calls = Http::plain(self.grpc).serve(shutdown.clone(), move |request, _| {
            let metrics = Arc::clone(&counted);
            async move { Ok(answer(&metrics, request).await) }
        });
        let scrapes = async {
            match self.prom {
                Some(listener) => {
                    let handler = move |request: Request<Incoming>, _| std::future::ready(Ok(metrics.answer(&request)));
                    Http::plain(listener).serve(shutdown, handler).await
                }
                None => Ok(()),
            }
        };
        tokio::try_join!(calls, scrapes).map(|_| ())
    }
}

async fn answer(metrics: &Metrics, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.strip_prefix('/').and_then(|path| path.strip_prefix(EMOJI_SERVICE)) {
        Some("/ListAll") => {
            grpc::unary(request, |_: tonic::Request<ListAllEmojiRequest>| {
                metrics.count("ListAll", async {
                    let list = LISTED.iter().map(message).collect();
                    Ok(tonic::Response::new(ListAllEmojiResponse { list }))
                })
            })
            .await
        }
        Some("/FindByShortcode") => {
            grpc::unary(request, |asked: tonic::Request<FindByShortcodeRequest>| {
                metrics.count("FindByShortcode", async move {
                    let shortcode = asked.into_inner().shortcode;
                    let emoji = LISTED.iter().map(message).find(|emoji| emoji.shortcode == shortcode);
                    Ok(tonic::Response::new(FindByShortcodeResponse { emoji }))
                })
            })
            .await
        }
        _ if path == "/healthz" => serve::text(StatusCode::OK, "text/plain", "ok\n"),
        _ => grpc::unimplemented(&path),
    }
}

fn message((name, unicode): &(&str, &str)) -> Message {
    Message { unicode: (*unicode).to_owned(), shortcode: format!(":{name}:") }
}
