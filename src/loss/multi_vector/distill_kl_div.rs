//! MultiVectorDistillKLDivLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Similarity, TOP_K, check_top_k, columns, row_by_row};
use crate::error::{Error, Result};
use crate::flow::{Card, Labels, ModelType, Outputs};
use crate::loss::{Loss, distill_kl_div, inputs};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "MultiVectorDistillKLDivLoss",
    model_types: &[ModelType::MultiVectorEncoder],
    gotchas: &[
        "Labels are lists of the teacher's scores, one a document.",
        "A softmax over one document is constant: two documents a query are the least.",
        "A reranker's scores lie far apart, and their softmax knows one document only: raise `teacher_temperature`.",
    ],
    paper: "https://arxiv.org/abs/2112.01488",
    ..distill_kl_div::CARD
};

/// The Kullback-Leibler divergence of the model's softmax over a query's documents, scored token by token, from a
/// teacher's.
///
/// `loss = student_temperature^2 * mean over rows of sum over documents d of p_d * (log p_d - log q_d)` with `p =
/// softmax(teacher / teacher_temperature)` and `q = softmax(score(query, d) / student_temperature)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, document_1, ..., document_n) | a list of the teacher's n scores |
///
/// # Shapes
/// Three or more columns of `[vectors, dim]`, labels `[batch, columns - 1]`; the result is a scalar.
///
/// # Defaults
/// `similarity_fct = "maxsim"` and `temperature = 1` for both sides.
///
/// # Related
/// `MultiVectorMarginMSELoss` regresses the differences of the scores themselves.
///
/// # Source
/// [Santhanam et al. 2022](https://arxiv.org/abs/2112.01488) (ColBERTv2);
/// `multi_vector_encoder/losses/distill_kl_div.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "MultiVectorEncoder"
/// [loss]
/// name = "MultiVectorDistillKLDivLoss"
/// temperature = 1.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultiVectorDistillKLDivLoss {
    /// How a query and a document are scored.
    pub similarity_fct: Similarity,
    /// With `xtr`: how many vectors of all documents a query's vector finds.
    pub top_k: usize,
    /// Scores are divided by it before the softmax.
    pub temperature: f64,
    /// The same for the model's scores only.
    pub student_temperature: Option<f64>,
    /// The same for the teacher's scores only.
    pub teacher_temperature: Option<f64>,
    /// The reference's bound on padding; changes nothing here.
    pub mini_batch_size: Option<usize>,
}

impl Default for MultiVectorDistillKLDivLoss {
    fn default() -> Self {
        Self {
            similarity_fct: Similarity::MaxSim,
            top_k: TOP_K,
            temperature: 1.0,
            student_temperature: None,
            teacher_temperature: None,
            mini_batch_size: None,
        }
    }
}

impl MultiVectorDistillKLDivLoss {
    fn student(&self) -> f64 {
        self.student_temperature.unwrap_or(self.temperature)
    }

    fn teacher(&self) -> f64 {
        self.teacher_temperature.unwrap_or(self.temperature)
    }
}

impl Settings for MultiVectorDistillKLDivLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("temperature", self.temperature)?;
        inputs::positive("student_temperature", self.student())?;
        inputs::positive("teacher_temperature", self.teacher())?;
        check_top_k(self.top_k)
    }
}

impl Loss for MultiVectorDistillKLDivLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = columns(&CARD, outputs)?;
        let [queries, documents @ ..] = columns.as_slice() else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let scores = row_by_row(*queries, documents, self.similarity_fct.scoring(self.top_k))?;
        distill_kl_div::divergence(&CARD, &scores, labels, (self.student(), self.teacher()))
    }

    fn check_dim(&self, _: usize) -> Result<Vec<String>> {
        Ok(self.similarity_fct.warnings(&CARD, self.top_k))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{check_gradient, random_outputs};
    use super::*;

    #[test]
    fn gradient() {
        let labels = Labels::Matrix { width: 3, data: (0..9).map(|i| 2.0 * (i as f32).sin()).collect() };
        for similarity_fct in [Similarity::MaxSim, Similarity::MeanMaxSim, Similarity::Xtr] {
            let loss = MultiVectorDistillKLDivLoss {
                similarity_fct,
                top_k: 9,
                temperature: 2.0,
                student_temperature: Some(0.7),
                ..Default::default()
            };
            check_gradient(&loss, &random_outputs(4, 9), Some(&labels));
        }
        let loss = MultiVectorDistillKLDivLoss::default();
        assert!(loss.compute(&random_outputs(3, 9), Some(&labels)).unwrap_err().to_string().contains("lists of 3"));
        assert!(MultiVectorDistillKLDivLoss { temperature: 0.0, ..Default::default() }.validate().is_err());
    }
}
