//! MSELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use crate::error::Result;
use crate::flow::{ActivationFn, Card, LabelKind, Labels, ModelType, Outputs};
use crate::loss::{Loss, inputs, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(query, passage) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "The model's `activation_fn` has to be `Identity` where a teacher's scores are logits, or its scores would not \
         be those that were trained.",
        "MarginMSELoss needs no agreement on where scores are 0, and is usually stronger.",
    ],
    paper: "https://arxiv.org/abs/2010.02666",
    ..Card::new("MSELoss", "Regresses the score that a teacher, usually a stronger reranker, gave each pair.")
};

/// The mean squared difference of each pair's score to the one that a teacher gave it.
///
/// `loss = mean over rows of (activation(x) - teacher)^2`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, passage) pairs | the teacher's score, any number |
///
/// # Shapes
/// One tensor of logits `[batch, 1]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `activation_fn = "Identity"`: the scores of most teachers are logits.
///
/// # Related
/// `MarginMSELoss` regresses differences of scores.
///
/// # Source
/// `torch.nn.MSELoss`; [Hofstätter et al. 2021](https://arxiv.org/abs/2010.02666) compare it with margins;
/// `cross_encoder/losses/mse.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "MSELoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MSELoss {
    /// Applied to the logits before they are compared with the labels.
    pub activation_fn: ActivationFn,
}

impl Default for MSELoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity }
    }
}

impl Settings for MSELoss {}

impl Loss for MSELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let (scores, labels) = logits::scored(&CARD, outputs, labels, self.activation_fn)?;
        let target = inputs::vector(labels, scores.dtype(), scores.device())?;
        Ok(terms::squared_errors(&scores, &target)?.mean_all()?)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![3.0, -1.5, 0.0, 0.4]);
        for activation_fn in ActivationFn::ALL {
            check_gradient(&MSELoss { activation_fn }, &random_columns(1, 4, 1, 3), Some(&labels));
        }
        assert!(MSELoss::default().check_dim(2).is_err());
    }
}
