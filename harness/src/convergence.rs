//! Convergence is proved, not slept for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often in a row the new state has to be seen before it counts as settled.
pub const STREAK: u32 = 3;

/// How many times as long as on the embedded cluster everything may take. A cell is a process of its own and has one cluster, so this is its
/// cluster's.
static PACE: AtomicU32 = AtomicU32::new(1);

/// From now on everything may take so many times as long.
pub fn set_pace(times: u32) {
    PACE.store(times.max(1), Ordering::Relaxed);
}

/// How long that may take on this cluster which takes so long on the embedded one at most.
pub fn patient(within: Duration) -> Duration {
    at_pace(PACE.load(Ordering::Relaxed), within)
}

fn at_pace(times: u32, within: Duration) -> Duration {
    within * times
}

/// Until when it may.
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + patient(within)
}

/// [`converge_by`] the [`deadline`] of what takes so long on the embedded cluster.
///
/// # Errors
/// As there.
pub async fn converge<T, F, Fut>(within: Duration, look: F) -> Result<T, String>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    converge_by(deadline(within), look).await
}

/// Looks until `look` says yes [`STREAK`] times in a row, or the deadline passes.
///
/// `look` answers `Ok` when what it saw is the *new* state and `Err(what it saw)` otherwise. The last thing seen is the result, and
/// at the deadline the error.
pub async fn converge_by<T, F, Fut>(deadline: Instant, mut look: F) -> Result<T, String>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    let mut streak = 0;
    let mut pause = Duration::from_millis(4);
    loop {
        match look().await {
            Ok(seen) => {
                streak += 1;
                if streak == STREAK {
                    return Ok(seen);
                }
            }
            Err(seen) => {
                streak = 0;
                if Instant::now() >= deadline {
                    return Err(format!("not within {:.1} s; last seen: {seen}", began.elapsed().as_secs_f64()));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(Duration::from_millis(200));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_single_success_is_not_convergence() {
        let looks = Cell::new(0);
        let result = converge(Duration::from_secs(1), || {
            looks.set(looks.get() + 1);
            let seen = looks.get();
            async move { if seen == 1 || seen > 4 { Ok(()) } else { Err(format!("old {seen}")) } }
        })
        .await;
        assert_eq!((result, looks.get()), (Ok(()), 7));
    }

    #[tokio::test]
    async fn the_deadline_tells_what_was_seen_last() {
        let result: Result<(), String> = converge(Duration::from_millis(50), || async { Err("404".to_owned()) }).await;
        assert_eq!(result, Err("not within 0.1 s; last seen: 404".to_owned()));
    }

    #[test]
    fn on_a_slower_cluster_everything_may_take_longer() {
        let second = Duration::from_secs(1);
        let began = Instant::now();
        assert_eq!(at_pace(1, second), second);
        assert_eq!(at_pace(3, second), 3 * second);
        assert!(deadline(second) >= began + second, "at least as long as on the embedded one");
    }
}
