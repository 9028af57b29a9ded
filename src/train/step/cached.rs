//! A batch in micro-batches, with the loss of the whole: large batches in the memory of small ones.
//!
//! A loss sees embeddings and labels only, so its gradient with respect to the embeddings is all that the network's
//! backward pass needs of it. One pass over the micro-batches makes the embeddings and forgets how; the loss of all of
//! them together gives a gradient for each; a second pass makes every micro-batch's embeddings again, with the same
//! dropout, and takes its part of the gradient back through the network. Memory is that of one micro-batch, time that
//! of one more forward pass. Without dropout the gradients are those of a batch at once.
//!
//! Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
//! <https://arxiv.org/abs/2101.06983>.

use candle_core::{DType, Tensor};

use super::micro::micro_batches;
use super::{Measured, Setting, back, gradient, layers, views};
use crate::error::Result;
use crate::flow::Batch;
use crate::ops::Context;
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// As [`super::forward_backward`], in micro-batches of about `tokens` tokens.
pub(super) fn step(
    setting: Setting<'_>,
    batch: &Batch,
    tokens: usize,
    rng: Rng,
    timings: &mut Timings,
) -> Result<Measured> {
    let parts = micro_batches(&views::offsets(setting, batch), tokens);
    let layers = layers(setting, rng);
    let passes = Passes { setting, batch, layers: &layers, rng };
    let all = timings.time("forward", || -> Result<_> {
        let mut made: Vec<Vec<Tensor>> = vec![Vec::with_capacity(parts.len()); layers.len() + 1];
        for (i, part) in parts.iter().enumerate() {
            for (made, embeddings) in made.iter_mut().zip(passes.forward(i, part.clone())?) {
                // without its graph the pass leaves nothing behind but the result
                made.push(embeddings.detach());
            }
        }
        Ok(made.iter().map(|made| Tensor::cat(made, 0)).collect::<candle_core::Result<Vec<_>>>()?) // [sequences, dim]
    })?;
    let (loss, gradients) = gradient(setting, batch, &layers, &all, rng, timings)?;
    drop(all);
    // no gradient: the loss depends on no parameter
    let Some(gradients) = gradients else { return Ok(loss) };
    let vectors = setting.model.vector_offsets(batch);
    for (i, part) in parts.into_iter().enumerate() {
        let rows = views::rows(vectors.as_deref(), &part);
        let share = |gradient: &Tensor| gradient.narrow(0, rows.start, rows.len());
        let shares = gradients.iter().map(share).collect::<candle_core::Result<Vec<_>>>()?;
        let embeddings = timings.time("forward", || passes.forward(i, part))?;
        timings.time("backward", || back(setting, &embeddings, &shares))?;
    }
    Ok(loss)
}

/// The forward passes over parts of a batch; the same part gives the same bits each time.
pub(super) struct Passes<'a> {
    pub setting: Setting<'a>,
    pub batch: &'a Batch,
    pub layers: &'a [usize],
    pub rng: Rng,
}

impl Passes<'_> {
    /// The embeddings of the `i`-th part of the batch's sequences, with the graph to go back: `[layers + 1]` of
    /// `[part, dim]`, those of all layers last.
    pub fn forward(&self, i: usize, part: std::ops::Range<usize>) -> Result<Vec<Tensor>> {
        /// Keeps the parts' numbers apart from each other and from those of a batch at once.
        const PART_STREAM: u64 = 0x9A27_0000;
        let rng = self.rng.fork(PART_STREAM + i as u64);
        let context = Context::training(DType::F32, rng)?.with_precision(self.setting.precision);
        views::embed(self.setting, self.batch, part, self.layers, &context)
    }
}
