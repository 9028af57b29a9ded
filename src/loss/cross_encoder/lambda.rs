//! LambdaLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{self, Lists, Share, falling};
use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, inputs, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "LambdaLoss",
    summary: "Orders the passages of a query, weighted by what each pair is worth in NDCG; the first choice for lists.",
    gotchas: &[
        "Grades count as `2^grade - 1`: a teacher's scores need scaling to a few grades, or another loss.",
        "A list whose labels are all equal teaches nothing.",
        "The model's `activation_fn` has to be `Identity`: scores squeezed by a sigmoid are hardly apart.",
    ],
    paper: "https://dl.acm.org/doi/10.1145/3269206.3271784",
    ..lists::CARD
};

/// What a pair of passages weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WeightingScheme {
    /// 1.
    NoWeightingScheme,
    /// `G_i / D_i`, for every pair, whatever the labels.
    NDCGLoss1Scheme,
    /// `|1 / D_|i-j| - 1 / D_(|i-j|+1)| |G_i - G_j|`.
    NDCGLoss2Scheme,
    /// `|1 / D_i - 1 / D_j| |G_i - G_j|`.
    LambdaRankScheme,
    /// `mu` times that of `NDCGLoss2Scheme`, and that of `LambdaRankScheme`.
    NDCGLoss2PPScheme,
}

/// The base of the logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReductionLog {
    /// e.
    Natural,
    /// 2.
    Binary,
}

/// A weighted logistic loss on the pairs of passages of which one is better.
///
/// `loss = -mean over pairs (i, j) with label_i > label_j of w_ij log2 σ(sigma (s_i - s_j))`, with `s` the logit after
/// the activation. Passages stand in the order of their scores; `D_i = log2(1 + i)` is the discount of place i and
/// `G_i = (2^label_i - 1) / maxDCG` its gain, from which `weighting_scheme` makes `w`. The mean is over the pairs of all
/// rows. Weights have no gradient.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, [passage_1, ..., passage_n]) | a list of n grades, 0 for irrelevant |
///
/// # Shapes
/// One tensor of logits `[passages of all rows, 1]`, and a label for each; the result is a scalar. Lists may be of any
/// length. Labels below 0 count as 0 in gains.
///
/// # Defaults
/// `NDCGLoss2PPScheme` with `mu = 10`, the best of the paper. `k` cuts: a pair counts if one of both is among the first
/// k; all count without it. `sigma = 1`, and logarithms of base 2, as the paper has them.
///
/// `mini_batch_size` takes the pairs of a batch in parts of so many. The reference does so in the forward pass alone;
/// here gradients are cached, which costs a second forward pass and needs the memory of a part.
///
/// # Related
/// `RankNetLoss` is this loss with weights of 1.
///
/// # Source
/// [Wang et al. 2018](https://dl.acm.org/doi/10.1145/3269206.3271784); `cross_encoder/losses/lambda_loss.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "LambdaLoss"
/// weighting_scheme = "NDCGLoss2PPScheme"
/// k = 10
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LambdaLoss {
    /// What a pair of passages weighs.
    pub weighting_scheme: WeightingScheme,
    /// How much heavier the first part of `NDCGLoss2PPScheme` is; other schemes do not read it.
    pub mu: f64,
    /// Pairs count if one of both is among the first so many; all when left out.
    pub k: Option<usize>,
    /// Differences of scores are multiplied by it.
    pub sigma: f64,
    /// The least value of `maxDCG`.
    pub eps: f64,
    /// The base of the logarithm: `binary` or `natural`.
    pub reduction_log: ReductionLog,
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
}

impl Default for LambdaLoss {
    fn default() -> Self {
        Self {
            weighting_scheme: WeightingScheme::NDCGLoss2PPScheme,
            mu: 10.0,
            k: None,
            sigma: 1.0,
            eps: 1e-10,
            reduction_log: ReductionLog::Binary,
            activation_fn: ActivationFn::Identity,
            mini_batch_size: None,
        }
    }
}

impl Settings for LambdaLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("mu", self.mu)?;
        inputs::positive("sigma", self.sigma)?;
        inputs::positive("eps", self.eps)?;
        if self.k == Some(0) {
            return Err(Error::usage("`k` must be 1 or more, got 0").with_hint("leave it out for all passages"));
        }
        Ok(())
    }
}

/// Above, 2^label is no number of 32 bits any more, as which the reference has it.
const HIGHEST_GRADE: f64 = 127.0;

