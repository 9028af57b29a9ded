//! SoftmaxLoss.

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::Layer;
use super::{Loss, Setup, inputs, terms};
use crate::error::{Error, Result};
use crate::flow::{Card, Classify, Embeddings, LabelKind, Labels, Outputs};
use crate::ops::Param;
use crate::scoring::stable;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence1, sentence2) pairs"],
    columns: (2, 2),
    // classes, or a list of probabilities
    labels: LabelKind::Any,
    gotchas: &[
        "The classifier is thrown away with the run: what counts is what it did to the embeddings.",
        "Embeddings are not compared as they are in use: MultipleNegativesRankingLoss on the entailment pairs is usually \
         stronger.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("SoftmaxLoss", "Classifies pairs by a layer on top of both embeddings and their difference.")
};

/// Cross-entropy of a linear classifier over `[u; v; |u - v|]`.
///
/// `loss = mean over rows of -log softmax(W [u; v; |u - v|; u * v] + b)[class]`, with the parts that are switched on.
/// Where labels are probabilities `p`, `loss = mean over rows of -sum over classes of p log softmax(..)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (sentence1, sentence2) pairs | class, 0 to `num_labels - 1` |
/// | (sentence1, sentence2) pairs | a list of `num_labels` probabilities |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`; `W` is `[num_labels, parts * dim]`; the result is a scalar.
///
/// # Defaults
/// `u`, `v` and `|u - v|`, which the paper found best. `num_labels` has none: it belongs to the data.
///
/// # Related
/// `MultipleNegativesRankingLoss` on pairs that entail each other usually gives better embeddings.
///
/// # Source
/// [Reimers and Gurevych 2019](https://arxiv.org/abs/1908.10084), equation 3.1; `losses/softmax.py` of
/// sentence-transformers. Weights are drawn as `torch.nn.Linear` does, from other random numbers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "SoftmaxLoss"
/// num_labels = 3
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoftmaxLoss {
    /// How many classes there are; labels are 0 to one less.
    pub num_labels: usize,
    /// Whether the classifier sees both embeddings.
    pub concatenation_sent_rep: bool,
    /// Whether it sees their absolute difference.
    pub concatenation_sent_difference: bool,
    /// Whether it sees their product.
    pub concatenation_sent_multiplication: bool,
    #[serde(skip)]
    #[schemars(skip)]
    classifier: Option<Layer>,
}

impl Default for SoftmaxLoss {
    fn default() -> Self {
        Self {
            num_labels: 0,
            concatenation_sent_rep: true,
            concatenation_sent_difference: true,
            concatenation_sent_multiplication: false,
            classifier: None,
        }
    }
}

impl SoftmaxLoss {
    /// Widths of an embedding that the classifier sees.
    fn parts(&self) -> usize {
        2 * usize::from(self.concatenation_sent_rep)
            + usize::from(self.concatenation_sent_difference)
            + usize::from(self.concatenation_sent_multiplication)
    }
}

impl SoftmaxLoss {
    /// `[batch, num_labels]`: what the classifier makes of two columns of `[batch, dim]`.
    fn classify(&self, columns: &[Tensor]) -> Result<Tensor> {
        let (u, v) = (&columns[0], &columns[1]);
        let mut parts = Vec::new();
        if self.concatenation_sent_rep {
            parts.extend([u.clone(), v.clone()]);
        }
        if self.concatenation_sent_difference {
            parts.push(stable::abs(&u.sub(v)?)?);
        }
        if self.concatenation_sent_multiplication {
            parts.push(u.mul(v)?);
        }
        let classifier = self.classifier.as_ref().ok_or_else(|| super::layer::unprepared(CARD.name))?;
        classifier.forward(&Tensor::cat(&parts, 1)?)
    }
}

impl Classify for SoftmaxLoss {
    fn width(&self) -> usize {
        self.classifier.as_ref().map_or(0, Layer::input) / self.parts().max(1)
    }

    fn logits(&self, columns: &[Embeddings]) -> Result<Embeddings> {
        let classifier = self.classifier.as_ref().ok_or_else(|| super::layer::unprepared(CARD.name))?;
        if columns.len() != 2 || columns.iter().any(|column| column.dim() != self.width()) {
            let dims: Vec<usize> = columns.iter().map(Embeddings::dim).collect();
            return Err(Error::Internal(format!(
                "`{}` classifies two columns of {}, got {dims:?}",
                CARD.name,
                self.width()
            )));
        }
        let on_device = |column: &Embeddings| {
            let (dtype, device) = classifier.place();
            inputs::vector(column.data().to_vec(), dtype, device)?.reshape((column.rows(), column.dim()))
        };
        let columns = columns.iter().map(on_device).collect::<candle_core::Result<Vec<_>>>()?;
        let logits = self.classify(&columns)?;
        let classes = logits.dim(1)?;
        Ok(Embeddings::new(classes, inputs::host(&logits)?.into_iter().map(|x| x as f32).collect()))
    }
}

