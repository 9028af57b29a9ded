//! What a forward pass needs to know beyond its inputs: is this training, which random stream, where the graph starts.

use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor, Var};
use xxhash_rust::xxh3::xxh3_64;

use super::matmul::Precision;
use crate::util::seed::Rng;

/// One forward pass: the root that makes candle record the graph, and the random stream of the dropouts.
///
/// The same seed gives the same dropout masks, so a pass can be repeated exactly.
pub struct Context {
    root: Option<Var>,
    rng: Rng,
    site: Cell<u64>,
    precision: Precision,
}

impl Context {
    /// A pass that will be differentiated, with dropout drawn from `rng`.
    ///
    /// # Errors
    /// Never in practice: it makes one scalar.
    pub fn training(dtype: DType, rng: Rng) -> Result<Self> {
        Ok(Self {
            root: Some(Var::zeros(1, dtype, &Device::Cpu)?),
            rng,
            site: Cell::new(0),
            precision: Precision::Full,
        })
    }

    /// A pass whose result is only looked at: nothing is recorded, nothing dropped.
    #[must_use]
    pub fn inference() -> Self {
        Self { root: None, rng: Rng::new(0), site: Cell::new(0), precision: Precision::Full }
    }

    /// The same pass with the operands of its matrix products rounded.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// What the operands of matrix products are rounded to.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether gradients are wanted and dropout is on.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.root.is_some()
    }

    /// The tensor the graph hangs on; a constant outside training.
    pub(super) fn root(&self, dtype: DType) -> Result<Tensor> {
        match &self.root {
            Some(root) => Ok(root.as_tensor().clone()),
            None => Tensor::zeros(1, dtype, &Device::Cpu),
        }
    }

    /// `x` as part of the graph: values that come from nowhere are constants, and nothing is differentiated behind them.
    ///
    /// # Errors
    /// When `x` is on a device that fails.
    pub fn attach(&self, x: &Tensor) -> Result<Tensor> {
        match &self.root {
            Some(root) if !x.track_op() && x.elem_count() > 0 => {
                x.broadcast_add(&root.as_tensor().to_device(x.device())?.to_dtype(x.dtype())?)
            }
            _ => Ok(x.clone()),
        }
    }

    /// Where this pass is now: what comes next can be computed from here again.
    pub(super) fn place(&self) -> Place {
        Place { rng: self.rng, site: self.site.get(), precision: self.precision }
    }

    /// Goes on where `other`, which began at a place of this pass, has got to.
    pub(super) fn resume(&self, other: &Self) {
        self.site.set(other.site.get());
    }

    /// The dropout of the next place in the network that has one.
    #[must_use]
    pub fn dropout(&self, probability: f64) -> Dropout {
        if !self.is_training() || probability <= 0.0 {
            return Dropout::NONE;
        }
        let site = self.site.get();
        self.site.set(site + 1);
        Dropout::keyed(self.rng.fork(site).key(), probability)
    }

    /// The dropout of a place with a name, whatever others there are: of layers that some models have added.
    #[must_use]
    pub fn named_dropout(&self, name: &str, probability: f64) -> Dropout {
        /// Keeps names apart from numbers.
        const STREAM: u64 = 0x10A4;
        if !self.is_training() || probability <= 0.0 {
            return Dropout::NONE;
        }
        Dropout::keyed(self.rng.fork(STREAM).fork(xxh3_64(name.as_bytes())).key(), probability)
    }
}

/// A place in a pass in training.
#[derive(Clone, Copy)]
pub(super) struct Place {
    rng: Rng,
    site: u64,
    precision: Precision,
}

impl Place {
    /// A pass in training that begins here.
    pub fn context(&self, dtype: DType) -> Result<Context> {
        let context = Context::training(dtype, self.rng)?.with_precision(self.precision);
        context.site.set(self.site);
        Ok(context)
    }
}

/// Which elements are dropped: a pure function of a key and the element's position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    key: u64,
    threshold: u64,
    probability: f64,
}

impl Dropout {
    /// Drops nothing.
    pub const NONE: Self = Self { key: 0, threshold: 0, probability: 0.0 };

    fn keyed(key: u64, probability: f64) -> Self {
        Self { key, threshold: (probability.min(1.0) * 4_294_967_296.0) as u64, probability }
    }

    /// Whether it drops anything.
    #[must_use]
    pub fn active(&self) -> bool {
        self.threshold > 0
    }

    /// What a kept element is multiplied with.
    #[must_use]
    pub fn scale(&self) -> f64 {
        if self.probability >= 1.0 { 0.0 } else { 1.0 / (1.0 - self.probability) }
    }

    /// The two halves of the key, and the largest hash that is dropped plus one.
    #[inline(always)]
    pub(super) fn parts(&self) -> (u32, u32, u32) {
        (self.key as u32, (self.key >> 32) as u32, self.threshold.min(u64::from(u32::MAX)) as u32)
    }
}

/// Whether the element at `index` is kept. 32-bit arithmetic only, so that loops vectorise.
///
/// The mixing is a 2-round multiply-xorshift hash ("lowbias32", C. Wellons, 2018) with the key between the rounds.
#[inline(always)]
pub(super) fn keeps((low, high, threshold): (u32, u32, u32), index: u32) -> bool {
    let mut x = index ^ low;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x ^= high;
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    x >= threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_right_rate_and_repeat() {
        let context = Context::training(DType::F32, Rng::new(5)).unwrap();
        let (a, b) = (context.dropout(0.1), context.dropout(0.1));
        let mask = |d: Dropout| (0..100_000).map(|i| keeps(d.parts(), i)).collect::<Vec<_>>();
        let kept = mask(a).iter().filter(|k| **k).count();
        assert!((89_500..90_500).contains(&kept), "{kept}");
        assert_ne!(mask(a), mask(b));
        let again = Context::training(DType::F32, Rng::new(5)).unwrap();
        assert_eq!(mask(again.dropout(0.1)), mask(a));
        // neighbouring positions are independent: both kept in 81 of 100
        let pairs = mask(a).windows(2).filter(|w| w[0] && w[1]).count();
        assert!((80_000..82_000).contains(&pairs), "{pairs}");
        assert!(!Context::inference().dropout(0.5).active());
    }
}
