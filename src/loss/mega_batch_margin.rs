//! MegaBatchMarginLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::scoring::{Similarity, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive) pairs"],
    columns: (2, 2),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "The negative is the most similar positive of another row: use large batches (500 rows and more), and \
         `batch_sampler = \"no_duplicates\"`, or a text occurring twice in a batch is the hardest negative of itself.",
        "By default a batch is taken in parts of 50 sequences, which costs a second forward pass: set \
         `use_mini_batched_version = false` where memory is not short.",
    ],
    paper: "https://aclanthology.org/P18-1042",
    ..Card::new("MegaBatchMarginLoss", "Margins for the positive and for the hardest negative of a large batch.")
};

/// Keeps each positive above one cosine, and the most similar positive of another row below a second one.
///
/// `loss = mean over rows i of max(positive_margin - cos(a_i, p_i), 0) + max(max over j != i of cos(a_i, p_j) -
/// negative_margin, 0)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`; the result is a scalar. Cosines are `[batch, batch]`.
///
/// # Defaults
/// `positive_margin = 0.8` and `negative_margin = 0.3`. `use_mini_batched_version = true` takes a batch in parts of
/// `mini_batch_size` sequences by gradient caching, since the loss wants very large batches; value and gradients are
/// the same either way. `args.gradient_cache_tokens` decides where it is given.
///
/// # Related
/// `MultipleNegativesRankingLoss` takes the same pairs, sees all negatives instead of the hardest and is usually
/// stronger.
///
/// # Source
/// [Wieting & Gimpel 2018](https://aclanthology.org/P18-1042); `losses/mega_batch_margin.py` of
/// sentence-transformers. A batch of one row has no negative, and the second term is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MegaBatchMarginLoss"
/// use_mini_batched_version = false
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MegaBatchMarginLoss {
    /// Which cosine a positive pair shall reach.
    pub positive_margin: f64,
    /// Below which cosine the hardest negative is left alone.
    pub negative_margin: f64,
    /// Whether a batch is taken in parts by gradient caching.
    pub use_mini_batched_version: bool,
    /// Sequences of a part, if their texts were as long as the longest of a batch.
    pub mini_batch_size: usize,
    /// Tokens of a part, instead of `mini_batch_size`.
    pub mini_batch_num_tokens: Option<usize>,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
}

impl Default for MegaBatchMarginLoss {
    fn default() -> Self {
        Self {
            positive_margin: 0.8,
            negative_margin: 0.3,
            use_mini_batched_version: true,
            mini_batch_size: 50,
            mini_batch_num_tokens: None,
            show_progress_bar: false,
        }
    }
}

impl Settings for MegaBatchMarginLoss {
    fn validate(&self) -> Result<()> {
        for (key, value) in [("positive_margin", self.positive_margin), ("negative_margin", self.negative_margin)] {
            if !value.is_finite() {
                return Err(Error::usage(format!("`{key}` must be a finite number, got {value}")));
            }
        }
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).map(|_| ())
    }
}

impl Loss for MegaBatchMarginLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        let asked = inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar);
        asked.ok().filter(|_| self.use_mini_batched_version)
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let rows = columns[0].dim(0)?;
        let cosines = Similarity::Cosine.matrix(&columns[0], &columns[1])?; // [n, n]
        let mut own = vec![0.0; rows * rows];
        let mut hardest = vec![0.0; rows * rows];
        for (i, row) in inputs::host(&cosines)?.chunks(rows).enumerate() {
            own[i * rows + i] = 1.0;
            let others = row.iter().enumerate().filter(|(j, _)| *j != i);
            // The first of equals.
            let first = others.fold(None, |best: Option<(usize, f64)>, (j, x)| match best {
                Some((_, most)) if *x <= most => best,
                _ => Some((j, *x)),
            });
            if let Some((j, _)) = first {
                hardest[i * rows + j] = 1.0;
            }
        }
        let pick = |chosen| -> candle_core::Result<Tensor> {
            let chosen = inputs::vector(chosen, cosines.dtype(), cosines.device())?.reshape((rows, rows))?;
            cosines.mul(&chosen)?.sum(1)
        };
        let positive = stable::relu(&pick(own)?.affine(-1.0, self.positive_margin)?)?; // [n]
        if rows == 1 {
            return Ok(positive.mean_all()?);
        }
        let negative = stable::relu(&pick(hardest)?.affine(1.0, -self.negative_margin)?)?; // [n]
        Ok(positive.add(&negative)?.mean_all()?)
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
        let a = Tensor::new(&[[1.0f64, 0.0], [3.0, 4.0]], &device).unwrap();
        let b = Tensor::new(&[[4.0f64, 3.0], [0.0, 2.0]], &device).unwrap();
        // Cosines [[0.8, 0], [0.96, 0.8]].
        let value = |loss: MegaBatchMarginLoss, rows: usize| {
            let columns = [&a, &b].map(|x| x.narrow(0, 0, rows).unwrap()).to_vec();
            loss.compute(&Outputs::new(columns), None).unwrap().to_scalar::<f64>().unwrap()
        };
        let loss = MegaBatchMarginLoss { positive_margin: 0.9, negative_margin: 0.3, ..Default::default() };
        assert!((value(loss.clone(), 2) - (0.1 + 0.1 + 0.66) / 2.0).abs() < 1e-12);
        assert!((value(loss, 1) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn gradient() {
        let loss = MegaBatchMarginLoss { positive_margin: 0.9, negative_margin: -0.9, ..Default::default() };
        check_gradient(&loss, &random_columns(2, 5, 6, 3), None);
    }

    #[test]
    fn parts_are_asked_for() {
        let mut loss = MegaBatchMarginLoss::default();
        assert_eq!(loss.micro_batch(), Some(MicroBatch::Sequences(50)));
        loss.mini_batch_num_tokens = Some(4096);
        assert_eq!(loss.micro_batch(), Some(MicroBatch::Tokens(4096)));
        loss.use_mini_batched_version = false;
        assert_eq!(loss.micro_batch(), None);
        assert!(MegaBatchMarginLoss { mini_batch_size: 0, ..Default::default() }.validate().is_err());
        assert!(MegaBatchMarginLoss { negative_margin: f64::NAN, ..Default::default() }.validate().is_err());
    }
}
