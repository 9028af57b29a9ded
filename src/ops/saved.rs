//! What an operation's forward pass keeps for its backward pass, beside the tensors of the graph.

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, bail};

/// Filled by the forward pass, emptied by the backward pass.
pub struct Saved<S>(Mutex<Option<S>>);

impl<S> Default for Saved<S> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<S> Saved<S> {
    /// Keeps a state.
    pub fn put(&self, state: S) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Hands it over, so that its memory is free as soon as it was used.
    pub fn take(&self, name: &str) -> Result<S> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(state) => Ok(state),
            None => bail!("{name}: a graph is differentiated once, after a forward pass in training"),
        }
    }
}
