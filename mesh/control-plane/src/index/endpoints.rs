//! `Destination.Get`, computed once for all who ask the same.
//!
//! Every proxy asks for the Services that everybody uses, and those have hundreds of endpoints: with an answer for each
//! stream, a change of one would take memory and time by the thousand.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use futures::{Stream, StreamExt, stream};
use linkerd2_proxy_api::destination::Update;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Index,
    answers::endpoints::{self, Endpoints},
    index::Topic,
    names::ServiceName,
};

/// The questions that somebody waits for an answer to.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    by_subject: HashMap<(ServiceName, u16), Weak<Question>>,
    /// The size at which questions nobody asks any more are thrown out.
    sweep_at: usize,
}

impl Questions {
    fn ask(&self, name: ServiceName, port: u16) -> Arc<Question> {
        let mut asked = self.0.lock();
        if asked.by_subject.len() >= asked.sweep_at {
            asked.by_subject.retain(|_, question| question.strong_count() > 0);
            // Twice what is in use: the sweep costs a constant per question.
            asked.sweep_at = 2 * asked.by_subject.len() + 32;
        }
        let subject = (name, port);
        if let Some(question) = asked.by_subject.get(&subject).and_then(Weak::upgrade) {
            return question;
        }
        let (name, port) = subject.clone();
        let question = Arc::new(Question { name, port, latest: Mutex::default() });
        asked.by_subject.insert(subject, Arc::downgrade(&question));
        question
    }
}

#[derive(Debug)]
struct Question {
    name: ServiceName,
    port: u16,
    latest: Mutex<Option<Latest>>,
}

/// The answer now.
#[derive(Debug, Clone)]
struct Latest {
    /// Changes of the index until this one are in it.
    revision: u64,
    /// How many answers were different before it.
    number: u64,
    endpoints: Arc<Endpoints>,
    /// What leads to it from the one before; nothing if there was none.
    step: Arc<[Update]>,
}

impl Question {
    /// The answer after the last change of the topic that has been told.
    fn latest(&self, index: &Index, changes: &mut watch::Receiver<u64>) -> Latest {
        let mut latest = self.latest.lock();
        let changed = *changes.borrow_and_update();
        if let Some(latest) = latest.as_ref().filter(|latest| latest.revision >= changed) {
            return latest.clone();
        }
        // Read before the objects: they may only be newer than it says.
        let revision = index.0.topics.revision();
        let now = index.look(|state, cluster| endpoints::endpoints(state, cluster, &self.name, self.port));
        let next = match latest.take() {
            Some(same) if *same.endpoints == now => Latest { revision, ..same },
            Some(before) => Latest {
                revision,
                number: before.number + 1,
                step: endpoints::updates(&self.name, Some(&before.endpoints), &now).into(),
                endpoints: Arc::new(now),
            },
            None => Latest { revision, number: 0, step: Arc::default(), endpoints: Arc::new(now) },
        };
        latest.insert(next).clone()
    }

    /// What leads to the answer from another one, which is most often the one before.
    fn updates(&self, before: Option<&Latest>, now: &Latest) -> Vec<Update> {
        match before {
            Some(before) if before.number == now.number => Vec::new(),
            Some(before) if before.number + 1 == now.number => now.step.to_vec(),
            before => endpoints::updates(&self.name, before.map(|before| &*before.endpoints), &now.endpoints),
        }
    }
}

