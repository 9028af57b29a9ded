//! MarginMSELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{inputs, terms};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(query, positive, negative) triplets", "(query, positive, negative_1, ..., negative_n)"],
    columns: (3, usize::MAX),
    // A margin a row, or a list of margins or scores.
    labels: LabelKind::Any,
    gotchas: &[
        "Labels are the teacher's margins, positive less negative (one number or a list, one a negative), or its scores \
         (a list, the positive's first): one more than there are negatives.",
        "The margins have the teacher's scale: dot products reach any, cosines at most 2.",
    ],
    paper: "https://arxiv.org/abs/2010.02666",
    ..Card::new("MarginMSELoss", "Regresses a teacher's margins between the positive and each negative.")
};

/// Regresses how much higher a teacher, usually a reranker, scores the positive than each negative.
///
/// `loss = mean over rows and negatives of (sim(q, p) - sim(q, n) - (teacher(q, p) - teacher(q, n)))^2`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, positive, negative) triplets | the teacher's margin, or its two scores |
/// | (query, positive, negative_1, ..., negative_n) | a list of n margins, or of n + 1 scores |
///
/// # Shapes
/// Three or more embeddings of `[batch, dim]`, labels `[batch]`, `[batch, n]` or `[batch, n + 1]`; the result is a scalar.
///
/// # Defaults
/// `similarity_fct = "dot"`: a teacher's scores have no bounds, cosines have.
///
/// # Related
/// `DistillKLDivLoss` learns the distribution of the scores instead, `MSELoss` embeddings.
///
/// # Source
/// [Hofstätter et al. 2021](https://arxiv.org/abs/2010.02666); `losses/margin_mse.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MarginMSELoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MarginMSELoss {
    /// How a query is compared with a document.
    pub similarity_fct: Similarity,
}

impl Default for MarginMSELoss {
    fn default() -> Self {
        Self { similarity_fct: Similarity::Dot }
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
        let columns = inputs::columns(&CARD, outputs)?;
        let [queries, positives, negatives @ ..] = columns else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let score = |document: &Tensor| self.similarity_fct.pairwise(queries, document); // [n]
        let far = negatives.iter().map(score).collect::<candle_core::Result<Vec<_>>>()?;
        terms::margin_errors(&CARD, &score(positives)?, &far, labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn margins_and_scores_are_the_same() {
        let outputs = |count: usize| Outputs::new(random_columns(count, 2, 4, 3));
        let value = |count: usize, labels: Labels| -> f64 {
            MarginMSELoss::default().compute(&outputs(count), Some(&labels)).unwrap().to_scalar().unwrap()
        };
        let one = value(3, Labels::Float(vec![1.0, -2.0]));
        assert_eq!(one, value(3, Labels::Int(vec![1, -2])));
        assert_eq!(one, value(3, Labels::Matrix { width: 1, data: vec![1.0, -2.0] }));
        assert_eq!(one, value(3, Labels::Matrix { width: 2, data: vec![3.0, 2.0, 1.0, 3.0] }));
        let margins = Labels::Matrix { width: 2, data: vec![1.0, 2.0, 3.0, 4.0] };
        let scores = Labels::Matrix { width: 3, data: vec![5.0, 4.0, 3.0, 5.0, 2.0, 1.0] };
        assert_eq!(value(4, margins), value(4, scores));
    }

    #[test]
    fn gradient() {
        let labels = Labels::Matrix { width: 3, data: (0..12).map(|i| (i as f32).sin()).collect() };
        for similarity_fct in Similarity::ALL {
            for count in [4, 5] {
                check_gradient(&MarginMSELoss { similarity_fct }, &random_columns(count, 4, 5, 3), Some(&labels));
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let outputs = Outputs::new(random_columns(4, 2, 4, 2));
        let error = MarginMSELoss::default().compute(&outputs, Some(&Labels::Float(vec![1.0, 2.0]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`MarginMSELoss`: the labels are lists of 1, and with 2 negatives they have to be 2 margins or 3 scores"
        );
        assert!(MarginMSELoss::default().compute(&outputs, None).is_err());
    }
}
