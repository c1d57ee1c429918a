//! The model as nginx' configuration.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::annotations::{Auth, Canary};
use super::endpoints;
use super::model::{Location, Match, Model, Server, Upstream};
use super::settings::Settings;
use super::text::{self, Text, certificate, map, quoted};
use crate::data_plane::Files;
use crate::flags::Flags;
use crate::names;

/// The certificate of hosts without one of their own.
const DEFAULT_CERTIFICATE: &str = "default.pem";

/// The file that nginx is started with.
pub(crate) const MAIN: &str = "nginx.conf";

/// The file that only [`endpoints`] reads: a [`endpoints::Zone`], as JSON.
pub(crate) const ENDPOINTS: &str = "endpoints.json";

/// The folder of the custom headers, which locations include. What is read from it waits for another reason to read anything: the real
/// controller takes the ConfigMap of these headers as it is whenever it writes the configuration (`generateTemplate` in `nginx.go`), and no
/// change of it for a reason to (`changeTriggerUpdate` in `store.go`).
pub(crate) const HEADERS: &str = "headers";

/// How often a request is sent at most (`proxy-next-upstream-tries`).
const ATTEMPTS: usize = 3;

/// What sets a header, for requests of either kind.
const SET_HEADER: &str = "proxy_set_header";
const SET_GRPC_HEADER: &str = "grpc_set_header";

/// All files of a model.
pub(crate) fn files(model: &Model, settings: &Settings, flags: &Flags, default_certificate: &str) -> Files {
    let mut files: Files =
        model.certificates.iter().map(|(name, pem)| (PathBuf::from("tls").join(name), pem.clone())).collect();
    files.insert(PathBuf::from("tls").join(DEFAULT_CERTIFICATE), default_certificate.to_owned());
    files.extend(model.users.iter().map(|(name, users)| (PathBuf::from("users").join(name), users.clone())));
    if let Some(headers) = &settings.headers {
        files.extend([SET_HEADER, SET_GRPC_HEADER].map(|set| (custom_headers(set).into(), set_each(set, headers))));
    }
    let mut text = Text::default();
    main(&mut text, model, settings, flags);
    files.insert(MAIN.into(), text.0);
    let zone: BTreeMap<String, Vec<SocketAddrV4>> = model
        .upstreams
        .iter()
        .filter_map(|(name, upstream)| match upstream {
            Upstream::Endpoints(addresses) => Some((endpoints::name(name), endpoints::listed(addresses, ATTEMPTS))),
            Upstream::Service(_) => None,
        })
        .collect();
    files.insert(ENDPOINTS.into(), serde_json::json!(zone).to_string());
    files
}

/// The file of the custom headers, by what sets them.
fn custom_headers(set: &str) -> String {
    format!("{HEADERS}/{set}.conf")
}

fn set_each(set: &str, headers: &[(String, String)]) -> String {
    let mut text = Text::default();
    for (name, value) in headers {
        text.line(format!("{set} {} {};", quoted(name), quoted(value)));
    }
    text.0
}

fn main(text: &mut Text, model: &Model, settings: &Settings, flags: &Flags) {
    text::main(text, |text| {
        http(text, model, settings);
        for (host, server) in &model.servers {
            text.block("server", |text| self::server(text, model, settings, flags, host, server));
        }
    });
}

