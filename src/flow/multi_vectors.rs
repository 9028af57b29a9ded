//! Embeddings with a vector for each token, on the host.

/// Texts with several vectors each, one text after the other.
///
/// # Shapes
/// `[vectors, dim]` values; the i-th text has the vectors `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiVectors {
    dim: usize,
    offsets: Vec<u32>,
    data: Vec<f32>,
}

impl MultiVectors {
    /// None yet, of vectors that are `dim` wide.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim, offsets: vec![0], data: Vec::new() }
    }

    /// Adds a text with vectors one after the other; values that do not fill a vector are cut off.
    pub fn push(&mut self, vectors: &[f32]) {
        let count = vectors.len().checked_div(self.dim).unwrap_or(0);
        self.data.extend_from_slice(&vectors[..count * self.dim]);
        let last = self.offsets.last().copied().unwrap_or(0);
        self.offsets.push(last + count as u32);
    }

    /// How many texts.
    #[must_use]
    pub fn texts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The width of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// `[texts + 1]`
    #[must_use]
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// All vectors, one after the other.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The vectors of text `i`, one after the other.
    #[must_use]
    pub fn text(&self, i: usize) -> &[f32] {
        &self.data[self.offsets[i] as usize * self.dim..self.offsets[i + 1] as usize * self.dim]
    }

    /// How many vectors text `i` has.
    #[must_use]
    pub fn vectors(&self, i: usize) -> usize {
        (self.offsets[i + 1] - self.offsets[i]) as usize
    }

    /// Some of the texts, in order.
    #[must_use]
    pub fn part(&self, texts: std::ops::Range<usize>) -> Self {
        let mut part = Self::new(self.dim);
        texts.for_each(|i| part.push(self.text(i)));
        part
    }

    /// Every vector divided by its length (those of zeros stay).
    #[must_use]
    pub fn normalized(mut self) -> Self {
        for row in self.data.chunks_mut(self.dim.max(1)) {
            let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_as_many_vectors_as_they_have() {
        let mut all = MultiVectors::new(2);
        all.push(&[3.0, 4.0, 0.0, 2.0]);
        all.push(&[]);
        all.push(&[1.0, 0.0, 9.0]);
        assert_eq!((all.texts(), all.offsets()), (3, &[0u32, 2, 2, 3][..]));
        assert_eq!((all.text(0), all.text(1), all.vectors(2)), (&[3.0f32, 4.0, 0.0, 2.0][..], &[][..], 1));
        assert_eq!(all.part(1..3).offsets(), [0, 0, 1]);
        assert_eq!(all.normalized().text(0), [0.6, 0.8, 0.0, 1.0]);
    }
}
