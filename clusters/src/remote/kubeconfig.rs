//! Which kubeconfigs there are, and several of them as one.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use kube::config::Kubeconfig;

use super::RemoteError;
use crate::scratch::Scratch;

/// Where kubectl looks, given its variable and the user's home.
pub(super) fn usual(variable: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let paths = variable.iter().flat_map(std::env::split_paths);
    let named: Vec<PathBuf> = paths.filter(|path| !path.as_os_str().is_empty()).collect();
    if named.is_empty() { vec![PathBuf::from(home.unwrap_or_default()).join(".kube/config")] } else { named }
}

/// Several files as one, in which the first to name something counts. Those that are not there are passed over, as kubectl does, unless
/// none is.
pub(super) fn merged(paths: &[PathBuf]) -> Result<Kubeconfig, RemoteError> {
    let there: Vec<&PathBuf> = paths.iter().filter(|path| path.exists()).collect();
    let paths = if there.is_empty() { paths.iter().collect() } else { there };
    let merged = paths.into_iter().try_fold(Kubeconfig::default(), |merged, path| {
        // What a file names by a path from its own folder is read from there, and not from that of the merged one.
        let mut next = Kubeconfig::read_from(std::path::absolute(path).as_ref().unwrap_or(path))?;
        // `kubectl config unset current-context` leaves an empty one, which is none.
        next.current_context = next.current_context.filter(|name| !name.is_empty());
        merged.merge(next)
    });
    Ok(merged?)
}

