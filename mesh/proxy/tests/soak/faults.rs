//! What happens to the mesh under load: one thing after the other, in an order that the seed says.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use tokio::time::{self, Instant};

use crate::{
    ledger::Disturbance,
    mesh::{Mesh, Mode, Pod},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A pod is taken out of the Service, finishes what it has begun, and another takes its place.
    Replace,
    /// A pod is killed, and the control plane hears of it afterwards.
    Kill,
    /// A pod is killed while the control plane is away.
    KillUnnoticed,
    /// An application refuses connections for a while.
    Refuse,
    /// The control plane is away for a while.
    Restart,
    /// One of two legs has no endpoints for a while.
    EmptyLeg,
    /// Neither has.
    EmptyAll,
    /// Retries begin or end, and weights change.
    Routes,
    /// The marked client is let in or no longer.
    Policy,
}

/// How often each happens, in relation to the others.
const DECK: [(Fault, usize); 9] = [
    (Fault::Kill, 3),
    (Fault::Replace, 2),
    (Fault::KillUnnoticed, 1),
    (Fault::Refuse, 2),
    (Fault::Restart, 1),
    (Fault::EmptyLeg, 1),
    (Fault::EmptyAll, 1),
    (Fault::Routes, 2),
    (Fault::Policy, 2),
];

const PAUSE_MS: Range<u64> = 100..400;
const WHILE_MS: Range<u64> = 100..700;

pub struct Faults {
    pub mesh: Mesh,
    pub rng: StdRng,
    pub counts: BTreeMap<Fault, usize>,
    /// The window of the mode or policy that is in force.
    retrying: Option<usize>,
    allowing: usize,
}

impl Faults {
    pub fn new(mesh: Mesh, rng: StdRng) -> Self {
        let allowing = mesh.ledger.open(Disturbance::Allowing);
        Self { mesh, rng, counts: BTreeMap::new(), retrying: None, allowing }
    }

    pub async fn run(&mut self, until: Instant) {
        let mut deck = Vec::new();
        while Instant::now() < until {
            let fault = deck.pop().unwrap_or_else(|| {
                // One of each comes first, so that a short run has all that it has time for.
                let copies = |least: usize| {
                    DECK.iter().flat_map(move |(fault, copies)| vec![*fault; copies.saturating_sub(least)])
                };
                let mut rest: Vec<_> = copies(1).collect();
                rest.shuffle(&mut self.rng);
                let mut first: Vec<_> = DECK.iter().map(|(fault, _)| *fault).collect();
                first.shuffle(&mut self.rng);
                rest.extend(first);
                deck = rest;
                deck.pop().expect("a deck is not empty")
            });
            let begun = Instant::now();
            self.cause(fault).await;
            *self.counts.entry(fault).or_default() += 1;
            self.mesh.ledger.event(format_args!("{fault:?} took {:?}", begun.elapsed()));
            self.hold(PAUSE_MS).await;
        }
    }

    async fn cause(&mut self, fault: Fault) {
        match fault {
            Fault::Replace => self.replace().await,
            Fault::Kill => self.kill(false).await,
            Fault::KillUnnoticed => self.kill(true).await,
            Fault::Refuse => self.refuse().await,
            Fault::Restart => {
                self.mesh.control.stop();
                self.hold(WHILE_MS).await;
                self.mesh.control.restart().await;
            }
            Fault::EmptyLeg => {
                let leg = self.rng.random_range(0..2);
                self.flap(&[leg], self.mesh.pods[1 - leg].len()).await;
            }
            Fault::EmptyAll => {
                let nobody = self.mesh.ledger.open(Disturbance::Nobody);
                self.flap(&[0, 1], 0).await;
                self.mesh.ledger.close(nobody);
            }
            Fault::Routes => self.routes().await,
            Fault::Policy => self.policy().await,
        }
    }

    async fn hold(&mut self, millis: Range<u64>) {
        time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }

    /// A pod that may go.
    fn mortal(&mut self) -> (usize, usize) {
        let leg = self.rng.random_range(0..2);
        (leg, self.rng.random_range(1..self.mesh.pods[leg].len()))
    }

