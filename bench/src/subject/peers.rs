//! Configurations of Envoy, nginx and HAProxy that do the same: pass every request on to the one endpoint, over connections
//! that are kept, with one worker, no access log, and no limit that a run would meet. A Service of many endpoints is told by its
//! host, and each takes the less loaded of two random ones, as the bundled proxy does.

use std::{ffi::OsStr, fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command};

use anyhow::Context;
use meshgate_images::Program;

use super::Peer;
use crate::{
    services::{Service, endpoint},
    world::{OUTBOUND_HTTP2_PORT, OUTBOUND_PORT},
};

/// Writes the configuration, and says how to run the program with it. `services` are told by their hosts.
pub(super) fn command(peer: Peer, program: &Program, services: &[Service], folder: &Path) -> anyhow::Result<Command> {
    let backend = endpoint(0);
    let (file, text) = match peer {
        Peer::Envoy => ("envoy.yaml", envoy(backend, services)),
        Peer::Nginx => ("nginx.conf", nginx(backend, services)),
        Peer::Haproxy => ("haproxy.cfg", haproxy(backend, services)),
    };
    let file = folder.join(file);
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    let mut command = Command::new(&program.path);
    command.envs(program.env.iter().map(|(key, value)| (key, value)));
    let arguments: &[&OsStr] = match peer {
        Peer::Envoy => &[
            "-c".as_ref(),
            file.as_ref(),
            "--concurrency".as_ref(),
            "1".as_ref(),
            "--use-dynamic-base-id".as_ref(),
            "--log-level".as_ref(),
            "warning".as_ref(),
        ],
        Peer::Nginx => {
            &["-p".as_ref(), folder.as_ref(), "-c".as_ref(), file.as_ref(), "-e".as_ref(), "stderr".as_ref()]
        }
        Peer::Haproxy => &["-f".as_ref(), file.as_ref(), "-db".as_ref()],
    };
    command.args(arguments);
    Ok(command)
}

fn envoy(backend: SocketAddr, services: &[Service]) -> String {
    let mut hosts = String::new();
    let mut clusters = envoy_cluster("backend", &[backend]);
    // Writing into a String cannot fail.
    for service in services {
        let (name, host) = (&service.name, service.host());
        let _ = write!(
            hosts,
            r#"
            - name: {name}
              domains: ["{host}"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: {name}, timeout: 0s}}}}]"#
        );
        clusters += &envoy_cluster(name, &service.endpoints());
    }
    format!(
        r#"static_resources:
  listeners:
  - name: outbound
    address: {{socket_address: {{address: 127.0.0.1, port_value: {OUTBOUND_PORT}}}}}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: outbound
          codec_type: AUTO
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: backend, timeout: 0s}}}}]{hosts}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
{clusters}"#
    )
}

fn envoy_cluster(name: &str, endpoints: &[SocketAddr]) -> String {
    let endpoint = |address: &SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}")
    };
    let endpoints: Vec<String> = endpoints.iter().map(endpoint).collect();
    format!(
        r#"  - name: {name}
    type: STATIC
    lb_policy: LEAST_REQUEST
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {{http_protocol_options: {{}}, http2_protocol_options: {{}}}}
    circuit_breakers:
      thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints: [{}]
"#,
        endpoints.join(", ")
    )
}

fn nginx(backend: SocketAddr, services: &[Service]) -> String {
    let mut further = String::new();
    for service in services {
        let servers: String = service.endpoints().iter().map(|address| format!("    server {address};\n")).collect();
        further += &nginx_upstream(&service.name, &format!("    random two least_conn;\n{servers}"));
        let _ = write!(
            further,
            "  server {{
    listen 127.0.0.1:{OUTBOUND_PORT};
    server_name {};
    {}
  }}
",
            service.host(),
            nginx_location(&service.name)
        );
    }
    let (upstream, location) =
        (nginx_upstream("backend", &format!("    server {backend};\n")), nginx_location("backend"));
    format!(
        "daemon off;
user root root;
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
{upstream}  server {{
    listen 127.0.0.1:{OUTBOUND_PORT} backlog=4096 default_server;
    http2 on;
    {location}
  }}
{further}}}
"
    )
}

fn nginx_upstream(name: &str, servers: &str) -> String {
    format!(
        "  upstream {name} {{
{servers}    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
"
    )
}

fn nginx_location(upstream: &str) -> String {
    format!(
        "location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
    }}"
    )
}

fn haproxy(backend: SocketAddr, services: &[Service]) -> String {
    let (mut choices, mut further) = (String::new(), String::new());
    for service in services {
        let (name, host) = (&service.name, service.host());
        let _ = writeln!(choices, "  use_backend {name} if {{ req.hdr(host) {host} }}");
        let servers = service.endpoints();
        let servers = servers.iter().enumerate().map(|(index, address)| format!("  server s{index} {address}\n"));
        let _ = write!(further, "backend {name}\n  balance random(2)\n{}", servers.collect::<String>());
    }
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend http1
  bind 127.0.0.1:{OUTBOUND_PORT} backlog 4096
{choices}  default_backend http1
frontend http2
  bind 127.0.0.1:{OUTBOUND_HTTP2_PORT} proto h2 backlog 4096
  default_backend http2
backend http1
  server one {backend}
backend http2
  server one {backend} proto h2
{further}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_names_port_and_backend() {
        for text in [envoy(endpoint(0), &[]), nginx(endpoint(0), &[]), haproxy(endpoint(0), &[])] {
            assert!(text.contains("4140") && text.contains("10.1.0.1") && text.contains("8080"), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn a_service_of_many_endpoints_is_told_by_its_host() {
        let services = [Service::with_endpoints(10), Service::with_endpoints(100)];
        for text in [envoy(endpoint(0), &services), nginx(endpoint(0), &services), haproxy(endpoint(0), &services)] {
            assert!(text.contains("endpoints-100.ns.svc.cluster.local"), "{text}");
            // Both Services have the tenth, and the default backend is the first.
            assert_eq!(text.matches("10.1.0.10").count() - text.matches("10.1.0.100").count(), 2, "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn there_is_one_worker() {
        assert!(nginx(endpoint(0), &[]).contains("worker_processes 1;"));
        assert!(haproxy(endpoint(0), &[]).contains("nbthread 1\n"));
    }
}
