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
use super::{Setting, gradient};
use crate::error::Result;
use crate::flow::Batch;
use crate::ops::{self, Context};
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// As [`super::forward_backward`], in micro-batches of about `tokens` tokens.
pub(super) fn step(setting: Setting<'_>, batch: &Batch, tokens: usize, rng: Rng, timings: &mut Timings) -> Result<f64> {
    let parts = micro_batches(&batch.packed.offsets, tokens);
    let passes = Passes { setting, batch, rng };
    let all = timings.time("forward", || -> Result<_> {
        let mut embeddings = Vec::with_capacity(parts.len());
        for (i, part) in parts.iter().enumerate() {
            // without its graph the pass leaves nothing behind but the result
            embeddings.push(passes.forward(i, part.clone())?.detach());
        }
        Ok(Tensor::cat(&embeddings, 0)?) // [sequences, dim]
    })?;
    let (loss, gradient) = gradient(setting, batch, &all, rng, timings)?;
    drop(all);
    // no gradient: the loss depends on no parameter
    let Some(gradient) = gradient else { return Ok(loss) };
    for (i, part) in parts.into_iter().enumerate() {
        let share = gradient.narrow(0, part.start, part.len())?;
        let embeddings = timings.time("forward", || passes.forward(i, part))?;
        timings.time("backward", || -> Result<()> {
            let gradients = ops::with_gradient(&embeddings, &share)?.backward()?;
            Ok(ops::collect(&gradients, &setting.model.params())?)
        })?;
    }
    Ok(loss)
}

/// The forward passes over parts of a batch; the same part gives the same bits each time.
pub(super) struct Passes<'a> {
    pub setting: Setting<'a>,
    pub batch: &'a Batch,
    pub rng: Rng,
}

impl Passes<'_> {
    /// `[part, dim]`: the embeddings of the `i`-th part of the batch's sequences, with the graph to go back.
    pub fn forward(&self, i: usize, part: std::ops::Range<usize>) -> Result<Tensor> {
        /// Keeps the parts' numbers apart from each other and from those of a batch at once.
        const PART_STREAM: u64 = 0x9A27_0000;
        let rng = self.rng.fork(PART_STREAM + i as u64);
        let context = Context::training(DType::F32, rng)?.with_precision(self.setting.precision);
        self.setting.model.embed_part(self.batch, part, &context)
    }
}
