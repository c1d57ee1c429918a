//! What was asked, what came of it, and what happened meanwhile.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

/// What may be done with a request that something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Idempotent and without a body: a proxy can send it as often as it must.
    Plain,
    /// Without a body, but not to be done twice.
    Once,
    /// With a body, idempotent or not: the proxy keeps no copy.
    Body { idempotent: bool },
    /// An upgrade, or bytes that are not HTTP.
    Connection,
    /// A plain request of the client that policies refuse at times.
    Marked,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Forbidden,
    /// Another status.
    Failed(String),
    /// The connection or the stream ended before an answer.
    Unanswered(String),
    /// It ended in the middle of one.
    Cut(String),
    /// Something else than what was asked for.
    Wrong(String),
    TimedOut,
}

/// What happens to the mesh, from when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Of this pod, which `dead` ends: after that its sockets are closed.
    Killed { pod: u32, dead: Option<Instant> },
    /// Its application refuses connections.
    Refusing { pod: u32 },
    /// There is no endpoint at all.
    Nobody,
    /// Requests may be sent again after an answer.
    Retrying,
    /// Policies may let the marked client in.
    Allowing,
    /// Policies may refuse it.
    Denying,
}

pub struct Window {
    pub what: Disturbance,
    pub from: Instant,
    pub until: Option<Instant>,
}

pub struct Finished {
    pub id: u64,
    pub class: Class,
    pub from: Instant,
    pub until: Instant,
    pub outcome: Outcome,
}

/// What applications saw of one request.
#[derive(Default, Clone)]
pub struct Seen {
    pub pods: Vec<u32>,
    /// How often its body came as it was sent, and how often otherwise.
    pub whole: u32,
    pub wrong: u32,
}

pub struct Ledger {
    started: Instant,
    next: AtomicU64,
    seen: Mutex<HashMap<u64, Seen>>,
    finished: Mutex<Vec<Finished>>,
    windows: Mutex<Vec<Window>>,
    events: Mutex<Vec<String>>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(1),
            seen: Mutex::default(),
            finished: Mutex::default(),
            windows: Mutex::default(),
            events: Mutex::default(),
        }
    }

    pub fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn arrived(&self, id: u64, pod: u32) {
        self.seen.lock().entry(id).or_default().pods.push(pod);
    }

    pub fn whole(&self, id: u64, as_sent: bool) {
        let mut seen = self.seen.lock();
        let seen = seen.entry(id).or_default();
        *if as_sent { &mut seen.whole } else { &mut seen.wrong } += 1;
    }

    pub fn finished(&self, finished: Finished) {
        let Finished { id, class, outcome, .. } = &finished;
        if matches!(outcome, Outcome::Wrong(_) | Outcome::TimedOut) {
            self.event(format_args!("request {id} ({class:?}): {outcome:?}"));
        }
        self.finished.lock().push(finished);
    }

    pub fn requests(&self) -> usize {
        self.finished.lock().len()
    }

    /// From now on; the answer closes it.
    pub fn open(&self, what: Disturbance) -> usize {
        let mut windows = self.windows.lock();
        windows.push(Window { what, from: Instant::now(), until: None });
        windows.len() - 1
    }

    pub fn close(&self, window: usize) {
        self.windows.lock()[window].until = Some(Instant::now());
    }

    /// The killed pod's sockets are closed.
    pub fn dead(&self, window: usize) {
        if let Disturbance::Killed { dead, .. } = &mut self.windows.lock()[window].what {
            *dead = Some(Instant::now());
        }
    }

    pub fn event(&self, what: impl fmt::Display) {
        let event = format!("{:8.3} {what}", self.started.elapsed().as_secs_f64());
        self.events.lock().push(event);
    }

    pub fn at(&self, when: Instant) -> f64 {
        when.duration_since(self.started).as_secs_f64()
    }

    pub fn events(&self) -> Vec<String> {
        self.events.lock().clone()
    }

    pub fn seen(&self) -> HashMap<u64, Seen> {
        self.seen.lock().clone()
    }

    pub fn take(&self) -> (Vec<Finished>, Vec<Window>) {
        (std::mem::take(&mut self.finished.lock()), std::mem::take(&mut self.windows.lock()))
    }
}

impl Finished {
    pub fn overlaps(&self, from: Instant, until: Option<Instant>) -> bool {
        self.until >= from && until.is_none_or(|until| self.from <= until)
    }
}
