//! Objects that the data plane refuses its whole configuration for.
//!
//! Most of what may be wrong with an Ingress a translation sees. What only the data plane can tell, such as a pattern, a snippet, a
//! plugin's field or a variable that it does not know, would keep it from every later configuration. A controller that leaves such an
//! object out of a fallback configuration is played here, and serves the others; see [`Controller::leaves_out_refused`] for those that do
//! not. A data plane that knows which objects it refuses names them ([`Refusal`]); otherwise the Ingress is looked for by trying.

use kube::ResourceExt as _;

use super::{Controller, Translation};
use crate::data_plane::{DataPlane, Refusal, Search};
use crate::objects::{INGRESSES, Kind, Object, Objects, tells_news};
use crate::status::Complaint;

/// Those that are left out.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<LeftOut>);

/// One of them, as it was then, and what is told of it. Several things may be told of one.
#[derive(Debug)]
struct LeftOut {
    kind: Kind,
    object: Object,
    reason: &'static str,
    message: String,
}

impl LeftOut {
    /// What there is of the object now.
    fn now<'a>(&self, objects: &'a Objects) -> Option<&'a Object> {
        objects.get(self.kind, &self.object.namespace().unwrap_or_default(), &self.object.name_any())
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        let of = |left: &Self| (left.kind, left.object.namespace(), left.object.name_any());
        of(self) == of(other)
    }
}

impl Refused {
    /// The translation of the others. One that says something else by now is tried again.
    pub(super) fn translate(&mut self, controller: &impl Controller, objects: &Objects) -> Translation {
        self.0.retain(|left| left.now(objects).is_some_and(|now| !tells_news(left.kind, &left.object, now)));
        if self.0.is_empty() {
            return controller.translate(objects);
        }
        let mut translation = controller.translate(&self.without(controller, objects, &[]));
        for LeftOut { kind, object, reason, message } in &self.0 {
            translation.complaints.insert(Complaint::new(*kind, object, reason, message));
        }
        translation
    }

    /// Takes note of the objects for which a configuration was refused: those that the data plane names, otherwise the first Ingress, from
    /// the oldest on, with which it is refused. Whether there is one that was not known.
    pub(super) async fn find(
        &mut self,
        why: &anyhow::Error,
        controller: &impl Controller,
        data_plane: &mut impl DataPlane,
        objects: &Objects,
    ) -> bool {
        let found = match why.downcast_ref::<Refusal>() {
            Some(refusal) => named(refusal, objects),
            None => self.tried(controller, data_plane, objects).await.into_iter().collect(),
        };
        let known = self.0.len();
        let news = found.into_iter().filter(|it| !self.0.iter().any(|left| left.is_of_the_same(it)));
        let news: Vec<LeftOut> = news.collect();
        self.0.extend(news);
        self.0.len() > known
    }

    async fn tried(
        &self,
        controller: &impl Controller,
        data_plane: &mut impl DataPlane,
        objects: &Objects,
    ) -> Option<LeftOut> {
        let mut suspects: Vec<Object> = self.without(controller, objects, &[]).all(INGRESSES).cloned().collect();
        suspects.sort_by_key(|it| (it.metadata.creation_timestamp.clone(), it.namespace(), it.name_any()));
        let mut search = Search::among(suspects.len());
        while let Some(count) = search.next() {
            let files = controller.translate(&self.without(controller, objects, &suspects[count..])).files;
            search.told(count, data_plane.test(&files).await);
        }
        let (first, why) = search.found()?;
        let message = format!("it is left out, as with it the configuration is not valid: {why:#}");
        Some(LeftOut { kind: INGRESSES, object: suspects.get(first)?.clone(), reason: "Rejected", message })
    }

    /// All objects but those that are left out, what cannot be without them, and further Ingresses.
    fn without(&self, controller: &impl Controller, objects: &Objects, further: &[Object]) -> Objects {
        let mut rest = objects.clone();
        for LeftOut { kind, object, .. } in &self.0 {
            remove(&mut rest, *kind, object);
            for ingress in controller.dependants(objects, *kind, object) {
                remove(&mut rest, INGRESSES, &ingress);
            }
        }
        for ingress in further {
            remove(&mut rest, INGRESSES, ingress);
        }
        rest
    }
}

fn remove(objects: &mut Objects, kind: Kind, object: &Object) {
    objects.remove(kind, &object.namespace().unwrap_or_default(), &object.name_any());
}

