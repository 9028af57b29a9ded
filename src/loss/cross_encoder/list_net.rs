//! ListNetLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{self, Lists, Share};
use super::logits;
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, terms};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "ListNetLoss",
    summary: "Learns the distribution of the labels over the passages of a query.",
    gotchas: &[
        "Labels go through a softmax: 0 and 1 make a distribution that is nearly flat, grades of several units a sharp one.",
        "The model's `activation_fn` has to be `Identity`: a softmax over scores between 0 and 1 is nearly flat.",
    ],
    paper: "https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/",
    ..lists::CARD
};

/// The cross-entropy of the scores of a query's passages with their labels, both through a softmax.
///
/// `loss = -mean over rows of sum over passages of softmax(labels) log softmax(s)`, with `s` the logits after the
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
/// No activation; `mini_batch_size` as in `LambdaLoss`.
///
/// # Related
/// `LambdaLoss` takes the same data and usually ranks better.
///
/// # Source
/// [Cao et al. 2007](https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/);
/// `cross_encoder/losses/list_net.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "ListNetLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListNetLoss {
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
}

impl Default for ListNetLoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity, mini_batch_size: None }
    }
}

impl Settings for ListNetLoss {}

impl Loss for ListNetLoss {
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
        lists.mean(
            |_| lists.len(),
            |scores, labels, gradient| {
                let targets = terms::softmax(labels);
                let logs = terms::log_softmax(scores);
                let mut value = 0.0;
                for ((slot, log), target) in gradient.iter_mut().zip(&logs).zip(&targets) {
                    value -= target * log;
                    *slot = log.exp() - target;
                }
                Share { value, terms: 1 }
            },
        )
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
        check(&ListNetLoss::default());
        check(&ListNetLoss { activation_fn: ActivationFn::Sigmoid, mini_batch_size: Some(4) });
    }
}
