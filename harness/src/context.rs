//! What a case sees of the world.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use meshgate_clusters::Vantage;
use meshgate_fixtures::Promises;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::case::Case;
use crate::convergence::{converge_by, deadline};
use crate::metrics::{Families, Metrics};
use crate::observations::{Observations, Observer};
use crate::plan::{Plan, Route};
use crate::probe::{self, Batch, Keep, Record, Request, Seen};
use crate::statistics::Sequential;
use crate::undo::Undo;
use crate::verdict::{Failure, check};
use crate::world::World;

/// A case's view of its cell. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The world of the cell.
    pub world: Arc<World>,
    /// The case's id.
    pub id: &'static str,
    /// What the case declared.
    pub plan: Arc<Plan>,
    trace: Arc<Mutex<Vec<Exchange>>>,
    observer: Arc<Mutex<Observer>>,
    undo: Undo,
}

/// A request and what came of it, for the artefacts of a failure.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exchange {
    /// Where it was sent from.
    pub from: String,
    /// How often it was sent at once; the record is then that of the first that did not come back with 200, or of the first.
    pub times: u64,
    /// What was sent.
    pub request: Request,
    /// What came back.
    pub record: Record,
}

/// How many exchanges of a case are kept; the rest is only counted.
const KEPT: usize = 200;

/// Over so many connections at once everybody is asked who may answer, and so often over each.
const EVERYBODY: usize = 8;
const EACH: usize = 2;

impl Context {
    /// For a case and its plan.
    pub fn new(world: Arc<World>, case: &Case, plan: Plan) -> Self {
        Self {
            world,
            id: case.id,
            plan: Arc::new(plan),
            trace: Arc::default(),
            observer: Arc::default(),
            undo: Undo::default(),
        }
    }

    /// Has something undone once the case is over, however it ends, before it is looked at once more or another one has its turn. What is said
    /// last is undone first.
    pub fn afterwards(&self, step: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        self.undo.push(step);
    }

    /// Applies objects that are not of the plan. They are deleted when the case is over, if it did not delete them itself.
    ///
    /// # Errors
    /// As [`Kubernetes::apply_all`](crate::kubernetes::Kubernetes::apply_all).
    pub async fn apply_meanwhile(&self, objects: &[Value]) -> anyhow::Result<()> {
        let (world, made) = (Arc::clone(&self.world), objects.to_vec());
        self.afterwards(async move { world.kubernetes.delete_all(&made).await.map_err(Failure::from) });
        self.world.kubernetes.apply_all(objects).await
    }

    /// Undoes what the case, which is over, has changed for a while.
    pub(crate) async fn undone(&self) -> Result<(), Failure> {
        self.undo.run().await
    }

    /// What the recipe promises in this cell.
    pub fn promises(&self) -> &Promises {
        self.world.recipe.promises(self.world.cell.variant())
    }

    /// A route that the case declared.
    ///
    /// # Errors
    /// `not-run` when there is none: the case and its plan disagree.
    pub fn route(&self, name: &str) -> Result<&Route, Failure> {
        self.plan.routes.get(name).ok_or_else(|| anyhow!("{} declares no route {name:?}", self.id).into())
    }

    /// A GET for a route that the case declared, through the controller.
    pub fn get(&self, route: &str) -> Result<Request, Failure> {
        Ok(self.world.request_to(self.route(route)?, &self.world.ingress))
    }

    /// A GET for a route through another instance of the controller.
    pub fn get_at(&self, instance: &str, route: &str) -> Result<Request, Failure> {
        let entrance = self
            .world
            .instances
            .get(instance)
            .ok_or_else(|| anyhow!("{} declares no instance {instance:?}", self.id))?;
        Ok(self.world.request_to(self.route(route)?, entrance))
    }

    /// Sends a request from outside.
    pub async fn send(&self, request: Request) -> Record {
        self.send_from(Vantage::Outside(0), request).await
    }

