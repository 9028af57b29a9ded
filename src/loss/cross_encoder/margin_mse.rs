//! MarginMSELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, LabelKind, Labels, ModelType, Outputs};
use crate::loss::{Loss, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(query, positive, negative) triplets", "(query, positive, negative_1, ..., negative_n)"],
    columns: (3, usize::MAX),
    // A margin a row, or a list of margins or scores.
    labels: LabelKind::Any,
    gotchas: &[
        "Labels are the teacher's margins, positive less negative (one number or a list, one a negative), or its scores \
         (a list, the positive's first): one more than there are negatives.",
        "The model's `activation_fn` has to be `Identity`: margins of scores between 0 and 1 are never above 1.",
    ],
    paper: "https://arxiv.org/abs/2010.02666",
    ..Card::new("MarginMSELoss", "Regresses a teacher's margins between the positive and each negative.")
};

/// Regresses how much higher a teacher scores the positive than each negative.
///
/// `loss = mean over rows and negatives of (s(q, p) - s(q, n) - (teacher(q, p) - teacher(q, n)))^2`, with `s` the logit
/// after the activation.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, positive, negative) triplets | the teacher's margin, or its two scores |
/// | (query, positive, negative_1, ..., negative_n) | a list of n margins, or of n + 1 scores |
///
/// # Shapes
/// Two or more tensors of logits `[batch, 1]`, the positive's first; labels `[batch]`, `[batch, n]` or `[batch, n + 1]`;
/// the result is a scalar.
///
/// # Defaults
/// `activation_fn = "Identity"`: a teacher's margins have no bounds.
///
/// # Related
/// `MSELoss` regresses the scores themselves.
///
/// # Source
/// [Hofstätter et al. 2021](https://arxiv.org/abs/2010.02666); `cross_encoder/losses/margin_mse.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "MarginMSELoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MarginMSELoss {
    /// Applied to the logits before margins are taken.
    pub activation_fn: ActivationFn,
}

impl Default for MarginMSELoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity }
    }
}

impl Settings for MarginMSELoss {}

impl Loss for MarginMSELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let scores = logits::scores(&CARD, outputs, self.activation_fn)?;
        let [positive, negatives @ ..] = scores.as_slice() else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        terms::margin_errors(&CARD, positive, negatives, labels)
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
        let labels = Labels::Matrix { width: 3, data: (0..12).map(|i| (i as f32).sin()).collect() };
        for activation_fn in [ActivationFn::Identity, ActivationFn::Sigmoid] {
            for count in [3, 4] {
                check_gradient(&MarginMSELoss { activation_fn }, &random_columns(count, 4, 1, 3), Some(&labels));
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let loss = MarginMSELoss::default();
        let told = |count: usize| {
            let outputs = Outputs::new(random_columns(count, 2, 1, 2));
            loss.compute(&outputs, Some(&Labels::Float(vec![1.0, 2.0]))).unwrap_err().to_string()
        };
        assert!(told(3).contains("with 2 negatives they have to be 2 margins or 3 scores"));
        assert!(told(1).contains("the batch has 2 input columns"));
        assert!(loss.check_dim(2).is_err());
    }
}
