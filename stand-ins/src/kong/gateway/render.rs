//! The model as nginx' configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::path::PathBuf;

use super::VERSION;
use super::model::{ANY, Found, Match, Model, Route, Server};
use super::settings::{Listener, Settings};
use super::transform::{Outcome, Transformer};
use crate::data_plane::Files;
use crate::nginx::text::{self, Text, certificate, map, quoted};
use crate::nginx::{ENDPOINTS, MAIN, endpoints};

/// The certificate of hosts without one of their own.
const DEFAULT_CERTIFICATE: &str = "default.pem";

/// For how many attempts the addresses of an upstream are listed at most: its zone holds little more than a hundred of them.
const LISTED_ATTEMPTS: u32 = 16;

/// Headers that a location sets whatever plugins say.
const FIXED: &[&str] = &[
    "te",
    "via",
    "host",
    "upgrade",
    "connection",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-real-ip",
    "x-kong-request-id",
    "proxy",
];

/// What a transformer comes to, and the variables that its locations set for that.
type Plugins<'a> = BTreeMap<&'a Transformer, (&'a Outcome, &'a [(String, String)])>;

/// All files of a model whose names were found to have these addresses.
pub(super) fn files(model: &Model, found: &Found, settings: &Settings, default_certificate: &str) -> Files {
    let mut files: Files =
        model.certificates.iter().map(|(name, pem)| (PathBuf::from("tls").join(name), pem.clone())).collect();
    files.insert(PathBuf::from("tls").join(DEFAULT_CERTIFICATE), default_certificate.to_owned());
    let mut text = Text::default();
    main(&mut text, model, found, settings);
    files.insert(MAIN.into(), text.0);
    let zone: BTreeMap<String, Vec<SocketAddrV4>> = model
        .upstreams
        .iter()
        .filter(|(_, upstream)| upstream.fixed(found).is_none())
        .map(|(name, upstream)| (endpoints::name(name), listed(&upstream.addresses(found), upstream.attempts)))
        .collect();
    files.insert(ENDPOINTS.into(), serde_json::json!(zone).to_string());
    files
}

fn listed(addresses: &[SocketAddrV4], attempts: u32) -> Vec<SocketAddrV4> {
    // Where it does not fit it would be more than is listed in any case.
    endpoints::listed(addresses, usize::try_from(attempts.min(LISTED_ATTEMPTS)).unwrap_or_default())
}

fn main(text: &mut Text, model: &Model, found: &Found, settings: &Settings) {
    text::main(text, |text| {
        http(text, model, found, settings);
        let routes = model.servers.values().flat_map(|server| server.routes.values());
        let played: BTreeMap<&Transformer, _> =
            routes.filter_map(|route| route.transformer.as_ref()).map(|it| (it, it.shape())).collect();
        let shapes: BTreeSet<&Transformer> = played.values().map(|(shape, _)| shape).collect();
        let outcomes: BTreeMap<&Transformer, Outcome> = shapes
            .into_iter()
            .enumerate()
            .map(|(index, shape)| (shape, shape.outcome(&format!("plugin_{index}"))))
            .collect();
        let plugins: Plugins<'_> =
            played.iter().map(|(key, (shape, values))| (*key, (&outcomes[shape], values.as_slice()))).collect();
        for found in outcomes.values().flat_map(|outcome| &outcome.maps) {
            let entries: Vec<(String, String)> = found
                .entries
                .iter()
                .map(|(key, value)| (if key == "default" { key.clone() } else { quoted(key) }, quoted(value)))
                .collect();
            let entries: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (&**key, &**value)).collect();
            map(text, &quoted(&found.source), &found.variable, &entries);
        }
        for (host, server) in &model.servers {
            text.block("server", |text| self::server(text, settings, &plugins, host, server));
        }
    });
}

