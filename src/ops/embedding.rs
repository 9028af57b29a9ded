//! Rows of tables: summed per token, or averaged per sequence. Gradients are kept by row, never for a whole table.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::composed;
use super::context::Context;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::param::Param;
use super::real::Real;

/// The sum of one row from each table for every token (word + position + token type, say).
///
/// # Shapes
/// Each table `[rows, width]` with ids `[tokens]`; the result is `[tokens, width]`.
///
/// # Errors
/// When an id lies outside its table, or widths, lengths or element types differ.
pub fn embedding_sum(context: &Context, tables: &[(&Arc<Param>, Arc<Vec<u32>>)]) -> Result<Tensor> {
    let Some((first, ids)) = tables.first() else {
        bail!("embedding: no table");
    };
    let tokens = ids.len();
    let (_, width) = table_dims(first)?;
    for (table, ids) in tables {
        let (rows, other) = table_dims(table)?;
        if other != width || ids.len() != tokens {
            bail!(
                "embedding: `{}` is {:?} with {} ids, wanted width {width}, {tokens} ids",
                table.name(),
                table.dims(),
                ids.len()
            );
        }
        check_ids(table, ids, rows)?;
        kernel::check_dtype("embedding", table.dtype(), first.dtype())?;
    }
    if first.composed() {
        return composed::embedding_sum(context, tables);
    }
    context.root(first.dtype())?.apply_op1(Sum {
        tables: tables.iter().map(|(table, ids)| (Arc::clone(table), Arc::clone(ids))).collect(),
        tokens,
        width,
    })
}

/// The mean of a table's rows over each sequence; zeros for an empty sequence. As `torch.nn.EmbeddingBag(mode="mean")`.
///
/// # Shapes
/// Table `[rows, width]`, ids `[tokens]`, offsets `[sequences + 1]`; the result is `[sequences, width]`.
///
/// # Errors
/// When an id lies outside the table or the offsets do not fit.
pub fn embedding_bag_mean(
    context: &Context,
    table: &Arc<Param>,
    ids: &Arc<Vec<u32>>,
    offsets: &Arc<Vec<u32>>,
) -> Result<Tensor> {
    let (rows, width) = table_dims(table)?;
    check_ids(table, ids, rows)?;
    kernel::check_offsets("embedding bag", offsets, ids.len())?;
    if table.composed() {
        return composed::embedding_bag_mean(context, table, ids, offsets);
    }
    context.root(table.dtype())?.apply_op1(BagMean {
        table: Arc::clone(table),
        ids: Arc::clone(ids),
        offsets: Arc::clone(offsets),
        width,
    })
}

fn table_dims(table: &Param) -> Result<(usize, usize)> {
    match table.dims() {
        &[rows, width] if width > 0 => Ok((rows, width)),
        other => bail!("embedding: table `{}` is {other:?}, not a matrix", table.name()),
    }
}

fn check_ids(table: &Param, ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= rows) {
        Some(id) => bail!("embedding: id {id} is outside table `{}` of {rows} rows", table.name()),
        None => Ok(()),
    }
}

struct Sum {
    tables: Vec<(Arc<Param>, Arc<Vec<u32>>)>,
    tokens: usize,
    width: usize,
}

struct BagMean {
    table: Arc<Param>,
    ids: Arc<Vec<u32>>,
    offsets: Arc<Vec<u32>>,
    width: usize,
}

simd_fn! {
    fn add_scaled<T>(target: &mut [T], values: &[T], scale: T) {
        for (a, b) in target.iter_mut().zip(values) {
            *a += *b * scale;
        }
    }
}

impl Sum {
    fn forward<T: Real>(&self) -> Result<Vec<T>> {
        let width = self.width;
        let rows = kernel::rows_per_task(width);
        let mut out = kernel::zeros::<T>(self.tokens * width);
        for (table, ids) in &self.tables {
            table.read::<T, _>(|table| {
                out.par_chunks_mut(rows * width).zip(ids.par_chunks(rows)).for_each(|(out, ids)| {
                    for (out, id) in out.chunks_exact_mut(width).zip(ids) {
                        let start = *id as usize * width;
                        add_scaled(out, &table[start..start + width], T::ONE);
                    }
                });
            })?;
        }
        Ok(out)
    }

