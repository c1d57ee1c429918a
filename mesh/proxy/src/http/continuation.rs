//! `Expect: 100-continue`: the client's body is not asked for before the application has asked for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use http::{Request, StatusCode, Version, header::EXPECT};
use tokio::time;

/// An application that knows nothing of `Expect` says nothing, and waits for the body (RFC 9110, 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Shut until the application sends `100 Continue`, or for a while.
pub(crate) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// A gate if the request asks for one. hyper then calls it when the application's `100 Continue` arrives, and sends
    /// the client one of its own as soon as the body is read.
    pub(crate) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let expects = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        if request.version() != Version::HTTP_11 || !request.headers().get(EXPECT).is_some_and(expects) {
            return None;
        }
        let state = Arc::<State>::default();
        let opener = Arc::clone(&state);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                opener.open();
            }
        });
        let timer = Arc::downgrade(&state);
        tokio::spawn(async move {
            time::sleep(PATIENCE).await;
            if let Some(state) = timer.upgrade() {
                state.open();
            }
        });
        Some(Self(state))
    }

    /// Ready once the gate is open.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.open.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl State {
    fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }
}
