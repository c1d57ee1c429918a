//! The role `probe`: the engine behind a port, for requests from inside a pod.

use std::io;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Batch, Sockets, run};
use crate::serve::{self, Body, Http};

/// The longest batch that is read.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The environment of the probe pod.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the API
    #[arg(long, env = "HTTP_PORT", default_value_t = 8080)]
    pub http_port: u16,
}

/// The probe pod with its port bound.
///
/// `POST /batch` takes a [`Batch`] as JSON and answers 200 with its [`super::Record`]s once all are there, or 400 when it
/// is no batch. `GET /healthz` answers 200.
pub struct Role {
    listener: TcpListener,
}

impl Role {
    /// Binds the port; 0 takes any.
    pub async fn bind(config: Config) -> io::Result<Self> {
        Ok(Self { listener: serve::bind(config.http_port).await? })
    }

    /// The port of the API.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(port = self.port()?, "probe is ready");
        Http::plain(self.listener).serve(shutdown, |request, _| async { Ok(answer(request).await) }).await
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/batch") => {
            let body = match Limited::new(request.into_body(), BATCH_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return serve::text(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
            };
            match serde_json::from_slice::<Batch>(&body) {
                Ok(batch) => serve::json(StatusCode::OK, "application/json", &run(&batch, &Sockets).await),
                Err(error) => {
                    let text = format!("expected a batch as JSON, found something else: {error}\n");
                    serve::text(StatusCode::BAD_REQUEST, "text/plain", text)
                }
            }
        }
        (_, "/healthz") => serve::text(StatusCode::OK, "text/plain", "ok\n"),
        (method, path) => {
            let text = format!("{method} {path} is neither POST /batch nor GET /healthz\n");
            serve::text(StatusCode::NOT_FOUND, "text/plain", text)
        }
    }
}
