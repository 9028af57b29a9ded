//! CosineSimilarityLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{inputs, terms};
use crate::error::Result;
use crate::flow::{ActivationFn, Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::{cosine, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence_A, sentence_B) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "Labels are compared with cosines, so they have to lie in [-1, 1], usually in [0, 1]: divide 0-5 scores by 5.",
        "CoSENTLoss usually trains better on the same data.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("CosineSimilarityLoss", "Regresses the cosine of a pair to its score.")
};

/// How cosine and label are compared, by the names of torch's classes; each is a mean over rows of a function of the
/// difference `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LossFunction {
    /// `d^2`
    #[default]
    #[serde(alias = "mse", alias = "torch.nn.modules.loss.MSELoss")]
    MSELoss,
    /// `|d|`
    #[serde(alias = "torch.nn.modules.loss.L1Loss")]
    L1Loss,
    /// `d^2 / 2` below 1, `|d| - 1/2` from there on.
    #[serde(alias = "torch.nn.modules.loss.SmoothL1Loss")]
    SmoothL1Loss,
    /// The same: torch's `beta` and `delta`, in which the two differ, are 1.
    #[serde(alias = "torch.nn.modules.loss.HuberLoss")]
    HuberLoss,
}

impl LossFunction {
    /// The scalar loss of two tensors of the same shape.
    fn of(self, x: &Tensor, target: &Tensor) -> candle_core::Result<Tensor> {
        let errors = match self {
            Self::MSELoss => terms::squared_errors(x, target)?,
            Self::L1Loss => stable::abs(&x.sub(target)?)?,
            Self::SmoothL1Loss | Self::HuberLoss => {
                let size = stable::abs(&x.sub(target)?)?;
                // the part below 1 as a square, what is above it as it is
                let below = size.minimum(&stable::fill(&size, 1.0)?)?;
                below.sqr()?.affine(0.5, 0.0)?.add(&size.sub(&below)?)?
            }
        };
        errors.mean_all()
    }
}

/// What is done to the cosine before it is compared, by the names of torch's classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Transformation {
    /// Nothing.
    #[default]
    #[serde(alias = "identity", alias = "torch.nn.modules.linear.Identity")]
    Identity,
    /// `1 / (1 + exp(-x))`: of cosines, 0.27 to 0.73.
    #[serde(alias = "torch.nn.modules.activation.Sigmoid")]
    Sigmoid,
    /// The hyperbolic tangent.
    #[serde(alias = "torch.nn.modules.activation.Tanh")]
    Tanh,
    /// `max(x, 0)`: opposite embeddings are as good as orthogonal ones.
    #[serde(alias = "torch.nn.modules.activation.ReLU")]
    ReLU,
}

impl Transformation {
    const fn activation(self) -> ActivationFn {
        match self {
            Self::Identity => ActivationFn::Identity,
            Self::Sigmoid => ActivationFn::Sigmoid,
            Self::Tanh => ActivationFn::Tanh,
            Self::ReLU => ActivationFn::ReLU,
        }
    }
}

/// Regresses the cosine of the two embeddings to the label.
///
/// `loss = mean over rows of loss_fct(transformation(cos(a_i, b_i)) - label_i)`, by default the mean of
/// `(cos(a_i, b_i) - label_i)^2`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (sentence_A, sentence_B) pairs | a float score in [0, 1] (at most [-1, 1], the range of a cosine) |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `loss_fct = "MSELoss"` and `cos_score_transformation = "Identity"`: the cosine itself is what the labels mean.
/// `L1Loss`, `SmoothL1Loss` and `HuberLoss` give less weight to labels that are far off.
///
/// # Related
/// `CoSENTLoss` uses the order of the labels only, which usually is the stronger signal.
///
/// # Source
/// [Reimers & Gurevych 2019](https://arxiv.org/abs/1908.10084); `losses/cosine_similarity.py` of
/// sentence-transformers. The cosine is `torch.cosine_similarity` with its eps of 1e-8.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "CosineSimilarityLoss"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineSimilarityLoss {
    /// How cosine and label are compared.
    pub loss_fct: LossFunction,
    /// What is done to the cosine before it is compared.
    pub cos_score_transformation: Transformation,
}

impl Settings for CosineSimilarityLoss {}

impl Loss for CosineSimilarityLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let labels = inputs::scores(&CARD, labels, columns[0].dim(0)?)?;
        let cosines = cosine::pairwise(&columns[0], &columns[1], cosine::COSINE_SIMILARITY_EPS)?; // [n]
        let scores = terms::activate(&cosines, self.cos_score_transformation.activation())?;
        let labels = inputs::vector(labels, scores.dtype(), scores.device())?;
        Ok(self.loss_fct.of(&scores, &labels)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn by_hand() {
        let device = candle_core::Device::Cpu;
        let a = Tensor::new(&[[2.0f64, 0.0], [3.0, 4.0]], &device).unwrap();
        let b = Tensor::new(&[[0.0f64, 7.0], [4.0, 3.0]], &device).unwrap();
        // Cosines 0 and 0.96; classes count as scores.
        let loss = CosineSimilarityLoss::default();
        let value = loss.compute(&Outputs::new(vec![a, b]), Some(&Labels::Int(vec![1, 0]))).unwrap();
        assert!((value.to_scalar::<f64>().unwrap() - (1.0 + 0.96 * 0.96) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![0.1, 0.9, 0.4]);
        for loss_fct in [LossFunction::MSELoss, LossFunction::L1Loss, LossFunction::HuberLoss] {
            for cos_score_transformation in [Transformation::Identity, Transformation::Sigmoid, Transformation::Tanh] {
                let loss = CosineSimilarityLoss { loss_fct, cos_score_transformation };
                check_gradient(&loss, &random_columns(2, 3, 5, 1), Some(&labels));
            }
        }
    }

    #[test]
    fn wants_labels() {
        let outputs = Outputs::new(random_columns(2, 3, 4, 2));
        let error = CosineSimilarityLoss::default().compute(&outputs, None).unwrap_err();
        assert_eq!(error.to_string(), "`CosineSimilarityLoss` takes a score a row, the batch has no labels");
    }
}
