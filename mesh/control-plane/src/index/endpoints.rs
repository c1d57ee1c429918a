//! `Destination.Get`, computed once for all who ask the same.
//!
//! Every proxy asks for the Services that everybody uses, and those have hundreds of endpoints: with an answer for each
//! stream, a change of one would take memory and time by the thousand. Of which endpoints a proxy is told depends on its place,
//! so that those of one place share.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use futures::{Stream, StreamExt, future, stream};
use linkerd2_proxy_api::destination::Update;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Cluster, Index,
    answers::{
        endpoints::{self, Endpoints},
        place::Place,
    },
    index::{State, Topic},
    names::ServiceName,
};

/// What is asked, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    name: ServiceName,
    port: u16,
    place: Place,
}

/// The questions that somebody waits for an answer to.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    by_subject: HashMap<Subject, Weak<Question>>,
    /// The size at which questions nobody asks any more are thrown out.
    sweep_at: usize,
}

impl Questions {
    fn ask(&self, subject: Subject) -> Arc<Question> {
        let mut asked = self.0.lock();
        if asked.by_subject.len() >= asked.sweep_at {
            asked.by_subject.retain(|_, question| question.strong_count() > 0);
            // Twice what is in use: the sweep costs a constant per question.
            asked.sweep_at = 2 * asked.by_subject.len() + 32;
        }
        if let Some(question) = asked.by_subject.get(&subject).and_then(Weak::upgrade) {
            return question;
        }
        let question = Arc::new(Question { subject: subject.clone(), latest: Mutex::default() });
        asked.by_subject.insert(subject, Arc::downgrade(&question));
        question
    }
}

impl Subject {
    fn answer(&self, state: &State, cluster: &Cluster) -> Endpoints {
        endpoints::endpoints(state, cluster, &self.name, self.port, &self.place)
    }
}

#[derive(Debug)]
struct Question {
    subject: Subject,
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
        let now = index.look(|state, cluster| self.subject.answer(state, cluster));
        let next = match latest.take() {
            Some(same) if *same.endpoints == now => Latest { revision, ..same },
            Some(before) => Latest {
                revision,
                number: before.number + 1,
                step: endpoints::updates(&self.subject.name, Some(&before.endpoints), &now).into(),
                endpoints: Arc::new(now),
            },
            None => Latest { revision, number: 0, step: Arc::default(), endpoints: Arc::new(now) },
        };
        latest.insert(next).clone()
    }

    /// What leads to the answer from another one, which is most often the one before.
    fn updates(&self, before: Option<&Seen>, now: &Latest) -> Vec<Update> {
        let asked_before = before.filter(|before| std::ptr::eq(&*before.question, self));
        match (asked_before, before) {
            (Some(before), _) if before.number == now.number => Vec::new(),
            (Some(before), _) if before.number + 1 == now.number => now.step.to_vec(),
            (None, Some(before)) if *before.endpoints == *now.endpoints => Vec::new(),
            (_, before) => {
                endpoints::updates(&self.subject.name, before.map(|before| &*before.endpoints), &now.endpoints)
            }
        }
    }
}

/// What a proxy has been told: the answer to a question, without the way to it, which is of no use any more and may be long.
struct Seen {
    question: Arc<Question>,
    number: u64,
    endpoints: Arc<Endpoints>,
}

/// Somebody who asks, and what wakes them.
struct Asker {
    index: Index,
    name: ServiceName,
    port: u16,
    node: Option<String>,
    changes: watch::Receiver<u64>,
    /// Changes of the node.
    moves: Option<watch::Receiver<u64>>,
}