impl Settings for SoftmaxLoss {
    fn validate(&self) -> Result<()> {
        if self.parts() == 0 {
            return Err(Error::usage(
                "one of `concatenation_sent_rep`, `concatenation_sent_difference` and \
                 `concatenation_sent_multiplication` must be true",
            ));
        }
        Ok(())
    }
}

impl Loss for SoftmaxLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        if self.num_labels == 0 {
            return Err(Error::usage(format!("`{}` needs the number of classes", CARD.name))
                .with_hint("set `num_labels` to it; labels are 0 to one less"));
        }
        self.classifier = Some(Layer::new("classifier", self.parts() * setup.dim, self.num_labels, setup)?);
        Ok(())
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.classifier.iter().flat_map(Layer::params).collect()
    }

    fn label_range(&self, _: usize) -> Option<(f64, f64, &'static str)> {
        Some((0.0, self.num_labels.saturating_sub(1) as f64, inputs::CLASSES_HINT))
    }

    fn classifier(&self) -> Option<&dyn Classify> {
        self.classifier.is_some().then_some(self)
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let logits = self.classify(inputs::columns(&CARD, outputs)?)?; // [batch, num_labels]
        terms::classification(&CARD, &logits, labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device};

    use super::*;
    use crate::loss::tests::{check_gradient_at, random_columns};
    use crate::util::seed::Rng;

    fn prepared(dtype: DType, mut loss: SoftmaxLoss) -> SoftmaxLoss {
        loss.prepare(&Setup {
            name: "loss".to_owned(),
            dim: 5,
            layers: 0,
            dtype,
            device: Device::Cpu,
            rng: Rng::new(4),
        })
        .unwrap();
        loss
    }

    #[test]
    fn gradient() {
        for multiplication in [false, true] {
            let loss = SoftmaxLoss {
                num_labels: 3,
                concatenation_sent_multiplication: multiplication,
                ..SoftmaxLoss::default()
            };
            let loss = |dtype| prepared(dtype, loss.clone());
            let columns = random_columns(2, 4, 5, 8);
            check_gradient_at(&loss(DType::F64), &columns, Some(&Labels::Int(vec![2, 0, 0, 1])));
            let soft = vec![0.2, 0.3, 0.5, 1.0, 0.0, 0.0, 0.1, 0.8, 0.1, 0.3, 0.3, 0.4];
            check_gradient_at(&loss(DType::F64), &columns, Some(&Labels::Matrix { width: 3, data: soft }));
        }
    }

    #[test]
    fn the_classifier_learns() {
        let loss = prepared(DType::F64, SoftmaxLoss { num_labels: 3, ..SoftmaxLoss::default() });
        let names: Vec<String> = loss.params().iter().map(|p| p.name().to_owned()).collect();
        assert_eq!(names, ["loss.classifier.weight", "loss.classifier.bias"]);
        let columns = random_columns(2, 4, 5, 8);
        let vars: Vec<_> = columns.iter().map(|c| candle_core::Var::from_tensor(c).unwrap()).collect();
        let outputs = Outputs::new(vars.iter().map(|v| v.as_tensor().clone()).collect());
        loss.compute(&outputs, Some(&Labels::Int(vec![2, 0, 0, 1]))).unwrap().backward().unwrap();
        assert!(loss.params().iter().all(|p| p.gradient_tensor().unwrap().is_some()));
    }

    #[test]
    fn wrong_labels_are_told() {
        let loss = prepared(DType::F64, SoftmaxLoss { num_labels: 3, ..SoftmaxLoss::default() });
        let outputs = Outputs::new(random_columns(2, 2, 5, 8));
        let told = |labels: Option<&Labels>| loss.compute(&outputs, labels).unwrap_err().to_string();
        assert!(told(None).contains("takes a class a row"));
        assert!(
            told(Some(&Labels::Int(vec![0, 3]))).contains("a class is 3"),
            "{}",
            told(Some(&Labels::Int(vec![0, 3])))
        );
        assert!(told(Some(&Labels::Matrix { width: 2, data: vec![0.5; 4] })).contains("`num_labels` is 3"));
        assert!(
            SoftmaxLoss::default()
                .prepare(&Setup {
                    name: "loss".to_owned(),
                    dim: 5,
                    layers: 0,
                    dtype: DType::F32,
                    device: Device::Cpu,
                    rng: Rng::new(1)
                })
                .is_err()
        );
    }
}
