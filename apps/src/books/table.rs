//! A table in memory, of records with an id.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// A record: its columns by name, `id`, `created_at` and `updated_at` among them once it is stored.
pub(super) type Row = Map<String, Value>;

/// The records of one kind.
pub(super) struct Table {
    columns: &'static [&'static str],
    rows: Mutex<Rows>,
}

struct Rows {
    next: u64,
    by_id: BTreeMap<u64, Row>,
}

impl Table {
    /// A table of records with these columns, and what it holds at first. Ids are given from 1.
    pub fn new(columns: &'static [&'static str], seeds: impl IntoIterator<Item = Row>) -> Self {
        let table = Self { columns, rows: Mutex::new(Rows { next: 1, by_id: BTreeMap::new() }) };
        seeds.into_iter().for_each(|row| _ = table.insert(row));
        table
    }

    /// The columns that a client may write.
    pub fn columns(&self) -> &'static [&'static str] {
        self.columns
    }

    /// The records that a query asks for: every parameter that names a column is a filter, `order` names a column or
    /// `lower(column)`. What else a query says is ignored; without an order it is that of the ids.
    pub fn select(&self, query: &str) -> Vec<Row> {
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let known = |name: &str| name == "id" || self.columns.contains(&name);
        let filters: Vec<_> = parameters.iter().filter(|(name, _)| known(name)).collect();
        let fits = |row: &&Row| filters.iter().all(|(column, value)| text(row, column) == **value);
        let mut rows: Vec<Row> = self.rows.lock().by_id.values().filter(fits).cloned().collect();
        if let Some((_, order)) = parameters.iter().find(|(name, _)| name == "order") {
            let folded = order.strip_prefix("lower(").and_then(|column| column.strip_suffix(')'));
            match folded {
                Some(column) => rows.sort_by_key(|row| text(row, column).to_lowercase()),
                None => rows.sort_by_key(|row| (row.get(order.as_ref()).and_then(Value::as_u64), text(row, order))),
            }
        }
        rows
    }

    /// A record by its id.
    pub fn find(&self, id: u64) -> Option<Row> {
        self.rows.lock().by_id.get(&id).cloned()
    }

    /// Stores a new record, and says what is stored.
    pub fn insert(&self, mut row: Row) -> Row {
        let mut rows = self.rows.lock();
        let id = rows.next;
        rows.next += 1;
        let now = now();
        row.insert("id".to_owned(), id.into());
        row.insert("created_at".to_owned(), now.clone().into());
        row.insert("updated_at".to_owned(), now.into());
        rows.by_id.insert(id, row.clone());
        row
    }

    /// Puts another record in the place of one. None when that is gone meanwhile.
    pub fn replace(&self, id: u64, mut row: Row) -> Option<Row> {
        row.insert("updated_at".to_owned(), now().into());
        let mut rows = self.rows.lock();
        let stored = rows.by_id.get_mut(&id)?;
        stored.clone_from(&row);
        Some(row)
    }

    /// Takes a record out. Whether it was there.
    pub fn remove(&self, id: u64) -> bool {
        self.rows.lock().by_id.remove(&id).is_some()
    }
}

/// A column as a query or a page writes it; empty when there is none.
pub(super) fn text(row: &Row, column: &str) -> String {
    match row.get(column) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The time as Rails writes it, in milliseconds.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row =
            |title: &str, pages: u64| Row::from_iter([("title".into(), title.into()), ("pages".into(), pages.into())]);
        Table::new(&["title", "pages"], [row("Beta", 9), row("alpha", 10), row("Gamma", 9)])
    }

    fn titles(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|row| text(row, "title")).collect()
    }

    #[test]
    fn filters_are_columns_and_the_order_may_fold_case() {
        let table = table();
        assert_eq!(titles(&table.select("")), ["Beta", "alpha", "Gamma"]);
        assert_eq!(titles(&table.select("order=lower%28title%29")), ["alpha", "Beta", "Gamma"]);
        assert_eq!(titles(&table.select("order=pages")), ["Beta", "Gamma", "alpha"]);
        assert_eq!(titles(&table.select("pages=9&order=title")), ["Beta", "Gamma"]);
        assert_eq!(titles(&table.select("pages=9&title=Gamma&colour=red")), ["Gamma"]);
        assert_eq!(titles(&table.select("id=2")), ["alpha"]);
    }

    #[test]
    fn an_id_is_never_given_twice() {
        let table = table();
        assert!(table.remove(3));
        assert!(!table.remove(3));
        let stored = table.insert(Row::new());
        assert_eq!(stored["id"], 4);
        let time = stored["created_at"].as_str().unwrap();
        assert!(time.len() == "2026-01-02T03:04:05.678Z".len() && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert!(table.replace(3, Row::new()).is_none());
        assert!(table.replace(4, stored).is_some());
    }
}