fn http(text: &mut Text, model: &Model, settings: &Settings) {
    text.line("server_tokens off;");
    text.line("keepalive_timeout 75s;");
    text.line("keepalive_requests 1000;");
    text.line("client_header_buffer_size 1k;");
    text.line(format!("large_client_header_buffers {};", settings.header_buffers));
    text.line("client_body_buffer_size 8k;");
    text.line("http2_max_concurrent_streams 128;");
    text.line("underscores_in_headers off;");
    text.line("ignore_invalid_headers on;");
    text.line("reset_timedout_connection on;");
    text.line("server_names_hash_bucket_size 256;");
    text.line("variables_hash_max_size 4096;");
    text.line("map_hash_bucket_size 256;");
    text.line("default_type text/html;");
    text.line(format!("resolver {} ipv6=off;", endpoints::RESOLVER));
    text.line(
        "log_format upstreaminfo '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
         \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] [] $upstream_addr \
         $upstream_response_length $upstream_response_time $upstream_status $req_id';",
    );
    text.line("access_log /dev/stdout upstreaminfo;");
    map(text, "$http_upgrade", "$connection_upgrade", &[("default", "upgrade"), ("''", "''")]);
    map(text, "$http_x_request_id", "$req_id", &[("default", "$http_x_request_id"), ("\"\"", "$request_id")]);
    map(text, "$http_host", "$best_http_host", &[("default", "$http_host"), ("\"\"", "$host")]);
    for (name, upstream) in &model.upstreams {
        text.block(format!("upstream {}", quoted(name)), |text| {
            // The real one picks in Lua for every attempt and sets nobody aside.
            match upstream {
                Upstream::Service(address) => {
                    for address in endpoints::listed(&[*address], ATTEMPTS) {
                        text.line(endpoints::fixed(address));
                    }
                }
                Upstream::Endpoints(_) => {
                    text.line(format!("zone {} 64k;", endpoints::name(name)));
                    text.line(endpoints::followed(&endpoints::name(name)));
                }
            }
            text.line("keepalive 320;");
            text.line("keepalive_time 1h;");
            text.line("keepalive_timeout 60s;");
            text.line("keepalive_requests 10000;");
        });
    }
    for (index, location) in canaries(model) {
        if let Some((alternative, canary)) = &location.canary {
            self::canary(text, index, location, alternative, canary);
        }
    }
}

/// Locations with a canary, numbered.
fn canaries(model: &Model) -> impl Iterator<Item = (usize, &Location)> {
    let locations = model.servers.values().flat_map(|server| server.locations.values());
    locations.filter(|location| location.canary.is_some()).enumerate()
}

/// The variable that a location with a canary sends to.
fn chosen(model: &Model, location: &Location) -> Option<String> {
    let found = canaries(model).find(|(_, known)| std::ptr::eq(*known, location));
    found.map(|(index, _)| format!("$canary_{index}"))
}

/// Who gets the alternative: first by header, then by cookie, then by weight.
fn canary(text: &mut Text, index: usize, location: &Location, alternative: &str, canary: &Canary) {
    let (primary, alternative) = (quoted(&location.upstream), quoted(alternative));
    let total = canary.weight_total.max(1);
    let percent = f64::from(canary.weight.min(total)) * 100.0 / f64::from(total);
    let mut next = format!("$canary_{index}_weight");
    text.block(format!("split_clients $request_id {next}"), |text| {
        // nginx takes no share of nothing, and none of everything beside a rest.
        if percent >= 100.0 {
            text.line(format!("* {alternative};"));
            return;
        }
        if percent > 0.0 {
            text.line(format!("{percent:.2}% {alternative};"));
        }
        text.line(format!("* {primary};"));
    });
    if let Some(cookie) = &canary.cookie {
        let variable = format!("$canary_{index}_cookie");
        let is = |value: &str| quoted(&format!("~(^|; *){}={value} *(;|$)", regex::escape(cookie)));
        // The variables of single cookies are only for names without hyphens and dots.
        let entries = [("default", next.as_str()), (&is("always"), &alternative), (&is("never"), &primary)];
        map(text, "$http_cookie", &variable, &entries);
        next = variable;
    }
    // Under another name nginx takes no header from a client.
    if let Some(header) = canary.header.as_ref().filter(|header| names::is_header(header)) {
        let variable = format!("$canary_{index}_header");
        let source = format!("$http_{}", header.to_lowercase().replace('-', "_"));
        match (&canary.header_value, &canary.header_pattern) {
            // A backslash makes a value of what is a keyword or a pattern otherwise.
            (Some(value), _) => {
                let value = quoted(&format!("\\{value}"));
                map(text, &source, &variable, &[("default", &next), (&value, &alternative)]);
            }
            // Without the header nothing is compared, whatever the pattern takes.
            (None, Some(pattern)) if regex::Regex::new(pattern).is_ok() => {
                let pattern = quoted(&format!("~{pattern}"));
                map(text, &source, &variable, &[("default", &next), ("\"\"", &next), (&pattern, &alternative)]);
            }
            // nginx would refuse everything for it. The real one finds out at a request, and asks nothing else of that.
            (None, Some(_)) => map(text, &source, &variable, &[("default", &primary), ("\"\"", &next)]),
            (None, None) => {
                let entries = [("default", next.as_str()), ("always", &alternative), ("never", &primary)];
                map(text, &source, &variable, &entries);
            }
        }
        next = variable;
    }
    map(text, &next, &format!("$canary_{index}"), &[("default", &next)]);
}

