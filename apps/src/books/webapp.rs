//! The front end: pages, and forms that end in a redirect.

use std::io;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::client::{Error, Service};
use super::page;
use super::table::{Row, text};
use crate::serve::{self, Body, Http};

const HTML: &str = "text/html;charset=utf-8";

/// The longest form that is read.
const FORM_BYTES: usize = 64 * 1024;

/// The cookie that carries a notice from a form to the next page.
const SESSION: &str = "rack.session";

/// The last name of the author that the traffic generator makes, and leaves behind when it is stopped.
const LEFT_BEHIND: &str = "Cline";

/// The environment of the front end.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the front end
    #[arg(long, env = "PORT", default_value_t = 7000)]
    pub port: u16,
    /// The service of authors, as a URL
    #[arg(long, env = "AUTHORS_SITE")]
    pub authors_site: String,
    /// The service of books, as a URL
    #[arg(long, env = "BOOKS_SITE")]
    pub books_site: String,
}

/// The front end with its port bound.
pub struct Webapp {
    listener: TcpListener,
    app: Arc<App>,
}

struct App {
    authors: Service,
    books: Service,
}

/// What a request comes to.
enum Reply {
    Page {
        title: String,
        content: String,
    },
    /// To a path of the front end, with a notice for the page there.
    Redirect {
        path: String,
        notice: String,
    },
    NoContent,
    Pong,
    NotFound,
}

impl Webapp {
    /// Binds the port; 0 takes any. The services are connected to when they are first needed.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let app = App { authors: Service::new(&config.authors_site), books: Service::new(&config.books_site) };
        Ok(Self { listener: serve::bind(config.port).await?, app: Arc::new(app) })
    }

    /// The port of the front end.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(port = self.port()?, "webapp is ready");
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
        let (parts, body) = request.into_parts();
        // A form that breaks off, or is too long, is an empty one: what is missing in it is said then.
        let form = Limited::new(body, FORM_BYTES).collect().await.map(|form| form.to_bytes()).unwrap_or_default();
        let reply = match self.reply(&parts, &form).await {
            Err(Error::NotFound(_)) => Ok(redirect("/", "Not found")),
            other => other,
        };
        match reply {
            Ok(reply) => response(reply, &parts),
            Err(error) => {
                tracing::info!(path = parts.uri.path(), %error, "a request failed, because of another service");
                serve::text(StatusCode::INTERNAL_SERVER_ERROR, HTML, "<h1>Internal Server Error</h1>")
            }
        }
    }

    async fn reply(&self, parts: &Parts, form: &Bytes) -> Result<Reply, Error> {
        let segments: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        let method = if parts.method == Method::HEAD { "GET" } else { parts.method.as_str() };
        match (method, segments.as_slice()) {
            ("GET", [""]) => self.index().await,
            ("GET", ["ping"]) => Ok(Reply::Pong),
            ("GET", ["reset"]) => self.reset().await,
            ("GET", ["authors", id]) => self.author(id).await,
            ("GET", ["authors", id, "edit"]) => {
                let author = self.authors.find(&format!("/authors/{id}.json")).await?;
                let content = page::author_form(&format!("/authors/{id}/edit"), Some(&author));
                Ok(Reply::Page { title: page::name(&author), content })
            }
            ("POST", ["authors"]) => create(&self.authors, "authors", form).await,
            ("POST", ["authors", id, "edit"]) => update(&self.authors, "authors", id, form).await,
            ("POST", ["authors", id, "delete"]) => delete(&self.authors, "authors", id).await,
            ("GET", ["books", id]) => self.book(id).await,
            ("GET", ["books", id, "edit"]) => {
                let book = self.books.find(&format!("/books/{id}.json")).await?;
                let authors = self.all_authors().await?;
                let content = page::book_form(&format!("/books/{id}/edit"), Some(&book), &authors);
                Ok(Reply::Page { title: text(&book, "title"), content })
            }
            ("POST", ["books"]) => create(&self.books, "books", form).await,
            ("POST", ["books", id, "edit"]) => update(&self.books, "books", id, form).await,
            ("POST", ["books", id, "delete"]) => delete(&self.books, "books", id).await,
            _ => Ok(Reply::NotFound),
        }
    }

    async fn index(&self) -> Result<Reply, Error> {
        let books = self.books.list("/books.json?order=lower(title)").await?;
        let authors = self.all_authors().await?;
        Ok(Reply::Page { title: "Books".to_owned(), content: page::index(&books, &authors) })
    }

    async fn author(&self, id: &str) -> Result<Reply, Error> {
        let author = self.authors.find(&format!("/authors/{id}.json")).await?;
        let books =
            self.books.list(&format!("/books.json?author_id={}&order=lower(title)", text(&author, "id"))).await?;
        Ok(Reply::Page { title: page::name(&author), content: page::author(&author, &books) })
    }

    async fn book(&self, id: &str) -> Result<Reply, Error> {
        let book = self.books.find(&format!("/books/{id}.json")).await?;
        let author = self.authors.find(&format!("/authors/{}.json", text(&book, "author_id"))).await?;
        Ok(Reply::Page { title: text(&book, "title"), content: page::book(&book, &author) })
    }

    async fn reset(&self) -> Result<Reply, Error> {
        for author in self.authors.list(&format!("/authors.json?last_name={LEFT_BEHIND}")).await? {
            self.authors.delete(&format!("/authors/{}.json", text(&author, "id"))).await?;
        }
        Ok(Reply::NoContent)
    }

    async fn all_authors(&self) -> Result<Vec<Row>, Error> {
        self.authors.list("/authors.json?order=lower(last_name)").await
    }
}

