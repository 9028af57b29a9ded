//! MultiVectorMarginMSELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Similarity, TOP_K, check_top_k, columns, pairwise};
use crate::error::{Error, Result};
use crate::flow::{Card, Labels, ModelType, Outputs};
use crate::loss::{Loss, margin_mse, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "MultiVectorMarginMSELoss",
    model_types: &[ModelType::MultiVectorEncoder],
    gotchas: &[
        "Labels are the teacher's margins, positive less negative (one number or a list, one a negative), or its scores \
         (a list, the positive's first): one more than there are negatives.",
        "`maxsim` grows with the query, so a teacher's margins that are small teach short queries first.",
    ],
    ..margin_mse::CARD
};

/// Regresses how much higher a teacher scores the positive than each negative, with scores token by token.
///
/// `loss = mean over rows and negatives of (score(q, p) - score(q, n) - (teacher(q, p) - teacher(q, n)))^2`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, positive, negative) triplets | the teacher's margin, or its two scores |
/// | (query, positive, negative_1, ..., negative_n) | a list of n margins, or of n + 1 scores |
///
/// # Shapes
/// Three or more columns of `[vectors, dim]`, labels `[batch]`, `[batch, n]` or `[batch, n + 1]`; the result is a
/// scalar.
///
/// # Defaults
/// `similarity_fct = "maxsim"`. With `xtr` the documents of one column are searched at a time, as in the reference.
///
/// # Related
/// `MultiVectorDistillKLDivLoss` learns the distribution over the documents.
///
/// # Source
/// [Hofstätter et al. 2020](https://arxiv.org/abs/2010.02666); `multi_vector_encoder/losses/margin_mse.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "MultiVectorEncoder"
/// [loss]
/// name = "MultiVectorMarginMSELoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultiVectorMarginMSELoss {
    /// How a query and a document are scored.
    pub similarity_fct: Similarity,
    /// With `xtr`: how many vectors of all documents a query's vector finds.
    pub top_k: usize,
    /// The reference's bound on padding; changes nothing here.
    pub mini_batch_size: Option<usize>,
}

impl Default for MultiVectorMarginMSELoss {
    fn default() -> Self {
        Self { similarity_fct: Similarity::MaxSim, top_k: TOP_K, mini_batch_size: None }
    }
}

impl Settings for MultiVectorMarginMSELoss {
    fn validate(&self) -> Result<()> {
        check_top_k(self.top_k)
    }
}

impl Loss for MultiVectorMarginMSELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = columns(&CARD, outputs)?;
        let [queries, positives, negatives @ ..] = columns.as_slice() else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let scoring = self.similarity_fct.scoring(self.top_k);
        let near = pairwise(*queries, *positives, scoring)?;
        let far = negatives.iter().map(|other| pairwise(*queries, *other, scoring)).collect::<Result<Vec<_>>>()?;
        terms::margin_errors(&CARD, &near, &far, labels)
    }

    fn check_dim(&self, _: usize) -> Result<Vec<String>> {
        Ok(self.similarity_fct.warnings(&CARD, self.top_k))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_gradient, random_outputs};
    use super::*;

    #[test]
    fn gradient() {
        for similarity_fct in [Similarity::MaxSim, Similarity::MeanMaxSim, Similarity::Xtr] {
            let loss = MultiVectorMarginMSELoss { similarity_fct, top_k: 5, ..Default::default() };
            check_gradient(&loss, &random_outputs(3, 7), Some(&Labels::Float(vec![1.0, -0.5, 2.0])));
            let scores = Labels::Matrix { width: 3, data: (0..9).map(|i| (i as f32).sin()).collect() };
            check_gradient(&loss, &random_outputs(4, 8), Some(&scores));
        }
    }
}
