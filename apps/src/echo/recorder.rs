//! Remembers requests that carry a marker.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Answer;

/// The header that marks a request to be remembered.
pub(super) const MARKER: &str = "x-meshgate-marker";

/// Requests that are remembered; older ones are forgotten.
const CAPACITY: usize = 10_000;

/// The answer of `/_requests`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// How many requests carried the marker.
    pub count: usize,
    /// They themselves, oldest first. A request whose body was still on its way shows none.
    pub requests: Vec<Answer>,
}

#[derive(Default)]
pub(super) struct Recorder(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    entries: VecDeque<(String, Answer)>,
    /// How many were forgotten.
    forgotten: u64,
}

impl Recorder {
    /// Remembers a request at its arrival. The number is for [`update`](Self::update).
    pub fn arrived(&self, marker: &str, answer: &Answer) -> u64 {
        let mut ring = self.0.lock();
        if ring.entries.len() == CAPACITY {
            ring.entries.pop_front();
            ring.forgotten += 1;
        }
        ring.entries.push_back((marker.to_owned(), answer.clone()));
        ring.forgotten + ring.entries.len() as u64 - 1
    }

    /// The request's body has been read.
    pub fn update(&self, number: u64, answer: &Answer) {
        let mut ring = self.0.lock();
        let index = number.checked_sub(ring.forgotten).and_then(|index| usize::try_from(index).ok());
        if let Some((_, entry)) = index.and_then(|index| ring.entries.get_mut(index)) {
            entry.clone_from(answer);
        }
    }

    /// The requests with a marker.
    pub fn find(&self, marker: &str) -> Remembered {
        let ring = self.0.lock();
        let found = ring.entries.iter().filter(|(known, _)| known == marker);
        let requests: Vec<Answer> = found.map(|(_, answer)| answer.clone()).collect();
        Remembered { count: requests.len(), requests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_and_updates_the_right_one() {
        let recorder = Recorder::default();
        let answer = Answer::default();
        let first = recorder.arrived("first", &answer);
        for _ in 1..CAPACITY {
            recorder.arrived("many", &answer);
        }
        assert_eq!(recorder.find("first").count, 1);
        let last = recorder.arrived("last", &answer);
        assert_eq!(recorder.find("first").count, 0);
        recorder.update(first, &Answer { body_bytes: 1, ..Answer::default() });
        recorder.update(last, &Answer { body_bytes: 2, ..Answer::default() });
        assert_eq!(recorder.find("last").requests[0].body_bytes, 2);
        assert!(recorder.find("many").requests.iter().all(|answer| answer.body_bytes == 0));
    }
}
