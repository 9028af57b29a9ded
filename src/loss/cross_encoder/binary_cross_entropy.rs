//! BinaryCrossEntropyLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, LabelKind, Labels, ModelType, Outputs};
use crate::loss::{Balance, Loss, inputs};
use crate::ops::{self, Activation};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(query, passage) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "Labels lie between 0 and 1; the model has one logit a pair.",
        "Where negatives outnumber positives, set `pos_weight` to how many there are to a positive, or to \"auto\".",
        "The loss takes the sigmoid itself: its own `activation_fn` stays `Identity`.",
    ],
    paper: "https://arxiv.org/abs/1910.14424",
    ..Card::new("BinaryCrossEntropyLoss", "Classifies pairs as relevant or not; the first choice for labelled pairs.")
};

/// How much heavier positives are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or \"auto\"")]
pub enum PosWeight {
    /// So many times.
    Times(f64),
    /// As many times as there are negatives to a positive in the training data.
    Counted(Counted),
}

/// The word for a weight that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// From the training data.
    Auto,
}

/// The binary cross-entropy of each pair's logit with its label.
///
/// `loss = mean over rows of -(w y log σ(x) + (1 - y) log(1 - σ(x)))`, with logit `x`, label `y` and weight `w`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, passage) pairs | 1 for relevant, 0 for not, or anything between |
///
/// # Shapes
/// One tensor of logits `[batch, 1]`, labels `[batch]` in [0, 1]; the result is a scalar. Computed from `log σ`, it is
/// finite for every finite logit.
///
/// # Defaults
/// No weight, as in the reference. `pos_weight = "auto"` is the number of negatives for each positive in the training
/// data, so that both sides weigh the same; the reference has it computed by hand.
///
/// # Related
/// `MultipleNegativesRankingLoss` for pairs without labels, `LambdaLoss` for a list of passages a query.
///
/// # Source
/// `torch.nn.BCEWithLogitsLoss`; rerankers of this kind: [Nogueira et al. 2019](https://arxiv.org/abs/1910.14424);
/// `cross_encoder/losses/binary_cross_entropy.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "BinaryCrossEntropyLoss"
/// pos_weight = 4.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BinaryCrossEntropyLoss {
    /// Applied to the logits before the loss, which takes a sigmoid of its own.
    pub activation_fn: ActivationFn,
    /// How much heavier positives are: a number, or `auto` for the training data's negatives for each positive.
    pub pos_weight: Option<PosWeight>,
    #[serde(skip)]
    #[schemars(skip)]
    counted: Option<f64>,
}

impl Default for BinaryCrossEntropyLoss {
    fn default() -> Self {
        Self { activation_fn: ActivationFn::Identity, pos_weight: None, counted: None }
    }
}

impl Settings for BinaryCrossEntropyLoss {
    fn validate(&self) -> Result<()> {
        match self.pos_weight {
            Some(PosWeight::Times(weight)) => inputs::positive("pos_weight", weight),
            _ => Ok(()),
        }
    }
}

impl BinaryCrossEntropyLoss {
    fn weight(&self) -> Result<f64> {
        match self.pos_weight {
            None => Ok(1.0),
            Some(PosWeight::Times(weight)) => Ok(weight),
            Some(PosWeight::Counted(Counted::Auto)) => self.counted.ok_or_else(|| {
                Error::Internal(format!("`{}` with `pos_weight = \"auto\"` has not seen the labels", CARD.name))
            }),
        }
    }
}

fn outside(label: f32) -> Error {
    Error::data(format!("`{}` takes labels from 0 to 1, a label is {label}", CARD.name))
        .with_hint("divide the labels by their largest value; for a teacher's scores use MSELoss")
}

