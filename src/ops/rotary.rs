//! Attention whose queries and keys are turned by their places (Su et al., 2021, <https://arxiv.org/abs/2104.09864>).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::attention::Attention;
use super::composed;
use super::context::Dropout;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::matmul::Matrix;
use super::real::Real;
use super::self_attention::thirds;
use super::sight::Sight;

/// Cosines and sines of the angles by which a head's values are turned at each place of a sequence.
///
/// Value `i` and value `i + half` of a head are a point, turned by `place / theta^(i / half)`.
#[derive(Debug)]
pub struct Rotary {
    /// `[places, half]`
    pub(super) cos: Vec<f64>,
    pub(super) sin: Vec<f64>,
    pub(super) half: usize,
}

impl Rotary {
    /// Angles for sequences of at most `places` tokens; `head_dim` is even.
    ///
    /// They are products in f32, as those that published weights were trained with: at place 8000 they differ from
    /// exact ones by more than an embedding's tolerance.
    #[must_use]
    pub fn new(theta: f64, head_dim: usize, places: usize) -> Self {
        Self::with_speeds(&Self::speeds(theta, head_dim), places)
    }

    /// The same with all angles divided by `by`.
    #[must_use]
    pub fn slowed(theta: f64, by: f64, head_dim: usize, places: usize) -> Self {
        let speeds: Vec<f32> = Self::speeds(theta, head_dim).into_iter().map(|speed| speed / by as f32).collect();
        Self::with_speeds(&speeds, places)
    }

    /// By how much each point of a head turns from one place to the next: `theta^(-i / half)`.
    #[must_use]
    pub fn speeds(theta: f64, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        (0..half).map(|i| theta.powf(-(i as f64) / half as f64) as f32).collect()
    }

    /// Angles of points that turn at these speeds.
    #[must_use]
    pub fn with_speeds(speeds: &[f32], places: usize) -> Self {
        let half = speeds.len();
        let angles = (0..places).flat_map(|place| speeds.iter().map(move |speed| f64::from(place as f32 * speed)));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { cos, sin, half }
    }
}

/// `dropout(softmax(R(q) R(k)ᵀ / sqrt(head_dim))) v` within each sequence and head, `R` being the turn of each token's
/// place in its sequence.
///
/// # Shapes
/// `qkv` `[tokens, 3 * heads * head_dim]`: queries, keys, values side by side; `offsets` `[sequences + 1]`. The result is
/// `[tokens, heads * head_dim]`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit, or a sequence is longer than there are angles.
pub fn rotary_attention(
    qkv: &Tensor,
    offsets: &Arc<Vec<u32>>,
    heads: usize,
    rotary: &Arc<Rotary>,
    sight: Sight,
    dropout: Dropout,
) -> Result<Tensor> {
    rotary_attention_to(qkv, (offsets, &[]), heads, rotary, sight, dropout)
}

/// As [`rotary_attention`], where only so many leading tokens of each sequence are looked at.
///
/// # Shapes
/// As there; `attended` is `[sequences]`, or empty for all.
///
/// # Errors
/// As there.
pub fn rotary_attention_to(
    qkv: &Tensor,
    (offsets, attended): (&Arc<Vec<u32>>, &[u32]),
    heads: usize,
    rotary: &Arc<Rotary>,
    sight: Sight,
    dropout: Dropout,
) -> Result<Tensor> {
    let &[tokens, all] = qkv.dims() else {
        bail!("rotary attention: expected [tokens, 3 * width], got {:?}", qkv.dims());
    };
    let width = all / 3;
    if all != 3 * width || heads == 0 || width != heads * 2 * rotary.half {
        bail!("rotary attention: {heads} heads of {} do not fit {:?}", 2 * rotary.half, qkv.dims());
    }
    kernel::check_offsets("rotary attention", offsets, tokens)?;
    if !attended.is_empty() && attended.len() + 1 != offsets.len() {
        bail!("rotary attention: {} sequences, and {} of their lengths", offsets.len() - 1, attended.len());
    }
    let longest = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    if longest * rotary.half > rotary.cos.len() {
        bail!("rotary attention: a sequence has {longest} tokens, there are angles for fewer");
    }
    if composed::wanted(qkv) {
        return composed::rotary_attention(qkv, (offsets, attended), heads, rotary, sight, dropout);
    }
    qkv.contiguous()?.apply_op1(RotaryAttention {
        attention: Attention::new((offsets, attended), heads, width, dropout, sight, None),
        places: places(offsets),
        rotary: Arc::clone(rotary),
    })
}

