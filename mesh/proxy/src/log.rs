//! What the proxy logs, by a filter that can be changed while it runs.

use std::io;

use tracing::{Subscriber, info};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan, reload,
    util::SubscriberInitExt,
};

use crate::Config;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One object per line.
    Json,
}

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogLevelError {
    #[error("expected directives such as `warn,linkerd=debug`: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// The filter of a log that is being written.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// A filter by these directives, and the layer that filters by it. As with Linkerd, a directive that means nothing is passed over.
    pub fn new(directives: &str) -> (Self, impl Layer<Registry> + Send + Sync + use<>) {
        let (layer, handle) = reload::Layer::new(EnvFilter::new(own(directives)));
        (Self(handle), layer)
    }

    /// The directives in force.
    pub(crate) fn current(&self) -> Result<String, LogLevelError> {
        Ok(self.0.with_current(ToString::to_string)?)
    }

    /// Filters by these directives from now on, if all of them mean something.
    pub(crate) fn set(&self, directives: &str) -> Result<(), LogLevelError> {
        let filter = EnvFilter::builder().parse(own(directives))?;
        self.0.reload(filter)?;
        info!(%directives, "the log has a new filter");
        Ok(())
    }
}

impl LogFormat {
    /// As with Linkerd: what is not JSON is plain.
    pub(crate) fn parse(value: &str) -> Self {
        if value.eq_ignore_ascii_case("json") { Self::Json } else { Self::Plain }
    }

    fn layer<S, W>(self, to: W) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(to);
        match self {
            Self::Plain => layer.boxed(),
            Self::Json => layer.json().boxed(),
        }
    }
}

/// Logs to standard error from now on; `None` if this process has a log already.
pub(crate) fn init(config: &Config) -> Option<LogLevel> {
    let (level, filter) = LogLevel::new(&config.log);
    let log = tracing_subscriber::registry().with(filter).with(config.log_format.layer(io::stderr));
    log.try_init().ok().map(|()| level)
}

/// Linkerd's directives name its own crates; here they mean this one.
fn own(directives: &str) -> String {
    let own = directives.split(',').map(|directive| match directive.trim().split_once('=') {
        Some(("linkerd" | "linkerd2_proxy", level)) => format!("{}={level}", env!("CARGO_CRATE_NAME")),
        _ => directive.trim().to_owned(),
    });
    own.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Seek},
        sync::Arc,
    };

    use super::*;

    #[test]
    fn linkerds_names_mean_this_proxy() {
        assert_eq!(own("warn, linkerd=info,linkerd2_proxy=debug"), "warn,meshgate_proxy=info,meshgate_proxy=debug");
        assert_eq!(own("linkerd_app=debug,hyper=trace"), "linkerd_app=debug,hyper=trace");
    }

    /// What the log looks like.
    fn logged(format: &str) -> String {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let log = tracing_subscriber::registry().with(LogFormat::parse(format).layer(Arc::clone(&file)));
        tracing::subscriber::with_default(log, || tracing::warn!(port = 80, "an example"));
        let mut text = String::new();
        (&*file).rewind().and_then(|()| (&*file).read_to_string(&mut text)).unwrap();
        text
    }

    #[test]
    fn what_is_not_json_is_plain() {
        for format in ["json", "JSON"] {
            let line: serde_json::Value = serde_json::from_str(&logged(format)).unwrap();
            assert_eq!((&line["level"], &line["target"]), (&"WARN".into(), &module_path!().into()));
            assert_eq!(line["fields"], serde_json::json!({"message": "an example", "port": 80}));
        }
        for format in ["plain", "PLAIN", "", "other"] {
            assert!(logged(format).ends_with("an example port=80\n"), "{format}");
        }
    }
}
