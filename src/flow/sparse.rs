//! Sparse embeddings on the host: of every text the dimensions that are not zero.

use super::embeddings::Embeddings;

/// Rows of a sparse matrix, one after the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseEmbeddings {
    dim: usize,
    /// `[rows + 1]`: where each row's entries begin.
    offsets: Vec<usize>,
    /// Ascending within a row.
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl SparseEmbeddings {
    /// None yet, of `dim` dimensions.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim, offsets: vec![0], indices: Vec::new(), values: Vec::new() }
    }

    /// Appends what is not zero in a row; of more than `max_active_dims` entries the largest stay, of equal ones those
    /// that come first.
    pub fn push(&mut self, row: &[f32], max_active_dims: Option<usize>) {
        self.push_entries(&Self::entries(row, max_active_dims));
    }

    /// The entries that [`SparseEmbeddings::push`] keeps of a row.
    #[must_use]
    pub fn entries(row: &[f32], max_active_dims: Option<usize>) -> Vec<(u32, f32)> {
        let mut entries: Vec<(u32, f32)> =
            (0u32..).zip(row.iter().copied()).filter(|(_, value)| *value != 0.0).collect();
        if let Some(most) = max_active_dims.filter(|most| *most < entries.len()) {
            // what is no number stays, whatever its sign
            entries.sort_by(|a, b| b.1.is_nan().cmp(&a.1.is_nan()).then(b.1.total_cmp(&a.1)));
            entries.truncate(most);
            entries.sort_by_key(|entry| entry.0);
        }
        entries
    }

    /// Appends a row of entries, dimensions ascending.
    pub fn push_entries(&mut self, entries: &[(u32, f32)]) {
        self.indices.extend(entries.iter().map(|entry| entry.0));
        self.values.extend(entries.iter().map(|entry| entry.1));
        self.offsets.push(self.indices.len());
    }

    /// Appends all rows of `other`.
    pub fn append(&mut self, other: &Self) {
        for row in 0..other.rows() {
            let (indices, values) = other.row(row);
            self.indices.extend_from_slice(indices);
            self.values.extend_from_slice(values);
            self.offsets.push(self.indices.len());
        }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The width.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The dimensions and values of row `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The first row with a value that is no finite number.
    #[must_use]
    pub fn not_finite(&self) -> Option<usize> {
        let at = self.values.iter().position(|value| !value.is_finite())?;
        Some(self.offsets.partition_point(|offset| *offset <= at).saturating_sub(1))
    }

    /// The mean number of dimensions that are not zero.
    #[must_use]
    pub fn active_dims(&self) -> f64 {
        if self.rows() == 0 { 0.0 } else { self.indices.len() as f64 / self.rows() as f64 }
    }

    /// The part of a row that is zero, on average.
    #[must_use]
    pub fn sparsity_ratio(&self) -> f64 {
        if self.dim == 0 { 1.0 } else { 1.0 - self.active_dims() / self.dim as f64 }
    }

    /// The rows with the given numbers, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut selected = Self::new(self.dim);
        for row in rows {
            let (indices, values) = self.row(*row);
            selected.indices.extend_from_slice(indices);
            selected.values.extend_from_slice(values);
            selected.offsets.push(selected.indices.len());
        }
        selected
    }

    /// What both rows have in common: dimensions, and the products of their values where these are positive.
    #[must_use]
    pub fn intersection(&self, i: usize, other: &Self, j: usize) -> Vec<(u32, f32)> {
        let ((a, x), (b, y)) = (self.row(i), other.row(j));
        let (mut at, mut common) = (0, Vec::new());
        for (index, value) in a.iter().zip(x) {
            while at < b.len() && b[at] < *index {
                at += 1;
            }
            if at < b.len() && b[at] == *index && value * y[at] > 0.0 {
                common.push((*index, value * y[at]));
            }
        }
        common
    }

    /// With all zeros, as a matrix.
    #[must_use]
    pub fn to_dense(&self) -> Embeddings {
        let mut data = vec![0.0; self.rows() * self.dim];
        for (row, out) in data.chunks_exact_mut(self.dim.max(1)).enumerate() {
            let (indices, values) = self.row(row);
            indices.iter().zip(values).for_each(|(index, value)| out[*index as usize] = *value);
        }
        Embeddings::new(self.dim, data)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn zeros_take_no_room() {
        let mut sparse = SparseEmbeddings::new(5);
        sparse.push(&[0.0, 1.5, 0.0, 2.0, 1.5], None);
        sparse.push(&[0.0; 5], None);
        sparse.push(&[1.0, 1.5, 0.0, 2.0, 1.5], Some(2));
        assert_eq!(sparse.row(0), (&[1u32, 3, 4][..], &[1.5f32, 2.0, 1.5][..]));
        assert_eq!(sparse.row(2), (&[1u32, 3][..], &[1.5f32, 2.0][..]));
        assert!(
            (sparse.active_dims() - 5.0 / 3.0).abs() < 1e-12 && (sparse.sparsity_ratio() - 2.0 / 3.0).abs() < 1e-12
        );
        assert_eq!(sparse.to_dense().row(2), [0.0, 1.5, 0.0, 2.0, 0.0]);
        assert_eq!(sparse.select(&[2, 1]).row(0), sparse.row(2));
        assert_eq!(sparse.intersection(0, &sparse, 2), [(1, 2.25), (3, 4.0)]);
        assert!(SparseEmbeddings::entries(&[1.0, -f32::NAN, 2.0], Some(1))[0].1.is_nan());
        assert!(sparse.intersection(0, &sparse, 1).is_empty());
    }
}
