//! Jobs: pods that run to their end, so many at once and so many in all.

use async_trait::async_trait;
use meshgate_store::{DeleteOptions, Object, Status, Store};
use serde_json::{Value, json};

use crate::events::{EventType, Recorder};
use crate::objects::{
    self, bool_at, deleting, find, int_at, is_true, name, namespace, resources, set_condition, str_at,
};
use crate::pods;
use crate::replica_sets::owner_keys;
use crate::runner::{Controller, Key, Next, Seen, Watched};
use crate::time;

/// The controller; its keys are Jobs.
pub(crate) struct Jobs {
    store: Store,
    events: Recorder,
}

/// The pods of a Job, counted.
struct Tally {
    active: Vec<Object>,
    succeeded: i64,
    failed: i64,
}

impl Tally {
    fn of(pods: Vec<Object>) -> Self {
        let count = |phase: &str| pods.iter().filter(|pod| str_at(pod, "/status/phase") == phase).count();
        let (succeeded, failed) = (count("Succeeded"), count("Failed"));
        let to_number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            succeeded: to_number(succeeded),
            failed: to_number(failed),
            active: pods.into_iter().filter(|pod| pods::is_active(pod)).collect(),
        }
    }

    /// Attempts that did not work out: failed pods, and restarts of containers in place.
    fn failures(&self) -> i64 {
        let restarts = |pod: &Object| -> i64 {
            objects::items(pod, "/status/containerStatuses").iter().map(|status| int_at(status, "/restartCount")).sum()
        };
        let in_place = self.active.iter().filter(|pod| str_at(pod, "/spec/restartPolicy") == "OnFailure");
        self.failed + in_place.map(restarts).sum::<i64>()
    }
}

impl Jobs {
    pub(crate) fn new(store: Store) -> Self {
        let events = Recorder::new(store.clone(), "job-controller");
        Self { store, events }
    }

    /// How many pods should run now.
    fn wanted(job: &Object, tally: &Tally) -> usize {
        let parallelism = int_at(job, "/spec/parallelism");
        let wanted = match job["spec"]["completions"].as_i64() {
            Some(completions) => parallelism.min(completions - tally.succeeded),
            // A work queue: once one pod has succeeded no more are started.
            None if tally.succeeded > 0 => parallelism.min(i64::try_from(tally.active.len()).unwrap_or(parallelism)),
            None => parallelism,
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Why the Job has failed, if it has.
    fn failure(job: &Object, tally: &Tally, started: &str) -> Option<(&'static str, &'static str)> {
        if tally.failures() > int_at(job, "/spec/backoffLimit") {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let deadline = job["spec"]["activeDeadlineSeconds"].as_i64()?;
        let over = !started.is_empty() && time::left(started, deadline).is_none();
        over.then_some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    }

    fn is_complete(job: &Object, tally: &Tally) -> bool {
        match job["spec"]["completions"].as_i64() {
            Some(completions) => tally.succeeded >= completions,
            None => tally.succeeded > 0 && tally.active.is_empty(),
        }
    }

    fn stop(&self, job: &Object, tally: &mut Tally) -> Result<(), Status> {
        for pod in tally.active.drain(..) {
            pods::delete(&self.store, &self.events, job, &pod)?;
        }
        Ok(())
    }

    async fn scale(&self, job: &Object, tally: &mut Tally) -> Result<(), Status> {
        let wanted = Self::wanted(job, tally);
        while tally.active.len() < wanted {
            let pod = pods::from_template(job, &job["spec"]["template"]);
            tally.active.push(pods::create(&self.store, &self.events, job, pod).await?);
        }
        let excess = tally.active.len().saturating_sub(wanted);
        tally.active.sort_by_cached_key(|pod| pods::rank(pod));
        for pod in tally.active.drain(..excess) {
            pods::delete(&self.store, &self.events, job, &pod)?;
        }
        Ok(())
    }

    /// Deletes a finished Job after `ttlSecondsAfterFinished`.
    fn expire(&self, job: &Object) -> Result<Next, Status> {
        let Some(seconds) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else { return Ok(Next::Done) };
        let end = ["Complete", "Failed"].iter().find_map(|kind| objects::condition(&job["status"], kind));
        let since = end.map(|condition| str_at(condition, "/lastTransitionTime")).unwrap_or_default();
        if let Some(left) = time::left(since, seconds) {
            return Ok(Next::After(left));
        }
        let options = DeleteOptions { propagation: Some("Foreground".to_owned()), ..DeleteOptions::default() };
        match self.store.delete(&resources::jobs(), namespace(job), name(job), &options) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Done),
        }
    }
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::jobs(), resources::pods()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        owner_keys(&self.store, &resources::jobs(), "Job", seen)
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(job) = find(&self.store, &key.resource, &key.namespace, &key.name)? else { return Ok(Next::Done) };
        if deleting(&job) {
            return Ok(Next::Done);
        }
        let old = &job["status"];
        if is_true(old, "Complete") || is_true(old, "Failed") {
            return self.expire(&job);
        }
        let mut tally = Tally::of(pods::claim(&self.store, &resources::pods(), &job, &job["spec"]["selector"])?);
        let mut status = job["status"].as_object().cloned().map_or_else(|| json!({}), Value::Object);
        let suspended = bool_at(&job, "/spec/suspend");
        if !suspended && str_at(&status, "/startTime").is_empty() {
            status["startTime"] = json!(time::now());
        }
        let started = str_at(&status, "/startTime").to_owned();
        let mut next = Next::Done;
        if let Some((reason, message)) = Self::failure(&job, &tally, &started) {
            self.stop(&job, &mut tally)?;
            set_condition(&mut status, "FailureTarget", "True", reason, message, false);
            set_condition(&mut status, "Failed", "True", reason, message, false);
            self.events.record(&job, EventType::Warning, reason, message);
        } else if Self::is_complete(&job, &tally) {
            self.stop(&job, &mut tally)?;
            let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
            set_condition(&mut status, "SuccessCriteriaMet", "True", reason, message, false);
            set_condition(&mut status, "Complete", "True", reason, message, false);
            status["completionTime"] = json!(time::now());
            self.events.record(&job, EventType::Normal, "Completed", "Job completed");
        } else if suspended {
            self.stop(&job, &mut tally)?;
            set_condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended", false);
            status.as_object_mut().map(|status| status.remove("startTime"));
        } else {
            if is_true(&status, "Suspended") {
                set_condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed", false);
            }
            self.scale(&job, &mut tally).await?;
            let deadline = job["spec"]["activeDeadlineSeconds"].as_i64();
            next = deadline.and_then(|deadline| time::left(&started, deadline)).map_or(Next::Done, Next::After);
        }
        counts(&mut status, &tally);
        objects::set_status(&self.store, &resources::jobs(), &job, &status)?;
        Ok(next)
    }
}

fn counts(status: &mut Value, tally: &Tally) {
    let ready = tally.active.iter().filter(|pod| pods::is_ready(pod)).count();
    status["ready"] = json!(ready);
    status["terminating"] = json!(0);
    status["uncountedTerminatedPods"] = json!({});
    let active = i64::try_from(tally.active.len()).unwrap_or(i64::MAX);
    for (field, count) in [("active", active), ("succeeded", tally.succeeded), ("failed", tally.failed)] {
        match count {
            0 => drop(status.as_object_mut().map(|status| status.remove(field))),
            count => status[field] = json!(count),
        }
    }
}
