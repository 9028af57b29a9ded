//! What attention adds to a score by how far the key stands from its query.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::kernel;
use super::param::Param;
use super::real::Real;

/// A row of a table for each distance, a column a head: added to the scores of a head after they are scaled.
#[derive(Clone)]
pub struct Relative {
    table: Arc<Param>,
    /// The row of each distance, from the key `reach` before its query to that `reach` behind it.
    rows: Arc<Vec<u32>>,
}

impl Relative {
    /// `table` `[rows, heads]`; `rows` has an entry for each distance from `-reach` to `reach`.
    ///
    /// # Errors
    /// When the table is no matrix, or has fewer rows than are named.
    pub fn new(table: &Arc<Param>, rows: &Arc<Vec<u32>>) -> Result<Self> {
        let &[count, _] = table.dims() else {
            bail!("relative positions: `{}` is {:?}, not a matrix", table.name(), table.dims());
        };
        match rows.iter().find(|row| **row as usize >= count) {
            _ if rows.len().is_multiple_of(2) => bail!("relative positions: {} distances have no middle", rows.len()),
            Some(row) => bail!("relative positions: row {row} is outside `{}` of {count} rows", table.name()),
            None => Ok(Self { table: Arc::clone(table), rows: Arc::clone(rows) }),
        }
    }

    /// The largest distance.
    pub(super) fn reach(&self) -> usize {
        self.rows.len() / 2
    }

    pub(super) fn heads(&self) -> usize {
        self.table.dims().get(1).copied().unwrap_or(0)
    }

    /// `[heads, 2 * reach + 1]`: what is added by distance, times `scale`.
    pub(super) fn values<T: Real>(&self, scale: T) -> Result<Vec<T>> {
        let heads = self.heads();
        self.table.read::<T, _>(|table| {
            (0..heads)
                .flat_map(|head| self.rows.iter().map(move |row| table[*row as usize * heads + head] * scale))
                .collect()
        })
    }

    /// Adds gradients by distance, `[heads, 2 * reach + 1]`, to those of the table.
    pub(super) fn accumulate<T: Real>(&self, by_distance: &[T]) -> Result<()> {
        let (heads, distances) = (self.heads(), self.rows.len());
        self.table.accumulate::<T>(|add, gradient| {
            if !add {
                gradient.fill(T::ZERO);
            }
            for (head, values) in by_distance.chunks_exact(distances).enumerate() {
                for (row, value) in self.rows.iter().zip(values) {
                    gradient[*row as usize * heads + head] += *value;
                }
            }
        })
    }

    /// `[1, heads, longest, longest]` of candle's operations: part of the graph where `table` is.
    pub(super) fn tensor(&self, table: &Tensor, longest: usize) -> Result<Tensor> {
        let reach = self.reach();
        let place = |query: usize, key: usize| (key + reach).saturating_sub(query).min(2 * reach);
        let rows: Vec<u32> =
            (0..longest).flat_map(|i| (0..longest).map(move |j| (i, j))).map(|(i, j)| self.rows[place(i, j)]).collect();
        let rows = Tensor::from_vec(rows, longest * longest, &Device::Cpu)?.to_device(table.device())?;
        let all = table.index_select(&rows, 0)?; // [longest * longest, heads]
        all.t()?.contiguous()?.reshape((1, self.heads(), longest, longest))
    }

    pub(super) fn table(&self) -> &Arc<Param> {
        &self.table
    }

    /// Whether it goes with attention of so many heads over sequences of that length.
    pub(super) fn check(&self, heads: usize, longest: usize, dtype: DType) -> Result<()> {
        kernel::check_dtype("relative positions", self.table.dtype(), dtype)?;
        if self.heads() != heads || longest > self.reach() + 1 {
            bail!(
                "relative positions: `{}` is {:?} and reaches {}, for {heads} heads and {longest} tokens",
                self.table.name(),
                self.table.dims(),
                self.reach()
            );
        }
        Ok(())
    }
}
