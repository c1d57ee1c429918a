//! Counters of the control plane itself.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::{Stream, StreamExt};

use crate::{Index, Kind};

/// The streams that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    Get,
    GetProfile,
    Watch,
    WatchPort,
}

impl Rpc {
    const ALL: [Self; 4] = [Self::Get, Self::GetProfile, Self::Watch, Self::WatchPort];
}

/// Streams and answers by RPC.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    open: [AtomicU64; Rpc::ALL.len()],
    answers: [AtomicU64; Rpc::ALL.len()],
}

/// An open stream; counted until it is dropped.
struct Open {
    index: Index,
    rpc: Rpc,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.index.metrics().open[self.rpc as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the stream while it is open, and what it answers.
pub(crate) fn counted<S: Stream>(index: &Index, rpc: Rpc, stream: S) -> impl Stream<Item = S::Item> + use<S> {
    index.metrics().open[rpc as usize].fetch_add(1, Ordering::Relaxed);
    let open = Open { index: index.clone(), rpc };
    stream.inspect(move |_| {
        open.index.metrics().answers[open.rpc as usize].fetch_add(1, Ordering::Relaxed);
    })
}

/// The counters in Prometheus' text format.
pub(crate) fn exposition(index: &Index) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, series: Vec<(String, u64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    };
    let by_rpc = |counters: &[AtomicU64]| {
        let series = Rpc::ALL.iter().zip(counters);
        series.map(|(rpc, counter)| (format!("rpc=\"{rpc:?}\""), counter.load(Ordering::Relaxed))).collect()
    };
    let objects = Kind::ALL.iter().map(|kind| (format!("kind=\"{kind:?}\""), index.count(*kind) as u64)).collect();
    family("meshgate_control_plane_objects", "gauge", "Objects known, by kind.", objects);
    let Metrics { open, answers } = index.metrics();
    family("meshgate_control_plane_streams", "gauge", "Streams open, by RPC.", by_rpc(open));
    family("meshgate_control_plane_answers_total", "counter", "Answers sent, by RPC.", by_rpc(answers));
    out
}
