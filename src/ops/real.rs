//! The element types of the kernels.

use candle_core::{CpuStorage, Result, WithDType, bail};

use super::math;
use super::matmul::{self, Precision, Product, Small};
use super::scratch::Plain;

/// f32 for work, f64 for checking the same code by finite differences.
pub trait Real:
    WithDType
    + Plain
    + Copy
    + Send
    + Sync
    + 'static
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn of(value: f64) -> Self;
    fn as_f64(self) -> f64;
    fn exp(self) -> Self;
    fn erf(self) -> Self;
    fn tanh(self) -> Self;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    fn abs(self) -> Self;
    fn is_finite(self) -> bool;
    fn is_nan(self) -> bool;

    /// A matrix product, by the best this machine has.
    #[doc(hidden)]
    fn multiply(product: &Product<'_, Self>, precision: Precision);

    /// The tile for products that one thread does in its cache.
    #[doc(hidden)]
    fn small() -> Small<Self>;

    /// The values of a storage, to be changed.
    fn storage_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! real {
    ($t:ty, $variant:ident, $exp:path, $erf:path, $tanh:path, $multiply:expr, $small:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = <$t>::NEG_INFINITY;

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            fn multiply(product: &Product<'_, Self>, precision: Precision) {
                $multiply(product, precision)
            }
            fn small() -> Small<Self> {
                $small()
            }
            fn storage_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Ok(values),
                    _ => bail!("expected {} values", stringify!($t)),
                }
            }
        }
    };
}

real!(f32, F32, math::exp_f32, math::erf_f32, math::tanh_f32, matmul::multiply_f32, Small::f32);
real!(f64, F64, f64::exp, libm::erf, f64::tanh, |product, _| matmul::multiply_f64(product), Small::plain);

/// Lanes that sums are kept in: independent accumulators the compiler can vectorise, and a fixed order of addition.
pub const LANES: usize = 16;

/// The sum of `f(i)` for `i` in `0..n`, in [`LANES`] partial sums.
#[inline(always)]
pub fn sum_by<T: Real>(n: usize, f: impl Fn(usize) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let whole = n / LANES * LANES;
    let mut base = 0;
    while base < whole {
        for (lane, slot) in lanes.iter_mut().enumerate() {
            *slot += f(base + lane);
        }
        base += LANES;
    }
    let mut total = T::ZERO;
    for i in whole..n {
        total += f(i);
    }
    total + add_lanes(lanes)
}

/// The sum of partial sums, by halves.
#[inline(always)]
pub fn add_lanes<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] += other;
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of `values`; minus infinity for none.
#[inline(always)]
pub fn max_of<T: Real>(values: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let mut top = T::NEG_INFINITY;
    for value in chunks.remainder() {
        top = top.maximum(*value);
    }
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].maximum(chunk[lane]);
        }
    }
    lanes.iter().fold(top, |a, b| a.maximum(*b))
}
