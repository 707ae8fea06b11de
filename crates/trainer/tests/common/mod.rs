//! Helpers of the training tests.

use trainer::{Observer, PairDelta, StepMetrics, TrainError, TrainerState};

/// Records the callbacks, and requests a stop after a number of steps if set.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) steps: Vec<StepMetrics>,
    pub(crate) deltas: Vec<PairDelta>,
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) stop_after: Option<usize>,
}

impl Observer for Record {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn on_step(&mut self, metrics: &StepMetrics, deltas: &[PairDelta], _: u64) -> Result<(), TrainError> {
        self.steps.push(metrics.clone());
        self.deltas.extend_from_slice(deltas);
        Ok(())
    }

    fn on_checkpoint(&mut self, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
        self.checkpoints.push(snapshot.step);
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.stop_after == Some(self.steps.len())
    }
}