    /// Sends a request from a vantage point.
    pub async fn send_from(&self, from: Vantage, request: Request) -> Record {
        let record = self.world.prober.send(from, &request).await;
        self.observer.lock().count([&record]);
        let from = match from {
            Vantage::Outside(0) => "outside".to_owned(),
            Vantage::Outside(_) => "outside, another client".to_owned(),
            Vantage::Node => "the node".to_owned(),
        };
        self.remember(from, request, &record, &[]);
        record
    }

    /// Sends a batch from outside.
    pub async fn send_batch(&self, batch: Batch) -> Vec<Record> {
        let records = self.world.prober.run(Vantage::Outside(0), &batch).await;
        self.remember_batch("outside", batch, &records);
        records
    }

    /// Sends a request `n` times over `connections` keep-alive connections from outside; the records say who answered.
    pub async fn send_many(&self, request: Request, n: usize, connections: usize) -> Vec<Record> {
        self.send_batch(Batch::repeated(request, n, connections)).await
    }

    /// Sends a batch from the probe pod: from inside the mesh, through a proxy in the cell's mode and dialect. Targets may be
    /// names.
    pub async fn send_inside(&self, batch: Batch) -> Result<Vec<Record>, Failure> {
        let probe = self.world.pod_address("probe").await?;
        let records = self.world.prober.run_inside(SocketAddr::from((probe, 8080)), &batch).await?;
        self.remember_batch("the probe pod", batch, &records);
        Ok(records)
    }

    /// Sends a GET for a route and returns what the backend saw; anything but a 200 of an echo backend is a failure.
    pub async fn seen(&self, route: &str) -> Result<Seen, Failure> {
        let request = self.get(route)?;
        self.expect_seen(request).await
    }

    /// Sends a request and returns what the backend saw; anything but a 200 of an echo backend is a failure.
    pub async fn expect_seen(&self, request: Request) -> Result<Seen, Failure> {
        let what = probe::describe(&request);
        let record = self.send(request).await;
        match &record.seen {
            Some(seen) if record.is(200) => Ok(seen.clone()),
            _ => Err(check(what).failure("a 200 of an echo backend", probe::outcome(&record))),
        }
    }

    /// Waits until a request is answered by the new state, several times in a row.
    pub async fn until(
        &self,
        within: Duration,
        what: &str,
        request: Request,
        accept: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        self.until_by(deadline(within), what, request, accept).await
    }

    /// The same by a moment.
    pub async fn until_by(
        &self,
        deadline: Instant,
        what: &str,
        request: Request,
        accept: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        converge_by(deadline, || async {
            let record = self.send(request.clone()).await;
            if accept(&record) { Ok(()) } else { Err(probe::outcome(&record)) }
        })
        .await
        .map_err(|seen| check(format!("{what} ({})", probe::describe(&request))).failure("to converge", seen))
    }

    /// The same of many requests at once, all of which have to be answered by the new state. A controller's workers take a configuration over one
    /// after the other, and requests that follow each other may all come to the same one: by the connection that the proxy before it used last.
    pub async fn until_all(
        &self,
        within: Duration,
        what: &str,
        request: Request,
        accept: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        self.until_all_by(deadline(within), what, request, accept).await
    }

    /// The same by a moment.
    pub async fn until_all_by(
        &self,
        deadline: Instant,
        what: &str,
        request: Request,
        accept: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        let all = Batch { keep: Keep::All, ..Batch::repeated(request.clone(), EVERYBODY * EACH, EVERYBODY) };
        converge_by(deadline, || async {
            let records = self.send_batch(all.clone()).await;
            let other = records.iter().position(|record| !accept(record));
            other.map_or(Ok(()), |other| Err(format!("{} of {}", probe::outcome(&records[other]), records.len())))
        })
        .await
        .map_err(|seen| {
            let requests = format!("{what} (many at once of {})", probe::describe(&request));
            check(requests).failure("to converge", seen)
        })
    }

