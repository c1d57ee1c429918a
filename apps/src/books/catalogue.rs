//! The service `books`: what has been written, each by an author who exists.

use std::io;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::client::{self, Service};
use super::rest::{Failing, Problems, Resource, Server, problem};
use super::table::{Row, Table, text};

/// Title, pages and the author's id of the books that are there at first; their ids are 1 to 15.
const BOOKS: [(&str, u64, u64); 15] = [
    ("Emma", 474, 1),
    ("Persuasion", 249, 1),
    ("Villette", 573, 2),
    ("Jane Eyre", 532, 2),
    ("The Cherry Orchard", 96, 3),
    ("Middlemarch", 880, 4),
    ("Silas Marner", 244, 4),
    ("North and South", 521, 5),
    ("A Doll's House", 88, 6),
    ("Peer Gynt", 176, 6),
    ("Gösta Berling's Saga", 408, 7),
    ("Frankenstein", 280, 8),
    ("Anna Karenina", 864, 9),
    ("Mrs Dalloway", 194, 10),
    ("To the Lighthouse", 209, 10),
];

/// The environment of the service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the service
    #[arg(long, env = "PORT", default_value_t = 7002)]
    pub port: u16,
    /// The service of authors, as a URL
    #[arg(long, env = "AUTHORS_SITE")]
    pub authors_site: String,
}

/// The service with its port bound.
pub struct Catalogue(Server<Resources>);

struct Resources {
    table: Table,
    authors: Service,
}

impl Catalogue {
    /// Binds the port; 0 takes any.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let row = |(title, pages, author): (&str, u64, u64)| {
            Row::from_iter([
                ("title".to_owned(), title.into()),
                ("pages".to_owned(), pages.into()),
                ("author_id".to_owned(), author.into()),
            ])
        };
        let table = Table::new(&["title", "pages", "author_id"], BOOKS.map(row));
        let resources = Resources { table, authors: Service::new(&config.authors_site) };
        Ok(Self(Server::bind(config.port, &Failing::default(), resources).await?))
    }

    /// The port of the service.
    pub fn port(&self) -> io::Result<u16> {
        self.0.port()
    }

    /// Serves until `shutdown`, then until what is in flight is answered.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        self.0.serve(shutdown).await
    }
}

impl Resource for Resources {
    const NAME: &'static str = "books";

    fn table(&self) -> &Table {
        &self.table
    }

    /// A title, pages above 0, and an author whom the service of authors knows. That is asked every time, whatever else is wrong.
    async fn check(&self, row: &mut Row) -> Result<Problems, client::Error> {
        let mut problems = Problems::new();
        if text(row, "title").trim().is_empty() {
            problem(&mut problems, "title", "can't be blank");
        }
        match text(row, "pages").trim().parse::<i64>() {
            Ok(pages) if pages > 0 => _ = row.insert("pages".to_owned(), pages.into()),
            Ok(_) => problem(&mut problems, "pages", "must be greater than 0"),
            Err(_) => problem(&mut problems, "pages", "is not a number"),
        }
        // Forms bring text.
        let author: Option<u64> = text(row, "author_id").trim().parse().ok();
        row.insert("author_id".to_owned(), author.map_or(Value::Null, Value::from));
        let exists = match author {
            Some(author) => self.authors.exists(&format!("/authors/{author}.json")).await?,
            None => false,
        };
        if !exists {
            problem(&mut problems, "author_id", "does not exist");
        }
        Ok(problems)
    }

    async fn release(&self, _: u64) -> Result<(), client::Error> {
        Ok(())
    }
}
