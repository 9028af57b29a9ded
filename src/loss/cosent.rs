//! CoSENTLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::ops::logsumexp;
use crate::scoring::{Similarity, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence_A, sentence_B) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    compares_rows: true,
    gotchas: &[
        "Only the order of the labels counts: a batch whose labels are all equal has loss 0 and teaches nothing.",
        "Larger batches compare more pairs: the value grows with the batch size and is not comparable across sizes.",
    ],
    paper: "https://penghao-bdsc.github.io/papers/CoSENT_TASLP2024.pdf",
    ..Card::new("CoSENTLoss", "Ranks pairs by their similarity scores; the first choice for scored sentence pairs.")
};

/// Ranks scored pairs: a pair with a higher label shall be more similar than one with a lower label.
///
/// `loss = log(1 + sum over (i, j) with label_i < label_j of exp(scale * (s_i - s_j)))`, where `s_i` is the similarity
/// of the two embeddings of row `i`. All pairs of rows of the batch are compared.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (sentence_A, sentence_B) pairs | a float score; only the order matters, any range will do |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `scale = 20`, an inverse temperature: cosines differ by at most 2, so differences need to be stretched to matter.
/// `similarity_fct = "cosine"`, since magnitudes carry no meaning for similarity.
///
/// # Related
/// `CosineSimilarityLoss` regresses the scores themselves and usually trains more weakly.
///
/// # Source
/// [Huang et al. 2024](https://penghao-bdsc.github.io/papers/CoSENT_TASLP2024.pdf); `losses/cosent.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "CoSENTLoss"
/// scale = 20.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoSENTLoss {
    /// Inverse temperature: similarities are multiplied by it.
    pub scale: f64,
    /// How the two embeddings of a row are compared.
    pub similarity_fct: Similarity,
}

impl Default for CoSENTLoss {
    fn default() -> Self {
        Self { scale: 20.0, similarity_fct: Similarity::Cosine }
    }
}

impl Settings for CoSENTLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)
    }
}

impl Loss for CoSENTLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let rows = columns[0].dim(0)?;
        let labels = inputs::scores(&CARD, labels, rows)?;
        let scores = self.similarity_fct.pairwise(&columns[0], &columns[1])?.affine(self.scale, 0.0)?; // [n]
        rank(&scores, &labels)
    }
}

/// `log(1 + sum over (i, j) with label_i < label_j of exp(score_i - score_j))`.
///
/// # Shapes
/// `scores` and `labels` `[n]`; the result is a scalar.
pub(super) fn rank(scores: &Tensor, labels: &[f32]) -> Result<Tensor> {
    let rows = labels.len();
    let differences = scores.unsqueeze(1)?.broadcast_sub(&scores.unsqueeze(0)?)?; // [n, n]
    // Negated rather than turned round: NaN labels compare with nothing.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    let other = inputs::mask(rows, rows, scores.device(), |i, j| !(labels[i] < labels[j]))?;
    let differences = stable::masked_fill(&differences, &other, f64::NEG_INFINITY)?;
    let by_row = logsumexp(&differences)?; // [n], -inf for the rows with the highest label
    let one = inputs::vector(vec![0.0], by_row.dtype(), by_row.device())?; // e^0
    Ok(logsumexp(&Tensor::cat(&[&one, &by_row], 0)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn two_pairs_by_hand() {
        let device = candle_core::Device::Cpu;
        let a = Tensor::new(&[[1.0f64, 0.0], [1.0, 0.0]], &device).unwrap();
        let b = Tensor::new(&[[1.0f64, 0.0], [0.0, 1.0]], &device).unwrap();
        let outputs = Outputs::new(vec![a, b]);
        let value = |labels: Vec<f32>| {
            let loss = CoSENTLoss { scale: 2.0, ..Default::default() };
            loss.compute(&outputs, Some(&Labels::Float(labels))).unwrap().to_scalar::<f64>().unwrap()
        };
        // Cosines 1 and 0: in the right order, in the wrong order, without an order.
        assert!((value(vec![0.9, 0.1]) - (1.0 + (-2f64).exp()).ln()).abs() < 1e-12);
        assert!((value(vec![0.1, 0.9]) - (1.0 + 2f64.exp()).ln()).abs() < 1e-12);
        assert_eq!(value(vec![0.5, 0.5]), 0.0);
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![0.1, 0.9, 0.4, 0.4]);
        for similarity_fct in Similarity::ALL {
            let loss = CoSENTLoss { scale: 3.0, similarity_fct };
            check_gradient(&loss, &random_columns(2, 4, 5, 1), Some(&labels));
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let outputs = Outputs::new(random_columns(2, 3, 4, 2));
        let message =
            |labels: Option<Labels>| CoSENTLoss::default().compute(&outputs, labels.as_ref()).unwrap_err().to_string();
        assert_eq!(message(None), "`CoSENTLoss` takes a score a row, the batch has no labels");
        assert_eq!(
            message(Some(Labels::Float(vec![1.0]))),
            "`CoSENTLoss` takes a score a row, the batch has 3 rows and 1 labels"
        );
        let matrix = Labels::Matrix { width: 2, data: vec![0.0; 6] };
        assert_eq!(message(Some(matrix)), "`CoSENTLoss` takes a score a row, the labels are lists of 2");
        let outputs = Outputs::new(random_columns(3, 3, 4, 2));
        let error = CoSENTLoss::default().compute(&outputs, None).unwrap_err();
        assert_eq!(error.to_string(), "`CoSENTLoss` takes 2 input columns, the batch has 3");
        assert!(error.hint().unwrap().contains("`columns`"));
    }
}