    /// Sends a request that has this kind of answer from now on. Another answer may be one more by the older configuration; then it is waited for as
    /// by [`Context::until_all`].
    pub async fn from_now_on(
        &self,
        within: Duration,
        what: &str,
        request: Request,
        accept: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        let record = self.send(request.clone()).await;
        if accept(&record) { Ok(()) } else { self.until_all(within, what, request, accept).await }
    }

    /// The metrics of the proxy beside the controller.
    pub async fn controller_metrics(&self) -> Result<Metrics, Failure> {
        let pod = self.world.controller_pod(&self.world.controller.workload).await?;
        self.metrics_of(pod, Families::Counts).await
    }

    /// The metrics of the proxy in a pod.
    pub async fn metrics_of(&self, pod: Ipv4Addr, families: Families) -> Result<Metrics, Failure> {
        Ok(self.world.metrics_of(pod, families).await?)
    }

    /// The addresses of all running pods with an `app` label in the workbench.
    pub async fn pods_of(&self, app: &str) -> Result<Vec<(String, Ipv4Addr)>, Failure> {
        let pods = self.world.kubernetes.pods(crate::plan::NAMESPACE, &format!("app={app}")).await?;
        Ok(pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| Some((pod.metadata.name?, pod.status?.pod_ip?.parse().ok()?)))
            .collect())
    }

    /// How many requests containing a marker the controller's access log tells of, over all its instances.
    pub async fn passes(&self, workload: &str, marker: &str) -> Result<usize, Failure> {
        let log = self.world.access_log(workload).await?;
        Ok(log.lines().filter(|line| line.contains(marker)).count())
    }

    /// What the case sent and got, for the artefacts.
    pub fn trace(&self) -> Vec<Exchange> {
        self.trace.lock().clone()
    }

    /// What the case observed, for the report; `None` when it sent nothing through this context.
    pub fn observations(&self) -> Option<Observations> {
        self.observer.lock().observations()
    }

    /// Judges a share once `count` of `n` requests say so, and keeps the judgement for the report. `None` while it is open; `found` is
    /// for the reader.
    pub fn judge_share(
        &self,
        what: &str,
        expected: Sequential,
        n: u64,
        count: u64,
        found: impl Into<String>,
    ) -> Option<Result<(), Failure>> {
        let holds = expected.judge(n, count)?;
        self.observer.lock().share(what, expected, n, count, holds);
        Some(check(what).that(holds, expected.describe(), found))
    }

    /// A batch is remembered by its first request and the first answer that is not a 200.
    fn remember_batch(&self, from: &str, batch: Batch, records: &[Record]) {
        self.observer.lock().count(records);
        if batch.repeat.is_some() {
            let record = records.iter().find(|record| !record.is(200)).or(records.first());
            if let (Some(request), Some(record)) = (batch.requests.into_iter().next(), record) {
                self.remember(from.to_owned(), request, record, records);
            }
            return;
        }
        for (request, record) in batch.requests.into_iter().zip(records) {
            self.remember(from.to_owned(), request, record, &[]);
        }
    }

    /// Remembers an exchange; `all` are the records of a request that was sent many times at once.
    fn remember(&self, from: String, request: Request, record: &Record, all: &[Record]) {
        let times = all.len().max(1) as u64;
        let to_controller = self.is_controller(&request.target);
        let exchange = Exchange { from, times, request, record: record.clone() };
        self.observer.lock().sample(&exchange, to_controller, all);
        let mut trace = self.trace.lock();
        if trace.len() == KEPT {
            trace.remove(0);
        }
        trace.push(exchange);
    }

    /// Whether an address is one of the controller's.
    fn is_controller(&self, target: &str) -> bool {
        let Ok(target) = target.parse() else { return false };
        [&self.world.ingress].into_iter().chain(self.world.instances.values()).any(|entrance| entrance.admits(target))
    }
}
