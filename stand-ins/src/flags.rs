//! The command line of the program that is stood for: `--name=value`, `--name value`, `--switch`.

use std::collections::BTreeMap;

/// Flags by name, without the dashes. Flags that a stand-in has no use for are accepted, as manifests are the real ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    flags: BTreeMap<String, Vec<String>>,
    words: Vec<String>,
    given: Vec<String>,
}

impl Flags {
    /// Reads them; words that are no flags, such as the real program's path, are kept beside them.
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        let mut found = Self { given: words.into_iter().collect(), ..Self::default() };
        let mut words = found.given.clone().into_iter().peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) else {
                found.words.push(word);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (flag, words.next_if(|next| !next.starts_with('-')).unwrap_or_else(|| "true".to_owned())),
            };
            found.flags.entry(name.to_owned()).or_default().push(value);
        }
        found
    }

    /// The words that are no flags: a subcommand and its arguments, where the program has such.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// Everything as it was given, for a program that passes it on.
    pub(crate) fn given(&self) -> &[String] {
        &self.given
    }

    /// The value of a flag; of one that is given several times the last.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.last().map(String::as_str)
    }

    /// All values of a flag that may be given several times.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags.get(name).into_iter().flatten().map(String::as_str)
    }

    pub(crate) fn or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    /// A number, or the default when there is none or it is no number.
    pub(crate) fn number(&self, name: &str, default: u16) -> u16 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// `NAMESPACE/NAME`.
    pub(crate) fn object(&self, name: &str) -> Option<(&str, &str)> {
        self.get(name)?.split_once('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_every_spelling() {
        let words = "/nginx-ingress-controller --a=1 --publish-service ns/name -v=1 -v=2 --on --b".split(' ');
        let flags = Flags::new(words.clone().map(str::to_owned));
        assert!(words.eq(flags.given()));
        assert_eq!((flags.get("a"), flags.get("v"), flags.get("on")), (Some("1"), Some("2"), Some("true")));
        assert_eq!(flags.all("v").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(flags.object("publish-service"), Some(("ns", "name")));
        assert_eq!((flags.number("a", 7), flags.number("none", 7), flags.or("none", "x")), (1, 7, "x"));
        assert_eq!(flags.words(), ["/nginx-ingress-controller"]);
    }
}
