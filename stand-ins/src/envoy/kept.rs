//! A listener or a host that stays as it was, with its routes, while everything else changes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::render::{HTTP, HTTPS, LISTENERS, ROUTES, listeners_file, routes_file};
use crate::data_plane::Files;

/// The files with the listener of plain HTTP as it is in the former ones: without any, with none.
pub(crate) fn keep_plain(mut files: Files, former: Option<&Files>) -> Option<Files> {
    keep(HTTP, &mut files, former);
    if let Some(routes) = former.and_then(|former| former.get(Path::new(ROUTES))) {
        files.insert(ROUTES.into(), routes.clone());
    }
    Some(files)
}

/// The same with the one of TLS, in which its routes stand.
pub(crate) fn keep_tls(mut files: Files, former: Option<&Files>) -> Option<Files> {
    keep(HTTPS, &mut files, former);
    Some(files)
}

/// The files with the hosts of one origin as they are in the former ones, and where they are there. A domain that somebody has is theirs.
pub(crate) fn keep_hosts(origin: &str, mut files: Files, former: &Files) -> Files {
    if let (Some(mut routes), Some(was)) = (routes(&files), routes(former)) {
        let mut hosts = list(&routes["virtual_hosts"]);
        add(origin, &mut hosts, &list(&was["virtual_hosts"]), |host| host);
        routes["virtual_hosts"] = hosts.into();
        files.insert(ROUTES.into(), routes_file(routes));
    }
    let is_tls = |listener: &Value| listener["name"] == HTTPS;
    if let Some(mut listener) = listeners(former).into_iter().find(is_tls) {
        let (tls, mut others): (Vec<Value>, Vec<Value>) = listeners(&files).into_iter().partition(is_tls);
        let mut chains: Vec<Value> = tls.iter().flat_map(|listener| list(&listener["filter_chains"])).collect();
        add(origin, &mut chains, &list(&listener["filter_chains"]), behind);
        if !chains.is_empty() {
            listener["filter_chains"] = chains.into();
            others.push(listener);
            insert(others, &mut files);
        }
    }
    files
}

/// Adds those of the former hosts, or what leads to them, that are of this origin.
fn add(origin: &str, now: &mut Vec<Value>, former: &[Value], host: fn(&Value) -> &Value) {
    let domain = |it: &Value| host(it)["domains"][0].as_str().unwrap_or_default().to_owned();
    let is_of_origin = |it: &Value| {
        let rest = host(it)["name"].as_str().and_then(|name| name.strip_prefix(origin));
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let taken: BTreeSet<String> = now.iter().map(domain).collect();
    now.extend(former.iter().filter(|it| is_of_origin(it) && !taken.contains(&domain(it))).cloned());
    now.sort_by_cached_key(domain);
}

/// The host behind a filter chain.
fn behind(chain: &Value) -> &Value {
    &chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]
}

fn keep(name: &str, files: &mut Files, former: Option<&Files>) {
    let is_it = |listener: &Value| listener["name"] == name;
    let others = listeners(files).into_iter().filter(|listener| !is_it(listener));
    let kept = former.map(listeners).unwrap_or_default().into_iter().filter(is_it);
    insert(others.chain(kept).collect(), files);
}

/// Writes the file of listeners, ordered as they are otherwise, so that what has not changed is not read anew.
fn insert(mut all: Vec<Value>, files: &mut Files) {
    all.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    files.insert(LISTENERS.into(), listeners_file(all));
}

fn listeners(files: &Files) -> Vec<Value> {
    resources(files, LISTENERS)
}

fn routes(files: &Files) -> Option<Value> {
    resources(files, ROUTES).into_iter().next()
}

