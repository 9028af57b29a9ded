//! Each operation against its floor on this machine.
//!
//!     cargo bench --bench ops [-- NAME]
//!
//! First the machine's own rates are measured: multiply-adds from registers, in f32 and (where it has them) bf16
//! pairs, and bytes read and written by large copies, all on as many threads as the operations use. Then every
//! operation runs at MiniLM's sizes, and its FLOPs (or bytes, where memory bounds it) a second are given as a share of
//! those rates. Figures are the best of several repeats: noise only ever slows a repeat down.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use rayon::prelude::*;
use tallow::ops::{self, Activation, Context, Dropout, FeedForward, Param, Precision, SelfAttention};
use tallow::util::seed::Rng;

const TOKENS: usize = 2048;
const WIDTH: usize = 384;
const INNER: usize = 1536;
const HEADS: usize = 12;
const LENGTH: usize = 64;

/// Seconds of the fastest of several repeats.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    let begun = Instant::now();
    let mut least = f64::INFINITY;
    let mut repeats = 0;
    while repeats < 5 || (begun.elapsed().as_secs_f64() < 1.0 && repeats < 200) {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
        repeats += 1;
    }
    least
}

/// Multiply-adds from registers, on one thread: `(floating-point operations, their result)`.
#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::x86_64::*;

    const ROUNDS: usize = 2_000_000;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() -> (f64, f32) {
        let (x, y) = (_mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
        let mut sums = [_mm256_set1_ps(0.1); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        let total = sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b));
        ((ROUNDS * 12 * 16) as f64, _mm256_cvtss_f32(total))
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512() -> (f64, f32) {
        let (x, y) = (_mm512_set1_ps(0.999), _mm512_set1_ps(0.001));
        let mut sums = [_mm512_set1_ps(0.1); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        ((ROUNDS * 12 * 32) as f64, sums.into_iter().map(|x| _mm512_cvtss_f32(x)).sum())
    }

    #[target_feature(enable = "avx2")]
    pub fn whole() -> (f64, f32) {
        let mut x = [_mm256_set1_epi16(3), _mm256_set1_epi16(5)];
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..ROUNDS {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x[i % 2], x[1]));
            }
            // the compiler must not see that the products stay the same
            x[0] = _mm256_xor_si256(x[0], sums[0]);
        }
        let total = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi32(a, b));
        ((ROUNDS * 12 * 32) as f64, _mm256_extract_epi32::<0>(total) as f32)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16() -> (f64, f32) {
        let x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut sums = [_mm512_set1_ps(0.1); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        ((ROUNDS * 12 * 64) as f64, sums.into_iter().map(|x| _mm512_cvtss_f32(x)).sum())
    }
}

/// GFLOP/s of multiply-adds from registers on all threads; `None` where the instructions are missing.
fn arithmetic(precision: Precision) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let threads = rayon::current_num_threads();
        let one = || {
            // SAFETY: each is called on machines with its instructions only.
            unsafe {
                match (precision, ops::simd_level()) {
                    (Precision::Bf16, "avx512") => registers::bf16(),
                    (Precision::Bf16, _) => registers::whole(),
                    (_, "avx512") => registers::avx512(),
                    _ => registers::avx2(),
                }
            }
        };
        if ops::simd_level() == "baseline" || (precision == Precision::Bf16 && ops::bf16_products().is_none()) {
            return None;
        }
        let operations = one().0 * threads as f64;
        let seconds = best(|| {
            (0..threads).into_par_iter().for_each(|_| {
                black_box(one());
            });
        });
        Some(operations / seconds / 1e9)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = precision;
        None
    }
}

/// GB/s read and written together by copies that no cache holds.
fn memory() -> f64 {
    let from = vec![1.0f32; 32 << 20];
    let mut to = vec![0.0f32; 32 << 20];
    let seconds =
        best(|| to.par_chunks_mut(1 << 18).zip(from.par_chunks(1 << 18)).for_each(|(a, b)| a.copy_from_slice(b)));
    black_box(&to);
    (2 * from.len() * size_of::<f32>()) as f64 / seconds / 1e9
}

