//! What a row of training data is labelled with.

/// One label a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Scores.
    Float(Vec<f32>),
    /// Class numbers.
    Int(Vec<i64>),
    /// Vectors or score lists of equal length: `[rows][width]`, flat.
    Matrix { width: usize, data: Vec<f32> },
    /// Lists of scores of any length, one after the other: `[rows]` lengths and their values, flat.
    Lists { lengths: Vec<usize>, data: Vec<f32> },
}

impl Labels {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Matrix { width, data } => data.len() / (*width).max(1),
            Self::Lists { lengths, .. } => lengths.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels as scores; `None` for several a row.
    #[must_use]
    pub fn floats(&self) -> Option<Vec<f32>> {
        match self {
            Self::Float(v) => Some(v.clone()),
            Self::Int(v) => Some(v.iter().map(|x| *x as f32).collect()),
            Self::Matrix { .. } | Self::Lists { .. } => None,
        }
    }
}