/// The objects that a data plane names, as they are.
fn named(refusal: &Refusal, objects: &Objects) -> Vec<LeftOut> {
    let found = refusal.0.iter().filter_map(|refused| {
        let object = objects.get(refused.kind, &refused.namespace, &refused.name)?.clone();
        Some(LeftOut { kind: refused.kind, object, reason: refused.reason, message: refused.message.clone() })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::data_plane::Files;
    use crate::objects::{Kind, annotation};

    /// Serves what the Ingresses are annotated with.
    struct Words;

    impl Controller for Words {
        fn kinds(&self) -> Vec<Kind> {
            vec![INGRESSES]
        }

        fn translate(&self, objects: &Objects) -> Translation {
            let words: Vec<&str> = objects.all(INGRESSES).filter_map(|it| annotation(it, "word")).collect();
            let files = [(PathBuf::from("words"), words.join(" "))].into();
            Translation { files, ..Translation::default() }
        }

        fn dependants(&self, objects: &Objects, _kind: Kind, _object: &Object) -> Vec<Object> {
            objects.all(INGRESSES).filter(|it| annotation(it, "word") == Some("needs-it")).cloned().collect()
        }
    }

    /// Takes what has none of these words.
    struct Picky(&'static [&'static str]);

    impl DataPlane for Picky {
        async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
            self.test(files).await
        }

        async fn test(&mut self, files: &Files) -> anyhow::Result<()> {
            let words: String = files.values().cloned().collect();
            let bad = words.split(' ').find(|word| self.0.contains(word));
            bad.map_or(Ok(()), |word| Err(anyhow::anyhow!("unknown word {word}")))
        }

        async fn ended(&mut self) -> anyhow::Error {
            std::future::pending().await
        }

        async fn stop(&mut self) {}
    }

    fn objects(words: &[&str]) -> Objects {
        let documents: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(index, word)| {
                format!("kind: Ingress\nmetadata: {{name: i{index}, namespace: a, annotations: {{word: {word}}}}}\n")
            })
            .collect();
        Objects::from_yaml(&[INGRESSES], &documents.join("---\n"))
    }

    /// What is served in the end, and what is said.
    async fn settled(refused: &mut Refused, plane: &mut Picky, objects: &Objects) -> (String, Vec<String>) {
        loop {
            let translation = refused.translate(&Words, objects);
            let taken = match plane.apply(&translation.files).await {
                Ok(()) => true,
                Err(why) => !refused.find(&why, &Words, plane, objects).await,
            };
            if taken {
                let said = translation.messages().into_iter().map(str::to_owned).collect();
                return (translation.files.into_values().collect(), said);
            }
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_left_out_and_told_of_until_it_says_something_else() {
        let mut refused = Refused::default();
        let mut plane = Picky(&["bad", "worse"]);
        let (served, said) = settled(&mut refused, &mut plane, &objects(&["a", "bad", "b", "worse", "c"])).await;
        assert_eq!(served, "a b c");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().any(|said| said.ends_with("unknown word bad")), "{said:?}");
        // It is not looked for again while it stays as it is.
        let translation = refused.translate(&Words, &objects(&["a", "bad", "b", "worse", "d"]));
        assert!(translation.files.values().eq(["a b d"]));
        let (served, said) = settled(&mut refused, &mut plane, &objects(&["a", "good", "b", "worse"])).await;
        assert_eq!((served.as_str(), said.len()), ("a good b", 1));
    }

    #[tokio::test]
    async fn nobody_is_left_out_for_what_no_ingress_is_the_reason_of() {
        let mut refused = Refused::default();
        // An empty configuration has one word, which is empty.
        let (objects, why) = (objects(&["a", "b"]), anyhow::anyhow!("no"));
        assert!(!refused.find(&why, &Words, &mut Picky(&["", "a"]), &objects).await);
        assert!(!refused.find(&why, &Words, &mut Picky(&[]), &objects).await);
        assert!(refused.translate(&Words, &objects).files.values().eq(["a b"]));
    }

    #[tokio::test]
    async fn an_object_that_the_data_plane_names_is_left_out_with_what_depends_on_it() {
        let mut refused = Refused::default();
        let words = objects(&["a", "b", "needs-it", "c"]);
        let named = |name: &str, message: &str| {
            let (namespace, name, message) = ("a".to_owned(), name.to_owned(), message.to_owned());
            crate::data_plane::RefusedObject { kind: INGRESSES, namespace, name, reason: "Refused", message }
        };
        let why = Refusal(vec![named("i1", "one"), named("i1", "another"), named("gone", "of what is there no more")]);
        let why = anyhow::Error::from(why);
        // The plane takes everything when it is tried: it is not asked.
        assert!(refused.find(&why, &Words, &mut Picky(&[]), &words).await);
        let translation = refused.translate(&Words, &words);
        assert!(translation.files.values().eq(["a c"]), "{:?}", translation.files);
        assert_eq!(translation.messages(), ["another", "one"]);
        assert!(!refused.find(&why, &Words, &mut Picky(&[]), &words).await, "it is no news");
        assert!(
            refused.translate(&Words, &objects(&["a", "B", "needs-it", "c"])).files.values().eq(["a B needs-it c"])
        );
    }
}