impl Asker {
    /// Waits for a change of what is asked about or of where it is asked; `None` if there cannot be one any more.
    async fn changed(&mut self) -> Option<()> {
        let moved = async {
            match &mut self.moves {
                Some(moves) => moves.changed().await,
                None => future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = self.changes.changed() => changed,
            moved = moved => moved,
        };
        changed.ok()
    }

    /// The question, which is another one when the client's place is: its node got a zone, or its node begins to count.
    fn question(&self, before: Option<&Seen>) -> Arc<Question> {
        let place = self.index.look(|state, _| Place::of(state, &self.name.service, self.node.as_deref()));
        match before {
            Some(before) if before.question.subject.place == place => Arc::clone(&before.question),
            _ => self.index.0.questions.ask(Subject { name: self.name.clone(), port: self.port, place }),
        }
    }
}

impl Index {
    /// The messages that tell a proxy on a node, if it says on which, the endpoints now and whenever they change. Changes that come
    /// faster than the receiver reads are one change to it.
    pub(crate) fn follow_endpoints(
        &self,
        name: ServiceName,
        port: u16,
        node: Option<String>,
    ) -> impl Stream<Item = Update> + Send + use<> {
        // Subscribed before the first look: a change between the two wakes the stream.
        let changes = self.0.topics.subscribe(Topic::Service(name.service.clone()));
        let moves = node.as_deref().map(|node| self.0.topics.subscribe(Topic::Node(node.into())));
        let asker = Asker { index: self.clone(), name, port, node, changes, moves };
        let steps = stream::unfold((asker, None::<Seen>), |(mut asker, before)| async move {
            if before.is_some() {
                asker.changed().await?;
            }
            asker.index.synced().await;
            let question = asker.question(before.as_ref());
            let now = question.latest(&asker.index, &mut asker.changes);
            let updates = question.updates(before.as_ref(), &now);
            let Latest { number, endpoints, .. } = now;
            Some((updates, (asker, Some(Seen { question, number, endpoints }))))
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

    fn subject(port: u16) -> Subject {
        Subject { name: web(), port, place: Place::default() }
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
        let mut early = Box::pin(index.follow_endpoints(web(), 80, None));
        assert_eq!(told(&mut early), "+2");
        let question = index.0.questions.ask(subject(80));
        let number = || question.latest.lock().as_ref().unwrap().number;
        let answer = Arc::downgrade(&question.latest.lock().as_ref().unwrap().endpoints);
        let mut late = Box::pin(index.follow_endpoints(web(), 80, None));
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
        let question = index.0.questions.ask(subject(80));
        for number in 1..100 {
            let ips: Vec<_> = (0..number).map(|last| format!("10.244.0.{last}")).collect();
            slice(&index, &ips.iter().map(String::as_str).collect::<Vec<_>>());
            // Subscriptions that end let the topic be forgotten.
            drop(index.0.topics.subscribe(Topic::Service(Key::new("default", &number.to_string()))));
            let mut updates = Box::pin(index.follow_endpoints(web(), 80, None));
            assert_eq!(told(&mut updates), format!("+{number}"));
        }
        drop(question);
    }

    #[test]
    fn a_change_of_the_nodes_zone_or_of_hints_reaches_those_on_the_node() {
        let index = examples::index([examples::service("web", "10.96.0.5"), examples::node("n1", "a")]);
        let apply = |object: serde_json::Value| index.apply(&object).unwrap();
        let hinted = |zones: &[(&str, &str)]| {
            let pods: Vec<_> = zones.iter().map(|(ip, _)| (*ip, *ip, true)).collect();
            let mut slice = examples::slice("web", &pods);
            for (number, (_, zone)) in zones.iter().enumerate() {
                slice["endpoints"][number]["hints"] = serde_json::json!({"forZones": [{"name": zone}]});
            }
            slice
        };
        apply(hinted(&[("10.244.0.1", "a"), ("10.244.0.2", "b"), ("10.244.0.3", "b")]));
        let ask = |node: Option<&str>| Box::pin(index.follow_endpoints(web(), 80, node.map(str::to_owned)));
        let (mut near, mut elsewhere, mut nowhere) = (ask(Some("n1")), ask(Some("n2")), ask(None));
        assert_eq!(
            (told(&mut near), told(&mut elsewhere), told(&mut nowhere)),
            ("+1".into(), "+3".into(), "+3".into())
        );

        apply(examples::node("n1", "b"));
        assert_eq!(
            (told(&mut near), told(&mut elsewhere), told(&mut nowhere)),
            ("+2 -1".into(), String::new(), String::new())
        );
        // A node that is known only later than its pods' proxies ask.
        apply(examples::node("n2", "a"));
        assert_eq!((told(&mut near), told(&mut elsewhere)), (String::new(), "+1 -2".into()));
        apply(hinted(&[("10.244.0.1", "b"), ("10.244.0.2", "b"), ("10.244.0.3", "a")]));
        assert_eq!(
            (told(&mut near), told(&mut elsewhere), told(&mut nowhere)),
            ("+1 -1".into(), "+1 -1".into(), String::new())
        );
        index.delete(Kind::Node, &Key::new("", "n2"));
        assert_eq!((told(&mut near), told(&mut elsewhere)), (String::new(), "+3".into()));

        // The node of endpoints counts from now on, and in this slice they have none.
        let mut service = examples::service("web", "10.96.0.5");
        service["spec"]["internalTrafficPolicy"] = "Local".into();
        apply(service);
        assert_eq!((told(&mut near), told(&mut nowhere)), ("none".into(), String::new()));
    }

    #[test]
    fn questions_nobody_asks_are_forgotten() {
        let index = examples::index([]);
        let ask = |port| {
            let mut updates = Box::pin(index.follow_endpoints(web(), port, None));
            assert_eq!(told(&mut updates), "none");
            updates
        };
        let _kept = ask(80);
        for port in 1..1000 {
            drop(ask(port));
        }
        assert!(index.0.questions.0.lock().by_subject.len() < 100);
        assert!(index.0.questions.0.lock().by_subject.contains_key(&subject(80)));
    }
}
