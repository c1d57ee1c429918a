//! Which of a profile's routes a request is for: the first whose condition holds.
//!
//! A request costs about the same whether there are ten routes or a thousand: beyond a few, all paths are looked for at once, and
//! only the routes whose path is there are asked for the rest of their condition.

use http::Method;
use linkerd2_proxy_api::destination::{self as api, request_match::Match};
use regex::{Regex, RegexSet, RegexSetBuilder};
use tracing::warn;

/// Up to so many paths are quicker to look for one by one: 60 ns for one, 400 for ten, where all at once take 300.
const FEW: usize = 8;

/// As much as the automaton of all paths may take; 1,000 plain paths take some 7 MB.
const SIZE_LIMIT: usize = 128 << 20;

/// Routes of type `R`, in order.
pub(super) struct Table<R> {
    routes: Vec<(Condition, R)>,
    paths: Paths,
    /// The routes that need a path, by the path; by their index, lowest first.
    by_path: Vec<Vec<usize>>,
    /// The others.
    anywhere: Vec<usize>,
}

enum Paths {
    Few(Vec<Regex>),
    Many(RegexSet),
}

/// What a request must be; paths are indices of the table's.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Path(usize),
    Method(Method),
}

/// Makes a table: conditions first, which collect their paths.
#[derive(Default)]
pub(super) struct Builder {
    paths: Vec<String>,
}

impl Builder {
    /// # Errors
    /// Why the condition can be of no route.
    pub(super) fn condition(&mut self, api: &api::RequestMatch) -> Result<Condition, String> {
        let mut all = |matches: &[api::RequestMatch]| -> Result<Vec<_>, String> {
            matches.iter().map(|one| self.condition(one)).collect()
        };
        Ok(match api.r#match.as_ref().ok_or("its condition is empty")? {
            Match::All(seq) => Condition::All(all(&seq.matches)?),
            Match::Any(seq) => Condition::Any(all(&seq.matches)?),
            Match::Not(not) => Condition::Not(Box::new(self.condition(not)?)),
            Match::Path(path) => Condition::Path(self.path(&path.regex)?),
            Match::Method(method) => {
                Condition::Method(Method::try_from(method.clone()).map_err(|error| error.to_string())?)
            }
        })
    }

    fn path(&mut self, regex: &str) -> Result<usize, String> {
        let pattern = anchored(regex);
        if let Some(known) = self.paths.iter().position(|path| *path == pattern) {
            return Ok(known);
        }
        // By itself, so that of a thousand the one that is wrong is found.
        Regex::new(&pattern).map_err(|error| error.to_string())?;
        self.paths.push(pattern);
        Ok(self.paths.len() - 1)
    }

    pub(super) fn build<R>(self, routes: Vec<(Condition, R)>) -> Table<R> {
        let paths = Paths::of(&self.paths);
        let mut by_path = vec![Vec::new(); self.paths.len()];
        let mut anywhere = Vec::new();
        for (index, (condition, _)) in routes.iter().enumerate() {
            match condition.path() {
                Some(path) => by_path[path].push(index),
                None => anywhere.push(index),
            }
        }
        Table { routes, paths, by_path, anywhere }
    }
}

impl Paths {
    fn of(patterns: &[String]) -> Self {
        if patterns.len() > FEW {
            match RegexSetBuilder::new(patterns).size_limit(SIZE_LIMIT).build() {
                Ok(set) => return Self::Many(set),
                Err(error) => warn!(%error, "paths of a ServiceProfile are looked for one by one, which takes longer"),
            }
        }
        // Each of them has been compiled before.
        Self::Few(patterns.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect())
    }
}

impl<R> Table<R> {
    /// The first route for a request.
    pub(super) fn route(&self, method: &Method, path: &str) -> Option<&R> {
        let index = match &self.paths {
            Paths::Few(paths) => {
                let is = |index: usize| paths.get(index).is_some_and(|regex| regex.is_match(path));
                self.routes.iter().position(|(condition, _)| condition.holds(method, &is))
            }
            Paths::Many(set) => {
                let found = set.matches(path);
                let is = |index| found.matched(index);
                let holds = |index: &usize| self.routes[*index].0.holds(method, &is);
                let of_path = found.iter().flat_map(|path| self.by_path[path].iter().copied().find(holds));
                let elsewhere = self.anywhere.iter().copied().find(holds);
                of_path.chain(elsewhere).min()
            }
        };
        index.map(|index| &self.routes[index].1)
    }
}

