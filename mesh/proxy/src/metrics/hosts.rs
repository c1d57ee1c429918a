//! Names of hosts as labels: `hostname`.
//!
//! It is clients that choose these names. As with Linkerd's proxy they become labels only where
//! `LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS` says so; otherwise, and for an address, the label is empty. Different from Linkerd's,
//! there is an end to them: one name too many is no label either.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::NameAddr;

/// So many names become labels, for as long as the process lasts. A route has some thirty series for each that it was asked for by.
const MOST: usize = 256;

/// The names that are labels, if names are.
#[derive(Clone, Default)]
pub(crate) struct HostNames(Option<Arc<RwLock<BTreeSet<Arc<str>>>>>);

/// The name of a host that is a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostName(Arc<str>);

/// Makes the series of a host.
type Make<S> = Box<dyn Fn(&str) -> Arc<S> + Send + Sync>;

/// The series of a route, by host. They are made when they are asked for.
pub(crate) struct ByHost<S> {
    names: HostNames,
    /// Given the label's value.
    make: Make<S>,
    nameless: OnceLock<Arc<S>>,
    named: ArcSwap<BTreeMap<HostName, Arc<S>>>,
}

impl HostNames {
    pub(crate) fn new(are_labels: bool) -> Self {
        Self(are_labels.then(Arc::default))
    }

    pub(crate) fn are_labels(&self) -> bool {
        self.0.is_some()
    }

    /// The host's name, if it is to be a label.
    fn name(&self, host: &str) -> Option<HostName> {
        let names = self.0.as_ref()?;
        let known = |name: &str| names.read().get(name).map(|name| HostName(Arc::clone(name)));
        if let Some(known) = known(host) {
            return Some(known);
        }
        // The port does not matter: what is one name is one whatever stands behind it.
        let name = NameAddr::new(host, 0)?;
        if let Some(known) = known(name.name()) {
            return Some(known);
        }
        if names.read().len() >= MOST {
            return None;
        }
        let mut names = names.write();
        let name: Arc<str> = names.get(name.name()).map_or_else(|| name.name().into(), Arc::clone);
        if names.len() < MOST {
            names.insert(Arc::clone(&name));
        }
        names.contains(&name).then_some(HostName(name))
    }
}

impl<S> ByHost<S> {
    /// `make` makes the series, given the value of the label `hostname`.
    pub(crate) fn new(names: &HostNames, make: impl Fn(&str) -> Arc<S> + Send + Sync + 'static) -> Self {
        Self { names: names.clone(), make: Box::new(make), nameless: OnceLock::new(), named: ArcSwap::default() }
    }

    /// The name of the host that somebody asks for, if it is a label.
    pub(crate) fn name<'a>(&self, host: impl FnOnce() -> &'a str) -> Option<HostName> {
        if self.names.are_labels() { self.names.name(host()) } else { None }
    }

    /// The series of a host, or of what has no name.
    pub(crate) fn of(&self, host: Option<&HostName>) -> Arc<S> {
        let Some(host) = host else { return Arc::clone(self.nameless.get_or_init(|| (self.make)(""))) };
        if let Some(made) = self.named.load().get(host) {
            return Arc::clone(made);
        }
        let made = (self.make)(&host.0);
        self.named.rcu(|named| {
            let mut named = BTreeMap::clone(named);
            named.entry(host.clone()).or_insert_with(|| Arc::clone(&made));
            named
        });
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers which it is.
    fn by_host(are_labels: bool) -> ByHost<String> {
        ByHost::new(&HostNames::new(are_labels), |host| Arc::new(host.to_owned()))
    }

    fn of(by_host: &ByHost<String>, host: &str) -> Arc<String> {
        by_host.of(by_host.name(|| host).as_ref())
    }

    #[test]
    fn names_are_labels_where_they_may_be() {
        let (without, with) = (by_host(false), by_host(true));
        for (host, label) in [
            ("web.example.com", "web.example.com"),
            ("Web.Example.com.", "web.example.com"),
            ("localhost", "localhost"),
            ("10.1.2.3", ""),
            ("[fd00::1]", ""),
            ("", ""),
            ("not a name", ""),
        ] {
            assert_eq!(*of(&with, host), label, "{host}");
            assert_eq!(*of(&without, host), "", "{host}");
        }
        assert!(Arc::ptr_eq(&of(&with, "a"), &of(&with, "A.")), "the series are made once");
        assert!(without.name(|| panic!("nobody need know the host")).is_none());
    }

    #[test]
    fn there_are_only_so_many_names() {
        let names = HostNames::new(true);
        let of = |host: &str| names.name(host).map(|name| name.0.to_string());
        for number in 0..MOST {
            assert_eq!(of(&format!("host-{number}")), Some(format!("host-{number}")));
        }
        assert_eq!(of("another"), None);
        assert_eq!(of("HOST-7"), Some("host-7".to_owned()), "who had a name keeps it");
        let route = ByHost::new(&names, |host| Arc::new(host.to_owned()));
        let known = names.name("host-7");
        assert_eq!([route.of(known.as_ref()), route.of(None)].map(|label| label.to_string()), ["host-7", ""]);
    }
}
