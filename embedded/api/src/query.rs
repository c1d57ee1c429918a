//! Query strings.

use std::str::FromStr;

use meshgate_store::{Selectors, Status};

/// The decoded query of a request. Empty pairs are skipped: kube-rs begins its queries with `&`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part after the `?`.
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            form_urlencoded::parse(query.as_bytes())
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first value of a key that is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a key, in order.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether the key is there at all, with or without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// A boolean as Go reads it; a key without a value, and any value but `false` and `0`, is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(name, _)| name == key).is_some_and(|(_, value)| value != "false" && value != "0")
    }

    /// A number; 400 when it is something else.
    pub(crate) fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, Status> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("invalid value {text:?} for the query parameter {key:?}: expected a number"))
        })
    }

    /// The selectors of a list, watch or deletecollection.
    pub(crate) fn selectors(&self) -> Selectors {
        let text = |key| self.get(key).unwrap_or_default().to_owned();
        Selectors { labels: text("labelSelector"), fields: text("fieldSelector") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pairs_are_skipped_and_values_decoded() {
        let query = Query::parse("&limit=500&labelSelector=owner%21%3Dhelm&command=a&command=b+c&watch&stdin=false");
        assert_eq!(query.number::<usize>("limit").unwrap(), Some(500));
        assert_eq!(query.selectors().labels, "owner!=helm");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b c"]);
        assert!(query.flag("watch"));
        assert!(!query.flag("stdin"));
        assert!(!query.flag("tty"));
    }

    #[test]
    fn a_number_that_is_none_is_a_bad_request() {
        assert_eq!(Query::parse("limit=many").number::<usize>("limit").unwrap_err().code, 400);
    }
}
