//! Parameters and their gradients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Result, Tensor, Var, bail};

use super::adapter::Adapter;
use super::real::Real;
use super::{composed, kernel};

/// A trainable (or frozen) tensor with a place for its gradient.
///
/// Backward passes add to the gradient in place, so several of them accumulate; [`Param::clear_gradient`] starts
/// anew. Embedding tables get gradients for the rows that occurred only.
pub struct Param {
    name: String,
    value: Tensor,
    /// The value as a variable of candle's graph, where operations are composed.
    variable: Option<Var>,
    trainable: AtomicBool,
    /// Made to take no gradient.
    constant: bool,
    /// Of the weight of a layer that has one.
    adapter: OnceLock<Arc<Adapter>>,
    gradient: Mutex<Gradient>,
    /// Memory of the last dense gradient, for the next.
    spare: Mutex<Option<CpuStorage>>,
}

/// What backward passes have added up so far.
#[derive(Default)]
pub enum Gradient {
    /// Nothing: no backward pass reached the parameter.
    #[default]
    None,
    /// A value for every element.
    Dense(CpuStorage),
    /// Values for some rows of a table.
    Rows(RowGradient),
    /// A value for every element, on the parameter's device; of composed operations.
    Tensor(Tensor),
}

/// Gradient of some rows of a `[rows, width]` table.
#[derive(Clone)]
pub struct RowGradient {
    /// Row numbers, ascending, each once.
    pub rows: Vec<u32>,
    /// `[rows.len(), width]`.
    pub data: CpuStorage,
    /// Width of a row.
    pub width: usize,
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Param({} {:?})", self.name, self.value.shape())
    }
}

impl Param {
    /// A trainable parameter with the values of `value`, on its device.
    ///
    /// # Errors
    /// When `value` cannot be copied.
    pub fn new(name: impl Into<String>, value: &Tensor) -> Result<Arc<Self>> {
        Self::make(name.into(), value, true)
    }

    /// A parameter that takes no gradient.
    ///
    /// # Errors
    /// As [`Param::new`].
    pub fn frozen(name: impl Into<String>, value: &Tensor) -> Result<Arc<Self>> {
        Self::make(name.into(), value, false)
    }

    fn make(name: String, value: &Tensor, trainable: bool) -> Result<Arc<Self>> {
        let variable = if composed::wanted(value) { Some(Var::from_tensor(&value.detach())?) } else { None };
        let value = match &variable {
            Some(variable) => variable.as_tensor().clone(),
            None => value.detach().force_contiguous()?,
        };
        Ok(Arc::new(Self {
            name,
            value,
            variable,
            trainable: AtomicBool::new(trainable),
            constant: !trainable,
            adapter: OnceLock::new(),
            gradient: Mutex::default(),
            spare: Mutex::default(),
        }))
    }

    /// The name in checkpoints.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values. The optimizer changes them in place.
    #[must_use]
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Whether backward passes give it a gradient.
    #[must_use]
    pub fn trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Whether it was made by [`Param::frozen`].
    #[must_use]
    pub fn constant(&self) -> bool {
        self.constant
    }

    /// Takes no gradient from now on.
    pub fn freeze(&self) {
        self.trainable.store(false, Ordering::Relaxed);
    }

    /// Gives the weight of a layer a low-rank update.
    ///
    /// # Errors
    /// When it has one.
    pub fn adapt(&self, adapter: Adapter) -> Result<()> {
        if self.adapter.set(Arc::new(adapter)).is_err() {
            bail!("`{}` has an adapter", self.name);
        }
        Ok(())
    }

