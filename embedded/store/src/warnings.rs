//! What a write has to say although it is done.

use std::sync::Arc;

use parking_lot::Mutex;

/// How much of it is kept.
const MOST: usize = 500;

/// Where a write tells of what it left out. Clones are the same; by default nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Option<Arc<Mutex<Vec<String>>>>);

impl Warnings {
    /// Somebody listens.
    pub fn heard() -> Self {
        Self(Some(Arc::default()))
    }

    /// Tells something, which is not said twice: a write that was overtaken is tried again. More than any answer can carry is not kept.
    pub fn add(&self, text: String) {
        let Some(told) = &self.0 else { return };
        let mut told = told.lock();
        if told.len() < MOST && !told.contains(&text) {
            told.push(text);
        }
    }

    /// What has been told so far.
    pub fn told(&self) -> Vec<String> {
        self.0.as_ref().map(|told| told.lock().clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_once_to_who_listens() {
        for (warnings, expected) in [(Warnings::heard(), vec!["a", "b"]), (Warnings::default(), vec![])] {
            let clone = warnings.clone();
            ["a", "b", "a"].into_iter().for_each(|text| clone.add(text.to_owned()));
            assert_eq!(warnings.told(), expected);
        }
    }
}
