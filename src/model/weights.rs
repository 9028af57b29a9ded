//! Weights on disk: safetensors in, safetensors out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::ops::Param;
use crate::util::files;
use crate::util::seed::Rng;

/// Names the parts of a checkpoint that is too large for one file.
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of one checkpoint by name, in f32, on the host; taking one out as a parameter moves it to the device and
/// leaves the rest for [`Weights::rest`].
pub struct Weights {
    file: String,
    tensors: BTreeMap<String, Tensor>,
    device: Device,
    /// Where tensors are made and not read: random numbers, and their standard deviation.
    fresh: Option<(Rng, f64)>,
}

impl Weights {
    /// Reads `model.safetensors` in `directory`, or the parts that `model.safetensors.index.json` names, for parameters on
    /// `device`.
    ///
    /// # Errors
    /// When a file is missing, truncated, or only PyTorch's pickle format is there.
    pub fn load(directory: &Path, device: &Device) -> Result<Self> {
        let file = directory.join("model.safetensors");
        if !file.exists() && directory.join(INDEX).exists() {
            return Self::load_parts(directory, device);
        }
        if !file.exists() {
            let error = Error::model(format!("no model.safetensors in `{}`", directory.display()));
            let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
            return Err(if pickled.iter().any(|name| directory.join(name).exists()) {
                error.with_hint(
                    "its pytorch_model.bin can run code when loaded; convert it once in Python: \
                     `AutoModel.from_pretrained(DIR).save_pretrained(DIR, safe_serialization=True)`",
                )
            } else {
                error.with_hint("the directory is not a complete model; download or save it again")
            });
        }
        Self::load_file(&file, device)
    }

    /// Reads the parts of a large checkpoint.
    fn load_parts(directory: &Path, device: &Device) -> Result<Self> {
        let index = directory.join(INDEX);
        let broken = |what: &str| {
            Error::model(format!("`{}`: {what}", index.display()))
                .with_hint("it is incomplete: download or save the model again")
        };
        let parsed: serde_json::Value =
            serde_json::from_str(&files::read_text(&index)?).map_err(|e| broken(&format!("not JSON: {e}")))?;
        let map = parsed.get("weight_map").and_then(serde_json::Value::as_object);
        let map = map.ok_or_else(|| broken("it has no `weight_map`"))?;
        let parts: BTreeSet<&str> = map.values().filter_map(serde_json::Value::as_str).collect();
        let mut all =
            Self { file: index.display().to_string(), tensors: BTreeMap::new(), device: device.clone(), fresh: None };
        for part in parts {
            // a name in a file that came from elsewhere must not lead out of its folder
            if Path::new(part).file_name().is_none_or(|name| name != part) {
                return Err(broken(&format!("`{part}` is no file beside it")));
            }
            let file = directory.join(part);
            if !file.exists() {
                return Err(broken(&format!("the part `{part}` is missing")));
            }
            all.tensors.extend(Self::load_file(&file, device)?.tensors);
        }
        Ok(all)
    }

    /// Reads one safetensors file, for parameters on `device`.
    ///
    /// # Errors
    /// When it is missing or truncated.
    pub fn load_file(file: &Path, device: &Device) -> Result<Self> {
        let handle = files::open(file)?;
        // SAFETY: the map is only read, and dropped before this function returns.
        let bytes = unsafe { memmap2::Mmap::map(&handle) }.map_err(Error::io("map", file))?;
        let broken = |e: &dyn std::fmt::Display| {
            Error::model(format!("`{}` is not a complete safetensors file: {e}", file.display()))
                .with_hint("it was cut off while it was written or downloaded: fetch or save it again")
        };
        let parsed = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.tensors() {
            use candle_core::safetensors::Load;
            let tensor = view.load(&Device::Cpu).map_err(|e| broken(&e).within(format!("tensor `{name}`")))?;
            // Buffers such as position_ids are integers and not weights.
            if tensor.dtype().is_float() {
                tensors.insert(name, tensor.to_dtype(DType::F32)?);
            }
        }
        Ok(Self { file: file.display().to_string(), tensors, device: device.clone(), fresh: None })
    }

    /// The weights of a new network, made as they are taken: normal with a standard deviation of `range`, biases 0, the
    /// scales of norms 1. What one is does not depend on the order.
    ///
    /// Source: `_init_weights` of transformers' models.
    #[must_use]
    pub fn fresh(rng: Rng, range: f64, device: &Device) -> Self {
        let file = "a new network".to_owned();
        Self { file, tensors: BTreeMap::new(), device: device.clone(), fresh: Some((rng, range)) }
    }

