//! The open loop: requests are due at a fixed rate, whether or not earlier ones are answered yet, and a latency counts from
//! when its request was due. What waits behind a slow answer is slow as well, which a closed loop would hide.

use std::{io, time::Duration};

use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
    time::{self, Instant},
};

use super::{Latency, Target};
use crate::{http1, statistics::percentile};

/// How long answers are waited for after the last request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `rate` requests a second over `connections` for `warm` and then `measured`.
///
/// # Errors
/// When a connection cannot be made at the start.
pub(crate) async fn open(
    target: &Target,
    rate: u32,
    connections: usize,
    warm: Duration,
    measured: Duration,
) -> io::Result<Latency> {
    let mut senders = Vec::new();
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let connection = http1::Connection::open(target.address).await?;
        let (sender, due) = mpsc::unbounded_channel();
        senders.push(sender);
        workers.spawn(worker(connection, target.clone(), due));
    }
    let interval = Duration::from_secs(1) / rate;
    let start = Instant::now();
    let end = start + warm + measured;
    let mut due = start;
    let mut sent = 0;
    'requests: loop {
        for sender in &senders {
            // Timers are a millisecond coarse, so this waits by letting everyone else run.
            while Instant::now() < due {
                task::yield_now().await;
            }
            if due >= end {
                break 'requests;
            }
            let counted = due >= start + warm;
            sent += u64::from(counted);
            // A worker that is gone answers nothing, which is counted below.
            let _ = sender.send((due, counted));
            due += interval;
        }
    }
    drop(senders);
    let mut latencies = Vec::new();
    let collect = async {
        while let Some(worker) = workers.join_next().await {
            latencies.extend(worker.unwrap_or_default());
        }
    };
    // Whatever is not answered by then is an error.
    let _ = time::timeout(PATIENCE, collect).await;
    latencies.sort_unstable();
    let at = |share| percentile(&latencies, share).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6);
    let requests = latencies.len() as u64;
    Ok(Latency { requests, errors: sent - requests, p50: at(0.5), p99: at(0.99), p999: at(0.999) })
}

/// Sends the requests of one connection; the latencies of those that were answered as they should be.
async fn worker(
    mut connection: http1::Connection,
    target: Target,
    mut due: mpsc::UnboundedReceiver<(Instant, bool)>,
) -> Vec<Duration> {
    let request = target.request();
    let mut latencies = Vec::new();
    while let Some((due, counted)) = due.recv().await {
        match connection.exchange(&request).await {
            Ok(true) if counted => latencies.push(due.elapsed()),
            Ok(_) => {}
            Err(_) => match http1::Connection::open(target.address).await {
                Ok(another) => connection = another,
                Err(_) => break,
            },
        }
    }
    latencies
}