impl Index {
    /// The messages that tell a proxy the endpoints now and whenever they change. Changes that come faster than the
    /// receiver reads are one change to it.
    pub(crate) fn follow_endpoints(&self, name: ServiceName, port: u16) -> impl Stream<Item = Update> + Send + use<> {
        // Subscribed before the first look: a change between the two wakes the stream.
        let changes = self.0.topics.subscribe(Topic::Service(name.service.clone()));
        let question = self.0.questions.ask(name, port);
        let start = (self.clone(), changes, question, None::<Latest>);
        let steps = stream::unfold(start, |(index, mut changes, question, before)| async move {
            if before.is_some() {
                changes.changed().await.ok()?;
            }
            index.synced().await;
            let now = question.latest(&index, &mut changes);
            let updates = question.updates(before.as_ref(), &now);
            // The way here is of no use any more, and may be long.
            let seen = Latest { step: Arc::default(), ..now };
            Some((updates, (index, changes, question, Some(seen))))
        });
        steps.flat_map(stream::iter)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::{Key, Kind, examples};

    fn web() -> ServiceName {
        ServiceName { service: Key::new("default", "web"), hostname: None }
    }

    fn slice(index: &Index, ips: &[&str]) {
        let pods: Vec<_> = ips.iter().map(|ip| (*ip, *ip, true)).collect();
        index.apply(&examples::slice("web", &pods)).unwrap();
    }

    /// The messages that are there, as `+` or `-` and a number of endpoints.
    fn told(updates: &mut (impl Stream<Item = Update> + Unpin)) -> String {
        use linkerd2_proxy_api::destination::update::Update as Kind;
        let told = std::iter::from_fn(|| updates.next().now_or_never().flatten());
        let told = told.map(|update| match update.update.unwrap() {
            Kind::Add(set) => format!("+{}", set.addrs.len()),
            Kind::Remove(set) => format!("-{}", set.addrs.len()),
            Kind::NoEndpoints(_) => "none".to_owned(),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whoever_asks_the_same_shares_one_answer() {
        let index = examples::index([examples::service("web", "10.96.0.5")]);
        slice(&index, &["10.244.0.1", "10.244.0.2"]);
        let mut early = Box::pin(index.follow_endpoints(web(), 80));
        assert_eq!(told(&mut early), "+2");
        let question = index.0.questions.ask(web(), 80);
        let number = || question.latest.lock().as_ref().unwrap().number;
        let answer = Arc::downgrade(&question.latest.lock().as_ref().unwrap().endpoints);
        let mut late = Box::pin(index.follow_endpoints(web(), 80));
        assert_eq!(told(&mut late), "+2");
        // Two streams and the question.
        assert_eq!((number(), answer.strong_count()), (0, 3));

        slice(&index, &["10.244.0.1", "10.244.0.3"]);
        assert_eq!(told(&mut early), "+1 -1");
        slice(&index, &["10.244.0.4"]);
        assert_eq!((told(&mut early), number()), ("+1 -2".to_owned(), 2));
        assert_eq!(told(&mut late), "+1 -2", "both changes are one to whoever has seen neither");
        // One that the answer does not show.
        index.apply(&examples::service("web", "10.96.0.6")).unwrap();
        assert_eq!((told(&mut early), told(&mut late), number()), (String::new(), String::new(), 2));
        index.delete(Kind::Service, &web().service);
        assert_eq!((told(&mut early), told(&mut late)), ("none".to_owned(), "none".to_owned()));
    }

    #[test]
    fn an_old_answer_is_not_given_to_whoever_comes_after_a_change() {
        let index = examples::index([examples::service("web", "10.96.0.5")]);
        // The question lives on while nobody waits for the topic.
        let question = index.0.questions.ask(web(), 80);
        for number in 1..100 {
            let ips: Vec<_> = (0..number).map(|last| format!("10.244.0.{last}")).collect();
            slice(&index, &ips.iter().map(String::as_str).collect::<Vec<_>>());
            // Subscriptions that end let the topic be forgotten.
            drop(index.0.topics.subscribe(Topic::Service(Key::new("default", &number.to_string()))));
            let mut updates = Box::pin(index.follow_endpoints(web(), 80));
            assert_eq!(told(&mut updates), format!("+{number}"));
        }
        drop(question);
    }

    #[test]
    fn questions_nobody_asks_are_forgotten() {
        let index = examples::index([]);
        let _kept = index.follow_endpoints(web(), 80);
        for port in 1..1000 {
            drop(index.follow_endpoints(web(), port));
        }
        assert!(index.0.questions.0.lock().by_subject.len() < 100);
        assert!(index.0.questions.0.lock().by_subject.contains_key(&(web(), 80)));
    }
}