fn server(text: &mut Text, model: &Model, settings: &Settings, flags: &Flags, host: &str, server: &Server) {
    let default = if host == "_" { " default_server reuseport backlog=4096" } else { "" };
    text.line(format!("server_name {};", server_name(host)));
    text.line("http2 on;");
    text.line(format!("listen {}{default};", flags.number("http-port", 80)));
    text.line(format!("listen {}{default} ssl;", flags.number("https-port", 443)));
    let own = server.certificate.as_deref().filter(|name| !name.is_empty());
    certificate(text, own, host == "_", DEFAULT_CERTIFICATE);
    text.line("set $proxy_upstream_name \"-\";");
    if host == "_" {
        text.block("location /healthz", |text| {
            text.line("access_log off;");
            text.line("return 200;");
        });
    }
    let scope = Scope { model, settings, server };
    let mut errors = BTreeMap::new();
    let mut auths = BTreeMap::new();
    for (found, location) in &server.locations {
        let head = match found {
            Match::Exact(path) => format!("location = {}", quoted(path)),
            Match::Prefix(path) => format!("location {}", quoted(path)),
            Match::Regex(path) => format!("location ~* {}", quoted(&format!("^{path}"))),
        };
        let auth = location.annotations.auth.as_ref().map(|auth| {
            let name = format!("/_external-auth-{}", URL_SAFE_NO_PAD.encode(format!("{found:?}")));
            auths.insert(name.clone(), (auth, location));
            name
        });
        text.block(head, |text| self::location(text, &scope, found, location, auth.as_deref(), &mut errors));
    }
    text.block("location @no_endpoints", |text| {
        // Where there was nobody to send to: 503, as the real one's Lua says. Before its first answer an upstream has no address at all.
        text.block(format!("if ($upstream_addr ~ \"{}$|^[^:]*$\")", endpoints::NOBODY), |text| {
            text.line("return 503;")
        });
        text.line("return 502;");
    });
    for (name, (auth, location)) in auths {
        text.block(format!("location = {name}"), |text| external_auth(text, auth, location));
    }
    for (name, (upstream, code)) in errors {
        text.block(format!("location {name}"), |text| error_page(text, upstream, code));
    }
    if !server.locations.contains_key(&Match::Prefix("/".to_owned())) {
        text.block("location /", |text| default_backend(text, model, settings));
    }
}

/// A wildcard takes one label.
fn server_name(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(rest) => format!("~^(?<subdomain>[\\w-]+)\\.{}$", rest.replace('.', "\\.")),
        None => host.to_owned(),
    }
}

fn default_backend(text: &mut Text, model: &Model, settings: &Settings) {
    if !settings.default_backend_log {
        text.line("access_log off;");
    }
    // Without an Ingress behind it these have no values.
    for variable in ["namespace", "ingress_name", "service_name", "service_port"] {
        text.line(format!("set ${variable} \"\";"));
    }
    match &model.default_upstream {
        Some(upstream) => {
            proxy_headers(text, SET_HEADER, "$best_http_host", settings);
            text.line(format!("proxy_pass http://{upstream};"));
        }
        None => text.line("return 404;"),
    }
}