/// A file with a kubeconfig that nobody else reads; it holds credentials.
pub(super) fn written(config: &Kubeconfig) -> io::Result<Scratch> {
    // JSON is YAML too.
    Scratch::new(".kubeconfig", &serde_json::to_vec(config)?)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::IMAGE;
    use crate::remote::{By, Reach};

    fn config(name: &str, server: &str) -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": name, "user": {"token": format!("{name}-token")}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        })
    }

    #[test]
    fn the_files_are_those_of_kubectl() {
        let of = |variable: Option<&str>| usual(variable.map(Into::into), Some("/home/me".into()));
        let home = [PathBuf::from("/home/me/.kube/config")];
        assert_eq!(of(None), home);
        assert_eq!(of(Some("")), home);
        assert_eq!(of(Some("a:/b::c")), ["a", "/b", "c"].map(PathBuf::from));
    }

    #[test]
    fn the_first_to_name_something_counts_and_nobody_else_reads_what_comes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, absent] = ["a", "b", "absent"].map(|name| dir.path().join(name));
        std::fs::write(&a, config("one", "https://127.0.0.1:1").to_string()).unwrap();
        let mut both = config("one", "https://127.0.0.1:3");
        for (list, more) in config("two", "https://127.0.0.1:2").as_object().unwrap() {
            if let (Some(list), Some(more)) = (both[list].as_array_mut(), more.as_array()) {
                list.extend(more.clone());
            }
        }
        std::fs::write(&b, both.to_string()).unwrap();
        let merged = merged(&[absent.clone(), a, b]).unwrap();
        assert_eq!(merged.current_context.as_deref(), Some("one"));
        let file = written(&merged).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let read = Kubeconfig::read_from(&file).unwrap();
        let servers: Vec<_> =
            read.clusters.iter().map(|named| named.cluster.as_ref().unwrap().server.clone()).collect();
        assert_eq!(servers, ["https://127.0.0.1:1", "https://127.0.0.1:2"].map(|server| Some(server.to_owned())));
        assert!(std::fs::read_to_string(&file).unwrap().contains("two-token"), "credentials and all");
        super::merged(&[absent.clone(), absent]).unwrap_err();
    }

    #[test]
    fn an_empty_current_context_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let mut unset = config("one", "https://127.0.0.1:1");
        unset["current-context"] = "".into();
        std::fs::write(&a, unset.to_string()).unwrap();
        std::fs::write(&b, config("two", "https://127.0.0.1:2").to_string()).unwrap();
        assert_eq!(merged(&[a, b]).unwrap().current_context.as_deref(), Some("two"));
    }

    #[test]
    fn what_a_file_names_beside_itself_is_found_from_the_merged_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut beside = config("one", "https://127.0.0.1:1");
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin"});
        beside["users"][0]["user"] = json!({"exec": exec, "client-certificate": "cert.pem"});
        std::fs::write(dir.path().join("a"), beside.to_string()).unwrap();
        std::fs::write(dir.path().join("b"), "{}").unwrap();
        // By way of the folder that tests run in, as somebody names files beside theirs.
        let up =
            std::env::current_dir().unwrap().components().skip(1).map(|_| PathBuf::from("..")).collect::<PathBuf>();
        let from_here = up.join(dir.path().strip_prefix("/").unwrap());
        assert!(from_here.is_relative() && from_here.join("a").exists(), "the control: {from_here:?}");
        let file = written(&merged(&[from_here.join("a"), from_here.join("b")]).unwrap()).unwrap();
        let user = Kubeconfig::read_from(&file).unwrap().auth_infos.remove(0).auth_info.unwrap();
        let beside = std::fs::canonicalize(dir.path()).unwrap();
        for (named, name) in [(user.exec.unwrap().command, "plugin"), (user.client_certificate, "cert.pem")] {
            let named = PathBuf::from(named.unwrap());
            assert_eq!(std::fs::canonicalize(named.parent().unwrap()).unwrap(), beside);
            assert_eq!(named.file_name().unwrap(), name);
        }
    }

    #[test]
    fn what_is_wrong_with_a_kubeconfig_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let error = Reach::existing(Some(&dir.path().join("absent")), None, IMAGE, By::default()).unwrap_err();
        let text = crate::told(&error);
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        assert!(text.contains("absent") && text.ends_with("or the variable KUBECONFIG"), "{text}");
    }

    #[test]
    fn a_context_that_is_not_there_is_answered_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let answer = |text: String, context: Option<&str>| {
            std::fs::write(&path, text).unwrap();
            Reach::existing(Some(&path), context, IMAGE, By::default()).unwrap_err().to_string()
        };
        for (nothing, context) in [("", None), ("{}", None), ("{}", Some("x"))] {
            let said = answer(nothing.to_owned(), context);
            assert!(said.starts_with("the kubeconfig has no contexts, so it leads to no cluster"), "{said}");
        }
        let mut config = config("one", "https://127.0.0.1:1");
        let other = answer(config.to_string(), Some("two"));
        assert_eq!(other, "the kubeconfig has no context \"two\"; it has: one");
        config["current-context"] = "".into();
        let none = answer(config.to_string(), None);
        assert_eq!(none, "the kubeconfig has no current context; name one of its contexts with --context: one");
    }

    /// The first line that a proxy in front of the API server is told.
    async fn told_by_proxy(scheme: &str) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("{scheme}://{}", listener.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let mut config = config("far", "https://far.example:6443");
        config["clusters"][0]["cluster"]["proxy-url"] = proxy.into();
        std::fs::write(&path, config.to_string()).unwrap();
        let told = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut told = vec![0; 3];
            std::io::Read::read_exact(&mut stream, &mut told).unwrap();
            if told.starts_with(b"CON") {
                BufReader::new(&stream).read_until(b'\n', &mut told).unwrap();
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
            }
            told
        });
        let client = Reach::existing(Some(&path), None, IMAGE, By::default()).unwrap().client().await.unwrap();
        client.apiserver_version().await.unwrap_err();
        told.join().unwrap()
    }

    #[tokio::test]
    async fn a_cluster_behind_a_proxy_is_reached_by_it() {
        let line = told_by_proxy("http").await;
        assert_eq!(String::from_utf8(line).unwrap(), "CONNECT far.example:6443 HTTP/1.1\r\n");
        // Version 5, one way to authenticate, which is none.
        assert_eq!(told_by_proxy("socks5").await, [5, 1, 0]);
    }
}
