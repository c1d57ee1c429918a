//! The pages of the front end, as HTML.

use super::table::{Row, text};

/// A page around its content, with what the last request had to say.
pub(super) fn page(title: &str, notice: Option<&str>, content: &str) -> String {
    let notice = notice.map(|notice| format!("<p class=\"flash\">{}</p>\n", escaped(notice))).unwrap_or_default();
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"UTF-8\">\n<title>{}</title>\n</head>\n<body>\n\
         <h1><a href=\"/\">Books</a></h1>\n{notice}{content}</body>\n</html>\n",
        escaped(title)
    )
}

/// All books and all authors, with the forms for more of both.
pub(super) fn index(books: &[Row], authors: &[Row]) -> String {
    format!(
        "<h2>Books</h2>\n{}{}<h2>Authors</h2>\n{}{}",
        books_list(books, authors),
        book_form("/books", None, authors),
        list(authors.iter().map(|author| link("authors", author, &name(author)))),
        author_form("/authors", None),
    )
}

/// An author and the books.
pub(super) fn author(author: &Row, books: &[Row]) -> String {
    format!(
        "<h2>{}</h2>\n{}{}",
        escaped(&name(author)),
        books_list(books, std::slice::from_ref(author)),
        controls("authors", author)
    )
}

/// A book and its author.
pub(super) fn book(book: &Row, author: &Row) -> String {
    format!(
        "<h2>{}</h2>\n<p>by {}, {} pages</p>\n{}",
        escaped(&text(book, "title")),
        link("authors", author, &name(author)),
        escaped(&text(book, "pages")),
        controls("books", book)
    )
}

/// The form of a new author, or of one that is there.
pub(super) fn author_form(action: &str, author: Option<&Row>) -> String {
    form(action, &format!("{}{}", field("first_name", author), field("last_name", author)))
}

/// The form of a new book, or of one that is there.
pub(super) fn book_form(action: &str, book: Option<&Row>, authors: &[Row]) -> String {
    let chosen = book.map(|book| text(book, "author_id"));
    let option = |author: &Row| {
        let id = text(author, "id");
        let selected = if chosen.as_deref() == Some(&id) { " selected" } else { "" };
        format!("<option value=\"{}\"{selected}>{}</option>\n", escaped(&id), escaped(&name(author)))
    };
    let options: String = authors.iter().map(option).collect();
    let select = format!("<select name=\"author_id\">\n{options}</select>\n");
    form(action, &format!("{}{}{select}", field("title", book), field("pages", book)))
}

fn books_list(books: &[Row], authors: &[Row]) -> String {
    let line = |book: &Row| {
        let by = authors.iter().find(|author| author.get("id") == book.get("author_id"));
        let by = by.map(|author| format!(" by {}", link("authors", author, &name(author)))).unwrap_or_default();
        format!("{}{by}", link("books", book, &text(book, "title")))
    };
    list(books.iter().map(line))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn link(kind: &str, row: &Row, label: &str) -> String {
    format!("<a href=\"/{kind}/{}\">{}</a>", escaped(&text(row, "id")), escaped(label))
}

fn controls(kind: &str, row: &Row) -> String {
    let path = format!("/{kind}/{}", text(row, "id"));
    format!(
        "<p><a href=\"{path}/edit\">Edit</a></p>\n<form method=\"post\" action=\"{path}/delete\">\n<input type=\"submit\" value=\"Delete\">\n</form>\n"
    )
}

fn form(action: &str, fields: &str) -> String {
    format!("<form method=\"post\" action=\"{action}\">\n{fields}<input type=\"submit\" value=\"Save\">\n</form>\n")
}

fn field(column: &str, row: Option<&Row>) -> String {
    let value = row.map(|row| text(row, column)).unwrap_or_default();
    format!("<input type=\"text\" name=\"{column}\" placeholder=\"{column}\" value=\"{}\">\n", escaped(&value))
}

/// An author's whole name.
pub(super) fn name(author: &Row) -> String {
    format!("{} {}", text(author, "first_name"), text(author, "last_name"))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
