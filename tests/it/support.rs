//! Golden files, fixtures and comparisons.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// A path below the project root.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path below the data folder beside the project, if it is there; says so when not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = project("../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: `{}` is not on this machine", path.display());
    None
}

/// `tests/golden/<name>.json`.
pub fn golden(name: &str) -> Value {
    let path = project(&format!("tests/golden/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The numbers of `{"shape", "data"}`.
pub fn numbers(value: &Value) -> Vec<f64> {
    value["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
}

/// The shape of `{"shape", "data"}`.
pub fn shape(value: &Value) -> Vec<usize> {
    value["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

/// `{"shape", "data"}` as a tensor.
pub fn tensor(value: &Value, dtype: DType) -> Tensor {
    Tensor::from_vec(numbers(value), shape(value), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// A list of whole numbers.
pub fn whole(value: &Value) -> Vec<u32> {
    let list = if value.is_object() { &value["data"] } else { value };
    list.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// All values as f64.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the larger of 1 and the largest value wanted.
pub fn difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let scale = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    got.iter()
        .zip(want)
        .map(|(a, b)| if a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() / scale })
        .fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { f64::max(a, b) })
}

/// Panics when `got` is further from `want` than `tolerance`.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let difference = difference(got, want);
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, allowed is {tolerance:e}");
}

/// Copies a folder with all in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