fn http(text: &mut Text, model: &Model, found: &Found, settings: &Settings) {
    text.line("server_tokens off;");
    text.line("server_names_hash_bucket_size 256;");
    text.line("variables_hash_max_size 4096;");
    text.line("map_hash_bucket_size 256;");
    // Kong takes such headers; the variables of nginx cannot tell them from those with hyphens.
    text.line("underscores_in_headers off;");
    for (directive, value) in &settings.http {
        text.line(format!("{directive} {value};"));
    }
    text.line("default_type \"application/json; charset=utf-8\";");
    text.line(format!("resolver {} ipv6=off;", endpoints::RESOLVER));
    text.line(
        "log_format kong_combined '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
         \"$http_referer\" \"$http_user_agent\" kong_request_id: \"$request_id\" upstream: \"$upstream_addr\"';",
    );
    text.line(format!("access_log {} kong_combined;", settings.access_log));
    text.block("geo $dollar", |text| text.line("default \"$\";"));
    map(text, "$http_upgrade", "$upstream_upgrade", &[("default", "\"\""), ("\"~*^websocket$\"", "websocket")]);
    let connection = [("default", "keep-alive"), ("websocket", "\"keep-alive, Upgrade\"")];
    map(text, "$upstream_upgrade", "$upstream_connection", &connection);
    map(text, "$http_te", "$upstream_te", &[("default", "\"\""), ("\"~*(^|,)\\s*trailers\\s*(,|$)\"", "trailers")]);
    let via = format!("\"1.1 kong/{VERSION}\"");
    map(text, "$server_protocol", "$own_via", &[("default", &via), ("HTTP/2.0", &format!("\"2 kong/{VERSION}\""))]);
    map(text, "$http_via", "$upstream_via", &[("default", "\"$http_via, $own_via\""), ("\"\"", "$own_via")]);
    let path = [("default", "$request_uri"), ("\"~^(?<forwarded_path>[^?]*)\"", "$forwarded_path")];
    map(text, "$request_uri", "$upstream_x_forwarded_path", &path);
    text.block("map $server_port $upstream_x_forwarded_port", |text| {
        text.line("default $server_port;");
        for (listened, seen) in &settings.ports {
            text.line(format!("{listened} {seen};"));
        }
    });
    map(text, "$http_host", "$client_host", &[("default", "$http_host"), ("\"\"", "$host")]);
    for (name, upstream) in &model.upstreams {
        text.block(format!("upstream {}", quoted(name)), |text| {
            // Without health checks, which the controller does not ask for, Kong sets nobody aside.
            match upstream.fixed(found) {
                Some(address) => {
                    for address in listed(&[address], upstream.attempts) {
                        text.line(endpoints::fixed(address));
                    }
                }
                None => {
                    text.line(format!("zone {} 64k;", endpoints::name(name)));
                    text.line(endpoints::followed(&endpoints::name(name)));
                }
            }
            text.line("keepalive 512;");
            text.line("keepalive_timeout 60s;");
            text.line("keepalive_requests 10000;");
        });
    }
}

fn server(text: &mut Text, settings: &Settings, plugins: &Plugins<'_>, host: &str, server: &Server) {
    text.line(format!("server_name {host};"));
    let http2 = settings.listeners.iter().filter(|listener| listener.http2).count();
    // Today's nginx has it by server; only where its listeners differ it needs the older way.
    let each = http2 > 0 && http2 < settings.listeners.len();
    if http2 > 0 && !each {
        text.line("http2 on;");
    }
    for listener in &settings.listeners {
        listen(text, listener, each, host == ANY);
    }
    certificate(text, server.certificate.as_deref(), host == ANY, DEFAULT_CERTIFICATE);
    // Errors of nginx' own, not those of backends.
    text.line("error_page 502 = @error_502;");
    text.block("location @error_502", |text| {
        // Where there was nobody to send to, or, before the upstream's first answer, no address at all.
        text.block(format!("if ($upstream_addr ~ \"{}$|^[^:]*$\")", endpoints::NOBODY), |text| {
            answer(text, 503, "failure to get a peer from the ring-balancer");
        });
        answer(text, 502, "An invalid response was received from the upstream server");
    });
    text.line("error_page 504 @error_504;");
    text.block("location @error_504", |text| answer(text, 504, "The upstream server is timing out"));
    let mut regexes: Vec<(&String, &Route)> = Vec::new();
    for (found, route) in &server.routes {
        let (head, prefix) = match found {
            Match::Exact(path) => (format!("location = {}", quoted(path)), path),
            Match::Prefix(path) => (format!("location {}", quoted(path)), path),
            Match::Regex(path) => {
                regexes.push((path, route));
                continue;
            }
        };
        text.block(head, |text| location(text, plugins, route, Some(prefix)));
    }
    // nginx takes the first that fits, Kong the longest of the highest priority.
    regexes.sort_by_key(|(path, route)| std::cmp::Reverse((route.options.regex_priority, path.len())));
    for (path, route) in regexes {
        text.block(format!("location ~ {}", quoted(&format!("^{path}"))), |text| {
            location(text, plugins, route, None);
        });
    }
    if !server.routes.contains_key(&Match::Prefix("/".to_owned())) {
        text.block("location /", |text| answer(text, 404, "no Route matched with those values"));
    }
}

fn listen(text: &mut Text, listener: &Listener, each_http2: bool, default: bool) {
    let mut words = vec![listener.address.clone()];
    if listener.ssl {
        words.push("ssl".to_owned());
    }
    if listener.http2 && each_http2 {
        words.push("http2".to_owned());
    }
    if default {
        words.push("default_server".to_owned());
        words.extend(listener.socket.iter().cloned());
    }
    text.line(format!("listen {};", words.join(" ")));
}

