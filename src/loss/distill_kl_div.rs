//! DistillKLDivLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{inputs, terms};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::ops::logsumexp;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(query, positive, negative) triplets", "(query, positive, negative_1, ..., negative_n)"],
    columns: (3, usize::MAX),
    labels: LabelKind::Matrix,
    gotchas: &[
        "Labels are lists of the teacher's scores, one a document, the positive's first.",
        "A reranker's scores lie far apart, and their softmax knows one document only: raise `teacher_temperature`.",
        "With `similarity_fct = \"cosine\"` scores lie in [-1, 1], which needs a `student_temperature` of about 0.05.",
    ],
    paper: "https://arxiv.org/abs/2010.11386",
    ..Card::new("DistillKLDivLoss", "Learns how a teacher's scores are distributed over the documents of a query.")
};

/// The Kullback-Leibler divergence of the model's softmax over a query's documents from the teacher's.
///
/// `loss = student_temperature^2 * mean over rows of sum over documents d of p_d * (log p_d - log q_d)` with `p =
/// softmax(teacher / teacher_temperature)` and `q = softmax(sim(query, d) / student_temperature)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, positive, negative) triplets | a list of the teacher's two scores |
/// | (query, positive, negative_1, ..., negative_n) | a list of the teacher's n + 1 scores |
///
/// # Shapes
/// Three or more embeddings of `[batch, dim]`, labels `[batch, columns - 1]`; the result is a scalar.
///
/// # Defaults
/// `similarity_fct = "dot"` and `temperature = 1`, for both sides unless `student_temperature` or
/// `teacher_temperature` is given. The square of the student's keeps the gradient's size.
///
/// # Related
/// `MarginMSELoss` regresses the differences of the scores themselves.
///
/// # Source
/// [Lin et al. 2020](https://arxiv.org/abs/2010.11386); `losses/distill_kl_div.py` of sentence-transformers. A score of
/// minus infinity leaves a document out.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "DistillKLDivLoss"
/// temperature = 2.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistillKLDivLoss {
    /// How a query is compared with a document.
    pub similarity_fct: Similarity,
    /// Scores are divided by it before the softmax.
    pub temperature: f64,
    /// The same for the model's scores only.
    pub student_temperature: Option<f64>,
    /// The same for the teacher's scores only.
    pub teacher_temperature: Option<f64>,
}

impl Default for DistillKLDivLoss {
    fn default() -> Self {
        Self { similarity_fct: Similarity::Dot, temperature: 1.0, student_temperature: None, teacher_temperature: None }
    }
}

impl Settings for DistillKLDivLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("temperature", self.temperature)?;
        inputs::positive("student_temperature", self.student())?;
        inputs::positive("teacher_temperature", self.teacher())
    }
}

impl DistillKLDivLoss {
    fn student(&self) -> f64 {
        self.student_temperature.unwrap_or(self.temperature)
    }

    fn teacher(&self) -> f64 {
        self.teacher_temperature.unwrap_or(self.temperature)
    }
}

impl Loss for DistillKLDivLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let [queries, documents @ ..] = columns else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let scores = documents.iter().map(|document| self.similarity_fct.pairwise(queries, document));
        let scores = Tensor::stack(&scores.collect::<candle_core::Result<Vec<_>>>()?, 1)?; // [n, documents]
        divergence(&CARD, &scores, labels, (self.student(), self.teacher()))
    }
}

/// The loss of scores `[rows, documents]`, with the temperatures of model and teacher.
///
/// # Errors
/// [`Error::Data`] when the labels are not the teacher's scores of those documents.
pub(super) fn divergence(
    card: &Card,
    scores: &Tensor,
    labels: Option<&Labels>,
    (student, teacher): (f64, f64),
) -> Result<Tensor> {
    let (rows, documents) = scores.dims2()?;
    let (width, wanted) = inputs::lists(card, labels, rows)?;
    if width != documents {
        return Err(Error::data(format!(
            "`{}`: the labels are lists of {width}, and there are {documents} documents a row",
            card.name
        )));
    }
    if wanted.iter().any(|score| score.is_nan()) {
        return Err(Error::data(format!("`{}`: the teacher's scores hold NaN", card.name)));
    }
    let (targets, negative_entropy) = softmax(&wanted, width, teacher);
    let targets = Tensor::from_vec(targets, (rows, width), &candle_core::Device::Cpu)?;
    let targets = targets.to_dtype(scores.dtype())?.to_device(scores.device())?;
    let scores = scores.affine(1.0 / student, 0.0)?;
    let log_probabilities = scores.broadcast_sub(&logsumexp(&scores)?.unsqueeze(1)?)?;
    let cross_entropy = targets.mul(&log_probabilities)?.sum_all()?.neg()?;
    let scale = student * student / rows as f64;
    Ok(cross_entropy.affine(scale, negative_entropy * scale)?)
}

