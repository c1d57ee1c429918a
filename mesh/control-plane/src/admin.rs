//! `/ready`, `/live` and `/metrics`.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::{Index, metrics};

/// Serves the admin endpoints until the listener fails.
pub(crate) async fn serve(index: Index, listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new()
        .route("/live", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(async |State(index): State<Index>| metrics::exposition(&index)))
        .with_state(index);
    axum::serve(listener, router).await
}

async fn ready(State(index): State<Index>) -> (StatusCode, &'static str) {
    if index.is_synced() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not every kind of object has been listed yet\n")
    }
}