impl Loss for BinaryCrossEntropyLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let weight = self.weight()?;
        let (x, labels) = logits::scored(&CARD, outputs, labels, self.activation_fn)?;
        if let Some(label) = labels.iter().find(|label| !(0.0..=1.0).contains(*label)) {
            return Err(outside(*label));
        }
        let y = inputs::vector(labels, x.dtype(), x.device())?;
        // -log σ(x), and -log(1 - σ(x)) is x more
        let missed = ops::activation(&x, Activation::LogSigmoid)?.neg()?;
        let weights = y.affine(weight - 1.0, 1.0)?;
        Ok(missed.mul(&weights)?.add(&x.mul(&y.affine(-1.0, 1.0)?)?)?.mean_all()?)
    }

    fn label_range(&self, _: usize) -> Option<(f64, f64, &'static str)> {
        Some((0.0, 1.0, "divide the labels by their largest value; a teacher's scores are for MSELoss"))
    }

    fn wants_balance(&self) -> bool {
        matches!(self.pos_weight, Some(PosWeight::Counted(_)))
    }

    fn see_labels(&mut self, balance: Balance) -> Result<()> {
        if !self.wants_balance() {
            return Ok(());
        }
        if let Some(label) = balance.outside {
            return Err(outside(label));
        }
        if !(balance.positives > 0.0 && balance.negatives > 0.0) {
            return Err(Error::data(format!(
                "`{}` with `pos_weight = \"auto\"` needs positives and negatives, the labels have {} and {}",
                CARD.name, balance.positives, balance.negatives
            ))
            .with_hint(
                "label relevant pairs 1 and others 0; pairs without negatives belong to MultipleNegativesRankingLoss",
            ));
        }
        self.counted = Some(balance.negatives / balance.positives);
        Ok(())
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    fn value(loss: &BinaryCrossEntropyLoss, logits: &[f32], labels: &[f32]) -> f32 {
        let logits = Tensor::new(logits, &Device::Cpu).unwrap().reshape((logits.len(), 1)).unwrap();
        loss.compute(&Outputs::new(vec![logits]), Some(&Labels::Float(labels.to_vec()))).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn large_logits_stay_finite() {
        let plain = BinaryCrossEntropyLoss::default();
        assert_eq!(value(&plain, &[1000.0, -1000.0], &[1.0, 0.0]), 0.0);
        assert_eq!(value(&plain, &[1000.0, -1000.0], &[0.0, 1.0]), 1000.0);
        let heavy = BinaryCrossEntropyLoss { pos_weight: Some(PosWeight::Times(3.0)), ..plain };
        assert_eq!(value(&heavy, &[1000.0, -1000.0], &[0.0, 1.0]), 2000.0);
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![1.0, 0.0, 0.3, 0.0]);
        for activation_fn in [ActivationFn::Identity, ActivationFn::Tanh, ActivationFn::Sigmoid] {
            for pos_weight in [None, Some(PosWeight::Times(4.0))] {
                let loss = BinaryCrossEntropyLoss { activation_fn, pos_weight, counted: None };
                check_gradient(&loss, &random_columns(1, 4, 1, 3), Some(&labels));
            }
        }
    }

    #[test]
    fn the_weight_is_counted() {
        let auto = serde_json::json!({"pos_weight": "auto"});
        let mut loss: BinaryCrossEntropyLoss = serde_json::from_value(auto).unwrap();
        assert!(loss.wants_balance() && loss.weight().is_err());
        let mut balance = Balance::default();
        [1.0, 0.0, 0.0, 0.5, 0.0].into_iter().for_each(|label| balance.add(label));
        loss.see_labels(balance).unwrap();
        assert_eq!(loss.weight().unwrap(), 3.5 / 1.5);
        assert_eq!(loss.config()["pos_weight"], "auto");
        let mut graded = balance;
        graded.add(5.0);
        assert!(loss.see_labels(graded).unwrap_err().to_string().contains("a label is 5"));
        assert!(loss.see_labels(Balance { positives: 3.0, ..Balance::default() }).is_err());
        assert!(!BinaryCrossEntropyLoss::default().wants_balance());
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let loss = BinaryCrossEntropyLoss::default();
        let told = |columns: Vec<Tensor>, labels: Vec<f32>| {
            loss.compute(&Outputs::new(columns), Some(&Labels::Float(labels))).unwrap_err().to_string()
        };
        assert!(told(random_columns(1, 2, 1, 1), vec![0.0, 5.0]).contains("a label is 5"));
        assert!(told(random_columns(1, 2, 3, 1), vec![0.0, 1.0]).contains("this one has 3"));
        assert!(told(random_columns(2, 2, 1, 1), vec![0.0, 1.0]).contains("the batch has 3 input columns"));
        assert!(loss.check_dim(1).unwrap().is_empty() && loss.check_dim(2).is_err());
        let wrong = BinaryCrossEntropyLoss { pos_weight: Some(PosWeight::Times(0.0)), ..loss.clone() };
        assert!(wrong.validate().is_err());
    }
}
