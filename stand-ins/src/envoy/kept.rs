//! A listener that stays as it was, with its routes, while everything else changes.

use std::path::Path;

use serde_json::Value;

use super::render::{HTTP, HTTPS, LISTENERS, ROUTES, listeners_file};
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

fn keep(name: &str, files: &mut Files, former: Option<&Files>) {
    let is_it = |listener: &Value| listener["name"] == name;
    let others = listeners(files).into_iter().filter(|listener| !is_it(listener));
    let kept = former.map(listeners).unwrap_or_default().into_iter().filter(is_it);
    let mut all: Vec<Value> = others.chain(kept).collect();
    // As they are ordered otherwise, so that what has not changed is not read anew.
    all.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    files.insert(LISTENERS.into(), listeners_file(all));
}

fn listeners(files: &Files) -> Vec<Value> {
    let file = files.get(Path::new(LISTENERS)).and_then(|text| serde_json::from_str::<Value>(text).ok());
    file.and_then(|file| file["resources"].as_array().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files;
    use super::super::model::{Config, Tls, VirtualHost};
    use super::*;
    use crate::run::Instead;

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
        for (next, keep) in
            [(with("a.test", 0, 443), keep_plain as Instead), (with("a.test", 80, 0), keep_tls as Instead)]
        {
            assert_eq!(keep(next, Some(&former)), Some(former.clone()));
        }
    }

    #[test]
    fn without_anything_before_it_a_listener_is_not_there_and_stays_away() {
        let first = keep_plain(with("a.test", 0, 443), None).unwrap();
        assert_eq!(names(&first), ["https"]);
        let second = keep_plain(with("b.test", 0, 443), Some(&first)).unwrap();
        assert_eq!(names(&second), ["https"]);
    }
}
