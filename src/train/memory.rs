//! How much memory will a run need, and does a step have to be taken in parts for it? Told before the first step.

use std::sync::Arc;

use crate::ops::Param;
use crate::util::memory::human;

/// What the program itself takes.
const PROGRAM: u64 = 160 << 20;

/// The largest of the batches that were looked at: the first ones of the first epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest {
    /// Tokens of all its sequences.
    pub tokens: usize,
    /// Tokens of the longest sequence in any of them.
    pub longest: usize,
    /// Its sequences: rows times columns.
    pub sequences: usize,
}

/// What the estimate is made of, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    /// Weights, gradients and optimizer moments.
    state: u64,
    /// What a token leaves behind for the backward pass.
    token: u64,
    /// Embeddings of the largest batch, their gradients and their similarities.
    embeddings: u64,
    largest: Largest,
}

/// How steps are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepping {
    /// Tokens of a micro-batch where gradients of embeddings are cached; `None` for a batch at once.
    pub cache_tokens: Option<usize>,
    /// Why, where it was not asked for, or what will be short.
    pub warning: Option<String>,
}

impl Estimate {
    /// `activation_floats`: values kept per token; `dim`: the embeddings' width; `decoder_floats`: values that a decoder
    /// keeps per token, whose batches are never taken in parts.
    pub fn new(
        params: &[Arc<Param>],
        activation_floats: usize,
        dim: usize,
        decoder_floats: usize,
        largest: Largest,
    ) -> Self {
        let mut state = 0;
        for param in params {
            // a value; with training a gradient and two moments
            let copies = if param.trainable() { 4 } else { 1 };
            // of a layer with magnitudes what its weight is in this pass, and what is added to it for that
            let merged = if param.adapter().is_some_and(|adapter| adapter.magnitude.is_some()) { 2 } else { 0 };
            state += (copies + merged) * 4 * param.elements() as u64;
        }
        let sequences = largest.sequences as u64;
        let decoded = decoder_floats as u64 * largest.tokens as u64;
        let embeddings = 4 * (sequences * dim as u64 * 6 + sequences * sequences * 4 + decoded);
        Self { state, token: 4 * activation_floats as u64, embeddings, largest }
    }

    /// The peak: state, embeddings, the activations of the largest batch or micro-batch, and the program itself.
    pub fn peak(&self, cache_tokens: Option<usize>) -> u64 {
        // a sequence is never cut, so a micro-batch may have to hold a longer one
        let at_once = cache_tokens.map_or(self.largest.tokens, |most| most.max(self.largest.longest));
        self.fixed() + self.token * at_once.min(self.largest.tokens) as u64
    }

    /// What does not depend on how a step is taken.
    fn fixed(&self) -> u64 {
        self.state + self.embeddings + PROGRAM
    }

    /// Decides how steps are taken: as `asked`, else at once where that fits into `available`, else in micro-batches
    /// that do.
    pub fn stepping(&self, asked: Option<usize>, available: Option<u64>) -> Stepping {
        let fits = |tokens: Option<usize>| available.is_none_or(|available| self.peak(tokens) <= available);
        if fits(asked) {
            return Stepping { cache_tokens: asked, warning: None };
        }
        let cache_tokens = asked.or_else(|| self.parts(available.unwrap_or(u64::MAX)));
        let (needed, free) = (human(self.peak(None)), human(available.unwrap_or(u64::MAX)));
        let warning = match cache_tokens {
            Some(tokens) if asked.is_none() && fits(cache_tokens) => format!(
                "a step at once would need about {needed} of memory and {free} are free: batches are taken in \
                 micro-batches of {tokens} tokens, which needs about {} and a second forward pass; write \
                 `args.gradient_cache_tokens = {tokens}` for the same numbers on every machine",
                human(self.peak(cache_tokens))
            ),
            _ => format!(
                "about {} of memory will be needed{}, {free} are free: lower `args.per_device_train_batch_size` (and \
                 raise `args.gradient_accumulation_steps`) or `model.max_seq_length`{}",
                human(self.peak(cache_tokens)),
                cache_tokens.map_or_else(String::new, |tokens| format!(" even in micro-batches of {tokens} tokens")),
                if asked.is_some_and(|asked| asked > self.largest.longest) {
                    ", or `args.gradient_cache_tokens`"
                } else {
                    ""
                }
            ),
        };
        Stepping { cache_tokens, warning: Some(warning) }
    }

