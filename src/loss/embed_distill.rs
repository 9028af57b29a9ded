//! EmbedDistillLoss.

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::{self, Layer};
use super::{Loss, Setup, inputs, terms};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::ops::Param;
use crate::scoring::{cosine, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["any texts; the teacher's embedding as label"],
    columns: (1, usize::MAX),
    labels: LabelKind::Matrix,
    gotchas: &[
        "The teacher's embeddings have to be as wide as the model's, or `projection_dim` has to be their width.",
        "With several columns one embedding a row is the target of all of them; a list that holds one embedding after \
         the other, as many as columns, has a target for each.",
    ],
    paper: "https://arxiv.org/abs/2301.12005",
    ..Card::new("EmbedDistillLoss", "Moves embeddings to those of a teacher, computed beforehand.")
};

/// How far an embedding is from the teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingDistance {
    /// The mean of the squared differences.
    Mse,
    /// The L2 norm of the difference.
    L2,
    /// 1 - cosine.
    #[default]
    Cosine,
}

/// Moves each embedding to the one that a teacher gave the text.
///
/// `loss = mean over columns and rows of d(embedding, teacher's embedding)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | text | the teacher's embedding, a list of numbers |
/// | text_1, ..., text_n | one embedding for all columns, or one for each, in one list |
///
/// # Shapes
/// Embeddings of `[batch, dim]`, labels `[batch, dim]` or `[batch, columns * dim]`, with `projection_dim` in place of
/// `dim` where it is set; the result is a scalar.
///
/// # Defaults
/// `distance_metric = "cosine"`, since directions are what similarity sees. With `projection_dim` a linear layer takes
/// the embeddings to the teacher's width; it is trained with the model and thrown away with the run.
///
/// # Related
/// `MSELoss` is this loss with `mse`. `MarginMSELoss` and `DistillKLDivLoss` learn from a teacher's scores, for which
/// the widths need not agree.
///
/// # Source
/// [Kim et al. 2023](https://arxiv.org/abs/2301.12005); `losses/embed_distill.py` of sentence-transformers. Where an
/// embedding is the teacher's the gradient of the L2 norm is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "EmbedDistillLoss"
/// distance_metric = "cosine"
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedDistillLoss {
    /// How distance is measured: `cosine`, `l2` or `mse`.
    pub distance_metric: EmbeddingDistance,
    /// The teacher's width, where it is not the model's: a learned layer then comes between.
    pub projection_dim: Option<usize>,
    #[serde(skip)]
    #[schemars(skip)]
    projection: Option<Layer>,
}

impl Settings for EmbedDistillLoss {
    fn validate(&self) -> Result<()> {
        check_projection(self.projection_dim)
    }
}

impl Loss for EmbedDistillLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        self.projection = projection(self.projection_dim, setup)?;
        Ok(())
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.projection.iter().flat_map(Layer::params).collect()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        if self.projection_dim.is_some() && self.projection.is_none() {
            return Err(layer::unprepared(CARD.name));
        }
        distill(&CARD, self.distance_metric, self.projection.as_ref(), outputs, labels)
    }
}

/// Refuses a projection to nothing.
pub(super) fn check_projection(projection_dim: Option<usize>) -> Result<()> {
    if projection_dim == Some(0) {
        return Err(Error::usage("`projection_dim` must be 1 or more, got 0")
            .with_hint("it is the width of the teacher's embeddings; leave it out where that is the model's"));
    }
    Ok(())
}

/// The layer from the model's width to the teacher's, if there is to be one.
pub(super) fn projection(projection_dim: Option<usize>, setup: &Setup) -> Result<Option<Layer>> {
    projection_dim.map(|out| Layer::new("projection", setup.dim, out, setup)).transpose()
}

