//! MSELoss.

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::embed_distill::{EmbeddingDistance, check_projection, distill, projection};
use super::layer::{self, Layer};
use super::{Loss, Setup};
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::ops::Param;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["any texts; the teacher's embedding as label"],
    columns: (1, usize::MAX),
    labels: LabelKind::Matrix,
    gotchas: &[
        "The teacher's embeddings have to be as wide as the model's, or `projection_dim` has to be their width.",
        "For a multilingual model: a sentence and its translation as columns, the teacher's embedding of the sentence as \
         label of both.",
        "The mean over all values is small: a learning rate that is usual elsewhere may be too low.",
    ],
    paper: "https://arxiv.org/abs/2004.09813",
    ..Card::new("MSELoss", "Regresses the embeddings of a teacher, computed beforehand.")
};

/// The mean squared difference of each embedding to the one that a teacher gave the text.
///
/// `loss = mean over columns, rows and values of (embedding - teacher's embedding)^2`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | text | the teacher's embedding, a list of numbers |
/// | text_1, ..., text_n | one embedding for all columns, or one for each, in one list |
///
/// # Shapes
/// Embeddings of `[batch, dim]`, labels `[batch, dim]` or `[batch, columns * dim]`; the result is a scalar.
///
/// # Defaults
/// No projection. With `projection_dim` a linear layer takes the embeddings to the teacher's width; it is trained with
/// the model and thrown away with the run.
///
/// # Related
/// `EmbedDistillLoss` is the same with other distances. `MarginMSELoss` learns from a teacher's scores.
///
/// # Source
/// [Reimers & Gurevych 2020](https://arxiv.org/abs/2004.09813); `losses/mse.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MSELoss"
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MSELoss {
    /// The teacher's width, where it is not the model's: a learned layer then comes between.
    pub projection_dim: Option<usize>,
    #[serde(skip)]
    #[schemars(skip)]
    projection: Option<Layer>,
}

impl Settings for MSELoss {
    fn validate(&self) -> Result<()> {
        check_projection(self.projection_dim)
    }
}

impl Loss for MSELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        self.projection = projection(self.projection_dim, setup)?;
        Ok(())
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.projection.iter().flat_map(Layer::params).collect()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        if self.projection_dim.is_some() && self.projection.is_none() {
            return Err(layer::unprepared(CARD.name));
        }
        distill(&CARD, EmbeddingDistance::Mse, self.projection.as_ref(), outputs, labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn gradient() {
        let labels = Labels::Matrix { width: 3, data: (0..12).map(|i| (i as f32).sin()).collect() };
        check_gradient(&MSELoss::default(), &random_columns(1, 4, 3, 3), Some(&labels));
        check_gradient(&MSELoss::default(), &random_columns(3, 4, 3, 3), Some(&labels));
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        assert!(MSELoss { projection_dim: Some(0), ..Default::default() }.validate().is_err());
        let error = MSELoss::default().compute(&Outputs::new(random_columns(1, 3, 4, 2)), None).unwrap_err();
        assert_eq!(error.to_string(), "`MSELoss` takes a list of numbers a row, the batch has no labels");
    }
}
