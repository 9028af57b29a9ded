//! Where metrics can go besides the run's own files: the names that `args.report_to` knows.

/// A place that shows metrics of many runs.
#[derive(Debug, Clone, Copy)]
pub struct Tracker {
    /// The name in recipes, transformers'.
    pub name: &'static str,
    /// What becomes of the metrics.
    pub summary: &'static str,
    /// What it needs.
    pub needs: &'static str,
}

/// Event files of TensorBoard.
pub const TENSORBOARD: &str = "tensorboard";
/// Trackio.
pub const TRACKIO: &str = "trackio";
/// Weights & Biases.
pub const WANDB: &str = "wandb";
/// MLflow.
pub const MLFLOW: &str = "mlflow";

/// Every tracker there is.
pub static TRACKERS: &[Tracker] = &[
    Tracker {
        name: TENSORBOARD,
        summary: "Event files in the run's folder `tensorboard`, or in `TENSORBOARD_LOGGING_DIR`.",
        needs: "nothing",
    },
    Tracker {
        name: TRACKIO,
        summary: "A project of Trackio (`args.project`, else `TRACKIO_PROJECT`), on this machine or on a Space \
                  (`args.trackio_space_id`, else `TRACKIO_SPACE_ID`).",
        needs: "the Python package `trackio`; `HF_TOKEN` for a Space",
    },
    Tracker {
        name: WANDB,
        summary: "A project of Weights & Biases (`WANDB_PROJECT`, else `args.project`).",
        needs: "the Python package `wandb`; `WANDB_API_KEY`, or `WANDB_MODE=offline`",
    },
    Tracker {
        name: MLFLOW,
        summary: "An experiment of MLflow (`MLFLOW_EXPERIMENT_NAME`) at `MLFLOW_TRACKING_URI`.",
        needs: "the Python package `mlflow` or `mlflow-skinny`",
    },
];

/// All of them that can be had on the machine.
pub const ALL: &str = "all";
/// None of them.
pub const NONE: &str = "none";
/// The run's own file, which is always written.
pub const JSONL: &str = "jsonl";
/// transformers' default project.
pub const PROJECT: &str = "huggingface";

/// Every name that `args.report_to` knows.
#[must_use]
pub fn names() -> Vec<&'static str> {
    TRACKERS.iter().map(|tracker| tracker.name).chain([ALL, JSONL, NONE]).collect()
}
