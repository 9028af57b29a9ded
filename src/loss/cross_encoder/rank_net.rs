//! RankNetLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lambda::{LambdaLoss, ReductionLog, WeightingScheme};
use super::lists::{self, Lists};
use super::logits;
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "RankNetLoss",
    summary: "Orders the passages of a query pair by pair, all pairs alike.",
    gotchas: &[
        "Only the order of the labels counts: a list whose labels are all equal teaches nothing.",
        "The model's `activation_fn` has to be `Identity`: scores squeezed by a sigmoid are hardly apart.",
    ],
    paper: "https://icml.cc/Conferences/2015/wp-content/uploads/2015/06/icml_ranking.pdf",
    ..lists::CARD
};

/// A logistic loss on the pairs of passages of which one is better.
///
/// `loss = -mean over pairs (i, j) with label_i > label_j of log2 σ(sigma (s_i - s_j))`, with `s` the logit after the
/// activation.
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
/// `sigma = 1` and logarithms of base 2, as `LambdaLoss`; a pair counts if one of both is among the model's first `k`,
/// all count without it. `mini_batch_size` as there.
///
/// # Related
/// `LambdaLoss` weighs the pairs and usually ranks better.
///
/// # Source
/// [Burges et al. 2005](https://icml.cc/Conferences/2015/wp-content/uploads/2015/06/icml_ranking.pdf);
/// `cross_encoder/losses/rank_net.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "RankNetLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RankNetLoss {
    /// Pairs count if one of both is among the first so many; all when left out.
    pub k: Option<usize>,
    /// Differences of scores are multiplied by it.
    pub sigma: f64,
    /// Has no effect without weights; the reference has it.
    pub eps: f64,
    /// The base of the logarithm: `binary` or `natural`.
    pub reduction_log: ReductionLog,
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
}

impl Default for RankNetLoss {
    fn default() -> Self {
        let lambda = LambdaLoss::default();
        Self {
            k: lambda.k,
            sigma: lambda.sigma,
            eps: lambda.eps,
            reduction_log: lambda.reduction_log,
            activation_fn: lambda.activation_fn,
            mini_batch_size: lambda.mini_batch_size,
        }
    }
}

impl RankNetLoss {
    fn lambda(&self) -> LambdaLoss {
        LambdaLoss {
            weighting_scheme: WeightingScheme::NoWeightingScheme,
            k: self.k,
            sigma: self.sigma,
            eps: self.eps,
            reduction_log: self.reduction_log,
            activation_fn: self.activation_fn,
            mini_batch_size: self.mini_batch_size,
            ..LambdaLoss::default()
        }
    }
}

impl Settings for RankNetLoss {
    fn validate(&self) -> Result<()> {
        self.lambda().validate()
    }
}

impl Loss for RankNetLoss {
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
        self.lambda().over_pairs(&Lists::new(&CARD, outputs, labels, self.activation_fn)?)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::cross_encoder::lists::tests::check;

    #[test]
    fn gradient() {
        for k in [None, Some(1)] {
            check(&RankNetLoss { k, sigma: 2.0, ..Default::default() });
        }
    }
}
