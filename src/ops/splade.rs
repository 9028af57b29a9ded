//! SPLADE's pooling, straight from hidden states: what of the vocabulary a text is about, and how much.
//!
//! The scores of all tokens for the whole vocabulary are larger than everything else of a step together. They are made
//! in blocks, and of each text and word only the highest and the token that has it are kept; the way back goes through
//! those alone, which a regularised model has few of.
//!
//! Source: Formal et al. 2021, "SPLADE v2", <https://arxiv.org/abs/2109.10086>; the reference's `SpladePooling`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::activation::Activation;
use super::composed;
use super::context::Context;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::linear::Stack;
use super::matmul::Precision;
use super::param::Param;
use super::real::Real;
use super::scratch::Buffer;

/// How the scores of a text's tokens become one weight a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpladePooling {
    /// Their sum, not the largest.
    pub sum: bool,
    /// `log(1 + log(1 + relu(x)))`, not `log(1 + relu(x))`.
    pub twice: bool,
}

impl SpladePooling {
    /// What a score that is not negative becomes.
    fn of<T: Real>(self, x: T) -> T {
        let once = (T::ONE + x).ln();
        if self.twice { (T::ONE + once).ln() } else { once }
    }

    /// The derivative there.
    fn slope<T: Real>(self, x: T) -> T {
        let outer = T::ONE / (T::ONE + x);
        if self.twice { outer / (T::ONE + (T::ONE + x).ln()) } else { outer }
    }
}

/// The weights of every word for each sequence: over its tokens the largest (or the sum) of `log(1 + relu(x Wᵀ + b))`.
/// A sequence without tokens gives zeros.
///
/// # Shapes
/// `x` `[tokens, width]`, `weight` `[words, width]`, `bias` `[words]`, `offsets` `[sequences + 1]`; the result is
/// `[sequences, words]`.
///
/// # Errors
/// When shapes, offsets or element types do not fit.
pub fn splade_pool(
    context: &Context,
    x: &Tensor,
    weight: &Arc<Param>,
    bias: &Arc<Param>,
    offsets: &Arc<Vec<u32>>,
    pooling: SpladePooling,
) -> Result<Tensor> {
    let stack = Stack::new(context, vec![(Arc::clone(weight), Some(Arc::clone(bias)))])?;
    let &[tokens, width] = x.dims() else {
        bail!("splade: expected [tokens, width], got {:?}", x.dims());
    };
    if width != stack.input {
        bail!("splade: input is {:?}, weight `{}` is {:?}", x.dims(), weight.name(), weight.dims());
    }
    kernel::check_offsets("splade", offsets, tokens)?;
    kernel::check_dtype("splade", x.dtype(), weight.dtype())?;
    if weight.composed() {
        return composed::splade_pool(&composed::linear(context, x, weight, Some(bias))?, offsets, pooling);
    }
    x.contiguous()?.apply_op1(Splade {
        stack,
        weight: Arc::clone(weight),
        bias: Arc::clone(bias),
        offsets: Arc::clone(offsets),
        pooling,
        precision: context.precision(),
        keep: context.is_training(),
        winners: Mutex::new(None),
    })
}

struct Splade {
    stack: Stack,
    weight: Arc<Param>,
    bias: Arc<Param>,
    offsets: Arc<Vec<u32>>,
    pooling: SpladePooling,
    precision: Precision,
    keep: bool,
    /// `[sequences, words]`: the token with the highest score, [`NOBODY`] where none is positive.
    winners: Mutex<Option<Vec<u32>>>,
}

/// No token has a positive score.
const NOBODY: u32 = u32::MAX;
/// Tokens whose scores are computed at a time: of 30,000 words 30 MB in f32.
const AT_ONCE: usize = 256;
/// Words that a thread pools at a time.
const WORDS: usize = 1024;

simd_fn! {
    /// Keeps the higher scores and who has them; a score that is no number is higher than all.
    fn higher<T>(best: &mut [T], winners: &mut [u32], row: &[T], token: u32) {
        for ((best, winner), x) in best.iter_mut().zip(winners).zip(row) {
            let wins = (*x > *best) | (x.is_nan() & !best.is_nan());
            *best = if wins { *x } else { *best };
            *winner = if wins { token } else { *winner };
        }
    }
}

simd_fn! {
    fn add_scaled<T>(target: &mut [T], values: &[T], scale: T) {
        for (a, b) in target.iter_mut().zip(values) {
            *a += *b * scale;
        }
    }
}