/// The mean distance of a batch to its teacher's embeddings.
pub(super) fn distill(
    card: &Card,
    metric: EmbeddingDistance,
    projection: Option<&Layer>,
    outputs: &Outputs,
    labels: Option<&Labels>,
) -> Result<Tensor> {
    let columns = inputs::columns(card, outputs)?;
    let project = |x: &Tensor| projection.map_or_else(|| Ok(x.clone()), |layer| layer.forward(x));
    let columns = columns.iter().map(project).collect::<Result<Vec<_>>>()?;
    let (rows, dim) = columns[0].dims2()?;
    let (width, teacher) = inputs::lists(card, labels, rows)?;
    let each = width == columns.len() * dim;
    if width != dim && !each {
        return Err(Error::data(format!(
            "`{}`: the labels are lists of {width}, and the embeddings have {dim} values",
            card.name
        ))
        .with_hint("set `projection_dim` to the width of the teacher's embeddings"));
    }
    let teacher = inputs::vector(teacher, columns[0].dtype(), columns[0].device())?.reshape((rows, width))?;
    let mut losses = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let target = teacher.narrow(1, if each { i * dim } else { 0 }, dim)?.contiguous()?; // [n, dim]
        let distances = match metric {
            EmbeddingDistance::Mse => terms::squared_errors(column, &target)?,
            EmbeddingDistance::L2 => stable::sqrt(&column.sub(&target)?.sqr()?.sum(1)?)?,
            EmbeddingDistance::Cosine => {
                cosine::pairwise(column, &target, cosine::COSINE_SIMILARITY_EPS)?.affine(-1.0, 1.0)?
            }
        };
        losses.push(distances.mean_all()?);
    }
    Ok(Tensor::stack(&losses, 0)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    fn teacher(rows: usize, width: usize) -> Labels {
        let data = random_columns(1, rows, width, 77)[0].to_dtype(candle_core::DType::F32).unwrap();
        Labels::Matrix { width, data: data.flatten_all().unwrap().to_vec1().unwrap() }
    }

    #[test]
    fn by_hand() {
        let x = Tensor::new(&[[2.0f64, 0.0], [3.0, 4.0]], &candle_core::Device::Cpu).unwrap();
        let labels = Labels::Matrix { width: 2, data: vec![2.0, 0.0, 0.0, 0.0] };
        let value = |distance_metric, labels: &Labels, columns: usize| -> f64 {
            let loss = EmbedDistillLoss { distance_metric, ..Default::default() };
            loss.compute(&Outputs::new(vec![x.clone(); columns]), Some(labels)).unwrap().to_scalar().unwrap()
        };
        assert_eq!(value(EmbeddingDistance::Mse, &labels, 1), 25.0 / 4.0);
        assert_eq!(value(EmbeddingDistance::L2, &labels, 2), 2.5);
        assert_eq!(value(EmbeddingDistance::Cosine, &labels, 1), 0.5);
        // A target for each column: only the second is missed.
        let each = Labels::Matrix { width: 4, data: vec![2.0, 0.0, 2.0, 0.0, 3.0, 4.0, 3.0, 0.0] };
        assert_eq!(value(EmbeddingDistance::L2, &each, 2), 1.0);
    }

    #[test]
    fn gradient() {
        for distance_metric in [EmbeddingDistance::Mse, EmbeddingDistance::L2, EmbeddingDistance::Cosine] {
            let loss = EmbedDistillLoss { distance_metric, ..Default::default() };
            for width in [5, 10] {
                check_gradient(&loss, &random_columns(2, 4, 5, 3), Some(&teacher(4, width)));
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let loss = EmbedDistillLoss { projection_dim: Some(0), ..Default::default() };
        assert!(loss.validate().is_err());
        let outputs = Outputs::new(random_columns(2, 3, 4, 2));
        let message = |labels: Option<Labels>| {
            EmbedDistillLoss::default().compute(&outputs, labels.as_ref()).unwrap_err().to_string()
        };
        assert_eq!(
            message(Some(teacher(3, 5))),
            "`EmbedDistillLoss`: the labels are lists of 5, and the embeddings have 4 values"
        );
        assert_eq!(message(None), "`EmbedDistillLoss` takes a list of numbers a row, the batch has no labels");
        assert!(message(Some(teacher(2, 4))).contains("the batch has 3 rows and 2 labels"));
    }
}
