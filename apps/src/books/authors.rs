//! The service `authors`: who has written, and the known failure.

use std::io;

use tokio_util::sync::CancellationToken;

use super::client::{self, Service};
use super::rest::{Problems, Resource, Server, problem};
use super::table::{Row, Table, text};

pub use super::rest::Failing;

/// First and last names of the authors that are there at first; their ids are 1 to 10.
const AUTHORS: [(&str, &str); 10] = [
    ("Jane", "Austen"),
    ("Charlotte", "Bronte"),
    ("Anton", "Chekhov"),
    ("George", "Eliot"),
    ("Elizabeth", "Gaskell"),
    ("Henrik", "Ibsen"),
    ("Selma", "Lagerlof"),
    ("Mary", "Shelley"),
    ("Leo", "Tolstoy"),
    ("Virginia", "Woolf"),
];

/// The environment of the service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Port of the service
    #[arg(long, env = "PORT", default_value_t = 7001)]
    pub port: u16,
    /// The service of books, as a URL
    #[arg(long, env = "BOOKS_SITE")]
    pub books_site: String,
    /// The known failure
    #[command(flatten)]
    pub failing: Failing,
}

/// The service with its port bound.
pub struct Authors(Server<Resources>);

struct Resources {
    table: Table,
    books: Service,
}

impl Authors {
    /// Binds the port; 0 takes any.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let row = |(first, last): (&str, &str)| {
            Row::from_iter([("first_name".to_owned(), first.into()), ("last_name".to_owned(), last.into())])
        };
        let table = Table::new(&["first_name", "last_name"], AUTHORS.map(row));
        let resources = Resources { table, books: Service::new(&config.books_site) };
        Ok(Self(Server::bind(config.port, &config.failing, resources).await?))
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
    const NAME: &'static str = "authors";

    fn table(&self) -> &Table {
        &self.table
    }

    /// Both names are required, and no two authors have the same.
    async fn check(&self, row: &mut Row) -> Result<Problems, client::Error> {
        let mut problems = Problems::new();
        for column in self.table.columns() {
            if text(row, column).trim().is_empty() {
                problem(&mut problems, column, "can't be blank");
            }
        }
        let namesake = |known: &Row| {
            known.get("id") != row.get("id")
                && self.table.columns().iter().all(|name| text(known, name) == text(row, name))
        };
        if self.table.select("").iter().any(namesake) {
            problem(&mut problems, "last_name", "has already been taken");
        }
        Ok(problems)
    }

    /// An author's books go first, one by one.
    async fn release(&self, id: u64) -> Result<(), client::Error> {
        for book in self.books.list(&format!("/books.json?author_id={id}")).await? {
            self.books.delete(&format!("/books/{}.json", text(&book, "id"))).await?;
        }
        Ok(())
    }
}
