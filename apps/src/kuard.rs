//! A small service in the place of kuard, the demo of "Kubernetes up and running": it shows which pod answers, and to what.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serve::{self, Body, Http};

/// The environment of the service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the service
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// What it calls itself: the pod's name
    #[arg(long, env = "HOSTNAME", default_value = "kuard")]
    pub hostname: String,
}

/// The service with its port bound.
pub struct Kuard {
    listener: TcpListener,
    hostname: Arc<str>,
}

/// What the page knows, as JSON in it, with kuard's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageContext {
    hostname: Arc<str>,
    request_proto: String,
    request_addr: String,
    /// The request's first line and its headers.
    request_dump: String,
}

impl Kuard {
    /// Binds the port; 0 takes any.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        Ok(Self { listener: serve::bind(config.port).await?, hostname: config.hostname.as_str().into() })
    }

    /// The port of the service.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(port = self.port()?, "kuard is ready");
        let hostname = self.hostname;
        Http::plain(self.listener)
            .serve(shutdown, move |request, connection| {
                let response = answer(Arc::clone(&hostname), &request, &connection.peer.to_string());
                std::future::ready(Ok(response))
            })
            .await
    }
}

fn answer(hostname: Arc<str>, request: &Request<Incoming>, peer: &str) -> Response<Body> {
    match request.uri().path() {
        "/" => page(hostname, request, peer),
        "/healthy" | "/ready" => serve::text(StatusCode::OK, "text/plain", "ok"),
        "/env/api" => {
            let env: BTreeMap<String, String> = std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect();
            let arguments: Vec<String> = std::env::args_os().filter_map(|text| text.into_string().ok()).collect();
            serve::json(StatusCode::OK, "application/json", &json!({"commandLine": arguments, "env": env}))
        }
        _ => serve::text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
    }
}

fn page(hostname: Arc<str>, request: &Request<Incoming>, peer: &str) -> Response<Body> {
    let mut dump = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        dump += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let context = PageContext {
        hostname,
        request_proto: format!("{:?}", request.version()),
        request_addr: peer.to_owned(),
        request_dump: dump,
    };
    // In a script only `<` can end what it is in; JSON has another way to write it.
    let context = serde_json::to_string(&context).unwrap_or_default().replace('<', "\\u003c");
    let page = format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"UTF-8\">\n<title>KUAR Demo</title>\n</head>\n<body>\n\
         <pre id=\"context\"></pre>\n<script>\nvar pageContext = {context}\n\
         document.getElementById(\"context\").textContent = JSON.stringify(pageContext, null, 2)\n</script>\n</body>\n</html>\n"
    );
    let mut response = serve::text(StatusCode::OK, "text/html", page);
    // The page is about this one request.
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::probe::{self, Request};

    #[tokio::test]
    async fn says_which_pod_answers_and_to_what() {
        let kuard = Kuard::bind(&Config { port: 0, hostname: "kuard-7".to_owned() }).await.unwrap();
        let target = format!("127.0.0.1:{}", kuard.port().unwrap());
        let _serving = AbortOnDropHandle::new(tokio::spawn(kuard.serve(CancellationToken::new())));
        let get =
            async |path: &str| probe::send(&Request::get(&target, path).header("X-Sent", "</script>"), None).await;
        let page = get("/").await;
        assert!(page.is(200) && page.body.contains(r#""hostname":"kuard-7""#), "{}", page.body);
        assert!(page.body.contains(r"x-sent: \u003c/script>"), "{}", page.body);
        assert_eq!(get("/ready").await.body, "ok");
        assert!(get("/env/api").await.body.contains("\"PATH\""));
        assert!(get("/nothing").await.is(404));
    }
}
