//! The model as HAProxy's configuration, maps and certificates.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fmt::Write as _;

use super::model::{Backend, Map, Model, Rule};
use super::settings::Settings;
use super::slots::SERVERS;
use super::snippets;
use crate::data_plane::Files;

/// The configuration.
pub(crate) const MAIN: &str = "haproxy.cfg";

/// Stands for the servers of a backend, which the data plane gives their places.
pub(crate) const SERVERS_OF: &str = "# servers of ";

/// Where the runtime API listens; the data plane puts its folder before it.
pub(crate) const SOCKET: &str = "runtime.sock";

/// Stands for the data plane's folder.
pub(crate) const FOLDER: &str = "@FOLDER@";

/// The backend that answers what no route does.
const LOCAL: &str = "haproxy-controller_default-local-service_http";

/// As `fs/usr/local/etc/haproxy/haproxy.cfg` has them.
pub(crate) const TIMEOUTS: [(&str, &str); 7] = [
    ("http-request", "5s"),
    ("connect", "5s"),
    ("client", "50s"),
    ("queue", "5s"),
    ("server", "50s"),
    ("tunnel", "1h"),
    ("http-keep-alive", "1m"),
];

const LOG_FORMAT: &str = r#"'%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs "%HM %[var(txn.base)] %HV"'"#;

/// Sections with their lines.
#[derive(Default)]
struct Text(String);

impl Text {
    fn section(&mut self, head: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}{head}", if self.0.is_empty() { "" } else { "\n" });
    }

    fn line(&mut self, line: impl Display) {
        let _ = writeln!(self.0, "  {line}");
    }
}

/// Everything that HAProxy reads.
pub(crate) fn files(model: &Model, settings: &Settings) -> Files {
    let mut files = Files::new();
    files.insert(MAIN.into(), configuration(model, settings));
    for map in Map::ALL {
        let rows = model.maps.get(&map).into_iter().flatten();
        files.insert(map.file().into(), rows.map(|(key, value)| format!("{key} {value}\n")).collect());
    }
    for (name, pem) in &model.certificates {
        files.insert(format!("certs/{name}").into(), pem.clone());
    }
    let servers: BTreeMap<&String, _> = model.backends.iter().map(|(name, backend)| (name, &backend.servers)).collect();
    files.insert(SERVERS.into(), serde_json::json!(servers).to_string());
    files
}

fn configuration(model: &Model, settings: &Settings) -> String {
    let mut text = Text::default();
    global(&mut text, model);
    defaults(&mut text, model);
    text.section("frontend http");
    text.line("mode http");
    text.line(format!("bind 0.0.0.0:{} name v4", settings.http_port));
    frontend(&mut text, model, false);
    text.section("frontend https");
    text.line("mode http");
    let tls = if model.certificates.is_empty() { "" } else { " crt certs alpn h2,http/1.1 ssl" };
    text.line(format!("bind 0.0.0.0:{} name v4{tls}", settings.https_port));
    frontend(&mut text, model, true);
    text.section(format!("backend {LOCAL}"));
    text.line("mode http");
    text.line("http-request return status 404 content-type text/plain string \"default backend - 404\"");
    for (name, found) in &model.backends {
        backend(&mut text, name, found);
    }
    text.0
}

fn global(text: &mut Text, model: &Model) {
    text.section("global");
    // Names of files are below the configuration's own folder.
    text.line("default-path config");
    text.line(format!("stats socket {FOLDER}/{SOCKET} level admin expose-fd listeners"));
    text.line("stats timeout 1m");
    // Nobody uses HAProxy's own client, which would read all of the system's certificate authorities at every start and every reload.
    text.line("httpclient.ssl.verify none");
    text.line("tune.ssl.default-dh-param 2048");
    text.line("ssl-default-bind-options no-sslv3 no-tls-tickets no-tlsv10");
    if !model.globals.global.iter().any(|line| line.starts_with("hard-stop-after")) {
        text.line("hard-stop-after 30m");
    }
    for line in &model.globals.global {
        text.line(line);
    }
    if model.globals.logs.is_empty() {
        text.line("log 127.0.0.1:514 local0 notice");
    }
    for target in &model.globals.logs {
        text.line(format!("log {target}"));
    }
}

fn defaults(text: &mut Text, model: &Model) {
    text.section("defaults haproxytech");
    text.line("log global");
    text.line(format!("log-format {LOG_FORMAT}"));
    text.line("option redispatch");
    text.line("option dontlognull");
    text.line("option http-keep-alive");
    for (name, default) in TIMEOUTS {
        let value = model.globals.timeouts.get(name).map_or(default, String::as_str);
        text.line(format!("timeout {name} {value}"));
    }
}

/// The rules in HAProxy's order: what was asked for, then redirects, then headers.
fn frontend(text: &mut Text, model: &Model, https: bool) {
    let hosts = Map::Host.file();
    text.line("http-request set-var(txn.base) base");
    text.line("http-request set-var(txn.path) path");
    text.line("http-request set-var(txn.host) req.hdr(Host),field(1,:),lower");
    text.line(format!("http-request set-var(txn.host_match) var(txn.host),map({hosts})"));
    text.line(format!(
        "http-request set-var(txn.host_match) var(txn.host),regsub(^[^.]*,,),map({hosts},'') if !{{ var(txn.host_match) -m found }}"
    ));
    for (found, lookup) in [(Map::PathExact, "map"), (Map::PathPrefixExact, "map"), (Map::PathPrefix, "map_beg")] {
        let unless = if found == Map::PathExact { "" } else { " if !{ var(txn.path_match) -m found }" };
        text.line(format!(
            "http-request set-var(txn.path_match) var(txn.host_match),concat(,txn.path,),{lookup}({}){unless}",
            found.file()
        ));
    }
    let rules = || {
        let global = model.global_rules.iter().map(|rule| (String::new(), rule));
        global.chain(model.rules.iter().map(|(id, rule)| (format!(" if {{ var(txn.path_match) -m dom {id} }}"), rule)))
    };
    for (condition, rule) in rules().filter(|_| !https) {
        if let Rule::Redirect { port, code } = rule {
            let port = if *port == 443 { String::new() } else { format!(":{port}") };
            text.line(format!(
                "http-request redirect location https://%[hdr(host),field(1,:)]{port}%[capture.req.uri] code {code}{condition}"
            ));
        }
    }
    if https {
        text.line("http-request set-header X-Forwarded-Proto https");
    }
    for (condition, rule) in rules() {
        if let Rule::SetHeader { name, value } = rule {
            text.line(format!("http-request set-header {name} {value}{condition}"));
        }
    }
    for (backend, condition) in &model.custom_routes {
        text.line(format!("use_backend {backend} if {condition}"));
    }
    text.line("use_backend %[var(txn.path_match),field(1,.)]");
    text.line(format!("default_backend {}", model.default_backend.as_deref().unwrap_or(LOCAL)));
}

fn backend(text: &mut Text, name: &str, backend: &Backend) {
    text.section(format!("backend {name}"));
    text.line("mode http");
    text.line(format!("balance {}", backend.balance));
    if backend.forwarded_for {
        text.line("option forwardfor");
    }
    text.line("no option abortonclose");
    if !backend.default_server.is_empty() {
        text.line(format!("default-server {}", backend.default_server.join(" ")));
    }
    for snippet in &backend.snippets {
        text.line(snippets::head(name, snippet));
        for line in &snippet.lines {
            text.line(line);
        }
        text.line(snippets::END);
    }
    text.line(format!("{SERVERS_OF}{name}"));
}
