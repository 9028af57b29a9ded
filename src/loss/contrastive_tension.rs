//! ContrastiveTensionLoss.

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, View, inputs};
use crate::error::{Error, Result};
use crate::flow::{Arrangement, Card, LabelKind, Labels, Outputs};
use crate::ops::{self, Activation};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["single texts", "(sentence_A, sentence_B) pairs, equal or different"],
    columns: (1, 2),
    labels: LabelKind::Float,
    unlabelled_from: 1,
    gotchas: &[
        "A second model is trained beside the one that is saved: twice the memory for weights and optimizer.",
        "The loss is a sum over the rows of dot products as they are: learning rates of 1e-5 and below are usual.",
        "ContrastiveTensionLossInBatchNegatives usually learns more from the same texts.",
    ],
    paper: "https://openreview.net/forum?id=Ov_sMNau-PF",
    ..Card::new(
        "ContrastiveTensionLoss",
        "Two copies of the model learn to agree on equal texts only; needs no labels.",
    )
};

/// Contrastive tension: two models that begin as one learn that a text is like itself and unlike others.
///
/// With the twin's embedding `a` of a row's first text and the model's `b` of its second, and the label `y`, 1 for
/// equal and 0 for different texts: `loss = sum over rows of log(1 + exp(a·b)) - y * a·b`, the binary cross-entropy of
/// the dot product. The model that embeds second texts is the one that is evaluated and saved; the twin ends with the
/// run.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | single texts | none |
/// | (sentence_A, sentence_B) pairs | none: 1 where both have the same tokens |
/// | (sentence_A, sentence_B) pairs | 1 or 0 |
///
/// Single texts are made into pairs, new ones each epoch: of every `pos_neg_ratio` rows of a batch the first is a text
/// with itself, the others are two texts each. A batch of `per_device_train_batch_size` rows takes that many texts, and
/// one more for each of its rows that is no text with itself.
///
/// # Shapes
/// Two embeddings of `[batch, dim]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `pos_neg_ratio = 8`, the paper's and the reference's: seven pairs of different texts for one of equal ones.
///
/// # Related
/// `ContrastiveTensionLossInBatchNegatives` compares all texts of a batch; `DenoisingAutoEncoderLoss` and
/// `MultipleNegativesRankingLoss` on the same column twice (SimCSE) need no labels either.
///
/// # Source
/// [Carlsson et al. 2021](https://openreview.net/forum?id=Ov_sMNau-PF); `losses/contrastive_tension.py` of
/// sentence-transformers, and its `ContrastiveTensionDataLoader` for single texts.
///
/// # Recipe
/// ```toml
/// [train_dataset]
/// path = "sentences.txt"
/// [loss]
/// name = "ContrastiveTensionLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveTensionLoss {
    /// Of single texts: one row of so many is a text with itself, the others are two different ones.
    pub pos_neg_ratio: usize,
}

impl Default for ContrastiveTensionLoss {
    fn default() -> Self {
        Self { pos_neg_ratio: 8 }
    }
}

impl Settings for ContrastiveTensionLoss {
    fn validate(&self) -> Result<()> {
        if self.pos_neg_ratio == 0 {
            return Err(Error::usage("`pos_neg_ratio` must be 1 or more, got 0").with_hint(
                "8 is the paper's: of eight rows one is a text with itself, seven are two different texts",
            ));
        }
        Ok(())
    }
}

/// First texts are the twin's, second ones the model's.
const VIEWS: [View; 2] = [View { twin: true, column: 0 }, View { twin: false, column: 1 }];

impl Loss for ContrastiveTensionLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn views(&self) -> Option<&[View]> {
        Some(&VIEWS)
    }

    fn arrangement(&self, columns: usize) -> Arrangement {
        if columns == 1 { Arrangement::Pairs { ratio: self.pos_neg_ratio } } else { Arrangement::AsIs }
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let [twin, model] = inputs::columns(&CARD, outputs)? else {
            return Err(Error::Internal(format!("`{}` computes on one column", CARD.name)));
        };
        let rows = model.dim(0)?;
        let labels = match labels {
            Some(_) => inputs::scores(&CARD, labels, rows)?,
            None if outputs.tokens.len() == 2 * rows => {
                (0..rows).map(|row| f32::from(outputs.tokens.same(row, rows + row))).collect()
            }
            None => return Err(Error::Internal(format!("`{}` computes without labels or tokens", CARD.name))),
        };
        let labels = inputs::vector(labels, model.dtype(), model.device())?;
        let scores = twin.mul(model)?.sum(D::Minus1)?; // [batch]
        Ok(ops::activation(&scores, Activation::Softplus)?.sub(&scores.mul(&labels)?)?.sum_all()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::PackedBatch;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![1.0, 0.0, 0.0, 1.0]);
        check_gradient(&ContrastiveTensionLoss::default(), &random_columns(2, 4, 5, 3), Some(&labels));
    }

    #[test]
    fn equal_tokens_are_the_positives() {
        let loss = ContrastiveTensionLoss::default();
        let tokens = PackedBatch::pack([&[1u32, 2][..], &[3], &[4, 5], &[1, 2], &[3, 3], &[4, 6]].map(|ids| (ids, 0)));
        let outputs = Outputs { tokens, ..Outputs::new(random_columns(2, 3, 4, 1)) };
        let value = |labels: Option<&Labels>| loss.compute(&outputs, labels).unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(value(None), value(Some(&Labels::Int(vec![1, 0, 0]))));
        assert!(loss.compute(&Outputs::new(random_columns(2, 3, 4, 1)), None).is_err());
    }

    #[test]
    fn single_texts_become_pairs() {
        let loss = ContrastiveTensionLoss { pos_neg_ratio: 4 };
        assert_eq!(loss.arrangement(1), Arrangement::Pairs { ratio: 4 });
        assert_eq!(loss.arrangement(2), Arrangement::AsIs);
        assert!(ContrastiveTensionLoss { pos_neg_ratio: 0 }.validate().is_err());
    }
}
