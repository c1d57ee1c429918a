//! The endpoint that probes ask: ready once a first configuration is served.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;

/// Whether a first configuration is served.
#[derive(Clone, Default)]
pub(crate) struct Ready(Arc<AtomicBool>);

impl Ready {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn status(&self) -> StatusCode {
        if self.0.load(Ordering::Acquire) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
    }
}

/// Answers every path on a port, until it is dropped.
pub(crate) async fn serve(port: u16, ready: Ready) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("cannot listen on port {port} for probes"))?;
    let app = Router::new().fallback(move || futures::future::ready(ready.status()));
    axum::serve(listener, app).await.context("serving probes")
}
