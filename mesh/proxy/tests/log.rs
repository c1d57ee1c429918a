//! The log, changed while the proxy runs: a program of its own, since a process has one log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "proxy"]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the other tests use the rest of it")]
    pub mod support;
}

use std::{
    io::{self, Write},
    sync::Arc,
};

use meshgate_proxy::LogLevel;
use parking_lot::Mutex;
use shared::support::{App, Setup};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock())).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_is_changed_while_the_proxy_runs() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (log, filter) = LogLevel::new("warn,linkerd=info");
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing_subscriber::registry().with(filter).with(format).init();

    let (first, second) = (App::named("first").await, App::named("second").await);
    let mesh = Setup::new().original(1, first.address).original(2, second.address).logging(log).start().await;
    let level = async || mesh.admin().await.get("/proxy-log-level", &[]).await.body;
    let plan = |app: &App| format!("DEBUG meshgate_proxy::outbound::destination: a new plan target={}", app.address);
    assert_eq!(level().await, "meshgate_proxy=info,warn");
    mesh.connect(1).await.get("/", &[]).await;
    assert!(!lines.take().contains("DEBUG"));

    for wrong in ["linkerd=loud", "warn,[", "linkerd=debug,=="] {
        let refused = mesh.ask_admin("PUT", "/proxy-log-level", wrong).await;
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.body.starts_with("expected directives such as `warn,linkerd=debug`: "), "{}", refused.body);
    }
    assert_eq!(level().await, "meshgate_proxy=info,warn", "what is refused changes nothing");

    let set = mesh.ask_admin("PUT", "/proxy-log-level", "warn,linkerd=debug\n").await;
    assert_eq!((set.status.as_u16(), &*set.body), (204, ""));
    assert_eq!(level().await, "meshgate_proxy=debug,warn");
    mesh.connect(2).await.get("/", &[]).await;
    let lines = lines.take();
    assert!(lines.contains(&plan(&second)) && !lines.contains(&plan(&first)), "{lines}");
}
