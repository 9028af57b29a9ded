//! Rows of a matrix in another order, padded or not, whose gradient is a selection, too.
//!
//! candle's own gradient of `index_select` adds row after row, which a GPU does one at a time. Where no row is taken
//! twice nothing has to be added.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Device, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail,
};

/// In the place of a row's number: a row of zeros.
pub const PAD: u32 = u32::MAX;

/// Which rows to take, and where each of them went.
#[derive(Clone)]
pub struct Selection {
    ids: Tensor,
    back: Tensor,
}

impl Selection {
    /// Takes the rows with the numbers `ids`, each at most once, of a matrix of `rows` rows. [`PAD`] gives zeros.
    ///
    /// # Errors
    /// When there is no such row, or one is taken twice.
    pub fn new(ids: Vec<u32>, rows: usize, device: &Device) -> Result<Self> {
        let mut back = vec![PAD; rows];
        for (place, id) in ids.iter().enumerate().filter(|(_, id)| **id != PAD) {
            match back.get_mut(*id as usize) {
                Some(free) if *free == PAD => *free = place as u32,
                _ => bail!("selection: row {id} of {rows} is not there or taken twice"),
            }
        }
        let count = ids.len();
        Ok(Self { ids: Tensor::from_vec(ids, count, device)?, back: Tensor::from_vec(back, rows, device)? })
    }

    /// Puts the rows back where they came from.
    pub fn inverse(&self) -> Self {
        Self { ids: self.back.clone(), back: self.ids.clone() }
    }

    /// `x` `[rows, width]`; the result is `[ids, width]`.
    ///
    /// # Errors
    /// When `x` has another number of rows.
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        let &[rows, width] = x.dims() else {
            bail!("selection: expected [rows, width], got {:?}", x.dims());
        };
        if rows != self.back.elem_count() {
            bail!("selection: {rows} rows, wanted {}", self.back.elem_count());
        }
        if rows == 0 || self.ids.elem_count() == 0 {
            return Tensor::zeros((self.ids.elem_count(), width), x.dtype(), x.device());
        }
        x.contiguous()?.apply_op1(self.clone())
    }

    fn shape(&self, layout: &Layout) -> Shape {
        Shape::from((self.ids.elem_count(), layout.dims().last().copied().unwrap_or(0)))
    }
}

impl CustomOp1 for Selection {
    fn name(&self) -> &'static str {
        "selection"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (ids, ids_layout) = self.ids.storage_and_layout();
        match &*ids {
            Storage::Cpu(ids) => Ok((storage.index_select(ids, layout, ids_layout, 0)?, self.shape(layout))),
            _ => bail!("selection: rows and their numbers are on two devices"),
        }
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (ids, ids_layout) = self.ids.storage_and_layout();
        match &*ids {
            Storage::Cuda(ids) => Ok((storage.index_select(ids, layout, ids_layout, 0)?, self.shape(layout))),
            _ => bail!("selection: rows and their numbers are on two devices"),
        }
    }

    fn metal_fwd(&self, storage: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
        let (ids, ids_layout) = self.ids.storage_and_layout();
        match &*ids {
            Storage::Metal(ids) => Ok((storage.index_select(ids, layout, ids_layout, 0)?, self.shape(layout))),
            _ => bail!("selection: rows and their numbers are on two devices"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.inverse().of(dy).map(Some)
    }
}
