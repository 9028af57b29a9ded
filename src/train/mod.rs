//! How does a plan become a trained model? Preparation, the loop, checkpoints, the best model, guards.
//!
//! Training tells what happens through [`events`]; it writes checkpoints and the model, nothing else.

mod batches;
mod best;
mod checkpoint;
mod environment;
mod evaluation;
mod evaluation_data;
pub mod events;
pub mod facts;
mod from_hub;
mod guard;
pub mod hard_negatives;
mod memory;
mod own_tokenizer;
mod prepare;
mod prompts;
mod routes;
mod sets;
mod smoke;
mod static_queries;
mod step;
pub mod teaching;
mod timings;
mod trainer;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use checkpoint::copy_model;
pub use evaluation::build_evaluator;
pub use events::{Event, Listener, TrainLog};
pub use from_hub::nano_beir_folder;
pub use prepare::load_model;
pub use smoke::{SmokeReport, smoke_test};
pub use trainer::run;

use crate::flow::Metrics;

/// How a run is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Continue from the newest checkpoint in the run's folder, if there is one.
    pub resume: bool,
    /// Save the model as it was before training, too, as `base` beside `model`.
    pub keep_base: bool,
}

/// What a finished run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Optimizer steps taken.
    pub steps: u64,
    /// Epochs done, fractional.
    pub epochs: f64,
    /// Where the model is.
    pub model_dir: PathBuf,
    /// The adapter's folder, of a run that trained one.
    pub adapter_dir: Option<PathBuf>,
    /// Where the model before training is, when it was kept.
    pub base_model_dir: Option<PathBuf>,
    /// The metric that decides, `eval_` in front; `None` without evaluator and evaluation data.
    pub metric: Option<String>,
    /// Whether more of it is better.
    pub greater_is_better: bool,
    /// Its value before training.
    pub baseline: Option<f64>,
    /// Its value of the saved model.
    pub score: Option<f64>,
    /// Where the improvement lies at 95 %: a paired bootstrap over the items of the metric, where its evaluator tells
    /// them; positive is better.
    #[serde(skip)]
    pub delta_interval: Option<[f64; 2]>,
    /// The step the saved model is from, when the best one was kept.
    pub best_step: Option<u64>,
    /// Every metric before training, keys without `eval_`.
    pub baseline_metrics: Metrics,
    /// Every metric of the saved model.
    pub final_metrics: Metrics,
    /// Mean loss of the last logged steps.
    pub last_loss: f64,
    /// Wall time of the run, earlier processes of a resumed one counted in.
    pub seconds: f64,
    /// Wall time from there to the end of the first optimizer step, evaluation before training taken out.
    pub seconds_to_first_step: f64,
    /// Wall time of this process by phase: `prepare`, `data` (waiting for a batch), `forward`, `backward`, `optimizer`,
    /// `evaluation`, `checkpoint`.
    pub timings: BTreeMap<String, f64>,
    /// Rows per second of training alone: forward, backward, optimizer and batching.
    pub rows_per_second: f64,
    /// The largest resident set of this process.
    pub peak_memory_bytes: u64,
    /// Rows of training data.
    pub train_rows: u64,
    /// Tokens this process trained on.
    pub train_tokens: u64,
    /// Whether early stopping ended it.
    pub stopped_early: bool,
    /// What needs attention.
    pub warnings: Vec<String>,
}

/// How much of a model the first batch's gradient reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Trainable tensors.
    pub trainable: usize,
    /// Those of them with a finite gradient that is not all zero.
    pub with_gradient: usize,
    /// Those without any gradient, or with zeros only.
    pub without_gradient: Vec<String>,
    /// Those with a NaN or an infinity in their gradient.
    pub not_finite: Vec<String>,
}