    /// The low-rank update of a layer's weight.
    #[must_use]
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.get()
    }

    /// The values with the low-rank update added, where there is one.
    ///
    /// # Errors
    /// When the update does not fit.
    pub fn merged(&self) -> Result<Tensor> {
        match self.adapter() {
            Some(adapter) => self.value.detach().add(&adapter.update(&self.value)?.detach()),
            None => Ok(self.value.clone()),
        }
    }

    /// Whether operations on it are composed of candle's, with gradients by candle's graph.
    #[must_use]
    pub fn composed(&self) -> bool {
        self.variable.is_some()
    }

    /// Replaces the values of a composed parameter.
    ///
    /// # Errors
    /// When the parameter is not composed, or the shapes differ.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        match &self.variable {
            Some(variable) => variable.set(value),
            None => bail!("`{}` belongs to the kernels, which change it in place", self.name),
        }
    }

    /// Copies values into it, wherever it is.
    ///
    /// # Errors
    /// When shape or element type differ.
    pub fn assign(&self, value: &Tensor) -> Result<()> {
        if value.dims() != self.dims() || value.dtype() != self.dtype() {
            bail!(
                "`{}` is {:?} {:?}, got {:?} {:?}",
                self.name,
                self.dims(),
                self.dtype(),
                value.dims(),
                value.dtype()
            );
        }
        if self.composed() {
            return self.set(value);
        }
        kernel::by_dtype!(self.dtype(), "assign", T => {
            kernel::read::<T, _>(value, |new| self.update::<T, _>(|values| values.copy_from_slice(new)))?
        })
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// The dimensions.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }

    /// How many values.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.value.elem_count()
    }

    /// The gradient so far, to be read or changed.
    pub fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the gradient.
    pub fn clear_gradient(&self) {
        *self.gradient() = Gradient::None;
    }

    /// Changes the values in place.
    ///
    /// # Errors
    /// When the element type is not `T`.
    pub fn update<T: Real, R: Send>(&self, f: impl FnOnce(&mut [T]) -> R + Send) -> Result<R> {
        kernel::write::<T, R>(&self.value, f)
    }

    /// Reads the values.
    ///
    /// # Errors
    /// When the element type is not `T`.
    pub fn read<T: Real, R>(&self, f: impl FnOnce(&[T]) -> R) -> Result<R> {
        kernel::read::<T, R>(&self.value, f)
    }

    /// The values, held for reading.
    pub(super) fn host(&self) -> Result<kernel::Host<impl std::ops::Deref<Target = candle_core::Storage> + '_>> {
        kernel::host(&self.value)
    }

    /// The gradient as a tensor of the parameter's shape (rows that did not occur are zero); `None` without one.
    ///
    /// # Errors
    /// Never for gradients that backward passes made.
    pub fn gradient_tensor(&self) -> Result<Option<Tensor>> {
        fn dense<T: Real>(param: &Param) -> Result<Option<Tensor>> {
            Ok(match &*param.gradient() {
                Gradient::None => None,
                Gradient::Dense(data) => {
                    Some(kernel::tensor(T::cpu_storage_as_slice(data)?.to_vec(), param.dims().to_vec())?)
                }
                Gradient::Rows(rows) => {
                    let mut all = kernel::zeros::<T>(param.elements());
                    spread(rows, &mut all)?;
                    Some(kernel::tensor(all, param.dims().to_vec())?)
                }
                Gradient::Tensor(gradient) => Some(gradient.clone()),
            })
        }
        kernel::by_dtype!(self.dtype(), "gradient", T => dense::<T>(self))
    }

    /// Takes back the memory of a dense gradient that has been used: fresh memory costs a page fault every 4 KiB.
    pub(crate) fn keep_spare(&self, gradient: CpuStorage) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    /// Gives that memory back.
    pub fn release_spare(&self) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lends the dense gradient to `f`, which either overwrites it (first argument false) or adds to it (true).
    pub(super) fn accumulate<T: Real>(&self, f: impl FnOnce(bool, &mut [T])) -> Result<()> {
        if !self.trainable() {
            return Ok(());
        }
        let mut guard = self.gradient();
        match &mut *guard {
            Gradient::None => {
                let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut fresh = spare.unwrap_or_else(|| T::to_cpu_storage_owned(kernel::zeros(self.elements())));
                f(false, T::storage_mut(&mut fresh)?);
                *guard = Gradient::Dense(fresh);
            }
            Gradient::Dense(data) => f(true, T::storage_mut(data)?),
            Gradient::Rows(rows) => {
                let mut all = kernel::zeros::<T>(self.elements());
                spread(rows, &mut all)?;
                f(true, &mut all);
                *guard = Gradient::Dense(T::to_cpu_storage_owned(all));
            }
            Gradient::Tensor(_) => bail!("`{}` got a gradient from a kernel and one from the graph", self.name),
        }
        Ok(())
    }

    /// Adds gradients of some rows; `rows` ascending, each once.
    pub(super) fn accumulate_rows<T: Real>(&self, rows: Vec<u32>, values: Vec<T>, width: usize) -> Result<()> {
        if !self.trainable() {
            return Ok(());
        }
        let mut guard = self.gradient();
        match &mut *guard {
            Gradient::None => {
                *guard = Gradient::Rows(RowGradient { rows, data: T::to_cpu_storage_owned(values), width });
            }
            Gradient::Rows(have) => {
                let merged = merge::<T>(have, &rows, &values, width)?;
                *guard = Gradient::Rows(merged);
            }
            Gradient::Dense(data) => {
                let data = T::storage_mut(data)?;
                for (row, new) in rows.iter().zip(values.chunks_exact(width.max(1))) {
                    let start = *row as usize * width;
                    for (a, b) in data[start..start + width].iter_mut().zip(new) {
                        *a += *b;
                    }
                }
            }
            Gradient::Tensor(_) => bail!("`{}` got a gradient from a kernel and one from the graph", self.name),
        }
        Ok(())
    }
}

