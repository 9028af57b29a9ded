//! Run-time dispatch, threads, and access to candle's host storage.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::real::Real;

/// The instruction sets the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Avx512,
    Avx2,
    Baseline,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Baseline => "baseline",
        }
    }
}

/// The best level of this machine; detected once.
pub fn level() -> Level {
    static LEVEL: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Defines a kernel that is compiled once for each instruction set and chosen at run time.
///
/// The body is ordinary code over slices; the compiler vectorises it with what the level offers.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$T:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$T: $crate::ops::real::Real>($($arg: $ty),*) $(-> $ret)? {
            // kernels of one element type have nothing to do with it
            #[allow(clippy::extra_unused_type_parameters)]
            #[inline(always)]
            fn body<$T: $crate::ops::real::Real>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512<$T: $crate::ops::real::Real>($($arg: $ty),*) $(-> $ret)? {
                    body::<$T>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<$T: $crate::ops::real::Real>($($arg: $ty),*) $(-> $ret)? {
                    body::<$T>($($arg),*)
                }
                match $crate::ops::kernel::level() {
                    // SAFETY: the level was detected on this machine.
                    $crate::ops::kernel::Level::Avx512 => return unsafe { avx512::<$T>($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::kernel::Level::Avx2 => return unsafe { avx2::<$T>($($arg),*) },
                    $crate::ops::kernel::Level::Baseline => {}
                }
            }
            body::<$T>($($arg),*)
        }
    };
}
pub(crate) use simd_fn;

/// Runs an expression with `$T` standing for the element type of a dtype.
macro_rules! by_dtype {
    ($dtype:expr, $name:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err(candle_core::Error::Msg(format!("{}: no kernel for {other:?}", $name))),
        }
    };
}
pub(crate) use by_dtype;

/// The contiguous values behind a storage and its layout.
pub fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let data = T::cpu_storage_as_slice(storage)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("a kernel wants contiguous values, got strides {:?}", layout.stride()),
    }
}

/// A contiguous host tensor, held for reading.
pub struct Host<G> {
    storage: G,
    range: (usize, usize),
}

/// Holds a tensor for reading.
pub fn host(tensor: &Tensor) -> Result<Host<impl std::ops::Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some(range) = layout.contiguous_offsets() else {
        bail!("a kernel wants contiguous values, got strides {:?}", layout.stride());
    };
    Ok(Host { storage, range })
}

impl<G: std::ops::Deref<Target = Storage>> Host<G> {
    /// The values.
    pub fn values<T: Real>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&T::cpu_storage_as_slice(storage)?[self.range.0..self.range.1]),
            _ => bail!("this kernel runs on the CPU only"),
        }
    }
}

/// Runs `f` on the values of a contiguous host tensor.
pub fn read<T: Real, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => bail!("this kernel runs on the CPU only"),
    }
}

/// Runs `f` on the values of a contiguous host tensor, in place.
pub fn write<T: Real, R: Send>(tensor: &Tensor, f: impl FnOnce(&mut [T]) -> R + Send) -> Result<R> {
    struct Write<F, R, T> {
        f: std::sync::Mutex<(Option<F>, Option<R>)>,
        element: std::marker::PhantomData<fn() -> T>,
    }
    impl<F: FnOnce(&mut [T]) -> R + Send, R: Send, T: Real> candle_core::InplaceOp1 for Write<F, R, T> {
        fn name(&self) -> &'static str {
            "write"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("in-place writes want contiguous values");
            };
            let data = &mut T::storage_mut(storage)?[start..end];
            if let Ok(mut cell) = self.f.lock()
                && let Some(f) = cell.0.take()
            {
                cell.1 = Some(f(data));
            }
            Ok(())
        }
    }
    let op = Write { f: std::sync::Mutex::new((Some(f), None)), element: std::marker::PhantomData };
    tensor.inplace_op1(&op)?;
    let cell = op.f.into_inner().map_err(|_| candle_core::Error::Msg("a kernel panicked".to_owned()))?;
    cell.1.ok_or_else(|| candle_core::Error::Msg("an in-place kernel did not run".to_owned()))
}

/// A new host tensor from values.
pub fn tensor<T: Real>(data: Vec<T>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &candle_core::Device::Cpu)
}