/// The place of every token in its sequence.
pub(super) fn places(offsets: &[u32]) -> Vec<u32> {
    offsets.windows(2).flat_map(|w| 0..w[1] - w[0]).collect()
}

struct RotaryAttention {
    attention: Attention,
    places: Vec<u32>,
    rotary: Arc<Rotary>,
}

simd_fn! {
    /// Turns every head of a token, one way or (with the sines' other sign) back.
    fn turn<T>(heads: &mut [T], cos: &[T], sin: &[T]) {
        let half = cos.len();
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * *c - *b * *s, *b * *c + *a * *s);
            }
        }
    }
}

impl RotaryAttention {
    /// Turns queries and keys, `direction` being 1 or -1.
    fn turn<T: Real>(&self, qkv: &mut [T], direction: f64) {
        let (width, half) = (self.attention.width, self.rotary.half);
        let cos: Vec<T> = self.rotary.cos.iter().map(|x| T::of(*x)).collect();
        let sin: Vec<T> = self.rotary.sin.iter().map(|x| T::of(direction * *x)).collect();
        let rows = kernel::rows_per_task(3 * width);
        qkv.par_chunks_mut(rows * 3 * width).zip(self.places.par_chunks(rows)).for_each(|(qkv, places)| {
            for (row, place) in qkv.chunks_exact_mut(3 * width).zip(places) {
                let angles = *place as usize * half..(*place as usize + 1) * half;
                turn(&mut row[..2 * width], &cos[angles.clone()], &sin[angles]);
            }
        });
    }

    fn backward<T: Real>(&self, qkv: &Tensor, d_out: &Tensor) -> Result<Tensor> {
        let width = self.attention.width;
        let (qkv_host, d_host) = (kernel::host(qkv)?, kernel::host(d_out)?);
        let mut turned = qkv_host.values::<T>()?.to_vec();
        self.turn(&mut turned, 1.0);
        // attention adds to what is there
        let mut d_qkv = kernel::zeros::<T>(turned.len());
        let start = Shared::new(&mut d_qkv);
        // SAFETY: queries, keys and values have a third of the columns each.
        unsafe {
            let places = [0, 1, 2].map(|i| start.skip(i * width));
            let d_out = [d_host.values::<T>()?];
            let d_out = Matrix::stacked(&d_out, width);
            self.attention.backward(thirds(&[&turned], width), d_out, places, 3 * width)?;
        }
        self.turn(&mut d_qkv, -1.0);
        kernel::tensor(d_qkv, qkv.dims().to_vec())
    }
}

impl CustomOp1 for RotaryAttention {
    fn name(&self) -> &'static str {
        "rotary-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "rotary-attention", T => {
            let mut turned = kernel::slice::<T>(storage, layout)?.to_vec();
            self.turn(&mut turned, 1.0);
            let width = self.attention.width;
            let mut out = kernel::zeros::<T>(turned.len() / 3);
            self.attention.forward(thirds(&[&turned], width), &mut out)?;
            let shape = Shape::from((self.places.len(), width));
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), shape))
        })
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, d_out: &Tensor) -> Result<Option<Tensor>> {
        let d_out = d_out.contiguous()?;
        by_dtype!(qkv.dtype(), "rotary-attention", T => self.backward::<T>(qkv, &d_out).map(Some))
    }
}
