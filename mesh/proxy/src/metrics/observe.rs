//! Who counts one response.

use http::HeaderMap;

use super::{Observation, StreamObservation};
use crate::http::{Broken, broken_class, stream_error};

/// Counts a response, as older families do or as newer ones.
pub(crate) enum Observer {
    Exchange(Observation),
    Stream(StreamObservation),
}

impl From<Observation> for Observer {
    fn from(observation: Observation) -> Self {
        Self::Exchange(observation)
    }
}

impl From<StreamObservation> for Observer {
    fn from(observation: StreamObservation) -> Self {
        Self::Stream(observation)
    }
}

impl Observer {
    /// The first frame of the body has come, or there is none.
    pub(crate) fn first_frame(&mut self) {
        if let Self::Exchange(observation) = self {
            observation.first_frame();
        }
    }

    /// So many bytes of the body have come.
    pub(crate) fn data(&self, bytes: usize) {
        if let Self::Stream(observation) = self {
            observation.data(bytes);
        }
    }

    /// The stream has ended well.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) {
        match self {
            Self::Exchange(observation) => observation.end(trailers),
            Self::Stream(observation) => observation.end(trailers),
        }
    }

    /// The stream broke.
    pub(crate) fn broke(&mut self, error: &Broken) {
        match self {
            Self::Exchange(observation) => observation.fail(broken_class(error)),
            Self::Stream(observation) => observation.fail(stream_error(error)),
        }
    }
}

/// Everybody who counts one response: its endpoint, its route, and that route's backend or a ServiceProfile's attempt.
#[derive(Default)]
pub(crate) struct Observers([Option<Observer>; 3]);

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Into<Observer>) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(observer.into());
        }
    }

    pub(crate) fn each(&mut self, act: impl FnMut(&mut Observer)) {
        self.0.iter_mut().flatten().for_each(act);
    }
}