/// Hands composed parameters the gradients that a backward pass over candle's graph found for them, to be added to
/// those they have. Operations that are not composed have done so themselves.
///
/// # Errors
/// When the parameter's device fails.
pub fn collect(gradients: &GradStore, params: &[Arc<Param>]) -> Result<()> {
    for param in params.iter().filter(|param| param.composed() && param.trainable()) {
        // a gradient still hangs on the graph it was computed from
        let Some(new) = gradients.get(&param.value).map(Tensor::detach) else { continue };
        let mut gradient = param.gradient();
        *gradient = match std::mem::take(&mut *gradient) {
            Gradient::None => Gradient::Tensor(new),
            Gradient::Tensor(old) => Gradient::Tensor(old.add(&new)?),
            Gradient::Dense(_) | Gradient::Rows(_) => {
                bail!("`{}` got a gradient from a kernel and one from the graph", param.name);
            }
        };
    }
    Ok(())
}

/// Writes the gradients of some rows to their places in that of the whole table.
fn spread<T: Real>(rows: &RowGradient, all: &mut [T]) -> Result<()> {
    let data = T::cpu_storage_as_slice(&rows.data)?;
    for (row, values) in rows.rows.iter().zip(data.chunks_exact(rows.width.max(1))) {
        let start = *row as usize * rows.width;
        all[start..start + rows.width].copy_from_slice(values);
    }
    Ok(())
}

fn merge<T: Real>(have: &RowGradient, rows: &[u32], values: &[T], width: usize) -> Result<RowGradient> {
    let old = T::cpu_storage_as_slice(&have.data)?;
    let mut merged_rows = Vec::with_capacity(have.rows.len() + rows.len());
    let mut data = Vec::with_capacity(old.len() + values.len());
    let (mut i, mut j) = (0, 0);
    while i < have.rows.len() || j < rows.len() {
        let a = have.rows.get(i).copied().unwrap_or(u32::MAX);
        let b = rows.get(j).copied().unwrap_or(u32::MAX);
        merged_rows.push(a.min(b));
        match (a <= b, b <= a) {
            (true, true) => {
                let x = &old[i * width..(i + 1) * width];
                let y = &values[j * width..(j + 1) * width];
                data.extend(x.iter().zip(y).map(|(x, y)| *x + *y));
                (i, j) = (i + 1, j + 1);
            }
            (true, false) => {
                data.extend_from_slice(&old[i * width..(i + 1) * width]);
                i += 1;
            }
            _ => {
                data.extend_from_slice(&values[j * width..(j + 1) * width]);
                j += 1;
            }
        }
    }
    Ok(RowGradient { rows: merged_rows, data: T::to_cpu_storage_owned(data), width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rows_accumulate_like_a_dense_gradient() {
        let value = Tensor::zeros((5, 2), DType::F64, &Device::Cpu).unwrap();
        let table = Param::new("table", &value).unwrap();
        table.accumulate_rows(vec![1, 3], vec![1.0, 2.0, 3.0, 4.0], 2).unwrap();
        table.accumulate_rows(vec![0, 3], vec![10.0, 20.0, 30.0, 40.0], 2).unwrap();
        let got = table.gradient_tensor().unwrap().unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(got, [[10.0, 20.0], [1.0, 2.0], [0.0, 0.0], [33.0, 44.0], [0.0, 0.0]]);
        // a gradient of the whole table comes to it, and rows to that
        table.accumulate::<f64>(|add, all| all.iter_mut().for_each(|g| *g = if add { *g + 0.5 } else { 9.0 })).unwrap();
        table.accumulate_rows(vec![4], vec![1.0, 1.0], 2).unwrap();
        let got = table.gradient_tensor().unwrap().unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(got, [[10.5, 20.5], [1.5, 2.5], [0.5, 0.5], [33.5, 44.5], [1.5, 1.5]]);
        table.clear_gradient();
        assert!(table.gradient_tensor().unwrap().is_none());
    }

    #[test]
    fn frozen_parameters_take_none() {
        let value = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let param = Param::frozen("p", &value).unwrap();
        param.accumulate::<f32>(|_, g| g[0] = 1.0).unwrap();
        assert!(param.gradient_tensor().unwrap().is_none());
    }
}