/// An answer of Kong itself.
fn answer(text: &mut Text, code: u16, message: &str) {
    let body = format!("{{\"message\":\"{message}\",\"request_id\":\"$request_id\"}}");
    text.line(format!("return {code} '{body}';"));
}

fn location(text: &mut Text, plugins: &Plugins<'_>, route: &Route, prefix: Option<&str>) {
    protocols(text, &route.options.protocols, route.options.https_status);
    let grpc = route.service.protocol.starts_with("grpc");
    let module = if grpc { "grpc" } else { "proxy" };
    let plugin = route.transformer.as_ref().and_then(|transformer| plugins.get(transformer));
    for (variable, value) in plugin.into_iter().flat_map(|(_, values)| *values) {
        text.line(format!("set {variable} {};", quoted(value)));
    }
    let outcome = plugin.map(|(outcome, _)| *outcome);
    let stripped = prefix.map(|prefix| prefix.trim_end_matches('/')).filter(|_| route.options.strip_path);
    let host = match outcome.and_then(|outcome| outcome.host.as_deref()) {
        Some(host) => host,
        None if route.options.preserve_host => "$client_host",
        None => &literal(&route.service.host),
    };
    let prefix_header = literal(stripped.unwrap_or_default());
    for (name, value) in [
        ("TE", "$upstream_te"),
        ("Via", "$upstream_via"),
        ("Host", host),
        ("Upgrade", "$upstream_upgrade"),
        ("Connection", "$upstream_connection"),
        ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Host", "$host"),
        ("X-Forwarded-Port", "$upstream_x_forwarded_port"),
        ("X-Forwarded-Path", "$upstream_x_forwarded_path"),
        ("X-Forwarded-Prefix", &prefix_header),
        ("X-Real-IP", "$remote_addr"),
        ("X-Kong-Request-Id", "$request_id"),
        ("Proxy", ""),
    ] {
        // HTTP/2 knows neither, and backends refuse whoever sends them.
        if !(grpc && ["Upgrade", "Connection"].contains(&name)) {
            text.line(format!("{module}_set_header {name} {};", quoted(value)));
        }
    }
    let headers = outcome.into_iter().flat_map(|outcome| &outcome.headers);
    for (name, lines) in headers.filter(|(name, _)| !FIXED.contains(&name.to_lowercase().as_str())) {
        if lines.is_empty() {
            text.line(format!("{module}_set_header {name} \"\";"));
        }
        for line in lines {
            text.line(format!("{module}_set_header {name} {};", quoted(line)));
        }
    }
    for (what, milliseconds) in ["connect", "send", "read"].iter().zip(route.service.timeouts) {
        text.line(format!("{module}_{what}_timeout {milliseconds}ms;"));
    }
    if !grpc {
        let switch = |on: bool| if on { "on" } else { "off" };
        text.line("proxy_http_version 1.1;");
        text.line(format!("proxy_buffering {};", switch(route.options.response_buffering)));
        text.line(format!("proxy_request_buffering {};", switch(route.options.request_buffering)));
        text.line("proxy_redirect off;");
    }
    text.line(format!("{module}_pass_header Server;"));
    text.line(format!("{module}_pass_header Date;"));
    text.line(format!("{module}_next_upstream error timeout;"));
    text.line(format!("{module}_next_upstream_tries {};", route.service.attempts));
    if let Some(prefix) = stripped {
        text.line(format!("rewrite {} /$1 break;", quoted(&format!("^{}/*(.*)$", escaped(prefix)))));
    }
    let scheme = match route.service.protocol.as_str() {
        known @ ("https" | "grpc" | "grpcs") => known,
        _ => "http",
    };
    text.line(format!("{module}_pass {};", quoted(&format!("{scheme}://{}", route.upstream))));
}

/// A request of another protocol than the route's is told so.
fn protocols(text: &mut Text, protocols: &[String], https_status: u16) {
    let has = |name: &str| protocols.iter().any(|protocol| protocol == name);
    if !has("http") && !has("grpc") {
        text.block("if ($scheme = http)", |text| match https_status {
            426 => answer(text, 426, "Please use HTTPS protocol"),
            code => text.line(format!("return {code} https://$host$request_uri;")),
        });
    }
    if !has("http") && !has("https") {
        text.block("if ($server_protocol != \"HTTP/2.0\")", |text| answer(text, 426, "Please use HTTP2 protocol"));
        text.block("if ($content_type !~ \"^application/grpc\")", |text| {
            answer(text, 415, "Non-gRPC request matched gRPC route");
        });
    }
}

/// A text without variables; nginx has no other way to say a dollar.
fn literal(text: &str) -> String {
    text.replace('$', "${dollar}")
}

/// A path as a pattern for itself.
fn escaped(path: &str) -> String {
    path.chars().fold(String::new(), |mut pattern, c| {
        if !c.is_ascii_alphanumeric() && !"/-_".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}
