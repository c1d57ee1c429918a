//! The services over real sockets, against the facts of the wire.

use std::num::NonZeroU64;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::authors::{self, Authors, Failing};
use super::catalogue::{self, Catalogue};
use super::traffic;
use super::webapp::{self, Webapp};
use crate::probe::{self, Record, Request};

/// All three services, running.
struct World {
    webapp: String,
    authors: String,
    books: String,
    _tasks: Vec<AbortOnDropHandle<std::io::Result<()>>>,
}

async fn start(fail_every: Option<u64>) -> World {
    let local = |port: u16| format!("127.0.0.1:{port}");
    // authors and books need each other's address, so the port of one is found first; somebody may be quicker to take it.
    let (books, authors_service, books_service) = loop {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failing = Failing { fail_every: fail_every.and_then(NonZeroU64::new), ..Failing::default() };
        let config = authors::Config { port: 0, books_site: format!("http://{}", local(free)), failing };
        let authors = Authors::bind(&config).await.unwrap();
        let authors_site = format!("http://{}", local(authors.port().unwrap()));
        if let Ok(books) = Catalogue::bind(&catalogue::Config { port: free, authors_site }).await {
            break (local(books.port().unwrap()), authors, books);
        }
    };
    let authors = local(authors_service.port().unwrap());
    let (authors_site, books_site) = (format!("http://{authors}/"), format!("http://{books}"));
    let webapp_service = Webapp::bind(&webapp::Config { port: 0, authors_site, books_site }).await.unwrap();
    let webapp = local(webapp_service.port().unwrap());
    let shutdown = CancellationToken::new();
    let tasks = vec![
        AbortOnDropHandle::new(tokio::spawn(authors_service.serve(shutdown.clone()))),
        AbortOnDropHandle::new(tokio::spawn(books_service.serve(shutdown.clone()))),
        AbortOnDropHandle::new(tokio::spawn(webapp_service.serve(shutdown))),
    ];
    World { webapp, authors, books, _tasks: tasks }
}

async fn get(target: &str, path: &str) -> Record {
    probe::send(&Request::get(target, path), None).await
}

async fn send(target: &str, method: &str, path: &str, body: &Value) -> Record {
    probe::send(&Request::get(target, path).body(method, body.to_string()), None).await
}

async fn form(target: &str, path: &str, fields: &str) -> Record {
    let request = Request::get(target, path).host("books.test:8080").body("POST", fields);
    probe::send(&request.header("Content-Type", "application/x-www-form-urlencoded"), None).await
}

fn location(record: &Record) -> &str {
    record.header("location").next().unwrap_or_default()
}

#[tokio::test]
async fn a_resource_answers_as_rails_does() {
    let world = start(None).await;
    let list: Vec<Value> = serde_json::from_str(&get(&world.books, "/books.json").await.body).unwrap();
    assert_eq!(list.len(), 15);
    let list = get(&world.authors, "/authors.json?order=lower(last_name)").await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&list.body).unwrap().len(), 10);

    let made =
        send(&world.books, "POST", "/books.json", &json!({"title": "T", "pages": "345", "author_id": "1"})).await;
    assert!(made.is(201) && location(&made) == "/books/16.json", "{} {}", made.outcome(), location(&made));
    let book: Value = serde_json::from_str(&made.body).unwrap();
    assert_eq!((&book["pages"], &book["author_id"]), (&json!(345), &json!(1)), "text of a form becomes numbers");

    let wrong = send(&world.books, "POST", "/books.json", &json!({"pages": "many", "author_id": 99})).await;
    assert!(wrong.is(422), "{}", wrong.outcome());
    let errors = json!({"title": ["can't be blank"], "pages": ["is not a number"], "author_id": ["does not exist"]});
    assert_eq!(serde_json::from_str::<Value>(&wrong.body).unwrap(), errors);
    let wrong =
        send(&world.authors, "POST", "/authors.json", &json!({"first_name": "Jane", "last_name": "Austen"})).await;
    assert!(wrong.is(422) && wrong.body.contains("has already been taken"), "{}", wrong.body);
    assert!(send(&world.authors, "POST", "/authors.json", &json!("Jane")).await.is(400));

    let changed = send(&world.books, "PUT", "/books/16.json", &json!({"title": "U", "id": 3})).await;
    let book: Value = serde_json::from_str(&changed.body).unwrap();
    assert!(changed.is(200) && book["title"] == "U" && book["id"] == 16 && book["pages"] == 345, "{book}");
    for (method, path) in [("GET", "/books/99.json"), ("GET", "/books/x.json"), ("PUT", "/books/99.json"), ("GET", "/")]
    {
        assert!(send(&world.books, method, path, &json!({})).await.is(404), "{method} {path}");
    }
    let head =
        probe::send(&Request { method: "HEAD".into(), ..Request::get(&world.books, "/books/16.json") }, None).await;
    let length: usize = head.header("content-length").next().unwrap().parse().unwrap();
    assert!(head.is(200) && head.body.is_empty() && length > 50, "{} {length}", head.outcome());
    assert!(send(&world.books, "DELETE", "/books/16.json", &json!({})).await.is(204));
    assert!(get(&world.books, "/books/16.json").await.is(404));
    assert_eq!(get(&world.books, "/ping").await.body, "pong");
}

