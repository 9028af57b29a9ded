//! Embeddings as files: `.npy`, `.jsonl`, `.safetensors`, each written whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::flow::Embeddings;
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
    let bytes = match Format::of(path)? {
        Format::Npy => npy(embeddings),
        Format::JsonLines => json_lines(embeddings)?,
        Format::Safetensors => safetensors(embeddings)?,
    };
    files::write_atomic(path, &bytes)
}

/// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
fn npy(embeddings: &Embeddings) -> Vec<u8> {
    let (rows, dim) = (embeddings.rows(), embeddings.dim());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    // magic, version and length take 10 bytes; the data begins at a multiple of 64
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(little_endian(embeddings));
    bytes
}

fn json_lines(embeddings: &Embeddings) -> Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        embedding: &'a [f32],
    }
    let mut bytes = Vec::new();
    for row in 0..embeddings.rows() {
        let line = Line { embedding: embeddings.row(row) };
        serde_json::to_writer(&mut bytes, &line).map_err(|e| Error::Internal(format!("an embedding as JSON: {e}")))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn safetensors(embeddings: &Embeddings) -> Result<Vec<u8>> {
    let data: Vec<u8> = little_endian(embeddings).collect();
    let fault = |e| Error::Internal(format!("embeddings as safetensors: {e}"));
    let view = TensorView::new(Dtype::F32, vec![embeddings.rows(), embeddings.dim()], &data).map_err(fault)?;
    safetensors::serialize(HashMap::from([("embeddings", view)]), None).map_err(fault)
}

fn little_endian(embeddings: &Embeddings) -> impl Iterator<Item = u8> + '_ {
    embeddings.data().iter().flat_map(|x| x.to_le_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some() -> Embeddings {
        Embeddings::new(2, vec![1.0, 0.1, -3.5, 4.0])
    }

    #[test]
    fn npy_is_what_numpy_writes() {
        let bytes = npy(&some());
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
        assert!(write(&dir.path().join("e.bin"), &some()).unwrap_err().hint().unwrap().contains(".npy"));
    }
}