/// `(rows, width)` of a tensor seen as a matrix of its last dimension.
pub fn matrix(dims: &[usize]) -> Result<(usize, usize)> {
    match dims.split_last() {
        Some((width, rows)) => Ok((rows.iter().product(), *width)),
        None => bail!("expected at least one dimension"),
    }
}

/// An uninitialised-looking but zeroed buffer; large zeroed pages come from the system for free.
pub fn zeros<T: Real>(len: usize) -> Vec<T> {
    vec![T::ZERO; len]
}

/// Runs `work(i)` for every `i` below `count`, on all threads: a thread that is done takes the next `grain` of them.
///
/// rayon's own loops hand out halves, and a thread that is left with the last half has nobody to share it with.
pub fn each(count: usize, grain: usize, work: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(count.div_ceil(grain.max(1)));
    if threads < 2 {
        (0..count).for_each(work);
        return;
    }
    let next = AtomicUsize::new(0);
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        loop {
            let start = next.fetch_add(grain, Ordering::Relaxed);
            if start >= count {
                break;
            }
            (start..count.min(start + grain)).for_each(&work);
        }
    });
}

/// Rows a thread takes at a time: enough work to be worth it, few enough to balance.
pub fn rows_per_task(width: usize) -> usize {
    (16_384 / width.max(1)).clamp(1, 1024)
}

/// A raw pointer that threads may share; each thread writes places no other touches.
#[derive(Clone, Copy)]
pub struct Shared<T>(*mut T);

// SAFETY: users of `Shared` promise disjoint writes.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(data: &mut [T]) -> Self {
        Self(data.as_mut_ptr())
    }

    /// The first value.
    pub fn start(self) -> *mut T {
        self.0
    }

    /// The same from a later value on.
    pub fn skip(self, values: usize) -> Self {
        Self(self.0.wrapping_add(values))
    }

    /// # Safety
    /// `offset` is inside the slice this was made from.
    pub unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// # Safety
    /// The range is inside the slice this was made from, and no other thread uses it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}

/// `dst = lhs * rhs` or `dst += lhs * rhs`, all strided.
///
/// # Shapes
/// dst `[m, n]`, lhs `[m, k]`, rhs `[k, n]`; strides are `(row, column)` in elements.
///
/// # Safety
/// Every element that the strides reach lies inside its buffer, and `dst` is written by nobody else meanwhile.
pub unsafe fn gemm<T: Real>(
    (m, n, k): (usize, usize, usize),
    dst: *mut T,
    (dst_row, dst_column): (usize, usize),
    accumulate: bool,
    lhs: *const T,
    (lhs_row, lhs_column): (usize, usize),
    rhs: *const T,
    (rhs_row, rhs_column): (usize, usize),
    scale: T,
) {
    // SAFETY: the caller's promise; strides fit isize since the buffers exist.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            dst_column as isize,
            dst_row as isize,
            accumulate,
            lhs,
            lhs_column as isize,
            lhs_row as isize,
            rhs,
            rhs_column as isize,
            rhs_row as isize,
            T::ONE,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

/// Checks that offsets start at 0, never fall, and end at `tokens`.
pub fn check_offsets(name: &str, offsets: &[u32], tokens: usize) -> Result<()> {
    let ascending = offsets.windows(2).all(|w| w[0] <= w[1]);
    if offsets.first() != Some(&0) || offsets.last() != Some(&(tokens as u32)) || !ascending {
        bail!("{name}: sequence offsets do not cover the {tokens} tokens");
    }
    Ok(())
}

/// Checks a dtype against the one a kernel's parameters have.
pub fn check_dtype(name: &str, got: DType, want: DType) -> Result<()> {
    if got != want {
        bail!("{name}: input is {got:?}, parameters are {want:?}");
    }
    Ok(())
}

/// The element type of a storage.
pub fn dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Adds partial sums to `target`, or (not `add`) to nothing, in order.
pub(super) fn add_parts<T: Real>(target: &mut [T], add: bool, parts: &[Vec<T>]) {
    if !add {
        target.fill(T::ZERO);
    }
    for part in parts {
        for (a, b) in target.iter_mut().zip(part) {
            *a += *b;
        }
    }
}