/// What bounds an operation.
#[derive(Clone, Copy)]
enum Cost {
    Flops(f64),
    Bytes(f64),
}

struct Bench {
    only: Option<String>,
    arithmetic: Option<f64>,
    pairs: Option<f64>,
    memory: f64,
}

impl Bench {
    /// Times an operation forward, and forward with backward (whose cost is `back` times the forward's).
    fn op(
        &self,
        name: &str,
        cost: Cost,
        back: f64,
        precision: Precision,
        op: impl Fn(&Context, &Tensor) -> Result<Tensor>,
        x: &Tensor,
    ) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        let forward = best(|| {
            black_box(op(&Context::inference().with_precision(precision), x).unwrap());
        });
        self.line(name, cost, 1.0, forward, precision);
        if back > 0.0 {
            let variable = Var::from_tensor(x).unwrap();
            let both = best(|| {
                let context = Context::training(DType::F32, Rng::new(1)).unwrap().with_precision(precision);
                op(&context, &variable).unwrap().backward().unwrap();
            });
            self.line(&format!("{name}, both ways"), cost, 1.0 + back, both, precision);
        }
    }

    fn line(&self, name: &str, cost: Cost, times: f64, seconds: f64, precision: Precision) {
        let (amount, unit, floor) = match cost {
            Cost::Flops(n) => (n, "GFLOP/s", if precision == Precision::Bf16 { self.pairs } else { self.arithmetic }),
            Cost::Bytes(n) => (n, "GB/s", Some(self.memory)),
        };
        let rate = amount * times / seconds / 1e9;
        let share = floor.map_or("no floor".to_owned(), |floor| format!("{:.0} % of the floor", 100.0 * rate / floor));
        println!("{name:<44} {:>9.3} ms {rate:>8.1} {unit:<8} {share}", seconds * 1e3);
    }
}

fn random(rng: &mut Rng, shape: &[usize], scale: f64) -> Tensor {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| (rng.normal() * scale) as f32).collect();
    Tensor::from_vec(values, shape.to_vec(), &Device::Cpu).unwrap()
}