    fn make(&self, rng: Rng, range: f64, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        if name.ends_with("bias") {
            return Tensor::zeros(shape, DType::F32, &Device::Cpu);
        }
        if shape.len() == 1 {
            return Tensor::ones(shape, DType::F32, &Device::Cpu);
        }
        let mut rng = rng.fork(xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (range * rng.normal()) as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// Whether they are made and not read.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.fresh.is_some()
    }

    /// Where parameters go.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Strips `prefix` from every name that has it (`bert.` of a model with a head).
    pub fn strip_prefix(&mut self, prefix: &str) {
        self.rename(|name| Some(name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name)));
    }

    /// Gives tensors other names, and drops those that get none.
    pub fn rename(&mut self, name: impl Fn(String) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().filter_map(|(old, tensor)| Some((name(old)?, tensor))).collect();
    }

    /// Renames the endings that TensorFlow-era checkpoints use: `gamma` and `beta` of layer norms.
    pub fn modernise(&mut self) {
        self.rename(|name| {
            Some(match name.rsplit_once('.') {
                Some((stem, "gamma")) => format!("{stem}.weight"),
                Some((stem, "beta")) => format!("{stem}.bias"),
                _ => name,
            })
        });
    }

    /// Takes a tensor of the given shape as a parameter called `prefix` + `name`.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn take(&mut self, prefix: &str, name: &str, shape: &[usize]) -> Result<Arc<Param>> {
        if let Some((rng, range)) = self.fresh {
            let made = self.make(rng, range, name, shape)?;
            return Ok(Param::new(format!("{prefix}{name}"), &made.to_device(&self.device)?)?);
        }
        let tensor = self.tensors.remove(name).ok_or_else(|| {
            Error::model(format!("`{}` has no tensor `{name}`", self.file))
                .with_hint("config.json and the weights belong to different models, or the file is incomplete")
        })?;
        if tensor.dims() != shape {
            return Err(Error::model(format!(
                "`{}`: tensor `{name}` is {:?}, config.json wants {shape:?}",
                self.file,
                tensor.dims()
            ))
            .with_hint("config.json and the weights belong to different models"));
        }
        Ok(Param::new(format!("{prefix}{name}"), &tensor.to_device(&self.device)?)?)
    }

    /// In place of a bias that an architecture does not have: zeros that are not trained.
    ///
    /// # Errors
    /// When the device fails.
    pub fn zeros(&self, prefix: &str, name: &str, len: usize) -> Result<Arc<Param>> {
        Ok(Param::frozen(format!("{prefix}{name}"), &Tensor::zeros(len, DType::F32, &self.device)?)?)
    }

    /// What a network left of `file`, for parameters on `device`.
    #[must_use]
    pub fn left_over(tensors: Vec<(String, Tensor)>, file: &Path, device: &Device) -> Self {
        let tensors = tensors.into_iter().collect();
        Self { file: file.display().to_string(), tensors, device: device.clone(), fresh: None }
    }

    /// Drops a tensor.
    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|t| t.dims().to_vec())
    }

    /// What nobody took.
    #[must_use]
    pub fn rest(self) -> Vec<(String, Tensor)> {
        self.tensors.into_iter().collect()
    }
}

/// The whole numbers of the tensor called `name` in a safetensors file; `None` when there is none.
///
/// # Errors
/// When the file is missing or broken, or the tensor holds no whole numbers from 0 on.
pub fn integers(file: &Path, name: &str) -> Result<Option<Vec<u32>>> {
    use candle_core::safetensors::Load;
    let bytes = files::read(file)?;
    let bad = |e: &dyn std::fmt::Display| Error::model(format!("`{}`: tensor `{name}`: {e}", file.display()));
    let parsed = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| bad(&e))?;
    let Ok(view) = parsed.tensor(name) else { return Ok(None) };
    let tensor = view.load(&Device::Cpu).map_err(|e| bad(&e))?;
    let values = tensor.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let whole = values.into_iter().map(u32::try_from).collect::<std::result::Result<Vec<_>, _>>();
    whole.map(Some).map_err(|e| bad(&e))
}

/// Writes tensors as safetensors with the metadata that transformers expects.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let items: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    safetensors::serialize_to_file(items, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => Error::Internal(format!("cannot serialise weights: {other}")),
    })
}