fn resources(files: &Files, name: &str) -> Vec<Value> {
    let file = files.get(Path::new(name)).and_then(|text| serde_json::from_str::<Value>(text).ok());
    file.map(|file| list(&file["resources"])).unwrap_or_default()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files;
    use super::super::model::{Config, Tls, VirtualHost};
    use super::*;

    /// Files with both listeners and a host of this name behind each; a port of 0 closes one.
    fn with(name: &str, http_port: u16, https_port: u16) -> Files {
        let host = VirtualHost::default();
        let tls = Tls::Terminated { certificate: "C".into(), key: "K".into(), host: host.clone() };
        files(&Config {
            http_port,
            https_port,
            hosts: BTreeMap::from([(name.to_owned(), host)]),
            tls: BTreeMap::from([(name.to_owned(), tls)]),
            ..Config::default()
        })
    }

    /// The names of the listeners.
    fn names(files: &Files) -> Vec<String> {
        listeners(files).iter().map(|listener| listener["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn one_listener_stays_and_the_other_changes() {
        let former = with("former.test", 80, 443);
        let has = |files: &Files, file: &str, name: &str| files[Path::new(file)].contains(name);

        let kept = keep_plain(with("next.test", 0, 443), Some(&former)).unwrap();
        assert_eq!(names(&kept), ["http", "https"]);
        assert_eq!(kept[Path::new(ROUTES)], former[Path::new(ROUTES)]);
        assert!(has(&kept, LISTENERS, "next.test") && !has(&kept, LISTENERS, "former.test"));

        let kept = keep_tls(with("next.test", 80, 0), Some(&former)).unwrap();
        assert_eq!(names(&kept), ["http", "https"]);
        assert!(has(&kept, ROUTES, "next.test") && !has(&kept, ROUTES, "former.test"));
        assert!(has(&kept, LISTENERS, "former.test") && !has(&kept, LISTENERS, "next.test"));
    }

    #[test]
    fn what_has_not_changed_is_the_same_file() {
        let former = with("a.test", 80, 443);
        assert_eq!(keep_plain(with("a.test", 0, 443), Some(&former)), Some(former.clone()));
        assert_eq!(keep_tls(with("a.test", 80, 0), Some(&former)), Some(former));
    }

    #[test]
    fn without_anything_before_it_a_listener_is_not_there_and_stays_away() {
        let first = keep_plain(with("a.test", 0, 443), None).unwrap();
        assert_eq!(names(&first), ["https"]);
        let second = keep_plain(with("b.test", 0, 443), Some(&first)).unwrap();
        assert_eq!(names(&second), ["https"]);
    }

    /// Files with hosts on both ports, each of the origin and the domain that is given.
    fn with_hosts(hosts: &[(&str, &str)]) -> Files {
        let host = |origin: &str| VirtualHost { origin: origin.to_owned(), ..VirtualHost::default() };
        let tls = |origin| Tls::Terminated { certificate: "C".into(), key: "K".into(), host: host(origin) };
        files(&Config {
            http_port: 80,
            https_port: 443,
            hosts: hosts.iter().map(|(origin, domain)| ((*domain).to_owned(), host(origin))).collect(),
            tls: hosts.iter().map(|(origin, domain)| ((*domain).to_owned(), tls(origin))).collect(),
            ..Config::default()
        })
    }

    #[test]
    fn the_hosts_of_one_origin_stay_and_all_others_change() {
        let former = with_hosts(&[("a.x", "a.test"), ("a.x", "b.test"), ("a.xy", "c.test")]);
        let kept = keep_hosts("a.x", with_hosts(&[("a.z", "d.test")]), &former);
        assert_eq!(kept, with_hosts(&[("a.x", "a.test"), ("a.x", "b.test"), ("a.z", "d.test")]));
        let none = keep_hosts("a.none", with_hosts(&[("a.z", "d.test")]), &former);
        assert_eq!(none, with_hosts(&[("a.z", "d.test")]));
        let taken = keep_hosts("a.x", with_hosts(&[("a.z", "a.test")]), &former);
        assert_eq!(taken, with_hosts(&[("a.z", "a.test"), ("a.x", "b.test")]));
        // Without any other the port of TLS is opened for them.
        assert_eq!(
            keep_hosts("a.x", with_hosts(&[]), &with_hosts(&[("a.x", "a.test")])),
            with_hosts(&[("a.x", "a.test")])
        );
    }
}