fn main() {
    // cargo passes `--bench`; a word of the caller's own chooses operations
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let bench =
        Bench { only, arithmetic: arithmetic(Precision::Full), pairs: arithmetic(Precision::Bf16), memory: memory() };
    let rate = |x: Option<f64>| x.map_or("not measured".to_owned(), |x| format!("{x:.0} GFLOP/s"));
    println!(
        "{} threads, {}: f32 {}, bf16 {}, memory {:.1} GB/s",
        rayon::current_num_threads(),
        ops::simd_level(),
        rate(bench.arithmetic),
        rate(bench.pairs),
        bench.memory
    );

    let rng = &mut Rng::new(1);
    let param = |rng: &mut Rng, name: &str, shape: &[usize]| {
        let scale = 1.0 / (*shape.last().unwrap() as f64).sqrt();
        Param::new(name, &random(rng, shape, scale)).unwrap()
    };
    let dense =
        |rng: &mut Rng, out: usize, input: usize| (param(rng, "weight", &[out, input]), param(rng, "bias", &[out]));
    let x = random(rng, &[TOKENS, WIDTH], 1.0);
    let wide = random(rng, &[TOKENS, INNER], 1.0);
    let offsets = Arc::new((0..=TOKENS / LENGTH).map(|i| (i * LENGTH) as u32).collect::<Vec<_>>());
    let floats = |n: usize| Cost::Bytes((n * size_of::<f32>()) as f64);
    let product = |n: usize| Cost::Flops((2 * TOKENS * n) as f64);

    let (q, k, v, o) =
        (dense(rng, WIDTH, WIDTH), dense(rng, WIDTH, WIDTH), dense(rng, WIDTH, WIDTH), dense(rng, WIDTH, WIDTH));
    let (up, down) = (dense(rng, INNER, WIDTH), dense(rng, WIDTH, INNER));
    let norm = (param(rng, "weight", &[WIDTH]), param(rng, "bias", &[WIDTH]));
    let precisions =
        if ops::bf16_products().is_some() { vec![Precision::Full, Precision::Bf16] } else { vec![Precision::Full] };
    for precision in precisions {
        let label = if precision == Precision::Bf16 { " in bf16" } else { "" };
        bench.op(
            &format!("linear 384 to 1536{label}"),
            product(WIDTH * INNER),
            2.0,
            precision,
            |c, x| ops::linear(c, x, &up.0, Some(&up.1)),
            &x,
        );
        bench.op(
            &format!("linear 1536 to 384{label}"),
            product(WIDTH * INNER),
            2.0,
            precision,
            |c, x| ops::linear(c, x, &down.0, Some(&down.1)),
            &wide,
        );
        let layer = FeedForward {
            inner: (&up.0, &up.1),
            activation: Activation::Gelu,
            outer: (&down.0, &down.1),
            norm: (&norm.0, &norm.1),
            eps: 1e-12,
            dropout: Dropout::NONE,
        };
        bench.op(
            &format!("feed-forward block{label}"),
            product(2 * WIDTH * INNER),
            2.0,
            precision,
            |c, x| ops::feed_forward(c, x, &layer),
            &x,
        );
        let layer = SelfAttention {
            query: (&q.0, &q.1),
            key: (&k.0, &k.1),
            value: (&v.0, &v.1),
            output: (&o.0, &o.1),
            norm: (&norm.0, &norm.1),
            eps: 1e-12,
            heads: HEADS,
            relative: None,
            attended: &[],
            probability_dropout: Dropout::NONE,
            dropout: Dropout::NONE,
        };
        let flops = product(4 * WIDTH * WIDTH + 2 * LENGTH * WIDTH);
        bench.op(
            &format!("self-attention block, length 64{label}"),
            flops,
            2.0,
            precision,
            |c, x| ops::self_attention(c, x, &offsets, &layer),
            &x,
        );
    }
    // queries times keys and probabilities times values; the way back computes the first again
    bench.op(
        "attention alone, length 64",
        product(2 * LENGTH * WIDTH),
        2.5,
        Precision::Full,
        |_, x| ops::attention(x, x, x, &offsets, HEADS, Dropout::NONE),
        &x,
    );
    let scores = Cost::Flops(2.0 * 1024f64.powi(3));
    let vectors = random(rng, &[1024, 1024], 1.0);
    bench.op(
        "dot products 1024 x 1024 of 1024",
        scores,
        2.0,
        Precision::Full,
        |_, x| ops::dot_products(x, &vectors),
        &vectors,
    );
    let forward = floats(2 * TOKENS * INNER);
    bench.op("gelu", forward, 1.5, Precision::Full, |_, x| ops::activation(x, Activation::Gelu), &wide);
    let forward = floats(2 * TOKENS * WIDTH);
    bench.op("layer norm", forward, 1.5, Precision::Full, |_, x| ops::layer_norm(x, &norm.0, &norm.1, 1e-12), &x);
    bench.op("l2 normalise", forward, 2.0, Precision::Full, |_, x| ops::l2_normalize(x, 1e-12), &x);
    let targets: Vec<u32> = (0..1024).collect();
    bench.op(
        "cross-entropy of 1024 x 1024",
        floats(1024 * 1024),
        2.0,
        Precision::Full,
        |_, x| ops::cross_entropy(x, &targets),
        &vectors,
    );
    let table = param(rng, "table", &[30522, 1024]);
    let ids: Arc<Vec<u32>> = Arc::new((0..TOKENS * 16).map(|_| rng.below(30522) as u32).collect());
    let bags = Arc::new((0..=ids.len() / 32).map(|i| (i * 32) as u32).collect::<Vec<_>>());
    let nothing = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    bench.op(
        "embedding bag 1024-d, bags of 32",
        floats(ids.len() * 1024),
        0.0,
        Precision::Full,
        |c, _| ops::embedding_bag_mean(c, &table, &ids, &bags),
        &nothing,
    );
}