impl Splade {
    fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The scores of the tokens from `first` on, as many as `x` has rows.
    fn scores<T: Real>(&self, x: &[T]) -> Result<Buffer<T>> {
        let rows = x.len() / self.stack.input.max(1);
        let mut scores = Buffer::<T>::take(rows * self.stack.width());
        self.stack.forward(x, Activation::Identity, &mut scores, self.precision)?;
        Ok(scores)
    }

    /// Calls `each` with the parts of sequences that lie in the tokens from `first` to `end`: sequence, tokens.
    fn parts(&self, first: usize, end: usize, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
        let start = self.offsets.partition_point(|offset| (*offset as usize) <= first).saturating_sub(1);
        for sequence in start..self.sequences() {
            let (from, to) = (self.offsets[sequence] as usize, self.offsets[sequence + 1] as usize);
            if from >= end {
                break;
            }
            let part = from.max(first)..to.min(end);
            if !part.is_empty() {
                each(sequence, part);
            }
        }
    }

    fn forward<T: Real>(&self, x: &[T]) -> Result<Vec<T>> {
        let (width, words, sequences) = (self.stack.input, self.stack.width(), self.sequences());
        let mut out = kernel::zeros::<T>(sequences * words);
        let mut winners = vec![NOBODY; if self.pooling.sum { 0 } else { sequences * words }];
        let (pooled, won) = (Shared::new(&mut out), Shared::new(&mut winners));
        let tokens = x.len() / width.max(1);
        for first in (0..tokens).step_by(AT_ONCE) {
            let end = (first + AT_ONCE).min(tokens);
            let scores = self.scores(&x[first * width..end * width])?;
            kernel::each(words.div_ceil(WORDS), 1, |block| {
                let from = block * WORDS;
                let count = WORDS.min(words - from);
                self.parts(first, end, |sequence, part| {
                    let place = sequence * words + from;
                    // SAFETY: each block of words has its own places.
                    let out = unsafe { pooled.range(place, count) };
                    for token in part {
                        let row = &scores[(token - first) * words + from..][..count];
                        if self.pooling.sum {
                            for (y, x) in out.iter_mut().zip(row).filter(|(_, x)| **x > T::ZERO || x.is_nan()) {
                                *y += self.pooling.of(*x);
                            }
                        } else {
                            // SAFETY: as above.
                            higher(out, unsafe { won.range(place, count) }, row, token as u32);
                        }
                    }
                });
            });
        }
        self.pass_on_nan(x, &mut out);
        if !self.pooling.sum {
            // the logarithm grows with its argument, so the largest is taken first
            let pooled = Shared::new(&mut out);
            kernel::each(sequences, 1, |sequence| {
                // SAFETY: each sequence has its own place.
                let row = unsafe { pooled.range(sequence * words, words) };
                row.iter_mut().filter(|x| **x > T::ZERO).for_each(|x| *x = self.pooling.of(*x));
            });
            if self.keep {
                *self.winners.lock().unwrap_or_else(PoisonError::into_inner) = Some(winners);
            }
        }
        Ok(out)
    }

    /// Texts with hidden states that are no numbers have weights that are none: no comparison would tell.
    fn pass_on_nan<T: Real>(&self, x: &[T], out: &mut [T]) {
        let (width, words) = (self.stack.input, self.stack.width());
        for (ends, row) in self.offsets.windows(2).zip(out.chunks_exact_mut(words.max(1))) {
            let tokens = &x[ends[0] as usize * width..ends[1] as usize * width];
            if let Some(nan) = tokens.iter().find(|x| x.is_nan()) {
                row.fill(*nan);
            }
        }
    }

    /// The gradient by the winners' scores in place of that by the weights.
    fn slopes<T: Real>(&self, y: &[T], dy: &[T], winners: &[u32]) -> Vec<T> {
        let mut slopes = kernel::zeros::<T>(dy.len());
        let target = Shared::new(&mut slopes);
        let words = self.stack.width();
        kernel::each(self.sequences(), 1, |sequence| {
            let row = sequence * words..(sequence + 1) * words;
            // SAFETY: each sequence has its own place.
            let target = unsafe { target.range(row.start, words) };
            for (((to, y), dy), winner) in
                target.iter_mut().zip(&y[row.clone()]).zip(&dy[row.clone()]).zip(&winners[row])
            {
                if *winner != NOBODY {
                    // from the weight back to the score: exp(y) - 1, once or twice
                    let once = if self.pooling.twice { y.exp() - T::ONE } else { *y };
                    *to = *dy * self.pooling.slope(once.exp() - T::ONE);
                }
            }
        });
        slopes
    }

    fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T], winners: &[u32]) -> Result<Vec<T>> {
        let (width, words, sequences) = (self.stack.input, self.stack.width(), self.sequences());
        let slopes = self.slopes(y, dy, winners);
        let mut dx = kernel::zeros::<T>(x.len());
        {
            let host = self.weight.host()?;
            let table = host.values::<T>()?;
            let target = Shared::new(&mut dx);
            kernel::each(sequences, 1, |sequence| {
                let row = sequence * words;
                for word in 0..words {
                    let slope = slopes[row + word];
                    if slope != T::ZERO {
                        // SAFETY: a sequence's tokens are its own.
                        let dx = unsafe { target.range(winners[row + word] as usize * width, width) };
                        add_scaled(dx, &table[word * width..(word + 1) * width], slope);
                    }
                }
            });
        }
        let touched = |word: &usize| (0..sequences).any(|sequence| slopes[sequence * words + word] != T::ZERO);
        let seen: Vec<usize> = (0..words).filter(touched).collect();
        let add_word = |word: usize, dw: &mut [T]| {
            for sequence in 0..sequences {
                let place = sequence * words + word;
                if slopes[place] != T::ZERO {
                    let token = winners[place] as usize;
                    add_scaled(dw, &x[token * width..(token + 1) * width], slopes[place]);
                }
            }
        };
        let mut values = kernel::zeros::<T>(seen.len() * width);
        let target = Shared::new(&mut values);
        kernel::each(seen.len(), 16, |i| {
            // SAFETY: each word has its own place.
            add_word(seen[i], unsafe { target.range(i * width, width) });
        });
        self.weight.accumulate_rows(seen.iter().map(|word| *word as u32).collect(), values, width)?;
        self.bias.accumulate::<T>(|add, db| {
            if !add {
                db.fill(T::ZERO);
            }
            for row in slopes.chunks_exact(words) {
                add_scaled(db, row, T::ONE);
            }
        })?;
        Ok(dx)
    }

    /// The way back through sums, for which the scores are made again.
    fn backward_sum<T: Real>(&self, x: &[T], dy: &[T]) -> Result<Vec<T>> {
        let (width, words) = (self.stack.input, self.stack.width());
        let mut dx = kernel::zeros::<T>(x.len());
        let tokens = x.len() / width.max(1);
        for first in (0..tokens).step_by(AT_ONCE) {
            let end = (first + AT_ONCE).min(tokens);
            let part = first * width..end * width;
            let mut scores = self.scores(&x[part.clone()])?;
            let target = Shared::new(&mut scores);
            kernel::each(words.div_ceil(WORDS), 1, |block| {
                let from = block * WORDS;
                let count = WORDS.min(words - from);
                self.parts(first, end, |sequence, tokens| {
                    let dy = &dy[sequence * words + from..][..count];
                    for token in tokens {
                        // SAFETY: each block of words has its own places.
                        let row = unsafe { target.range((token - first) * words + from, count) };
                        for (x, dy) in row.iter_mut().zip(dy) {
                            *x = if *x > T::ZERO { *dy * self.pooling.slope(*x) } else { T::ZERO };
                        }
                    }
                });
            });
            self.stack.weight_gradient(&x[part.clone()], Activation::Identity, &scores, self.precision)?;
            self.stack.input_gradient(&scores, &mut dx[part], false, None, self.precision)?;
        }
        Ok(dx)
    }
}

