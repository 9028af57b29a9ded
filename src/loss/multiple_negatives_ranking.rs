//! MultipleNegativesRankingLoss: InfoNCE with in-batch negatives, in all the variants of sentence-transformers 6.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::ops::{cross_entropy, ranking_cross_entropy};
use crate::scoring::{Similarity, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &[
        "(anchor, positive) pairs",
        "(anchor, positive, negative) triplets",
        "(anchor, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "Every other row is a negative: use `batch_sampler = \"no_duplicates\"`, or a text occurring twice in a batch \
         is pushed away from itself.",
        "Quality grows with the batch size, since each row adds negatives.",
        "`scale = 20` fits cosines; with `similarity_fct = \"dot\"` on embeddings that are not normalised use about 1.",
        "Labels are not read: pairs with scores belong to CoSENTLoss.",
    ],
    paper: "https://arxiv.org/abs/1807.03748",
    ..Card::new(
        "MultipleNegativesRankingLoss",
        "Picks each anchor's positive among all candidates of the batch; the first choice for pairs and triplets.",
    )
};

/// Which similarities stand in the softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Each query against all documents; holds the positive pair, so it is always there.
    QueryToDoc,
    /// Each query against all other queries.
    QueryToQuery,
    /// Each positive document against all queries.
    DocToQuery,
    /// Each positive document against all documents of other rows.
    DocToDoc,
}

impl Direction {
    const ALL: [Self; 4] = [Self::QueryToDoc, Self::QueryToQuery, Self::DocToQuery, Self::DocToDoc];
}

/// How the scores are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionMode {
    /// One softmax over all directions.
    #[default]
    Joint,
    /// One softmax a direction, averaged.
    PerDirection,
}

/// Which negatives are made heavier the more similar they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HardnessMode {
    /// The documents of other rows.
    InBatchNegatives,
    /// The row's own negatives (columns three and up).
    HardNegatives,
    /// Both.
    AllNegatives,
}

/// Picks the positive of each anchor among the candidates of the whole batch.
///
/// `loss = mean over rows i of log(sum over candidates c of exp(scale * sim(a_i, c))) - scale * sim(a_i, p_i)`.
/// By default the candidates are all positives and negatives of the batch. Other directions add candidates, or
/// softmaxes of their own.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Two or more embeddings of `[batch, dim]`; the result is a scalar. Scores are `[batch, batch * (columns - 1)]`.
///
/// # Defaults
/// `scale = 20` is a temperature of 0.05: cosines lie in [-1, 1] and a softmax over them would be flat. One direction
/// and no hardness are classic InfoNCE. `mask_duplicates = false` is the reference's behaviour; with a sampler that
/// keeps duplicates out there is nothing to mask.
///
/// # Variants
/// Symmetric InfoNCE ([Günther et al. 2024](https://arxiv.org/abs/2310.19923)): `directions = ["query_to_doc",
/// "doc_to_query"]`, `partition_mode = "per_direction"`. GTE ([Li et al. 2023](https://arxiv.org/abs/2308.03281)): all
/// four directions, `joint`. Hardness weighting adds `hardness_strength * sim` without its gradient to the scores of
/// negatives: 9 with `in_batch_negatives` in [Lan et al. 2025](https://arxiv.org/abs/2503.04812), 5 with
/// `hard_negatives` in [EmbeddingGemma](https://arxiv.org/abs/2509.20354).
///
/// # Related
/// `MatryoshkaLoss` around it trains truncatable embeddings. `TripletLoss` sees the own negative only.
///
/// # Source
/// [van den Oord et al. 2018](https://arxiv.org/abs/1807.03748), [Henderson et al.
/// 2017](https://arxiv.org/abs/1705.00652); `losses/multiple_negatives_ranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MultipleNegativesRankingLoss"
/// scale = 20.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultipleNegativesRankingLoss {
    /// Inverse temperature: similarities are multiplied by it.
    pub scale: f64,
    /// How embeddings are compared.
    pub similarity_fct: Similarity,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
    /// Which similarities stand in the softmax; `query_to_doc` has to be among them.
    pub directions: Vec<Direction>,
    /// One softmax over all directions, or one for each.
    pub partition_mode: PartitionMode,
    /// Which negatives are made heavier the more similar they are; none by default.
    pub hardness_mode: Option<HardnessMode>,
    /// How much heavier; not multiplied by `scale`.
    pub hardness_strength: f64,
    /// Whether candidates with the same text as the row's anchor or positive are left out of the softmax.
    pub mask_duplicates: bool,
}

