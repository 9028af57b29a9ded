//! ADRMSELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{self, Lists, Share};
use super::logits;
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, inputs, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "ADRMSELoss",
    summary: "Regresses the rank of each passage of a query, the first ranks weighing most.",
    gotchas: &[
        "Only the order of the labels counts; it is made for the ranking of a large model as the teacher.",
        "Scores that are far apart get hardly any gradient: `alpha` and the learning rate go together.",
        "The model's `activation_fn` has to be `Identity`: between 0 and 1 no score is a rank apart from another.",
    ],
    paper: "https://arxiv.org/abs/2405.07920",
    ..lists::CARD
};

/// The squared difference of a smooth rank to the rank that the labels give, discounted as in NDCG.
///
/// `loss = mean over passages of all rows of (r - r̂)^2 / log2(r + 1)`, with `r̂_i = 1 + sum over the row's other
/// passages j of σ(alpha (s_j - s_i))`, `s` the logit after the activation and `r` the rank by label, equal labels
/// sharing the mean of their ranks.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, [passage_1, ..., passage_n]) | a list of n scores, any numbers |
///
/// # Shapes
/// One tensor of logits `[passages of all rows, 1]`, and a label for each; the result is a scalar.
///
/// # Defaults
/// `alpha = 1`, the paper's: larger values come nearer to true ranks and have less gradient where scores are far apart.
/// `mini_batch_size` as in `LambdaLoss`.
///
/// # Related
/// `RankNetLoss` does as well on the same data in the paper; `LambdaLoss` where labels are grades.
///
/// # Source
/// [Schlatt et al. 2025](https://arxiv.org/abs/2405.07920); `cross_encoder/losses/adr_mse.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "ADRMSELoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ADRMSELoss {
    /// Differences of scores are multiplied by it: how hard the smooth rank is.
    pub alpha: f64,
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
}

impl Default for ADRMSELoss {
    fn default() -> Self {
        Self { alpha: 1.0, activation_fn: ActivationFn::Identity, mini_batch_size: None }
    }
}

impl Settings for ADRMSELoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("alpha", self.alpha)
    }
}

impl Loss for ADRMSELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        lists::micro_batch(self.mini_batch_size)
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let lists = Lists::new(&CARD, outputs, labels, self.activation_fn)?;
        lists.mean(|_| lists.texts(), |scores, labels, gradient| self.errors(scores, labels, gradient))
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

impl ADRMSELoss {
    /// The errors of one list.
    fn errors(&self, scores: &[f64], labels: &[f64], gradient: &mut [f64]) -> Share {
        let mut value = 0.0;
        for (i, label) in labels.iter().enumerate() {
            let count = |is: &dyn Fn(&f64) -> bool| labels.iter().filter(|other| is(other)).count() as f64;
            let rank = count(&|other| other > label) + (count(&|other| other == label) + 1.0) / 2.0;
            // `σ(d)` of each other passage
            let ahead = |j: usize| terms::log_sigmoid(self.alpha * (scores[i] - scores[j])).1;
            let others = || (0..scores.len()).filter(|j| *j != i);
            let error = rank - 1.0 - others().map(ahead).sum::<f64>();
            let discount = 1.0 / (rank + 1.0).log2();
            value += discount * error * error;
            for j in others() {
                let above = ahead(j);
                let pull = 2.0 * discount * error * self.alpha * above * (1.0 - above);
                gradient[j] -= pull;
                gradient[i] += pull;
            }
        }
        Share { value, terms: scores.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::cross_encoder::lists::tests::check;

    #[test]
    fn gradient() {
        for alpha in [1.0, 3.0] {
            check(&ADRMSELoss { alpha, ..Default::default() });
        }
        assert!(ADRMSELoss { alpha: 0.0, ..Default::default() }.validate().is_err());
    }
}