impl Condition {
    fn holds(&self, method: &Method, path: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(method, path)),
            Self::Any(any) => any.iter().any(|one| one.holds(method, path)),
            Self::Not(not) => !not.holds(method, path),
            Self::Path(index) => path(*index),
            Self::Method(expected) => expected == method,
        }
    }

    /// A path without which it does not hold.
    fn path(&self) -> Option<usize> {
        match self {
            Self::Path(index) => Some(*index),
            Self::All(all) => all.iter().find_map(Self::path),
            Self::Any(_) | Self::Not(_) | Self::Method(_) => None,
        }
    }
}

/// Paths match as a whole.
pub(super) fn anchored(regex: &str) -> String {
    let start = if regex.starts_with('^') { "" } else { "^" };
    let end = if regex.ends_with('$') { "" } else { "$" };
    format!("{start}{regex}{end}")
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::destination::{PathMatch, request_match::Seq};
    use proptest::prelude::*;

    use super::*;

    fn api(one: Match) -> api::RequestMatch {
        api::RequestMatch { r#match: Some(one) }
    }

    fn condition() -> impl Strategy<Value = api::RequestMatch> {
        let path = prop::sample::select(vec!["/", "/a", "/[ab]", "/a/[^/]*", "/a/b|/b", ".*b", "/a/.*"]);
        let method = prop::sample::select(vec![Method::GET, Method::POST]);
        let leaf = prop_oneof![
            path.prop_map(|regex| api(Match::Path(PathMatch { regex: regex.to_owned() }))),
            method.prop_map(|method| api(Match::Method(method.into()))),
        ];
        leaf.prop_recursive(2, 6, 3, |inner| {
            let seq = || prop::collection::vec(inner.clone(), 0..3).prop_map(|matches| Seq { matches });
            prop_oneof![
                seq().prop_map(|seq| api(Match::All(seq))),
                seq().prop_map(|seq| api(Match::Any(seq))),
                inner.prop_map(|one| api(Match::Not(Box::new(one)))),
            ]
        })
    }

    fn table(conditions: &[api::RequestMatch], padding: usize) -> Table<usize> {
        let mut builder = Builder::default();
        let routes = conditions.iter().enumerate().map(|(index, one)| (builder.condition(one).unwrap(), index));
        let mut routes: Vec<_> = routes.collect();
        // Paths that no request has, until there are many.
        for index in 0..padding {
            let never = api(Match::Path(PathMatch { regex: format!("/never/{index}") }));
            routes.push((builder.condition(&never).unwrap(), usize::MAX));
        }
        builder.build(routes)
    }

    proptest! {
        /// However the paths are looked for, the route is the same.
        #[test]
        fn many_routes_are_as_few(conditions in prop::collection::vec(condition(), 0..8)) {
            let (few, many) = (table(&conditions, 0), table(&conditions, 2 * FEW));
            prop_assert!(matches!(many.paths, Paths::Many(_)));
            for path in ["/", "/a", "/b", "/a/b", "/a/c", "/c", "/a/b/c"] {
                for method in [Method::GET, Method::POST] {
                    prop_assert_eq!(few.route(&method, path), many.route(&method, path), "{} {}", method, path);
                }
            }
        }
    }

    #[test]
    fn one_path_that_is_wrong_is_told_and_the_others_stay() {
        let mut builder = Builder::default();
        let path = |regex: &str| api(Match::Path(PathMatch { regex: regex.to_owned() }));
        assert!(builder.condition(&path("(")).unwrap_err().contains("unclosed group"));
        let routes = vec![(builder.condition(&path("/a")).unwrap(), 1)];
        assert_eq!(builder.build(routes).route(&Method::GET, "/a"), Some(&1));
    }
}
