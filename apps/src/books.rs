//! books, compatible on the wire with booksapp v0.0.5: ports, environment, paths, answers and the known failure.
//!
//! ```text
//! traffic ──> webapp ──> books ───HEAD /authors/{id}.json──> authors ──┐   the author of a new book must exist
//!               └──────> authors ──GET, DELETE──> books                └── 503 for a share of the HEAD requests
//! ```
//!
//! [`webapp`] shows pages and takes forms; [`authors`] and [`catalogue`] (the service `books`) are JSON over a table in
//! memory ([`table`], [`rest`]) and call each other: an author's books go with the author, which is a cycle of services and
//! not a loop of requests. With a failure rate, `authors` answers so many `HEAD` requests with 503; so half of all new books
//! end in a 500 of the front end, and the reason is two services away. What is random upstream can be made to repeat, as in
//! [`emojivoto`](crate::emojivoto).

pub mod authors;
pub mod catalogue;
mod client;
mod page;
mod rest;
mod table;
pub mod traffic;
pub mod webapp;

#[cfg(test)]
mod tests;
