//! Embeddings as files: `.npy`, `.jsonl`, `.safetensors`, each written whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::flow::{Embeddings, MultiVectors};
use crate::scoring::quantize::Quantized;
use crate::util::files;

/// A file format for embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// NumPy's format 1.0, `float32`, `[rows, dim]`.
    Npy,
    /// `{"embedding": [...]}` a line.
    JsonLines,
    /// One `float32` tensor `embeddings` of `[rows, dim]`.
    Safetensors,
}

impl Format {
    /// By the file's ending.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        match ending.as_str() {
            "npy" => Ok(Self::Npy),
            "jsonl" => Ok(Self::JsonLines),
            "safetensors" => Ok(Self::Safetensors),
            _ => Err(Error::usage(format!("cannot tell the format of `{}` from its ending", path.display()))
                .with_hint("end it in `.npy`, `.jsonl` or `.safetensors`")),
        }
    }
}

/// Writes all embeddings in the format of the file's ending.
pub(super) fn write(path: &Path, embeddings: &Embeddings) -> Result<()> {
    let bytes: Vec<u8> = little_endian(embeddings).collect();
    let matrix =
        Matrix { descr: "<f4", dtype: Dtype::F32, shape: [embeddings.rows(), embeddings.dim()], bytes: &bytes };
    matrix.write(path, |row| json(&embeddings.row(row)))
}

/// Writes texts with a vector for each token as safetensors: all vectors one after the other, and the places where each
/// text's begin and end.
pub(super) fn write_tokens(path: &Path, vectors: &MultiVectors) -> Result<()> {
    let fault = |e| Error::Internal(format!("embeddings as safetensors: {e}"));
    let bytes: Vec<u8> = vectors.data().iter().flat_map(|value| value.to_le_bytes()).collect();
    let places: Vec<u8> = vectors.offsets().iter().flat_map(|place| i64::from(*place).to_le_bytes()).collect();
    let rows = vectors.data().len() / vectors.dim().max(1);
    let all = TensorView::new(Dtype::F32, vec![rows, vectors.dim()], &bytes).map_err(fault)?;
    let offsets = TensorView::new(Dtype::I64, vec![vectors.offsets().len()], &places).map_err(fault)?;
    let tensors = HashMap::from([("embeddings", all), ("offsets", offsets)]);
    files::write_atomic(path, &safetensors::serialize(tensors, None).map_err(fault)?)
}

/// Writes quantised embeddings in the format of the file's ending: bytes, signed or not, as integers in `.jsonl`.
pub(super) fn write_quantized(path: &Path, quantized: &Quantized) -> Result<()> {
    let signed = quantized.precision.is_signed();
    let (descr, dtype) = if signed { ("|i1", Dtype::I8) } else { ("|u1", Dtype::U8) };
    let shape = [quantized.rows, quantized.width];
    let matrix = Matrix { descr, dtype, shape, bytes: &quantized.bytes };
    matrix.write(path, |row| {
        let bytes = &quantized.bytes[row * quantized.width..(row + 1) * quantized.width];
        json(&bytes.iter().map(|b| if signed { i16::from(*b as i8) } else { i16::from(*b) }).collect::<Vec<_>>())
    })
}

/// Writes one JSON document a line.
pub(super) fn write_lines<T: Serialize>(path: &Path, items: &[T]) -> Result<()> {
    files::write_atomic(path, lines(items)?.as_bytes())
}

/// Items as lines of JSON.
pub(super) fn lines<T: Serialize>(items: &[T]) -> Result<String> {
    let mut text = String::new();
    for item in items {
        text.push_str(&json(item)?);
        text.push('\n');
    }
    Ok(text)
}

/// Numbers row after row, as they lie in files.
struct Matrix<'a> {
    /// numpy's name of their type.
    descr: &'a str,
    /// The same in safetensors.
    dtype: Dtype,
    shape: [usize; 2],
    bytes: &'a [u8],
}

impl Matrix<'_> {
    fn write(&self, path: &Path, row: impl Fn(usize) -> Result<String>) -> Result<()> {
        let bytes = match Format::of(path)? {
            Format::Npy => self.npy(),
            Format::Safetensors => self.safetensors()?,
            Format::JsonLines => {
                let lines = (0..self.shape[0]).map(|i| row(i).map(|list| format!("{{\"embedding\":{list}}}\n")));
                lines.collect::<Result<String>>()?.into_bytes()
            }
        };
        files::write_atomic(path, &bytes)
    }

    /// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
    fn npy(&self) -> Vec<u8> {
        let [rows, dim] = self.shape;
        let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}", self.descr);
        // magic, version and length take 10 bytes; the data begins at a multiple of 64
        let unpadded = 10 + header.len() + 1;
        header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(self.bytes);
        bytes
    }

    fn safetensors(&self) -> Result<Vec<u8>> {
        let fault = |e| Error::Internal(format!("embeddings as safetensors: {e}"));
        let view = TensorView::new(self.dtype, self.shape.to_vec(), self.bytes).map_err(fault)?;
        safetensors::serialize(HashMap::from([("embeddings", view)]), None).map_err(fault)
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Internal(format!("an answer as JSON: {e}")))
}

fn little_endian(embeddings: &Embeddings) -> impl Iterator<Item = u8> + '_ {
    embeddings.data().iter().flat_map(|x| x.to_le_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scoring::quantize::{Precision, Ranges, quantize};

    fn some() -> Embeddings {
        Embeddings::new(2, vec![1.0, 0.1, -3.5, 4.0])
    }

    #[test]
    fn npy_is_what_numpy_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.npy");
        write(&path, &some()).unwrap();
        let bytes = files::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 16);
        let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
        assert!(
            header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }") && header.ends_with('\n')
        );
        assert_eq!(u16::from_le_bytes([bytes[8], bytes[9]]), 118);
        assert_eq!(bytes[128..132], 1.0f32.to_le_bytes());
    }

    #[test]
    fn every_format_keeps_the_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        write(&path, &some()).unwrap();
        let read: Vec<serde_json::Value> =
            files::read_text(&path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read[0]["embedding"][1].as_f64().unwrap() as f32, 0.1);
        let path = dir.path().join("e.safetensors");
        write(&path, &some()).unwrap();
        let bytes = files::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor("embeddings").unwrap();
        assert_eq!(view.shape(), [2, 2]);
        assert_eq!(view.data(), little_endian(&some()).collect::<Vec<u8>>());
        let bits = quantize(&some(), Precision::Binary, &Ranges::default()).unwrap();
        let path = dir.path().join("bits.jsonl");
        write_quantized(&path, &bits).unwrap();
        assert_eq!(files::read_text(&path).unwrap(), "{\"embedding\":[64]}\n{\"embedding\":[-64]}\n");
        let path = dir.path().join("bits.npy");
        write_quantized(&path, &bits).unwrap();
        let bytes = files::read(&path).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..128]).contains("'|i1'") && bytes[128..] == [64, 0xC0]);
        assert!(write(&dir.path().join("e.bin"), &some()).unwrap_err().hint().unwrap().contains(".npy"));
    }
}
