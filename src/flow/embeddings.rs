//! Dense embeddings on the host.

/// A matrix of embeddings, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    rows: usize,
    dim: usize,
    data: Vec<f32>,
}

impl Embeddings {
    /// From flat row-major data; surplus values at the end are cut off.
    #[must_use]
    pub fn new(dim: usize, mut data: Vec<f32>) -> Self {
        let rows = data.len().checked_div(dim).unwrap_or(0);
        data.truncate(rows * dim);
        Self { rows, dim, data }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Row `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    /// All values, row-major.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Mutable rows.
    pub fn rows_mut(&mut self) -> std::slice::ChunksMut<'_, f32> {
        self.data.chunks_mut(self.dim.max(1))
    }

    /// Every row divided by its length (rows of zeros stay), as `torch.nn.functional.normalize` does (eps 1e-12).
    #[must_use]
    pub fn normalized(mut self) -> Self {
        for row in self.rows_mut() {
            let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        self
    }

    /// The first `dim` values of every row.
    #[must_use]
    pub fn truncated(self, dim: usize) -> Self {
        if dim == 0 || dim >= self.dim {
            return self;
        }
        let data = self.data.chunks(self.dim).flat_map(|row| row[..dim].iter().copied()).collect();
        Self::new(dim, data)
    }

    /// These rows, then those of `other`, of the same width.
    #[must_use]
    pub fn followed_by(mut self, other: &Self) -> Self {
        self.data.extend_from_slice(&other.data);
        Self::new(self.dim, self.data)
    }

    /// The rows with the given numbers, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self::new(self.dim, rows.iter().flat_map(|r| self.row(*r).iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_and_normalisation() {
        let e = Embeddings::new(3, vec![3.0, 4.0, 1.0, 0.0, 0.0, 2.0]).truncated(2).normalized();
        assert_eq!((e.rows(), e.dim()), (2, 2));
        assert_eq!(e.row(0), [0.6, 0.8]);
        assert_eq!(e.row(1), [0.0, 0.0]);
        assert_eq!(e.select(&[1, 0]).row(1), [0.6, 0.8]);
    }
}