impl Loss for LambdaLoss {
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
        let highest = lists.highest_label();
        if highest > HIGHEST_GRADE && self.weighting_scheme != WeightingScheme::NoWeightingScheme {
            return Err(Error::data(format!(
                "`{}` weighs a label of y with 2^y - 1, and a label is {highest}",
                CARD.name
            ))
            .with_hint(format!(
                "labels are grades, such as 0 to 4, and {HIGHEST_GRADE} at most: make grades of counts and prices, or \
                 take RankNetLoss"
            )));
        }
        self.over_pairs(&lists)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        let mut warnings = logits::check_one(&CARD, dim)?;
        if self.weighting_scheme != WeightingScheme::NDCGLoss2PPScheme && self.mu != Self::default().mu {
            warnings.push(format!("`{}`: `mu` has no effect without `NDCGLoss2PPScheme`", CARD.name));
        }
        Ok(warnings)
    }
}

impl LambdaLoss {
    /// The weighted mean over the pairs of all lists.
    pub(super) fn over_pairs(&self, lists: &Lists) -> Result<Tensor> {
        lists.mean(|pairs| pairs, |scores, labels, gradient| self.pairs(scores, labels, gradient))
    }

    /// The pairs of one list.
    fn pairs(&self, scores: &[f64], labels: &[f64], gradient: &mut [f64]) -> Share {
        let order = falling(scores);
        let gains = self.gains(labels);
        let k = self.k.unwrap_or(usize::MAX);
        let base = match self.reduction_log {
            ReductionLog::Natural => 1.0,
            ReductionLog::Binary => std::f64::consts::LN_2,
        };
        let mut share = Share { value: 0.0, terms: 0 };
        for (i, better) in order.iter().enumerate() {
            for (j, worse) in order.iter().enumerate() {
                let counts =
                    self.weighting_scheme == WeightingScheme::NDCGLoss1Scheme || labels[*better] > labels[*worse];
                if !counts || (i >= k && j >= k) {
                    continue;
                }
                let weight = self.weight((i, gains[*better]), (j, gains[*worse])) / base;
                let (log, slope) = terms::log_sigmoid(self.sigma * (scores[*better] - scores[*worse]));
                share.value -= weight * log;
                share.terms += 1;
                gradient[*better] -= weight * self.sigma * slope;
                gradient[*worse] += weight * self.sigma * slope;
            }
        }
        share
    }

    /// `2^label - 1`, over what the first k places could have of it at best.
    fn gains(&self, labels: &[f64]) -> Vec<f64> {
        let mut gains: Vec<f64> = labels.iter().map(|label| label.max(0.0).exp2() - 1.0).collect();
        let mut best = gains.clone();
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        let first = best.iter().take(self.k.unwrap_or(usize::MAX)).enumerate();
        let most = first.map(|(place, gain)| gain / discount(place)).sum::<f64>().max(self.eps);
        gains.iter_mut().for_each(|gain| *gain /= most);
        gains
    }

    /// The weight of two passages, each with its place and gain.
    fn weight(&self, (i, gain): (usize, f64), (j, other): (usize, f64)) -> f64 {
        let difference = (gain - other).abs();
        let between = |place: usize, next: usize| (1.0 / discount(place) - 1.0 / discount(next)).abs();
        let by_distance = || match i.abs_diff(j) {
            0 => 0.0,
            apart => between(apart - 1, apart) * difference,
        };
        let by_place = || between(i, j) * difference;
        match self.weighting_scheme {
            WeightingScheme::NoWeightingScheme => 1.0,
            WeightingScheme::NDCGLoss1Scheme => gain / discount(i),
            WeightingScheme::NDCGLoss2Scheme => by_distance(),
            WeightingScheme::LambdaRankScheme => by_place(),
            WeightingScheme::NDCGLoss2PPScheme => self.mu * by_distance() + by_place(),
        }
    }
}

/// The discount of a place, counted from 0.
fn discount(place: usize) -> f64 {
    (place as f64 + 2.0).log2()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::cross_encoder::lists::tests::check;

    #[test]
    fn gradient() {
        for weighting_scheme in [
            WeightingScheme::NoWeightingScheme,
            WeightingScheme::NDCGLoss1Scheme,
            WeightingScheme::NDCGLoss2Scheme,
            WeightingScheme::LambdaRankScheme,
            WeightingScheme::NDCGLoss2PPScheme,
        ] {
            for k in [None, Some(2)] {
                check(&LambdaLoss { weighting_scheme, k, sigma: 1.5, ..Default::default() });
            }
        }
    }

    #[test]
    fn settings_out_of_range() {
        assert!(LambdaLoss { k: Some(0), ..Default::default() }.validate().is_err());
        assert!(LambdaLoss { sigma: 0.0, ..Default::default() }.validate().is_err());
        let idle = LambdaLoss { weighting_scheme: WeightingScheme::LambdaRankScheme, mu: 3.0, ..Default::default() };
        assert_eq!(idle.check_dim(1).unwrap().len(), 1);
    }
}
