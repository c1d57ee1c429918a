//! Ingresses that the data plane refuses its whole configuration for.
//!
//! Most of what may be wrong with an Ingress a translation sees. What only the data plane can tell, such as a pattern, a snippet or a
//! variable that it does not know, would keep it from every later configuration. A controller that leaves such an Ingress out of a fallback
//! configuration is played here, and serves the others; see [`Controller::leaves_out_refused`] for those that do not.

use kube::ResourceExt as _;

use super::{Controller, Translation};
use crate::data_plane::DataPlane;
use crate::objects::{INGRESSES, Object, Objects, tells_news};
use crate::status::Complaint;

/// Those that are left out, as they were then, and what the data plane said.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<(Object, String)>);

impl Refused {
    /// The translation of the others. One that says something else by now is tried again.
    pub(super) fn translate(&mut self, controller: &impl Controller, objects: &Objects) -> Translation {
        self.0.retain(|(refused, _)| {
            let now = objects.get(INGRESSES, &refused.namespace().unwrap_or_default(), &refused.name_any());
            now.is_some_and(|now| !tells_news(INGRESSES, refused, now))
        });
        if self.0.is_empty() {
            return controller.translate(objects);
        }
        let mut translation = controller.translate(&self.without(objects, &[]));
        for (refused, why) in &self.0 {
            let message = format!("it is left out, as with it the configuration is not valid: {why}");
            translation.complaints.insert(Complaint::new(INGRESSES, refused, "Rejected", message));
        }
        translation
    }

    /// Looks for an Ingress that is the reason why a configuration was refused: the first, from the oldest on, with which it is refused.
    /// Whether there is one that was not known.
    pub(super) async fn find(
        &mut self,
        controller: &impl Controller,
        data_plane: &mut impl DataPlane,
        objects: &Objects,
    ) -> bool {
        let mut suspects: Vec<Object> = self.without(objects, &[]).all(INGRESSES).cloned().collect();
        suspects.sort_by_key(|it| (it.metadata.creation_timestamp.clone(), it.namespace(), it.name_any()));
        // With so many of them it passes, and with so many it does not.
        let (mut passes, mut fails) = (0, suspects.len());
        let mut said = None;
        for count in [fails, passes] {
            let files = controller.translate(&self.without(objects, &suspects[count..])).files;
            match (data_plane.test(&files).await, count) {
                (Err(error), 0) => {
                    tracing::error!("it is not refused for an Ingress: {error:#}");
                    return false;
                }
                (Err(error), _) => said = Some(error),
                (Ok(()), _) if said.is_none() => return false,
                (Ok(()), _) => {}
            }
        }
        while fails - passes > 1 {
            let count = passes.midpoint(fails);
            let files = controller.translate(&self.without(objects, &suspects[count..])).files;
            match data_plane.test(&files).await {
                Ok(()) => passes = count,
                Err(error) => (fails, said) = (count, Some(error)),
            }
        }
        let Some((culprit, why)) = suspects.get(passes).zip(said) else { return false };
        self.0.push((culprit.clone(), format!("{why:#}")));
        true
    }

    fn without(&self, objects: &Objects, further: &[Object]) -> Objects {
        let mut rest = objects.clone();
        for object in self.0.iter().map(|(refused, _)| refused).chain(further) {
            rest.remove(INGRESSES, &object.namespace().unwrap_or_default(), &object.name_any());
        }
        rest
    }
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
            if plane.apply(&translation.files).await.is_ok() || !refused.find(&Words, plane, objects).await {
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
        let objects = objects(&["a", "b"]);
        assert!(!refused.find(&Words, &mut Picky(&["", "a"]), &objects).await);
        assert!(!refused.find(&Words, &mut Picky(&[]), &objects).await);
        assert!(refused.translate(&Words, &objects).files.values().eq(["a b"]));
    }
}
