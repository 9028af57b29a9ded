//! ListMLELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{self, Lists};
use super::logits;
use super::plist_mle::{self, LambdaWeight};
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "ListMLELoss",
    summary: "Likelihood of the right order of a query's passages, all places alike.",
    gotchas: plist_mle::CARD.gotchas,
    paper: "https://dl.acm.org/doi/10.1145/1390156.1390306",
    ..lists::CARD
};

/// The negative log-likelihood of the right order of a query's passages, passage after passage.
///
/// `loss = -mean over rows of sum over places i of (s_i - log(sum over j from i on of exp(s_j)))`, with `s` the logits
/// after the activation in the right order.
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
/// `respect_input_order = true`: passages come best first. `mini_batch_size` as in `LambdaLoss`.
///
/// # Related
/// `PListMLELoss` lets the first places weigh more and usually ranks better.
///
/// # Source
/// [Xia et al. 2008](https://dl.acm.org/doi/10.1145/1390156.1390306); `cross_encoder/losses/list_mle.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "ListMLELoss"
/// respect_input_order = false
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListMLELoss {
    /// Applied to the logits.
    pub activation_fn: ActivationFn,
    /// Pairs of a part of a batch; the whole batch when left out, 0 or less.
    pub mini_batch_size: Option<i64>,
    /// Whether the passages come in the right order; else their labels give it.
    pub respect_input_order: bool,
}

impl Default for ListMLELoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity, mini_batch_size: None, respect_input_order: true }
    }
}

impl Settings for ListMLELoss {}

impl Loss for ListMLELoss {
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
        plist_mle::likelihood(&lists, LambdaWeight::None, self.respect_input_order)
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
        for respect_input_order in [true, false] {
            check(&ListMLELoss { respect_input_order, ..Default::default() });
        }
    }
}