    async fn replace(&mut self) {
        let (leg, index) = self.mortal();
        let pod = self.mesh.start_pod().await;
        self.mesh.ledger.event(format_args!("pod {} comes", pod.number));
        self.mesh.pods[leg].push(pod);
        self.mesh.publish(&[leg]);
        self.mesh.endpoints_known(self.mesh.pod_count()).await;
        let old = self.mesh.pods[leg].remove(index);
        self.mesh.publish(&[leg]);
        self.mesh.endpoints_known(self.mesh.pod_count()).await;
        self.mesh.ledger.event(format_args!("pod {} goes", old.number));
        let Pod { number, address, proxy, app } = old;
        let status = proxy.stop().await;
        assert!(status.success(), "the proxy of pod {number} ended with {status}");
        drop(app);
        self.mesh.free(address);
    }

    async fn kill(&mut self, unnoticed: bool) {
        let (leg, index) = self.mortal();
        if unnoticed {
            self.mesh.control.stop();
        }
        let Pod { number, address, proxy, app } = self.mesh.pods[leg].remove(index);
        let killed = self.mesh.ledger.open(Disturbance::Killed { pod: number, dead: None });
        app.kill();
        drop(app);
        proxy.kill().await;
        self.mesh.ledger.dead(killed);
        self.mesh.ledger.event(format_args!("pod {number} at {address} was killed"));
        self.mesh.publish(&[leg]);
        if unnoticed {
            self.hold(WHILE_MS).await;
            self.mesh.control.restart().await;
        }
        self.mesh.endpoints_known(self.mesh.pod_count()).await;
        self.mesh.ledger.close(killed);
        self.mesh.free(address);
        let pod = self.mesh.start_pod().await;
        self.mesh.ledger.event(format_args!("pod {} comes", pod.number));
        self.mesh.pods[leg].push(pod);
        self.mesh.publish(&[leg]);
        self.mesh.endpoints_known(self.mesh.pod_count()).await;
    }

    async fn refuse(&mut self) {
        let leg = self.rng.random_range(0..2);
        let index = self.rng.random_range(0..self.mesh.pods[leg].len());
        let length = self.rng.random_range(WHILE_MS);
        let pod = &mut self.mesh.pods[leg][index];
        let ledger = &self.mesh.ledger;
        let refusing = ledger.open(Disturbance::Refusing { pod: pod.number });
        ledger.event(format_args!("pod {} refuses for {length} ms", pod.number));
        pod.app.refuse().await;
        time::sleep(Duration::from_millis(length)).await;
        pod.app.listen().await;
        ledger.close(refusing);
    }

    async fn flap(&mut self, legs: &[usize], left: usize) {
        self.mesh.empty(legs);
        self.mesh.endpoints_known(left).await;
        self.hold(WHILE_MS).await;
        self.mesh.publish(legs);
        self.mesh.endpoints_known(self.mesh.pod_count()).await;
    }

    async fn routes(&mut self) {
        let mode = [Mode::Once, Mode::Policy, Mode::Profile][self.rng.random_range(0..3)];
        let weights = [[1, 1], [9, 1], [1, 9]][self.rng.random_range(0..3)];
        let changed = mode != self.mesh.mode;
        let before = self.mesh.sent_by(mode).await;
        if mode != Mode::Once && self.retrying.is_none() {
            self.retrying = Some(self.mesh.ledger.open(Disturbance::Retrying));
        }
        self.mesh.ledger.event(format_args!("{mode:?}, split {weights:?}"));
        self.mesh.set_mode(mode, weights);
        if changed {
            self.mesh.mode_in_force(before).await;
        }
        if mode == Mode::Once
            && let Some(retrying) = self.retrying.take()
        {
            self.mesh.ledger.close(retrying);
        }
    }

    async fn policy(&mut self) {
        let allowed = !self.mesh.allowed;
        let next = self.mesh.ledger.open(if allowed { Disturbance::Allowing } else { Disturbance::Denying });
        self.mesh.set_allowed(allowed);
        for pod in self.mesh.pods.iter().flatten() {
            self.mesh.policy_in_force(pod).await;
        }
        self.mesh.ledger.close(std::mem::replace(&mut self.allowing, next));
    }
}
