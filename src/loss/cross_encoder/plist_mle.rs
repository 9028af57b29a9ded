//! PListMLELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{self, Lists, Share, falling};
use super::logits;
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "PListMLELoss",
    summary: "Likelihood of the right order of a query's passages, the first places weighing most.",
    gotchas: &[
        "With `respect_input_order = true` the passages have to stand in the right order, best first, and labels are not \
         read; set it to false to have them sorted by their labels.",
        "Among passages of equal label some order is taught: grades of many ties belong to LambdaLoss.",
        "The model's `activation_fn` has to be `Identity`.",
    ],
    paper: "https://auai.org/uai2014/proceedings/individuals/164.pdf",
    ..lists::CARD
};

/// How the places of a list are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LambdaWeight {
    /// `2^(n - i) - 1` for place i of n, over their sum.
    PListMLELambdaWeight,
    /// 1, as `ListMLELoss`.
    None,
}

impl LambdaWeight {
    /// The weights of the places of a list. From 128 places on all are smaller by the same factor, so that a float32
    /// could hold them: the last ones are then no longer told apart, as in the reference.
    fn weights(self, places: usize) -> Vec<f64> {
        /// Keeps a list whose weights are all 0 from being divided by their sum.
        const EPS: f64 = 1e-10;
        if self == Self::None {
            return vec![1.0; places];
        }
        let n = places as f64;
        let scale = (n - 127.0).max(0.0);
        let weight = |place: usize| (n - place as f64 - scale).exp2() - (-scale).exp2();
        let weights: Vec<f64> = (1..=places).map(weight).collect();
        let sum = weights.iter().sum::<f64>() + EPS;
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

/// The negative log-likelihood of the right order of a query's passages, passage after passage.
///
/// `loss = -mean over rows of sum over places i of w_i (s_i - log(sum over j from i on of exp(s_j)))`, with `s` the
/// logits after the activation in the right order, and `w_i = (2^(n - i) - 1) / sum of these`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, [passage_1, ..., passage_n]) | a list of n scores, any numbers |
///
/// # Shapes
/// One tensor of logits `[passages of all rows, 1]`, and a label for each; the result is a scalar. A list of one passage
/// adds 0.
///
/// # Defaults
/// `respect_input_order = true`: passages come best first, as mining leaves them. `mini_batch_size` as in `LambdaLoss`.
/// `lambda_weight = "None"` is `ListMLELoss`; discounts of one's own, which the reference takes as functions, are not
/// possible.
///
/// # Related
/// `LambdaLoss` takes the same data and usually ranks better.
///
/// # Source
/// [Lan et al. 2014](https://auai.org/uai2014/proceedings/individuals/164.pdf); `cross_encoder/losses/plist_mle.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "PListMLELoss"
/// respect_input_order = false
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PListMLELoss {
    /// How places are weighted: `PListMLELambdaWeight` or `None`.
    pub lambda_weight: LambdaWeight,
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
    /// Whether the passages come in the right order; else their labels give it.
    pub respect_input_order: bool,
}

impl Default for PListMLELoss {
    fn default() -> Self {
        Self {
            lambda_weight: LambdaWeight::PListMLELambdaWeight,
            activation_fn: ActivationFn::Identity,
            mini_batch_size: None,
            respect_input_order: true,
        }
    }
}

impl Settings for PListMLELoss {}

impl Loss for PListMLELoss {
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
        likelihood(&lists, self.lambda_weight, self.respect_input_order)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

/// The mean negative log-likelihood of the lists' order: as they are, or by falling label.
pub(super) fn likelihood(lists: &Lists, weight: LambdaWeight, respect_input_order: bool) -> Result<Tensor> {
    lists.mean(
        |_| lists.len(),
        |scores, labels, gradient| {
            let order = if respect_input_order { (0..scores.len()).collect() } else { falling(labels) };
            let weights = weight.weights(order.len());
            // log of the sum over this and all later places
            let mut rest = vec![f64::NEG_INFINITY; order.len()];
            let mut value = 0.0;
            for place in (0..order.len()).rev() {
                let (score, later) = (scores[order[place]], rest.get(place + 1).copied().unwrap_or(f64::NEG_INFINITY));
                let top = score.max(later);
                rest[place] = top + ((score - top).exp() + (later - top).exp()).ln();
                value -= weights[place] * (score - rest[place]);
            }
            for (place, text) in order.iter().enumerate() {
                let chosen = (0..=place).map(|earlier| weights[earlier] * (scores[*text] - rest[earlier]).exp());
                gradient[*text] = chosen.sum::<f64>() - weights[place];
            }
            Share { value, terms: 1 }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::cross_encoder::lists::tests::check;

    #[test]
    fn gradient() {
        for lambda_weight in [LambdaWeight::PListMLELambdaWeight, LambdaWeight::None] {
            for respect_input_order in [true, false] {
                check(&PListMLELoss { lambda_weight, respect_input_order, ..Default::default() });
            }
        }
    }

    #[test]
    fn weights_fall_to_nothing() {
        assert_eq!(LambdaWeight::None.weights(3), [1.0; 3]);
        assert_eq!(LambdaWeight::PListMLELambdaWeight.weights(1), [0.0]);
        let weights = LambdaWeight::PListMLELambdaWeight.weights(3);
        assert!((weights[0] - 0.75).abs() < 1e-9 && (weights[1] - 0.25).abs() < 1e-9 && weights[2] == 0.0);
    }
}
