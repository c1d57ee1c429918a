//! Calls of one service by another: JSON over HTTP/1.1, over connections that are kept.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::table::Row;

/// Another service.
pub(super) struct Service {
    /// `http://authors:7001`.
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no such record.
    #[error("{0}: not found")]
    NotFound(String),
    /// The record was refused; what is wrong, by column.
    #[error("invalid: {}", sentences(.0))]
    Invalid(Row),
    /// The service answered something else, or nothing.
    #[error("{call}: {reason}")]
    Failed {
        /// What was called.
        call: String,
        /// What came of it.
        reason: String,
    },
}

impl Service {
    /// A service at `http://host:port`. Nothing is connected to before it is needed.
    pub fn new(base: &str) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { base, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// The records that a query asks for.
    pub async fn list(&self, path: &str) -> Result<Vec<Row>, Error> {
        let body = self.call(Method::GET, path, None).await?;
        self.read(Method::GET, path, &body)
    }

    /// One record.
    pub async fn find(&self, path: &str) -> Result<Row, Error> {
        let body = self.call(Method::GET, path, None).await?;
        self.read(Method::GET, path, &body)
    }

    /// Whether there is such a record.
    pub async fn exists(&self, path: &str) -> Result<bool, Error> {
        match self.call(Method::HEAD, path, None).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a record by POST or PUT; what is stored then.
    pub async fn write(&self, method: Method, path: &str, row: &Row) -> Result<Row, Error> {
        let body = self.call(method.clone(), path, Some(row)).await?;
        self.read(method, path, &body)
    }

    /// Deletes a record.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, row: Option<&Row>) -> Result<Bytes, Error> {
        let uri = format!("{}{path}", self.base);
        let failed = |reason: String| Error::Failed { call: format!("{method} {uri}"), reason };
        let body = match row {
            Some(row) => serde_json::to_vec(row).map_err(|error| failed(error.to_string()))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(&uri)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        match status {
            status if status.is_success() => Ok(body),
            StatusCode::NOT_FOUND => Err(Error::NotFound(format!("{method} {uri}"))),
            StatusCode::UNPROCESSABLE_ENTITY => Err(Error::Invalid(self.read(method.clone(), path, &body)?)),
            status => Err(failed(status.to_string())),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, method: Method, path: &str, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::Failed {
            call: format!("{method} {}{path}", self.base),
            reason: format!("expected JSON: {error}"),
        })
    }
}

/// `{"pages": ["is not a number"]}` as people read it: `Pages is not a number`.
fn sentences(errors: &Row) -> String {
    let sentence = |(column, messages): (&String, &serde_json::Value)| {
        let mut name = column.trim_end_matches("_id").replace('_', " ");
        name.get_mut(..1).map(str::make_ascii_uppercase);
        let messages: Vec<&str> = messages.as_array().into_iter().flatten().filter_map(|text| text.as_str()).collect();
        format!("{name} {}", messages.join(", "))
    };
    errors.iter().map(sentence).collect::<Vec<_>>().join("; ")
}
