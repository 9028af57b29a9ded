//! Which losses train models with a vector for each token?
//!
//! Their columns are `[vectors, dim]`, with the places of each row's vectors in
//! [`Outputs::vectors`](crate::flow::Outputs). What becomes of the scores is the mathematics of the losses of dense
//! embeddings; how two texts are scored is [`Similarity`].

pub mod cached_multiple_negatives_ranking;
pub mod distill_kl_div;
pub mod margin_mse;
pub mod multiple_negatives_ranking;

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, inputs};
use crate::error::{Error, Result};
use crate::flow::{Card, Outputs};
use crate::ops::{self, LateInteraction, Pairs};

crate::registry! {
    /// Every loss, one line each.
    pub static LOSSES: [Entry] = {
        multiple_negatives_ranking::MultiVectorMultipleNegativesRankingLoss,
        cached_multiple_negatives_ranking::CachedMultiVectorMultipleNegativesRankingLoss,
        margin_mse::MultiVectorMarginMSELoss,
        distill_kl_div::MultiVectorDistillKLDivLoss,
    }
}

/// How two texts with a vector for each token are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// The sum over the query's vectors of the most similar vector of the document.
    #[default]
    #[serde(alias = "colbert_scores", alias = "colbert_scores_pairwise", alias = "colbert_kd_scores")]
    MaxSim,
    /// That divided by how many vectors the query has.
    #[serde(alias = "mean_colbert_scores", alias = "mean_colbert_scores_pairwise", alias = "mean_colbert_kd_scores")]
    MeanMaxSim,
    /// As `maxsim` over the vectors that are among the `top_k` of all documents of the batch; for training only.
    #[serde(alias = "xtr_scores", alias = "xtr_scores_pairwise", alias = "xtr_kd_scores")]
    Xtr,
}

/// How many vectors a query's vector finds, unless a recipe says otherwise.
pub const TOP_K: usize = 256;

impl Similarity {
    fn scoring(self, top_k: usize) -> LateInteraction {
        match self {
            Self::MaxSim => LateInteraction::MaxSim,
            Self::MeanMaxSim => LateInteraction::MeanMaxSim,
            Self::Xtr => LateInteraction::Xtr { top_k },
        }
    }

    /// What is strange about settings.
    fn warnings(self, card: &Card, top_k: usize) -> Vec<String> {
        if self == Self::Xtr || top_k == TOP_K {
            return Vec::new();
        }
        vec![format!("`{}`: `top_k` has no effect without `similarity_fct = \"xtr\"`", card.name)]
    }
}

/// A `top_k` that finds something.
fn check_top_k(top_k: usize) -> Result<()> {
    if top_k == 0 {
        return Err(Error::usage("`top_k` must be at least 1, got 0").with_hint(format!("{TOP_K} is the paper's")));
    }
    Ok(())
}

/// A column's vectors: `[vectors, dim]`, and `[rows + 1]` places.
type Column<'a> = (&'a Tensor, &'a Arc<Vec<u32>>);

/// The columns, checked for their number and shapes; as many rows each.
fn columns<'a>(card: &Card, outputs: &'a Outputs) -> Result<Vec<Column<'a>>> {
    let embeddings = inputs::count(card, outputs)?;
    if outputs.vectors.len() != embeddings.len() {
        return Err(Error::Internal(format!("`{}` without the places of its vectors", card.name)));
    }
    let columns: Vec<Column<'a>> = embeddings.iter().zip(&outputs.vectors).collect();
    let rows = |column: &Column<'_>| column.1.len();
    if columns.iter().any(|column| rows(column) != columns.first().map_or(0, rows) || rows(column) < 2) {
        return Err(Error::data(format!("`{}`: the columns have different numbers of rows, or none", card.name)));
    }
    Ok(columns)
}