    /// Tokens of a micro-batch that fits, or of the smallest there can be; `None` where parts save nothing.
    ///
    /// A power of two where the longest sequence allows it, so that a little more or less free memory, another time,
    /// gives the same parts and with them the same numbers.
    fn parts(&self, available: u64) -> Option<usize> {
        let Largest { tokens, longest, .. } = self.largest;
        if self.token == 0 || longest >= tokens {
            return None;
        }
        let room = usize::try_from(available.saturating_sub(self.fixed()) / self.token).unwrap_or(usize::MAX);
        let round = room.checked_ilog2().map_or(0, |bits| 1 << bits);
        Some(round.max(longest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// 100 MB of weights, 10 kB a token, batches of 64,000 tokens.
    fn estimate() -> Estimate {
        let largest = Largest { tokens: 64_000, longest: 500, sequences: 2 * 256 };
        Estimate { state: 100 * MB, token: 10_000, embeddings: 10 * MB, largest }
    }

    #[test]
    fn enough_memory_changes_nothing() {
        let plain = Stepping { cache_tokens: None, warning: None };
        assert_eq!(estimate().stepping(None, Some(2000 * MB)), plain);
        assert_eq!(estimate().stepping(None, None), plain, "where the system does not tell");
        let asked = estimate().stepping(Some(4096), Some(2000 * MB));
        assert_eq!(asked, Stepping { cache_tokens: Some(4096), warning: None });
        assert_eq!(estimate().peak(Some(4096)), 270 * MB + 4096 * 10_000);
        assert_eq!(estimate().peak(Some(8)), 270 * MB + 500 * 10_000, "a sequence is never cut");
        assert_eq!(estimate().peak(Some(1 << 20)), estimate().peak(None));
    }

    #[test]
    fn too_little_gives_parts_that_fit() {
        for (free, tokens) in [(800, 32_768), (760, 32_768), (583, 32_768), (580, 16_384), (276, 512), (275, 512)] {
            let stepping = estimate().stepping(None, Some(free * MB));
            assert_eq!(stepping.cache_tokens, Some(tokens), "{free} MB");
            assert!(estimate().peak(stepping.cache_tokens) <= free * MB, "{free} MB");
            let warning = stepping.warning.unwrap();
            assert!(warning.contains("about 923 MB of memory"), "{warning}");
            assert!(warning.contains(&format!("`args.gradient_cache_tokens = {tokens}`")), "{warning}");
        }
    }

    #[test]
    fn what_never_fits_is_said() {
        let stepping = estimate().stepping(None, Some(200 * MB));
        assert_eq!(stepping.cache_tokens, Some(500), "the least there can be");
        let warning = stepping.warning.unwrap();
        assert!(warning.starts_with("about 288 MB of memory will be needed even in micro-batches of 500"), "{warning}");
        let warning = estimate().stepping(Some(60_000), Some(400 * MB)).warning.unwrap();
        assert!(warning.ends_with("or `args.gradient_cache_tokens`"), "{warning}");
        // a static model keeps nothing a token
        let model = Estimate { token: 0, ..estimate() };
        let stepping = model.stepping(None, Some(200 * MB));
        assert_eq!(stepping.cache_tokens, None);
        assert!(stepping.warning.unwrap().starts_with("about 283 MB of memory will be needed, 210 MB are free: lower"));
    }
}
