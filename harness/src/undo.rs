//! What a case changes for a while, and how it is undone, whatever becomes of the case.
//!
//! A case that is out of time, panics or fails half-way undoes nothing itself; a route for every host that it leaves behind, or an object
//! that freezes the controller, would be judged by its second look and by the cases after it.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::verdict::Failure;

type Step = BoxFuture<'static, Result<(), Failure>>;

/// Steps back, taken once the case is over.
#[derive(Clone, Default)]
pub(crate) struct Undo {
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Undo {
    /// One more step, to be taken before those that are there already.
    pub(crate) fn push(&self, step: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        self.steps.lock().push(Box::pin(step));
    }

    /// Takes all steps, the last one first. That one fails is no reason to leave out the others.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        loop {
            let step = self.steps.lock().pop();
            let Some(step) = step else { return outcome };
            let done = step.await;
            outcome = outcome.and(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn the_last_step_is_undone_first_and_a_failure_keeps_none_from_it() {
        let undo = Undo::default();
        let taken = Arc::new(Mutex::new(Vec::new()));
        for step in 1..=3 {
            let taken = Arc::clone(&taken);
            undo.push(async move {
                taken.lock().push(step);
                if step == 2 { Err(anyhow!("step {step}").into()) } else { Ok(()) }
            });
        }
        let failed = undo.run().await.unwrap_err().to_string();
        assert!(failed.contains("step 2"), "{failed}");
        assert_eq!(*taken.lock(), [3, 2, 1]);
        assert!(undo.run().await.is_ok(), "once");
        assert_eq!(taken.lock().len(), 3);
    }
}