/// What a location is part of.
struct Scope<'a> {
    model: &'a Model,
    settings: &'a Settings,
    server: &'a Server,
}

/// In the order of the real template.
fn location<'a>(
    text: &mut Text,
    scope: &Scope<'a>,
    found: &Match,
    location: &'a Location,
    auth: Option<&str>,
    errors: &mut BTreeMap<String, (&'a str, u16)>,
) {
    let Scope { model, settings, server } = *scope;
    let annotations = &location.annotations;
    for (variable, value) in [
        ("namespace", &location.namespace),
        ("ingress_name", &location.ingress),
        ("service_name", &location.service),
        ("service_port", &location.port),
    ] {
        text.line(format!("set ${variable} {};", quoted(value)));
    }
    if location.denied {
        text.line("return 503;");
        return;
    }
    let redirects = annotations.ssl_redirect && server.certificate.is_some() || annotations.force_ssl_redirect;
    if redirects {
        text.block("if ($scheme = http)", |text| text.line("return 308 https://$host$request_uri;"));
    }
    let upstream = &location.upstream;
    text.line(format!("set $proxy_upstream_name {};", quoted(upstream)));
    if let (Some(name), Some(auth)) = (auth, &annotations.auth) {
        text.line(format!("auth_request {name};"));
        text.line("auth_request_set $auth_cookie $upstream_http_set_cookie;");
        text.line("add_header Set-Cookie $auth_cookie;");
        for (index, header) in auth.response_headers.iter().enumerate() {
            let variable = header.to_lowercase().replace('-', "_");
            text.line(format!("auth_request_set $auth_header_{index} $upstream_http_{variable};"));
            text.line(format!("proxy_set_header {} $auth_header_{index};", quoted(header)));
        }
    }
    if let Some((file, realm)) = &location.users {
        text.line(format!("auth_basic {};", quoted(realm)));
        text.line(format!("auth_basic_user_file {};", quoted(&format!("users/{file}"))));
        text.line("proxy_set_header Authorization \"\";");
    }
    text.line(format!("client_max_body_size {};", annotations.body_size));
    let set_header = if annotations.grpc { SET_GRPC_HEADER } else { SET_HEADER };
    let host = annotations.upstream_host.as_deref().map_or_else(|| "$best_http_host".to_owned(), quoted);
    proxy_headers(text, set_header, &host, settings);
    let prefix = if annotations.grpc { "grpc" } else { "proxy" };
    for (what, seconds) in ["connect", "send", "read"].iter().zip(annotations.timeouts) {
        text.line(format!("{prefix}_{what}_timeout {seconds}s;"));
    }
    if !annotations.grpc {
        text.line("proxy_buffering off;");
        text.line("proxy_buffer_size 4k;");
        text.line("proxy_buffers 4 4k;");
        text.line("proxy_max_temp_file_size 1024m;");
        text.line(format!("proxy_request_buffering {};", if annotations.request_buffering { "on" } else { "off" }));
        text.line("proxy_http_version 1.1;");
        text.line("proxy_cookie_domain off;");
        text.line("proxy_cookie_path off;");
        text.line("proxy_redirect off;");
    }
    text.line(format!("{prefix}_next_upstream error timeout;"));
    text.line(format!("{prefix}_next_upstream_timeout 0;"));
    text.line(format!("{prefix}_next_upstream_tries {ATTEMPTS};"));
    for line in annotations.snippet.lines() {
        text.line(line);
    }
    if let Some(target) = &annotations.rewrite {
        text.line(format!("rewrite {} {} break;", quoted(&format!("(?i){}", found.path())), quoted(target)));
    }
    if !annotations.custom_errors.is_empty() {
        text.line(format!("{prefix}_intercept_errors on;"));
        for code in &annotations.custom_errors {
            let Some(upstream) = &location.error_upstream else { continue };
            let name = format!("@custom_{upstream}_{code}");
            text.line(format!("error_page {code} = {name};"));
            errors.insert(name, (upstream, *code));
        }
    }
    text.line("error_page 502 = @no_endpoints;");
    let target = chosen(model, location).unwrap_or_else(|| upstream.clone());
    let scheme = match (annotations.grpc, annotations.tls_upstream) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "grpc",
        (true, true) => "grpcs",
    };
    text.line(format!("{prefix}_pass {};", quoted(&format!("{scheme}://{target}"))));
}

