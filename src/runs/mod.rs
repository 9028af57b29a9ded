//! What is left of a run, and how is it followed? Its folder, process, status, metrics, verdict, log and model card.

pub mod card;
pub mod experiments;
pub mod folder;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod process;
pub mod queue;
pub mod receipt;
pub mod recorder;
pub mod report;
mod reserve;
pub mod status;
pub mod tables;
pub mod trackers;
pub mod verdict;

pub use folder::RunFolder;
pub use recorder::{Ending, Recorder};
pub use status::{State, Status};
pub use verdict::{Judgement, Verdict};
