//! CrossEntropyLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, LabelKind, Labels, ModelType, Outputs};
use crate::loss::{Loss, inputs, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(sentence_A, sentence_B) pairs"],
    columns: (2, 2),
    // classes, or a list of probabilities
    labels: LabelKind::Any,
    gotchas: &[
        "`model.num_labels` is the number of classes; labels are 0 to one less.",
        "The loss takes the softmax itself: `activation_fn`, the model's too, stays `Identity`.",
    ],
    paper: "https://arxiv.org/abs/1810.04805",
    ..Card::new("CrossEntropyLoss", "Classifies pairs into several classes.")
};

/// The cross-entropy of each pair's logits with its class.
///
/// `loss = mean over rows of -log softmax(x)[class]`. Where labels are probabilities `p`, `loss = mean over rows of
/// -sum over classes of p log softmax(x)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (sentence_A, sentence_B) pairs | class, 0 to `num_labels - 1` |
/// | (sentence_A, sentence_B) pairs | a list of `num_labels` probabilities |
///
/// # Shapes
/// One tensor of logits `[batch, num_labels]`; labels `[batch]` or `[batch, num_labels]`; the result is a scalar.
///
/// # Related
/// `BinaryCrossEntropyLoss` where there are two classes, or how relevant a passage is.
///
/// # Source
/// `torch.nn.CrossEntropyLoss`; classifiers of pairs: [Devlin et al. 2018](https://arxiv.org/abs/1810.04805);
/// `cross_encoder/losses/cross_entropy.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [model]
/// num_labels = 3
/// [loss]
/// name = "CrossEntropyLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropyLoss {
    /// Applied to the logits before the loss, which takes a softmax of its own.
    pub activation_fn: ActivationFn,
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity }
    }
}

impl Settings for CrossEntropyLoss {}

impl Loss for CrossEntropyLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = logits::columns(&CARD, outputs)?;
        terms::classification(&CARD, &terms::activate(&columns[0], self.activation_fn)?, labels)
    }

    fn label_range(&self, dim: usize) -> Option<(f64, f64, &'static str)> {
        Some((0.0, dim.saturating_sub(1) as f64, inputs::CLASSES_HINT))
    }

    /// A single class is always right: the reference trains on, without a gradient.
    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        if dim < 2 {
            return Err(Error::usage(format!(
                "`{}` takes a model with a logit for each class, this one has {dim}",
                CARD.name
            ))
            .with_hint(
                "set `model.num_labels` to the number of classes, or use BinaryCrossEntropyLoss for labels 0 and 1",
            ));
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn gradient() {
        let columns = random_columns(1, 4, 3, 3);
        let soft = vec![0.2, 0.3, 0.5, 1.0, 0.0, 0.0, 0.1, 0.8, 0.1, 0.3, 0.3, 0.4];
        for labels in [Labels::Int(vec![2, 0, 0, 1]), Labels::Matrix { width: 3, data: soft }] {
            check_gradient(&CrossEntropyLoss::default(), &columns, Some(&labels));
            check_gradient(&CrossEntropyLoss { activation_fn: ActivationFn::Tanh }, &columns, Some(&labels));
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let loss = CrossEntropyLoss::default();
        let told = |labels: Labels| {
            loss.compute(&Outputs::new(random_columns(1, 2, 3, 1)), Some(&labels)).unwrap_err().to_string()
        };
        assert!(told(Labels::Int(vec![0, 3])).contains("a class is 3"));
        assert!(told(Labels::Matrix { width: 2, data: vec![0.5; 4] }).contains("`num_labels` is 3"));
        assert!(loss.check_dim(1).is_err() && loss.check_dim(2).is_ok());
    }
}