/// What every location sends on, and after it the headers of the ConfigMap.
fn proxy_headers(text: &mut Text, set: &str, host: &str, settings: &Settings) {
    text.line(format!("{set} Host {host};"));
    for (name, value) in [
        ("Upgrade", "$http_upgrade"),
        ("Connection", "$connection_upgrade"),
        ("X-Request-ID", "$req_id"),
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Host", "$best_http_host"),
        ("X-Forwarded-Port", "$server_port"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Scheme", "$scheme"),
        ("X-Scheme", "$scheme"),
        ("X-Original-Forwarded-For", "$http_x_forwarded_for"),
        ("X-Original-Forwarded-Host", "$http_x_forwarded_host"),
        ("Proxy", "\"\""),
    ] {
        text.line(format!("{set} {name} {value};"));
    }
    if settings.headers.is_some() {
        text.line(format!("include {};", custom_headers(set)));
    }
}

/// The request that asks whether a request may pass. It has its own headers; the client's are passed on beside them.
fn external_auth(text: &mut Text, auth: &Auth, location: &Location) {
    text.line("internal;");
    text.line("access_log off;");
    text.line("proxy_pass_request_body off;");
    for (name, value) in [
        ("Content-Length", "\"\""),
        ("X-Forwarded-Proto", "\"\""),
        ("X-Request-ID", "$req_id"),
        ("Host", auth.host.as_str()),
        ("X-Original-URL", "$scheme://$http_host$request_uri"),
        ("X-Original-Method", "$request_method"),
        ("X-Sent-From", "\"nginx-ingress-controller\""),
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Auth-Request-Redirect", "$request_uri"),
    ] {
        text.line(format!("proxy_set_header {name} {value};"));
    }
    text.line("proxy_buffering off;");
    text.line("proxy_http_version 1.1;");
    text.line("proxy_pass_request_headers on;");
    for (name, value) in &location.auth_headers {
        text.line(format!("proxy_set_header {} {};", quoted(name), quoted(value)));
    }
    for line in auth.snippet.lines() {
        text.line(line);
    }
    if let Some(nameserver) = nameserver() {
        text.line(format!("resolver {nameserver} valid=30s ipv6=off;"));
    }
    text.line(format!("set $target {};", quoted(&auth.url)));
    text.line("proxy_pass $target;");
}

/// Neither snippet nor custom headers reach here: the list is fixed.
fn error_page(text: &mut Text, upstream: &str, code: u16) {
    text.line("internal;");
    text.line("proxy_intercept_errors off;");
    for (name, value) in [
        ("X-Code", code.to_string().as_str()),
        ("X-Format", "$http_accept"),
        ("X-Original-URI", "$request_uri"),
        ("X-Namespace", "$namespace"),
        ("X-Ingress-Name", "$ingress_name"),
        ("X-Service-Name", "$service_name"),
        ("X-Service-Port", "$service_port"),
        ("X-Request-ID", "$req_id"),
        ("X-Forwarded-For", "$remote_addr"),
        ("Host", "$best_http_host"),
    ] {
        text.line(format!("proxy_set_header {name} {value};"));
    }
    text.line(format!("set $proxy_upstream_name {};", quoted(upstream)));
    text.line("rewrite (.*) / break;");
    text.line(format!("proxy_pass http://{upstream};"));
}

/// The pod's own resolver, for names in `auth-url`.
fn nameserver() -> Option<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().find_map(|line| line.strip_prefix("nameserver ").map(|address| address.trim().to_owned()))
}
