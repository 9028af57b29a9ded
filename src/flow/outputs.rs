//! What a model makes of a batch, as losses see it.

use std::sync::Arc;

use candle_core::Tensor;

use super::batch::PackedBatch;
use crate::util::seed::Rng;

/// A column through a sparse autoencoder and back, each `[rows, dim]` of the dense embeddings.
#[derive(Debug, Clone)]
pub struct Autoencoded {
    /// The dense embeddings.
    pub input: Tensor,
    /// What comes back of the sparse ones.
    pub reconstruction: Tensor,
    /// What comes back of four times as many values.
    pub wide: Tensor,
    /// What comes back of units that were long idle; `None` where none are asked for.
    pub auxiliary: Option<Tensor>,
    /// The reconstruction without the autoencoder's bias.
    pub without_bias: Tensor,
}

/// The embeddings of one batch, column by column.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[columns]` tensors of `[rows, dim]`.
    pub embeddings: Vec<Tensor>,
    /// The tokens of the input columns, `columns * rows` sequences as in the batch. May be empty.
    pub tokens: PackedBatch,
    /// `[columns][rows]`: a hash of each text, equal exactly when the texts are equal. May be empty.
    pub text_ids: Vec<Vec<u64>>,
    /// `[columns]` tensors of `[rows, guide's dim]`: the same texts as the guide sees them, for losses that have one;
    /// no gradient goes back through them. May be empty.
    pub guide: Vec<Tensor>,
    /// For losses that have a decoder: the cross-entropy of the texts it writes from the embeddings.
    pub decoded: Option<Tensor>,
    /// For losses that ask for it: what the model's autoencoder makes of each column, `[columns]`. The embeddings are its
    /// sparse ones then. May be empty.
    pub autoencoded: Vec<Autoencoded>,
    /// For losses that ask for them: after so many layers (0 for none), the embeddings, `[columns]` of `[rows, dim]`.
    pub layers: Vec<(usize, Vec<Tensor>)>,
    /// For data whose last column holds lists of texts: how many texts each row has. The only column then has them all,
    /// row after row. Empty otherwise.
    pub lists: Vec<usize>,
    /// Of models with a vector for each token: `[columns]` of `[rows + 1]`, where each row's vectors begin and end in the
    /// column's embedding, which then is `[vectors, dim]`. Empty for one vector a row.
    pub vectors: Vec<Arc<Vec<u32>>>,
    /// The optimizer step, counted from 0, and how many there will be; `None` in evaluations.
    pub step: Option<(u64, u64)>,
    /// Random numbers for losses that draw some; a function of seed and step.
    pub rng: Rng,
}

impl Outputs {
    /// Outputs without text ids, for tests and small uses.
    #[must_use]
    pub fn new(embeddings: Vec<Tensor>) -> Self {
        Self {
            embeddings,
            tokens: PackedBatch::default(),
            text_ids: Vec::new(),
            guide: Vec::new(),
            decoded: None,
            autoencoded: Vec::new(),
            layers: Vec::new(),
            lists: Vec::new(),
            vectors: Vec::new(),
            step: None,
            rng: Rng::new(0),
        }
    }

    /// The same batch seen through other embeddings (truncated, a layer's), which have no layers of their own.
    #[must_use]
    pub fn with_embeddings(&self, embeddings: Vec<Tensor>) -> Self {
        Self {
            embeddings,
            tokens: self.tokens.clone(),
            text_ids: self.text_ids.clone(),
            guide: self.guide.clone(),
            decoded: self.decoded.clone(),
            autoencoded: self.autoencoded.clone(),
            layers: Vec::new(),
            lists: self.lists.clone(),
            vectors: self.vectors.clone(),
            step: self.step,
            rng: self.rng,
        }
    }
}
