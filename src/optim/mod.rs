//! How do gradients change parameters? AdamW, clipping, which parameters decay, and learning-rate schedules.

mod adamw;
mod clip;
mod groups;

pub use adamw::{AdamW, AdamWConfig};
pub use clip::{clip_coefficient, gradient_norm};
pub use groups::decays;
