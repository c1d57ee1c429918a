//! The way to an API server, as a kubeconfig and the environment tell it.
//!
//! What kube makes of a kubeconfig, but for the proxy, which is kubectl's: kube compares `NO_PROXY` with the proxy rather than the server, has it
//! count for `proxy-url` as well, fails where an item of it is empty, and looks for servers of this very machine through a proxy.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{Cluster, ExecAuthCluster, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::told;

#[cfg(test)]
mod tests;

/// The variables by which programs are told of proxies.
pub const PROXIES: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// What a client needs to know of a context. `environment` is what a variable says.
///
/// # Errors
/// What the kubeconfig, or a variable, lacks.
pub(crate) fn config(
    kubeconfig: &Kubeconfig,
    context: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, String> {
    let named = kubeconfig.contexts.iter().find(|named| named.name == context);
    let context = named.and_then(|named| named.context.as_ref());
    let context = context.ok_or("nothing is said of its context")?;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| format!("nothing is said of its cluster \"{}\"", context.cluster))?;
    let server = cluster.server.as_ref().ok_or_else(|| format!("its cluster \"{}\" has no server", context.cluster))?;
    let server = server.parse::<Uri>().map_err(|error| format!("server {server}: {error}"))?;
    let mut config = Config::new(server.clone());
    if let Some(namespace) = &context.namespace {
        config.default_namespace.clone_from(namespace);
    }
    config.root_cert = authorities(cluster)?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.proxy_url = proxy(cluster.proxy_url.as_deref(), &server, environment)?;
    // As for kubectl, who is nobody there comes without credentials.
    let user = kubeconfig.auth_infos.iter().find(|named| Some(&named.name) == context.user.as_ref());
    config.auth_info = user.and_then(|named| named.auth_info.clone()).unwrap_or_default();
    if let Some(exec) = &mut config.auth_info.exec
        && exec.provide_cluster_info
    {
        exec.cluster = Some(ExecAuthCluster::try_from(cluster).map_err(|error| told(&error))?);
    }
    Ok(config)
}

/// The certificates of those who may vouch for the server; `None` for everybody whom this machine trusts.
fn authorities(cluster: &Cluster) -> Result<Option<Vec<Vec<u8>>>, String> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let pem = match (given(&cluster.certificate_authority_data), given(&cluster.certificate_authority)) {
        (Some(data), _) => STANDARD.decode(data).map_err(|error| format!("certificate-authority-data: {error}"))?,
        (None, Some(path)) => std::fs::read(&path).map_err(|error| format!("certificate-authority {path}: {error}"))?,
        (None, None) => return Ok(None),
    };
    let found = CertificateDer::pem_slice_iter(&pem).map(|found| found.map(|certificate| certificate.to_vec()));
    let found: Result<Vec<_>, _> = found.collect();
    Ok(Some(found.map_err(|error| format!("its certificate authority: {error}"))?))
}

/// The proxy on the way to a server: that of the kubeconfig counts always, that of the environment where nothing says otherwise.
fn proxy(own: Option<&str>, server: &Uri, environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<Uri>, String> {
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        return own.parse::<Uri>().map(Some).map_err(|error| format!("proxy-url {own}: {error}"));
    }
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, environment(name).filter(|value| !value.is_empty())?)))
    };
    let (names, usual) = match server.scheme_str() {
        Some("http") => (["HTTP_PROXY", "http_proxy"], 80),
        _ => (["HTTPS_PROXY", "https_proxy"], 443),
    };
    let Some((name, proxy)) = first(names) else { return Ok(None) };
    if server.host().is_none_or(is_of_this_machine) {
        return Ok(None);
    }
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    // Not quoted: it may have a password.
    let uri = proxy.parse::<Uri>().map_err(|error| format!("the variable {name}: {error}"))?;
    let (_, passed) = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let passed = without_ports(&passed, server.port_u16().unwrap_or(usual));
    let matcher = Matcher::builder().all(&proxy).no(passed).build();
    Ok(matcher.intercept(server).map(|_| uri))
}

fn is_of_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// What of a `NO_PROXY` is about a port, in the words of the [`Matcher`]: it knows neither ports nor `*.example.org`.
fn without_ports(list: &str, port: u16) -> String {
    let item = |item: &str| -> Option<String> {
        let item = item.trim();
        let (host, only) = match item.rsplit_once(':') {
            // Other colons are those of an IPv6 address.
            Some((host, only)) if !host.contains(':') || host.ends_with(']') => (host, Some(only)),
            _ => (item, None),
        };
        if only.is_some_and(|only| only.parse::<u16>() != Ok(port)) {
            return None;
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(if host.starts_with("*.") { host[1..].to_owned() } else { host.to_owned() })
    };
    list.split(',').filter_map(item).collect::<Vec<_>>().join(",")
}
