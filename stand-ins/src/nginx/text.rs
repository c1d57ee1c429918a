//! nginx' configuration as text, for every controller in front of it.

use std::fmt::{Display, Write as _};

/// Lines, indented by depth.
#[derive(Default)]
pub(crate) struct Text(pub(crate) String, usize);

impl Text {
    pub(crate) fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:indent$}{line}", "", indent = self.1 * 4);
    }

    pub(crate) fn block(&mut self, head: impl Display, body: impl FnOnce(&mut Self)) {
        self.line(format!("{head} {{"));
        self.1 += 1;
        body(self);
        self.1 -= 1;
        self.line("}");
    }
}

/// A whole configuration, whose `http` block is the controller's.
pub(crate) fn main(text: &mut Text, http: impl FnOnce(&mut Text)) {
    text.line("daemon off;");
    text.line("user root root;");
    text.line("worker_processes 2;");
    text.line("worker_shutdown_timeout 240s;");
    text.line("pid nginx.pid;");
    text.line("error_log stderr notice;");
    text.block("events", |text| {
        text.line("multi_accept on;");
        text.line("worker_connections 4096;");
    });
    text.block("http", |text| {
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            text.line(format!("{kind}_temp_path temp/{kind};"));
        }
        http(text);
    });
}

/// A string of nginx: in double quotes, with variables.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A variable that is another one's value looked up.
pub(crate) fn map(text: &mut Text, source: &str, variable: &str, entries: &[(&str, &str)]) {
    text.block(format!("map {source} {variable}"), |text| {
        for (key, value) in entries {
            text.line(format!("{key} {value};"));
        }
    });
}

/// The certificate of a server. nginx has those without one answer with that of the default server; to say it in each of them as well
/// costs half a millisecond per server whenever the configuration is read.
pub(crate) fn certificate(text: &mut Text, own: Option<&str>, default_server: bool, default: &str) {
    if let Some(name) = own.or(default_server.then_some(default)) {
        text.line(format!("ssl_certificate tls/{name};"));
        text.line(format!("ssl_certificate_key tls/{name};"));
    }
}