/// Several columns' texts, column after column.
fn joined(columns: &[Column<'_>]) -> Result<(Tensor, Arc<Vec<u32>>)> {
    let tensors: Vec<&Tensor> = columns.iter().map(|column| column.0).collect();
    let mut offsets = vec![0u32];
    for (_, places) in columns {
        let start = offsets.last().copied().unwrap_or(0);
        offsets.extend(places.iter().skip(1).map(|place| start + place));
    }
    Ok((Tensor::cat(&tensors, 0)?, Arc::new(offsets)))
}

/// The scores of each query with the document of its row: `[rows]`.
fn pairwise(query: Column<'_>, document: Column<'_>, scoring: LateInteraction) -> Result<Tensor> {
    Ok(ops::late_interaction(query, document, scoring, Pairs::Same)?)
}

/// The scores of each query with the documents of its row, of which there is one a column: `[rows, columns]`.
fn row_by_row(query: Column<'_>, documents: &[Column<'_>], scoring: LateInteraction) -> Result<Tensor> {
    if let LateInteraction::Xtr { .. } = scoring {
        // which vectors are found depends on all documents
        let rows = query.1.len() - 1;
        let (all, places) = joined(documents)?;
        let scores = ops::late_interaction(query, (&all, &places), scoring, Pairs::All)?; // [rows, columns * rows]
        let own = (0..rows).flat_map(|i| (0..documents.len()).map(move |column| (column * rows + i) as u32));
        let own = Tensor::from_vec(own.collect::<Vec<_>>(), (rows, documents.len()), scores.device())?;
        return Ok(scores.gather(&own, 1)?);
    }
    let scores = documents.iter().map(|document| pairwise(query, *document, scoring)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&scores, 1)?)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Var};

    use super::*;
    use crate::flow::Labels;
    use crate::loss::Loss;
    use crate::util::seed::Rng;

    /// Columns of three rows with some vectors each, in f64.
    pub fn random_outputs(count: usize, seed: u64) -> Outputs {
        let mut rng = Rng::new(seed);
        let lengths = [[2u32, 3, 1], [4, 1, 3], [2, 5, 2], [1, 2, 3]];
        let (mut embeddings, mut vectors) = (Vec::new(), Vec::new());
        for column in 0..count {
            let mut places = vec![0u32];
            for length in lengths[column % 4] {
                places.push(places[places.len() - 1] + length);
            }
            let all = places[places.len() - 1] as usize;
            let values: Vec<f64> = (0..all * 5).map(|_| rng.normal()).collect();
            embeddings.push(Tensor::from_vec(values, (all, 5), &Device::Cpu).unwrap());
            vectors.push(Arc::new(places));
        }
        Outputs { vectors, ..Outputs::new(embeddings) }
    }

    /// Compares the gradient of every vector with central differences.
    pub fn check_gradient(loss: &dyn Loss, outputs: &Outputs, labels: Option<&Labels>) {
        let vars: Vec<Var> = outputs.embeddings.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let at = |columns: Vec<Tensor>| loss.compute(&outputs.with_embeddings(columns), labels).unwrap();
        let value = at(vars.iter().map(|var| var.as_tensor().clone()).collect());
        assert_eq!(value.rank(), 0);
        let gradients = value.backward().unwrap();
        for (c, column) in outputs.embeddings.iter().enumerate() {
            let got = gradients.get(&vars[c]).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let flat = column.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (i, got) in got.iter().enumerate() {
                let moved = |step: f64| {
                    let mut flat = flat.clone();
                    flat[i] += step;
                    let mut columns = outputs.embeddings.clone();
                    columns[c] = Tensor::from_vec(flat, column.dims(), &Device::Cpu).unwrap();
                    at(columns).to_scalar::<f64>().unwrap()
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((got - slope).abs() < 1e-6 * (1.0 + slope.abs()), "column {c}, value {i}: {got} {slope}");
            }
        }
    }

    #[test]
    fn names_of_the_reference_are_known() {
        let read = |name: &str| serde_json::from_value::<Similarity>(name.into()).unwrap();
        assert_eq!([read("maxsim"), read("colbert_scores"), read("colbert_kd_scores")], [Similarity::MaxSim; 3]);
        assert_eq!([read("meanmaxsim"), read("mean_colbert_scores")], [Similarity::MeanMaxSim; 2]);
        assert_eq!([read("xtr"), read("xtr_scores_pairwise")], [Similarity::Xtr; 2]);
    }

    #[test]
    fn what_is_no_column_of_vectors_is_refused() {
        let loss = multiple_negatives_ranking::MultiVectorMultipleNegativesRankingLoss::default();
        let outputs = random_outputs(2, 1);
        let plain = Outputs::new(outputs.embeddings.clone());
        assert!(loss.compute(&plain, None).is_err());
        assert!(loss.compute(&random_outputs(1, 1), None).unwrap_err().to_string().contains("2 or more"));
    }
}
