//! What is malformed, too much or too slow gets an answer that is bounded, and never reaches an application as something else.

mod answers;
mod frames;
mod heads;
mod mute;
mod pace;
mod strict;

use std::time::{Duration, Instant};

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
