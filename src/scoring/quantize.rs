//! Embeddings in fewer bits: a byte or a bit a value.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flow::Embeddings;

/// How a value is kept, by sentence-transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Precision {
    /// As it is.
    #[default]
    Float32,
    /// 256 steps between the smallest and the largest value of its dimension, from -128.
    Int8,
    /// 256 steps between the smallest and the largest value of its dimension, from 0.
    Uint8,
    /// Whether it is positive, eight values a signed byte.
    Binary,
    /// Whether it is positive, eight values an unsigned byte.
    Ubinary,
}

impl Precision {
    /// Whether [`Ranges`] are needed.
    #[must_use]
    pub const fn has_ranges(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }

    /// Whether bytes are signed.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Int8 | Self::Binary)
    }

    /// The name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }
}

/// The smallest and the largest value of each dimension.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranges {
    lows: Vec<f32>,
    highs: Vec<f32>,
}

impl Ranges {
    /// Those of embeddings.
    #[must_use]
    pub fn of(embeddings: &Embeddings) -> Self {
        let mut ranges =
            Self { lows: vec![f32::INFINITY; embeddings.dim()], highs: vec![f32::NEG_INFINITY; embeddings.dim()] };
        for row in 0..embeddings.rows() {
            for ((low, high), value) in ranges.lows.iter_mut().zip(&mut ranges.highs).zip(embeddings.row(row)) {
                *low = low.min(*value);
                *high = high.max(*value);
            }
        }
        ranges
    }

    /// Those of these embeddings and others of the same width.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.lows.iter_mut().zip(&other.lows).for_each(|(low, other)| *low = low.min(*other));
        self.highs.iter_mut().zip(&other.highs).for_each(|(high, other)| *high = high.max(*other));
        self
    }
}

/// Embeddings of a byte a value or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// How values are kept; never `float32`.
    pub precision: Precision,
    /// How many embeddings.
    pub rows: usize,
    /// Bytes of each.
    pub width: usize,
    /// `[rows, width]`; signed bytes by their bits.
    pub bytes: Vec<u8>,
}

impl Quantized {
    /// What they are compared by: the bytes as numbers, of packed bits each bit as 0 or 1.
    #[must_use]
    pub fn values(&self) -> Embeddings {
        match self.precision {
            Precision::Binary | Precision::Ubinary => {
                let flip = if self.precision.is_signed() { 0x80 } else { 0 };
                let bits = |byte: &u8| {
                    let byte = *byte ^ flip;
                    (0..8).rev().map(move |bit| f32::from(byte >> bit & 1))
                };
                Embeddings::new(self.width * 8, self.bytes.iter().flat_map(bits).collect())
            }
            signed if signed.is_signed() => {
                Embeddings::new(self.width, self.bytes.iter().map(|byte| f32::from(*byte as i8)).collect())
            }
            _ => Embeddings::new(self.width, self.bytes.iter().map(|byte| f32::from(*byte)).collect()),
        }
    }
}

/// Embeddings in fewer bits; `None` for `float32`, which they have already. `ranges` count for `int8` and `uint8` only:
/// values beyond them become the first and the last step.
///
/// Source: `util.quantize_embeddings` of sentence-transformers.
#[must_use]
pub fn quantize(embeddings: &Embeddings, precision: Precision, ranges: &Ranges) -> Option<Quantized> {
    let rows = (0..embeddings.rows()).map(|row| embeddings.row(row));
    // -128 for all steps and all bytes of eight: the same bits but for the first.
    let flip = if precision.is_signed() { 0x80 } else { 0 };
    let (width, bytes) = match precision {
        Precision::Float32 => return None,
        Precision::Int8 | Precision::Uint8 => {
            let step = |(value, (low, high)): (&f32, (&f32, &f32))| {
                let step = (high - low) / 255.0;
                let step = if step == 0.0 { 1.0 } else { step };
                ((value - low) / step).floor().clamp(0.0, 255.0) as u8 ^ flip
            };
            let all = rows.flat_map(|row| row.iter().zip(ranges.lows.iter().zip(&ranges.highs)).map(step));
            (embeddings.dim(), all.collect())
        }
        Precision::Binary | Precision::Ubinary => {
            let byte = |eight: &[f32]| {
                (0..8).fold(0u8, |byte, i| byte << 1 | u8::from(eight.get(i).is_some_and(|value| *value > 0.0))) ^ flip
            };
            (embeddings.dim().div_ceil(8), rows.flat_map(|row| row.chunks(8).map(byte)).collect())
        }
    };
    Some(Quantized { precision, rows: embeddings.rows(), width, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = Embeddings::new(3, vec![0.0, 255.0, 5.0, 255.0, 0.0, 5.0, 300.0, 127.9, 5.0]);
        let first_two = Ranges::of(&rows.select(&[0, 1]));
        let bytes = |precision| quantize(&rows, precision, &first_two).map(|q| (q.width, q.bytes));
        assert_eq!(bytes(Precision::Uint8), Some((3, vec![0, 255, 0, 255, 0, 0, 255, 127, 0])));
        assert_eq!(bytes(Precision::Int8).map(|q| q.1[..3].to_vec()), Some(vec![0x80, 0x7f, 0x80]));
        assert_eq!(bytes(Precision::Ubinary), Some((1, vec![0b0110_0000, 0b1010_0000, 0b1110_0000])));
        assert_eq!(bytes(Precision::Binary).map(|q| q.1[0] as i8), Some(-32));
        assert_eq!(bytes(Precision::Float32), None);
    }
}
