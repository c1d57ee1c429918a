//! The gateway as the controller knows it: its Admin API.

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::Instant;

use super::plugins::{CLUSTER_PLUGINS, PLUGINS};
use crate::data_plane::{DataPlane, Files, Refusal, RefusedObject};
use crate::objects::{INGRESSES, Kind, SECRETS, SERVICES};

/// The one file of a translation.
pub(super) const CONFIGURATION: &str = "kong.json";

/// The reason of events about configuration that the gateway refuses.
const APPLY_FAILED: &str = "KongConfigurationApplyFailed";

/// Between two attempts to reach a gateway that is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// How long it is waited for without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is asked whether it still has what it was told: one that began anew has nothing.
const LOOK: Duration = Duration::from_secs(1);

/// What a gateway without a configuration says of it (`WellKnownInitialHash` of KIC's `config_change_detector.go`).
const NONE: &str = "00000000000000000000000000000000";

/// A gateway that is started elsewhere.
pub(super) struct AdminApi {
    url: String,
    client: Client<HttpConnector, Full<axum::body::Bytes>>,
    /// What it has taken last.
    served: Option<String>,
}

impl AdminApi {
    pub(super) fn at(url: &str) -> anyhow::Result<Self> {
        if !url.starts_with("http://") {
            bail!("--kong-admin-url={url}: expected one that begins with http://; this controller speaks no TLS to it");
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client, served: None })
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(Full::from(body.to_owned()))?;
        let answer = self.client.request(request).await.with_context(|| format!("the Admin API at {}", self.url))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.context("an answer of the Admin API")?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn push(&self, configuration: &str) -> anyhow::Result<()> {
        let mut told = Instant::now();
        let (status, answer) = loop {
            match self.ask(Method::POST, "/config?check_hash=1&flatten_errors=1", configuration).await {
                Ok(answer) => break answer,
                Err(error) => {
                    if told.elapsed() >= PATIENCE {
                        tracing::warn!("still waiting for the gateway: {error:#}");
                        told = Instant::now();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let refusal = refusal(&answer);
        if refusal.0.is_empty() {
            bail!("the gateway answers {status}: {answer}");
        }
        Err(refusal.into())
    }

    /// Whether it serves nothing.
    async fn is_empty(&self) -> anyhow::Result<bool> {
        let (_, status) = self.ask(Method::GET, "/status", "").await?;
        Ok(status["configuration_hash"] == NONE)
    }
}

impl DataPlane for AdminApi {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        for configuration in files.values() {
            self.push(configuration).await?;
            self.served = Some(configuration.clone());
        }
        Ok(())
    }

    /// Its end is not this process's. While it is waited for, one that began anew is told again.
    async fn ended(&mut self) -> anyhow::Error {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(served) = &self.served
                && self.is_empty().await.unwrap_or_default()
                && let Err(error) = self.push(served).await
            {
                tracing::error!("the gateway does not take what it has served before: {error:#}");
            }
        }
    }

    async fn stop(&mut self) {}
}

/// The objects that an answer is about, as far as its entities tell of which they are (`parseFlatEntityErrors` of
/// `inmemory_error_handling.go`). One that serves several routes is told of once.
pub(super) fn refusal(answer: &Value) -> Refusal {
    let mut refused = Vec::new();
    for entity in answer["flattened_errors"].as_array().into_iter().flatten() {
        let tag = |what: &str| {
            let tags = entity["entity_tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let prefix = format!("k8s-{what}:");
            tags.filter_map(|tag| tag.strip_prefix(&prefix)).next().unwrap_or_default()
        };
        let known = [INGRESSES, PLUGINS, CLUSTER_PLUGINS, SERVICES, SECRETS];
        let kind: Option<Kind> = known.into_iter().find(|kind| (kind.kind, kind.group) == (tag("kind"), tag("group")));
        let Some(kind) = kind else {
            tracing::error!("the gateway refuses what is of no object: {entity}");
            continue;
        };
        for error in entity["errors"].as_array().into_iter().flatten() {
            let text = |field: &str| error[field].as_str().unwrap_or_default();
            let object = RefusedObject {
                kind,
                namespace: tag("namespace").to_owned(),
                name: tag("name").to_owned(),
                reason: APPLY_FAILED,
                message: format!("invalid {}: {}", text("field"), text("message")),
            };
            if !refused.contains(&object) {
                refused.push(object);
            }
        }
    }
    Refusal(refused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::super::gateway::tests::{Picky, behind};
    use super::*;

    fn files(routes: &Value, plugins: &Value) -> Files {
        let service = json!({"name": "s", "host": "10.0.0.1", "routes": routes});
        let configuration = json!({"_format_version": "3.0", "services": [service], "plugins": plugins});
        [(CONFIGURATION.into(), configuration.to_string())].into()
    }

    /// What comes of a test beside a gateway that is there a moment after it.
    async fn beside<T>(listener: TcpListener, nginx: &Picky, test: impl Future<Output = T>) -> T {
        tokio::select! {
            () = behind(listener, nginx.clone()) => unreachable!(),
            done = timeout(Duration::from_secs(10), test) => done.expect("within ten seconds"),
        }
    }

    #[tokio::test]
    async fn a_gateway_that_begins_anew_is_told_again() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (first, second) = (Picky::default(), Picky::default());
        let mut gateway = AdminApi::at(&format!("http://{address}/")).unwrap();
        let told = files(&json!([{"name": "a", "paths": ["/told"]}]), &json!([]));
        beside(listener, &first, gateway.apply(&told)).await.unwrap();
        let again = TcpListener::bind(address).await.unwrap();
        let until_told = async {
            tokio::select! {
                error = gateway.ended() => panic!("{error}"),
                conf = second.first() => conf,
            }
        };
        assert!(beside(again, &second, until_told).await.contains("/told"));
    }

    #[tokio::test]
    async fn what_is_refused_is_said_of_the_objects() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut gateway = AdminApi::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let tags = |kind: &str, group: &str, name: &str| {
            json!([
                format!("k8s-name:{name}"),
                "k8s-namespace:shop",
                format!("k8s-kind:{kind}"),
                format!("k8s-group:{group}")
            ])
        };
        let of_plugin = tags("KongPlugin", "configuration.konghq.com", "p");
        let plugin = |route: &str| json!({"name": "acl", "route": route, "tags": of_plugin});
        let routes = json!([
            {"name": "a", "hosts": ["a b"], "tags": tags("Ingress", "networking.k8s.io", "a")},
            {"name": "b", "hosts": ["b b"], "tags": tags("Strange", "", "b")},
        ]);
        let told = files(&routes, &json!([plugin("a"), plugin("b")]));
        let error = beside(listener, &Picky::default(), gateway.apply(&told)).await.unwrap_err();
        let Refusal(refused) = error.downcast_ref().expect("a refusal");
        let named: Vec<(&str, &str)> = refused.iter().map(|it| (it.kind.kind, it.name.as_str())).collect();
        assert_eq!(named, [("KongPlugin", "p"), ("Ingress", "a")]);
        assert_eq!(refused[1].message, "invalid hosts: invalid hostname: \"a b\"");
    }

    #[test]
    fn an_address_that_it_cannot_speak_to_is_refused() {
        assert!(
            AdminApi::at("https://127.0.0.1:8444").err().is_some_and(|it| it.to_string().contains("speaks no TLS"))
        );
    }
}
