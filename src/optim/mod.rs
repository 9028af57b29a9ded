//! How do gradients change parameters, and when is something due? AdamW, clipping, which parameters decay,
//! learning-rate schedules, and the Trainer's step arithmetic.

mod adamw;
mod clip;
mod groups;
pub mod interval;
mod moments;
pub mod schedule;
pub mod steps;

pub use adamw::{AdamW, AdamWConfig};
pub use clip::{clip_coefficient, gradient_norm};
pub use groups::decays;
