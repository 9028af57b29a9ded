//! Divides every sentence embedding by its length.

use std::path::Path;

use super::{Features, Module};
use crate::error::Result;
use crate::ops::{self, Context};

/// `x / max(‖x‖₂, 1e-12)`.
pub struct Normalize;

impl Module for Normalize {
    fn name(&self) -> &'static str {
        "Normalize"
    }

    fn forward(&self, mut features: Features, _: &Context) -> Result<Features> {
        features.sentence_embedding = Some(ops::l2_normalize(features.sentence(self.name())?, 1e-12)?);
        Ok(features)
    }

    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}
