//! Applications.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// An application at an address of its own.
pub struct App {
    pub address: SocketAddr,
    /// Requests, or connections for one that does not speak HTTP.
    pub count: Arc<AtomicUsize>,
    task: AbortHandle,
}

/// The port of the next one: below those that the kernel gives to proxies, whose own port is nobody's application on whatever address.
static NEXT: AtomicU16 = AtomicU16::new(20_001);

impl App {
    /// HTTP/1 and HTTP/2 by prior knowledge.
    pub async fn http<F, R>(handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handle(request)));
        Self::accept(move |stream, count| {
            let handler = Arc::clone(&handler);
            async move {
                let service = service_fn(move |request| {
                    count.fetch_add(1, Ordering::Relaxed);
                    let response = handler(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().auto_date_header(false);
                server.http2().auto_date_header(false).max_header_list_size(256 * 1024);
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Anything.
    pub async fn tcp<F, R>(handle: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::accept(move |stream, count| {
            count.fetch_add(1, Ordering::Relaxed);
            handle(stream)
        })
        .await
    }

    /// One that says its name, and what it was sent.
    pub async fn named(name: &'static str) -> Self {
        Self::http(move |request| async move {
            let mut head = format!("{name} {} {} {:?}\n", request.method(), request.uri(), request.version());
            for (key, value) in request.headers() {
                head.push_str(&format!("{key}: {}\n", value.to_str().unwrap()));
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            head.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
            text(200, head)
        })
        .await
    }

    /// One whose answers to `/later` take a permit each.
    pub async fn held() -> (Self, Arc<Semaphore>) {
        let answers = Arc::new(Semaphore::new(0));
        let awaited = Arc::clone(&answers);
        let app = Self::http(move |request| {
            let awaited = Arc::clone(&awaited);
            async move {
                if request.uri().path() == "/later" {
                    awaited.acquire().await.unwrap().forget();
                }
                text(200, "answered")
            }
        });
        (app.await, answers)
    }

    /// One that leaves its first request without an answer.
    pub async fn silent_at_first() -> Self {
        let asked = AtomicUsize::new(0);
        Self::http(move |_| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                text(200, "second")
            }
        })
        .await
    }

    async fn accept<F, R>(handle: F) -> Self
    where
        F: Fn(TcpStream, Arc<AtomicUsize>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = loop {
            let port = NEXT.fetch_add(1, Ordering::Relaxed);
            let [high, low] = port.to_be_bytes();
            // Somebody else's, if anybody's at all.
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::new(127, 1, high, low), port)).await {
                break listener;
            }
        };
        let address = listener.local_addr().unwrap();
        let count = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&count);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(handle(stream, Arc::clone(&counter)));
            }
        });
        Self { address, count, task: task.abort_handle() }
    }

    pub fn requests(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response with a body that is known.
pub fn text(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(Full::new(body.into()).boxed_unsync()).unwrap()
}

/// The first word of an answer of [`App::named`].
pub fn served_by(body: &str) -> &str {
    body.split(' ').next().unwrap_or_default()
}