impl Default for MultipleNegativesRankingLoss {
    fn default() -> Self {
        Self {
            scale: 20.0,
            similarity_fct: Similarity::Cosine,
            gather_across_devices: false,
            directions: vec![Direction::QueryToDoc],
            partition_mode: PartitionMode::Joint,
            hardness_mode: None,
            hardness_strength: 0.0,
            mask_duplicates: false,
        }
    }
}

impl Settings for MultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)?;
        inputs::one_device(self.gather_across_devices)?;
        if !self.directions.contains(&Direction::QueryToDoc) {
            return Err(Error::usage("`directions` must contain `query_to_doc`, which holds the positive pair"));
        }
        let same_side = [Direction::QueryToQuery, Direction::DocToDoc];
        if self.partition_mode == PartitionMode::PerDirection
            && self.directions.iter().any(|direction| same_side.contains(direction))
        {
            return Err(Error::usage(
                "`partition_mode = \"per_direction\"` needs the positive pair in every direction, and \
                 `query_to_query` and `doc_to_doc` never hold it",
            )
            .with_hint("use `partition_mode = \"joint\"`"));
        }
        inputs::not_negative("hardness_strength", self.hardness_strength)
    }
}

impl Loss for MultipleNegativesRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let rows = columns[0].dim(0)?;
        let texts = self.mask_duplicates.then(|| Texts::of(outputs, columns.len(), rows)).transpose()?;

        let prepared =
            columns.iter().map(|x| self.similarity_fct.prepare(x)).collect::<candle_core::Result<Vec<_>>>()?;
        let (queries, positives) = (&prepared[0], &prepared[1]);
        let documents = Tensor::cat(&prepared[1..], 0)?; // [n * k, dim], column after column
        // In `query_to_doc`, and so in what begins with it, and in `doc_to_query` row i's positive is column i.
        let targets: Vec<u32> = (0..rows as u32).collect();
        if self.is_plain() {
            return Ok(ranking_cross_entropy(queries, &documents, self.scale, &targets)?);
        }

        let mut directions = Vec::with_capacity(4);
        // In a fixed order, however they are named in the recipe: `query_to_doc` comes first.
        for direction in Direction::ALL.into_iter().filter(|d| self.directions.contains(d)) {
            let (from, to) = match direction {
                Direction::QueryToDoc => (queries, &documents),
                Direction::QueryToQuery => (queries, queries),
                Direction::DocToQuery => (positives, queries),
                Direction::DocToDoc => (positives, &documents),
            };
            let similarity = self.similarity_fct.prepared_matrix(from, to)?; // [n, n] or [n, n * k]
            let mut scores = similarity.affine(self.scale, 0.0)?;
            if let Some(penalty) = self.penalty(direction, &similarity, rows)? {
                scores = scores.add(&penalty)?;
            }
            directions.push(remove(direction, scores, rows, texts.as_ref())?);
        }
        match (self.partition_mode, directions.as_slice()) {
            (_, [only]) => Ok(cross_entropy(only, &targets)?),
            (PartitionMode::Joint, all) => Ok(cross_entropy(&Tensor::cat(all, 1)?, &targets)?),
            (PartitionMode::PerDirection, all) => {
                let each = all.iter().map(|scores| cross_entropy(scores, &targets));
                Ok(Tensor::stack(&each.collect::<candle_core::Result<Vec<_>>>()?, 0)?.mean_all()?)
            }
        }
    }

    fn check_dim(&self, _dim: usize) -> Result<Vec<String>> {
        if self.hardness_mode.is_some() && self.hardness_strength == 0.0 {
            return Ok(vec![format!("`{}`: `hardness_mode` has no effect while `hardness_strength` is 0", CARD.name)]);
        }
        Ok(Vec::new())
    }
}

