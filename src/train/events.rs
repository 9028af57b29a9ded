//! What training says while it runs; `runs` and, through `verbs`, the fronts listen.

use std::path::Path;

use super::facts::RunFacts;
use crate::eval::Csv;
use crate::flow::Metrics;

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A line for people, in the log too.
    Message(&'a str),
    /// Something that needs attention but does not stop the run.
    Warning(&'a str),
    /// A phase of the run began: `data`, `baseline`, `train`, `evaluate`, `save`.
    Phase(&'a str),
    /// What the run works on; told at its beginning, and again when it is resumed.
    Facts(&'a RunFacts),
    /// One optimizer step is done (every step, logged or not).
    Step { step: u64, total: u64 },
    /// Training metrics, averaged since the last such event.
    Log(TrainLog),
    /// An evaluation; `metrics` keys are without the `eval_` prefix, `tables` are the files that get a row of them.
    Evaluation { step: u64, epoch: f64, metrics: &'a Metrics, seconds: f64, tables: &'a [Csv] },
    /// The last evaluation is the best so far; told where the best model is to be loaded.
    Best { step: u64 },
    /// A checkpoint is complete on disk.
    Checkpoint { step: u64, path: &'a Path },
}

/// One line of training metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TrainLog {
    pub step: u64,
    /// Epochs done, fractional.
    pub epoch: f64,
    /// Mean loss of the steps since the last line.
    pub loss: f64,
    pub learning_rate: f64,
    /// Gradient norm before clipping, of the last step.
    pub grad_norm: f64,
    /// Seconds since training began.
    pub seconds: f64,
    /// Rows (pairs, triplets) per second since the last line.
    pub rows_per_second: f64,
    /// Terms of the loss and what they depend on, means of the steps since the last line, by the reference's keys; of
    /// losses of several terms.
    #[serde(default)]
    pub told: Vec<(String, f64)>,
}

/// Hears events, in order, on the training thread.
pub trait Listener {
    /// One event.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Listener for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}
