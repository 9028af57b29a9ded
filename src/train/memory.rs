//! How much memory a run will need, told before the first step.

use std::sync::Arc;

use crate::ops::Param;

/// What the estimate is made of, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    /// Weights, gradients and optimizer moments.
    pub state: u64,
    /// Activations of the largest batch, kept for the backward pass.
    pub activations: u64,
}

impl Estimate {
    /// `activation_floats`: values kept per token; `tokens`: tokens of the largest batch; `rows` and `dim`: embeddings
    /// per batch and their width.
    pub fn new(params: &[Arc<Param>], activation_floats: usize, tokens: usize, rows: usize, dim: usize) -> Self {
        let mut state = 0;
        for param in params {
            // a value; with training a gradient and two moments
            let copies = if param.trainable() { 4 } else { 1 };
            state += copies * 4 * param.elements() as u64;
        }
        let per_batch = rows * dim * 6 + rows * rows * 4;
        Self { state, activations: 4 * (tokens as u64 * activation_floats as u64 + per_batch as u64) }
    }

    /// The peak: both, and what the program itself takes.
    pub fn peak(&self) -> u64 {
        const PROGRAM: u64 = 160 << 20;
        self.state + self.activations + PROGRAM
    }
}