    fn backward<T: Real>(&self, dy: &Tensor) -> Result<()> {
        kernel::read::<T, _>(&dy.contiguous()?, |dy| {
            for (table, ids) in &self.tables {
                if table.trainable() {
                    let row = |token: usize| (&dy[token * self.width..(token + 1) * self.width], T::ONE);
                    let (rows, data) = gather_rows(ids, self.width, row);
                    table.accumulate_rows(rows, data, self.width)?;
                }
            }
            Ok(())
        })?
    }
}

impl BagMean {
    fn forward<T: Real>(&self) -> Result<Vec<T>> {
        let width = self.width;
        let sequences = self.offsets.len() - 1;
        let mut out = kernel::zeros::<T>(sequences * width);
        self.table.read::<T, _>(|table| {
            out.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
                let ids = &self.ids[self.offsets[i] as usize..self.offsets[i + 1] as usize];
                let scale = T::ONE / T::of(ids.len().max(1) as f64);
                for id in ids {
                    let start = *id as usize * width;
                    add_scaled(out, &table[start..start + width], T::ONE);
                }
                out.iter_mut().for_each(|x| *x *= scale);
            });
        })?;
        Ok(out)
    }

    fn backward<T: Real>(&self, dy: &Tensor) -> Result<()> {
        if !self.table.trainable() {
            return Ok(());
        }
        let mut sequence_of = Vec::with_capacity(self.ids.len());
        for (i, w) in self.offsets.windows(2).enumerate() {
            sequence_of.extend(std::iter::repeat_n(i as u32, (w[1] - w[0]) as usize));
        }
        kernel::read::<T, _>(&dy.contiguous()?, |dy| {
            let row = |token: usize| {
                let i = sequence_of[token] as usize;
                let length = self.offsets[i + 1] - self.offsets[i];
                (&dy[i * self.width..(i + 1) * self.width], T::ONE / T::of(f64::from(length)))
            };
            let (rows, data) = gather_rows(&self.ids, self.width, row);
            self.table.accumulate_rows(rows, data, self.width)
        })?
    }
}

/// Adds up, for each distinct id, what `row` gives for its tokens, in token order: `(ids ascending, their sums)`.
fn gather_rows<'a, T: Real>(
    ids: &[u32],
    width: usize,
    row: impl Fn(usize) -> (&'a [T], T) + Sync,
) -> (Vec<u32>, Vec<T>) {
    let mut order: Vec<u64> = ids.iter().enumerate().map(|(i, id)| (u64::from(*id) << 32) | i as u64).collect();
    order.par_sort_unstable();
    let mut starts = Vec::new();
    let mut rows = Vec::new();
    for (i, key) in order.iter().enumerate() {
        let id = (key >> 32) as u32;
        if rows.last() != Some(&id) {
            rows.push(id);
            starts.push(i);
        }
    }
    starts.push(order.len());
    let mut data = kernel::zeros::<T>(rows.len() * width);
    let target = Shared::new(&mut data);
    starts.par_windows(2).enumerate().with_min_len(8).for_each(|(slot, w)| {
        // SAFETY: every slot is its own range of `data`.
        let sum = unsafe { target.range(slot * width, width) };
        for key in &order[w[0]..w[1]] {
            let (values, scale) = row((key & 0xffff_ffff) as usize);
            add_scaled(sum, values, scale);
        }
    });
    (rows, data)
}

macro_rules! table_op {
    ($op:ident, $name:literal, $rows:expr) => {
        impl CustomOp1 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(&self, root: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                let rows: fn(&Self) -> usize = $rows;
                by_dtype!(kernel::dtype(root), $name, T => {
                    let out = self.forward::<T>()?;
                    Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), Shape::from((rows(self), self.width))))
                })
            }

            fn bwd(&self, root: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
                by_dtype!(root.dtype(), $name, T => self.backward::<T>(dy))?;
                Ok(None)
            }
        }
    };
}

table_op!(Sum, "embedding-sum", |op| op.tokens);
table_op!(BagMean, "embedding-bag-mean", |op| op.offsets.len() - 1);