/// Each row's softmax, and the sum over all of `p log p`.
fn softmax(scores: &[f32], width: usize, temperature: f64) -> (Vec<f64>, f64) {
    let mut negative_entropy = 0.0;
    let mut all = Vec::with_capacity(scores.len());
    for row in scores.chunks(width.max(1)) {
        let scaled: Vec<f64> = row.iter().map(|score| f64::from(*score) / temperature).collect();
        for p in terms::softmax(&scaled) {
            if p > 0.0 {
                negative_entropy += p * p.ln();
            }
            all.push(p);
        }
    }
    (all, negative_entropy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    fn labels(width: usize, rows: usize) -> Labels {
        Labels::Matrix { width, data: (0..width * rows).map(|i| 3.0 * (i as f32).sin()).collect() }
    }

    #[test]
    fn by_hand() {
        let row = |x: f64| Tensor::new(&[[x]], &candle_core::Device::Cpu).unwrap();
        let outputs = Outputs::new(vec![row(1.0), row(2.0), row(0.0)]);
        let value = |loss: &DistillKLDivLoss, scores: [f32; 2]| -> f64 {
            let labels = Labels::Matrix { width: 2, data: scores.to_vec() };
            loss.compute(&outputs, Some(&labels)).unwrap().to_scalar().unwrap()
        };
        let loss = DistillKLDivLoss::default();
        assert!(value(&loss, [7.0, 5.0]).abs() < 1e-12, "the same distribution");
        let q = 2f64.exp() / (1.0 + 2f64.exp());
        assert!((value(&loss, [1.0, 1.0]) - 0.5 * ((0.5 / q).ln() + (0.5 / (1.0 - q)).ln())).abs() < 1e-12);
        assert!((value(&loss, [1.0, f32::NEG_INFINITY]) + q.ln()).abs() < 1e-12, "one is left out");
        let loss = DistillKLDivLoss { temperature: 4.0, teacher_temperature: Some(2.0), ..loss };
        let warm = DistillKLDivLoss { temperature: 4.0, ..DistillKLDivLoss::default() };
        assert!((value(&loss, [1.0, 3.0]) - value(&warm, [2.0, 6.0])).abs() < 1e-12);
    }

    #[test]
    fn gradient() {
        for similarity_fct in Similarity::ALL {
            for student_temperature in [None, Some(0.7)] {
                let loss =
                    DistillKLDivLoss { similarity_fct, temperature: 2.0, student_temperature, ..Default::default() };
                check_gradient(&loss, &random_columns(4, 3, 5, 3), Some(&labels(3, 3)));
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let outputs = Outputs::new(random_columns(3, 2, 4, 2));
        let error = DistillKLDivLoss::default().compute(&outputs, Some(&labels(3, 2))).unwrap_err();
        assert_eq!(error.to_string(), "`DistillKLDivLoss`: the labels are lists of 3, and there are 2 documents a row");
        let nan = Labels::Matrix { width: 2, data: vec![f32::NAN; 4] };
        assert!(DistillKLDivLoss::default().compute(&outputs, Some(&nan)).unwrap_err().to_string().contains("NaN"));
        let pairs = Outputs::new(random_columns(2, 2, 4, 2));
        assert!(DistillKLDivLoss::default().compute(&pairs, Some(&labels(1, 2))).is_err(), "one document");
        assert!(DistillKLDivLoss { temperature: 0.0, ..Default::default() }.validate().is_err());
        assert!(DistillKLDivLoss { student_temperature: Some(-1.0), ..Default::default() }.validate().is_err());
    }
}