impl CustomOp1 for Splade {
    fn name(&self) -> &'static str {
        "splade"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "splade", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let y = rayon::scope(|_| self.forward(x))?;
            let shape = Shape::from((self.sequences(), self.stack.width()));
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let winners = self.winners.lock().unwrap_or_else(PoisonError::into_inner).take();
        by_dtype!(x.dtype(), "splade", T => {
            let (x_host, y, dy) = (kernel::host(x)?, kernel::host(y)?, kernel::host(&dy)?);
            let (values, y, dy) = (x_host.values::<T>()?, y.values::<T>()?, dy.values::<T>()?);
            let dx = match (&winners, self.pooling.sum) {
                (_, true) => rayon::scope(|_| self.backward_sum(values, dy))?,
                (Some(winners), false) => rayon::scope(|_| self.backward(values, y, dy, winners))?,
                (None, false) => bail!("splade: a graph is differentiated once, after a forward pass in training"),
            };
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::util::seed::Rng;

    fn random(rng: &mut Rng, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| 2.0 * rng.uniform() - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    struct Case {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        up: Tensor,
        offsets: Arc<Vec<u32>>,
    }

    /// Value, gradient by `x`, and gradients by weight and bias.
    fn run(case: &Case, pooling: SpladePooling, fused: bool) -> (Tensor, Vec<Tensor>) {
        let (weight, bias) = (Param::new("weight", &case.weight).unwrap(), Param::new("bias", &case.bias).unwrap());
        let x = Var::from_tensor(&case.x).unwrap();
        let context = Context::training(DType::F64, Rng::new(1)).unwrap();
        let y = if fused {
            splade_pool(&context, &x, &weight, &bias, &case.offsets, pooling).unwrap()
        } else {
            let scores = crate::ops::linear(&context, &x, &weight, Some(&bias)).unwrap();
            composed::splade_pool(&scores, &case.offsets, pooling).unwrap()
        };
        let gradients = y.mul(&case.up).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |param: &Param| param.gradient_tensor().unwrap().unwrap();
        (y, vec![gradients.get(&x).unwrap().clone(), of(&weight), of(&bias)])
    }

    fn worst(a: &Tensor, b: &Tensor) -> f64 {
        a.sub(b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn is_a_layer_and_a_pooling() {
        let mut rng = Rng::new(4);
        for (offsets, width, words) in
            [(vec![0u32, 3], 4, 5), (vec![0, 2, 9, 10], 6, 1500), (vec![0, 200, 260, 530], 5, 40)]
        {
            let (tokens, sequences) = (*offsets.last().unwrap() as usize, offsets.len() - 1);
            let case = Case {
                x: random(&mut rng, &[tokens, width]),
                weight: random(&mut rng, &[words, width]),
                bias: random(&mut rng, &[words]),
                up: random(&mut rng, &[sequences, words]),
                offsets: Arc::new(offsets),
            };
            for sum in [false, true] {
                for twice in [false, true] {
                    let pooling = SpladePooling { sum, twice };
                    let (value, gradients) = run(&case, pooling, true);
                    let (expected, wanted) = run(&case, pooling, false);
                    assert!(worst(&value, &expected) < 1e-12, "{pooling:?}");
                    for (a, b) in gradients.iter().zip(&wanted) {
                        assert!(worst(a, b) < 1e-11, "{pooling:?}: {}", worst(a, b));
                    }
                }
            }
        }
    }

    #[test]
    fn sequences_without_tokens_are_about_nothing() {
        let mut rng = Rng::new(5);
        let case = Case {
            x: random(&mut rng, &[2, 3]),
            weight: random(&mut rng, &[7, 3]),
            bias: random(&mut rng, &[7]),
            up: random(&mut rng, &[3, 7]),
            offsets: Arc::new(vec![0, 0, 2, 2]),
        };
        let (value, _) = run(&case, SpladePooling { sum: false, twice: false }, true);
        let rows = value.to_vec2::<f64>().unwrap();
        assert!(rows[0].iter().chain(&rows[2]).all(|x| *x == 0.0) && rows[1].iter().any(|x| *x > 0.0));
    }

    #[test]
    fn a_word_that_is_no_number_gives_none() {
        let check = || {
            let device = &candle_core::Device::Cpu;
            let context = Context::inference();
            let x = Tensor::new(&[[1.0f32, 2.0], [0.5, -1.0], [3.0, 1.0]], device).unwrap();
            let offsets = Arc::new(vec![0, 2, 3]);
            let plain = [[1.0f32, 0.5], [0.5, 1.0], [-1.0, -1.0]];
            for place in 0..2 {
                let (mut words, mut bias) = (plain, [0.0f32; 3]);
                if place == 0 {
                    words[1][0] = f32::NAN;
                } else {
                    bias[1] = f32::NAN;
                }
                let weight = Param::new("w", &Tensor::new(&words, device).unwrap()).unwrap();
                let bias = Param::new("b", &Tensor::new(&bias, device).unwrap()).unwrap();
                for sum in [false, true] {
                    let pooling = SpladePooling { sum, twice: false };
                    let out = splade_pool(&context, &x, &weight, &bias, &offsets, pooling).unwrap();
                    for row in out.to_vec2::<f32>().unwrap() {
                        assert!(row[1].is_nan() && row[0] > 0.0 && row[2].is_finite(), "sum {sum}: {row:?}");
                    }
                }
            }
        };
        check();
        composed::everywhere(check);
    }
}