impl MultipleNegativesRankingLoss {
    /// Whether it is nothing but a softmax over scaled dot products, which is one operation.
    fn is_plain(&self) -> bool {
        self.directions == [Direction::QueryToDoc]
            && (self.hardness_mode.is_none() || self.hardness_strength == 0.0)
            && !self.mask_duplicates
            && matches!(self.similarity_fct, Similarity::Cosine | Similarity::Dot)
    }

    /// What hardness weighting adds to the scores of `query_to_doc`: `[n, n * k]`, without a gradient.
    fn penalty(&self, direction: Direction, similarity: &Tensor, rows: usize) -> Result<Option<Tensor>> {
        let Some(mode) = self.hardness_mode else {
            return Ok(None);
        };
        if direction != Direction::QueryToDoc || self.hardness_strength == 0.0 {
            return Ok(None);
        }
        let spared = inputs::mask(rows, similarity.dim(1)?, similarity.device(), |i, j| {
            let (own, positive) = (j % rows == i, j < rows);
            match mode {
                HardnessMode::InBatchNegatives => own,
                HardnessMode::HardNegatives => !own || positive,
                HardnessMode::AllNegatives => own && positive,
            }
        })?;
        let penalty = similarity.detach().affine(self.hardness_strength, 0.0)?;
        Ok(Some(stable::masked_fill(&penalty, &spared, 0.0)?.detach()))
    }
}

/// Takes out of the softmax what is no candidate: a text against itself, and duplicates if asked.
fn remove(direction: Direction, scores: Tensor, rows: usize, texts: Option<&Texts>) -> Result<Tensor> {
    let to_documents = matches!(direction, Direction::QueryToDoc | Direction::DocToDoc);
    let same_side = matches!(direction, Direction::QueryToQuery | Direction::DocToDoc);
    if !same_side && texts.is_none() {
        return Ok(scores);
    }
    let removed = inputs::mask(rows, scores.dim(1)?, scores.device(), |i, j| {
        let (column, row) = (usize::from(to_documents) + j / rows, j % rows);
        if same_side && row == i {
            return true;
        }
        // The positive pair itself: its document for a query, its query for a document.
        let positive = !same_side && row == i && column <= 1;
        !positive && texts.is_some_and(|texts| texts.duplicate(i, column, row))
    })?;
    Ok(stable::masked_fill(&scores, &removed, f64::NEG_INFINITY)?)
}

/// The text ids of a batch, checked for their number.
struct Texts<'a>(&'a [Vec<u64>]);

impl<'a> Texts<'a> {
    fn of(outputs: &'a Outputs, columns: usize, rows: usize) -> Result<Self> {
        let ids = outputs.text_ids.as_slice();
        if ids.len() != columns || ids.iter().any(|column| column.len() != rows) {
            return Err(Error::train(format!(
                "`{}`: `mask_duplicates` needs a text id for each of the {columns} columns and {rows} rows",
                CARD.name
            ))
            .with_hint("set `mask_duplicates = false`, or use `batch_sampler = \"no_duplicates\"` instead"));
        }
        Ok(Self(ids))
    }

    /// Whether the text at `(column, row)` is the anchor or the positive of row `i`.
    fn duplicate(&self, i: usize, column: usize, row: usize) -> bool {
        let text = self.0[column][row];
        text == self.0[0][i] || text == self.0[1][i]
    }
}

#[cfg(test)]
#[path = "multiple_negatives_ranking_tests.rs"]
mod tests;