async fn create(service: &Service, kind: &str, form: &Bytes) -> Result<Reply, Error> {
    match service.write(Method::POST, &format!("/{kind}.json"), &fields(form)).await {
        Ok(stored) => Ok(redirect(&format!("/{kind}/{}", text(&stored, "id")), "Created")),
        Err(error @ Error::Invalid(_)) => Ok(redirect("/", &format!("Create failed, {error}"))),
        Err(error) => Err(error),
    }
}

async fn update(service: &Service, kind: &str, id: &str, form: &Bytes) -> Result<Reply, Error> {
    let path = format!("/{kind}/{id}.json");
    let mut row = service.find(&path).await?;
    row.extend(fields(form));
    let notice = match service.write(Method::PUT, &path, &row).await {
        Ok(_) => "Updated".to_owned(),
        Err(error @ Error::Invalid(_)) => format!("Update failed, {error}"),
        Err(error) => return Err(error),
    };
    Ok(redirect(&format!("/{kind}/{id}"), &notice))
}

async fn delete(service: &Service, kind: &str, id: &str) -> Result<Reply, Error> {
    service.delete(&format!("/{kind}/{id}.json")).await?;
    Ok(redirect("/", "Deleted"))
}

fn fields(form: &Bytes) -> Row {
    form_urlencoded::parse(form).map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect()
}

fn redirect(path: &str, notice: &str) -> Reply {
    Reply::Redirect { path: path.to_owned(), notice: notice.to_owned() }
}

fn response(reply: Reply, parts: &Parts) -> Response<Body> {
    match reply {
        Reply::Page { title, content } => {
            let notice = notice(parts);
            let mut response = serve::text(StatusCode::OK, HTML, page::page(&title, notice.as_deref(), &content));
            if notice.is_some() {
                // Once is enough.
                set_cookie(&mut response, "", "; max-age=0");
            }
            response
        }
        Reply::Redirect { path, notice } => {
            let mut response = serve::text(StatusCode::SEE_OTHER, HTML, "");
            let location = format!("{}://{}{path}", scheme(parts), authority(parts));
            match HeaderValue::try_from(location) {
                Ok(location) => {
                    response.headers_mut().insert(header::LOCATION, location);
                    set_cookie(&mut response, &notice, "");
                    response
                }
                Err(_) => serve::text(StatusCode::BAD_REQUEST, HTML, "<h1>Bad Request</h1>"),
            }
        }
        Reply::NoContent => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Reply::Pong => serve::text(StatusCode::OK, "text/plain", "pong"),
        Reply::NotFound => serve::text(StatusCode::NOT_FOUND, HTML, "<h1>Not Found</h1>"),
    }
}

/// The Host that arrived, port included. (Upstream would let `X-Forwarded-Host` go before it, which hides what an ingress does
/// to the Host.)
fn authority(parts: &Parts) -> &str {
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(http::uri::Authority::as_str).or(header).unwrap_or("localhost")
}

/// How the client came, by the word of who ended its TLS.
fn scheme(parts: &Parts) -> &'static str {
    match parts.headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok()) {
        Some("https") => "https",
        _ => "http",
    }
}

fn notice(parts: &Parts) -> Option<String> {
    let cookies = parts.headers.get_all(header::COOKIE).into_iter().filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies.flat_map(|cookie| cookie.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, value)| *name == SESSION && !value.is_empty())?;
    let (notice, _) = form_urlencoded::parse(value.as_bytes()).next()?;
    Some(notice.into_owned())
}

fn set_cookie(response: &mut Response<Body>, notice: &str, further: &str) {
    let value: String = form_urlencoded::byte_serialize(notice.as_bytes()).collect();
    if let Ok(cookie) = HeaderValue::try_from(format!("{SESSION}={value}; path=/; HttpOnly{further}")) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}