#[tokio::test]
async fn forms_end_in_absolute_redirects_with_the_host_that_arrived() {
    let world = start(None).await;
    let made = form(&world.webapp, "/authors", "first_name=Ernest&last_name=Cline").await;
    assert!(made.is(303), "{}", made.outcome());
    assert_eq!(location(&made), "http://books.test:8080/authors/11");
    let made = form(&world.webapp, "/books", "title=A+%3Cb%3E&author_id=11&pages=345").await;
    assert_eq!(location(&made), "http://books.test:8080/books/16");
    let page = get(&world.webapp, "/books/16").await;
    assert!(page.is(200) && page.body.contains("A &lt;b&gt;") && page.body.contains("Ernest Cline"), "{}", page.body);
    assert_eq!(page.header("content-type").collect::<Vec<_>>(), ["text/html;charset=utf-8"]);
    let edited = form(&world.webapp, "/books/16/edit", "title=Other&author_id=11&pages=7").await;
    assert_eq!(location(&edited), "http://books.test:8080/books/16");
    for path in ["/", "/authors/11", "/books/16/edit", "/authors/11/edit"] {
        let page = get(&world.webapp, path).await;
        assert!(page.is(200) && (page.body.contains("Other") || path == "/authors/11/edit"), "{path}: {}", page.body);
    }
    let secure = Request::get(&world.webapp, "/books/99").host("b.test").header("X-Forwarded-Proto", "https");
    let record = probe::send(&secure, None).await;
    assert!(record.is(303) && location(&record) == "https://b.test/", "{} {}", record.outcome(), location(&record));
}

#[tokio::test]
async fn what_is_wrong_is_said_once_on_the_next_page() {
    let world = start(None).await;
    let wrong = form(&world.webapp, "/books", "title=T&author_id=1&pages=none").await;
    assert_eq!(location(&wrong), "http://books.test:8080/");
    let cookie = wrong.header("set-cookie").next().unwrap().split(';').next().unwrap().to_owned();
    let page = probe::send(&Request::get(&world.webapp, "/").header("Cookie", cookie), None).await;
    assert!(page.body.contains("Create failed, invalid: Pages is not a number"), "{}", page.body);
    assert!(page.header("set-cookie").next().unwrap().contains("max-age=0"));
    assert!(!get(&world.webapp, "/").await.body.contains("Create failed"));
}

#[tokio::test]
async fn half_of_the_new_books_fail_because_authors_answers_head_with_503() {
    let world = start(Some(2)).await;
    let statuses = async |path: &str, fields: &str| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(form(&world.webapp, path, fields).await.outcome());
        }
        statuses
    };
    assert_eq!(statuses("/books", "title=T&author_id=1&pages=9").await, ["303", "500", "303", "500"]);
    assert_eq!(statuses("/books/1/edit", "title=T&author_id=1&pages=9").await, ["303", "500", "303", "500"]);
    let pages = get(&world.webapp, "/").await;
    assert!(pages.is(200), "only HEAD fails: {}", pages.outcome());
    assert!(form(&world.webapp, "/authors", "first_name=A&last_name=B").await.is(303));
}

#[tokio::test]
async fn an_authors_books_go_with_the_author() {
    let world = start(None).await;
    assert!(get(&world.books, "/books/1.json").await.is(200));
    let gone = form(&world.webapp, "/authors/1/delete", "").await;
    assert_eq!((gone.status, location(&gone)), (Some(303), "http://books.test:8080/"));
    assert_eq!(get(&world.books, "/books.json?author_id=1").await.body.trim(), "[]");
    assert!(get(&world.authors, "/authors/1.json").await.is(404));
    assert!(get(&world.books, "/books/3.json").await.is(200), "another author's book stays");
}

#[tokio::test]
async fn traffic_makes_and_deletes_over_and_over() {
    let world = start(Some(2)).await;
    assert!(get(&world.webapp, "/reset").await.is(204));
    let config = traffic::Config { initial_delay: Duration::ZERO, sleep: Duration::ZERO, target: world.webapp.clone() };
    let shutdown = CancellationToken::new();
    let generating = tokio::spawn(traffic::run(config, shutdown.clone()));
    let clines = format!("/authors.json?last_name={}", "Cline");
    let third = async {
        loop {
            let list: Vec<Value> = serde_json::from_str(&get(&world.authors, &clines).await.body).unwrap();
            assert!(list.len() <= 1, "one after the other: {list:?}");
            if list.iter().any(|author| author["id"].as_u64() >= Some(13)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), third).await.expect("three rounds");
    shutdown.cancel();
    generating.await.unwrap().unwrap();
}
