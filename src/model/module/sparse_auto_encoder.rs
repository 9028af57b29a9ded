//! From a dense embedding to a longer one with few values: a layer whose largest outputs stay, and the same layer
//! turned round to get back.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{D, DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Features, Module, Source, write_json};
use crate::error::{Error, Result};
use crate::flow::Autoencoded;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};
use crate::util::seed::Rng;

/// What an autoencoder is like: the module's config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shape {
    /// Width of the dense embeddings.
    pub input_dim: usize,
    /// Width of the sparse ones.
    pub hidden_dim: usize,
    /// Values that stay of each.
    pub k: usize,
    /// Values of units that were long idle which the auxiliary loss looks at; 0 for none.
    pub k_aux: usize,
    /// Whether a dense embedding is centred and divided by its deviation first.
    pub normalize: bool,
    /// After so many passes without a use a unit counts as dead.
    pub dead_threshold: usize,
}

impl Shape {
    /// What sentence-transformers makes of a model of that width: four times the width, a quarter of it active.
    #[must_use]
    pub fn of(input_dim: usize) -> Self {
        Self {
            input_dim,
            hidden_dim: 4 * input_dim,
            k: (input_dim / 4).max(1),
            k_aux: input_dim / 2,
            normalize: false,
            dead_threshold: 30,
        }
    }

    /// What is wrong with it: key and message.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let Self { hidden_dim, k, k_aux, .. } = *self;
        if k == 0 || 4 * k > hidden_dim {
            let most = hidden_dim / 4;
            return Some(("k", format!("is {k}, and of {hidden_dim} dimensions it can be 1 to {most}")));
        }
        (k_aux > hidden_dim).then(|| ("k_aux", format!("is {k_aux}, and there are {hidden_dim} dimensions")))
    }
}

/// `latents = relu(top_k((x - pre_bias) Wᵀ + latent_bias))`; back: `latents W + pre_bias`.
///
/// # Shapes
/// `W` `[hidden_dim, input_dim]`, `pre_bias` `[input_dim]`, `latent_bias` `[hidden_dim]`; `[sequences, input_dim]` to
/// `[sequences, hidden_dim]`.
///
/// Source: [Wen et al. 2025](https://arxiv.org/abs/2503.01776), `SparseAutoEncoder` of sentence-transformers.
pub struct SparseAutoEncoder {
    shape: Shape,
    pre_bias: Arc<Param>,
    weight: Arc<Param>,
    latent_bias: Arc<Param>,
    /// `[hidden_dim]`: how many passes ago each unit was among the active ones.
    idle: Mutex<Vec<i64>>,
}

const PRE_BIAS: &str = "pre_bias";
const LATENT_BIAS: &str = "latent_bias";
const WEIGHT: &str = "encoder.weight";
/// The other name of the same tensor, which the reference saves it under.
const TIED: &str = "decoder.linear.weight";
const IDLE: &str = "stats_last_nonzero";
/// A smaller value does not count as a use.
const USED: f64 = 1e-5;

impl SparseAutoEncoder {
    /// A new one: a layer as torch draws it, uniform up to `1 / sqrt(input_dim)`, without biases.
    ///
    /// # Errors
    /// When the shape cannot be.
    pub fn fresh(shape: Shape, prefix: &str, rng: Rng, device: &Device) -> Result<Self> {
        /// Keeps these numbers apart from others drawn from the same seed.
        const STREAM: u64 = 0x5AE0;
        if let Some((key, what)) = shape.problem() {
            return Err(Error::usage(format!("`model.sparse_auto_encoder.{key}` {what}")));
        }
        let mut rng = rng.fork(STREAM);
        let bound = 1.0 / (shape.input_dim.max(1) as f64).sqrt();
        let weight: Vec<f32> =
            (0..shape.hidden_dim * shape.input_dim).map(|_| (bound * (2.0 * rng.uniform() - 1.0)) as f32).collect();
        let weight = Tensor::from_vec(weight, (shape.hidden_dim, shape.input_dim), device)?;
        let zeros = |width: usize| Tensor::zeros(width, DType::F32, device);
        Self::of(shape, [&zeros(shape.input_dim)?, &weight, &zeros(shape.hidden_dim)?], prefix)
    }

    /// Of its tensors: the bias before it, the layer, the bias after it.
    ///
    /// # Errors
    /// When they cannot be parameters.
    pub fn of(shape: Shape, [pre_bias, weight, latent_bias]: [&Tensor; 3], prefix: &str) -> Result<Self> {
        let param = |name: &str, value: &Tensor| Param::new(format!("{prefix}{name}"), value);
        Ok(Self {
            shape,
            pre_bias: param(PRE_BIAS, pre_bias)?,
            weight: param(WEIGHT, weight)?,
            latent_bias: param(LATENT_BIAS, latent_bias)?,
            idle: Mutex::new(vec![0; shape.hidden_dim]),
        })
    }

    /// Reads the folder's config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file, key or tensor is missing or does not fit.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let or = |name: &str, default: usize| match config.get(&[name]) {
            Some(value) => match value.as_u64() {
                Some(number) => Ok(number as usize),
                None => Err(config.bad(format!("`{name}` is not a whole number"))),
            },
            None => Ok(default),
        };
        let shape = Shape {
            input_dim: config.size(&["input_dim"])?,
            hidden_dim: or("hidden_dim", 512)?,
            k: or("k", 8)?,
            k_aux: or("k_aux", 512)?,
            normalize: config.flag("normalize", false)?,
            dead_threshold: or("dead_threshold", 30)?,
        };
        if let Some((key, what)) = shape.problem() {
            return Err(config.bad(format!("`{key}` {what}")));
        }
        let (input, hidden) = (shape.input_dim, shape.hidden_dim);
        let mut weights = Weights::load(source.directory, source.device)?;
        let name = if weights.contains(WEIGHT) { WEIGHT } else { TIED };
        let weight = weights.take("", name, &[hidden, input])?;
        let mut take = |name: &str, width: usize| weights.take("", name, &[width]);
        let (pre_bias, latent_bias) = (take(PRE_BIAS, input)?, take(LATENT_BIAS, hidden)?);
        let tensors = [pre_bias.value(), weight.value(), latent_bias.value()];
        let made = Self::of(shape, tensors, source.prefix)?;
        let idle = weights::integers(&source.directory.join("model.safetensors"), IDLE)?;
        if let Some(idle) = idle.filter(|idle| idle.len() == hidden) {
            made.set_idle(idle.into_iter().map(i64::from).collect());
        }
        Ok(made)
    }

    /// What it is like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    fn lock(&self) -> MutexGuard<'_, Vec<i64>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many passes ago each unit was active.
    #[must_use]
    pub fn idle(&self) -> Vec<i64> {
        self.lock().clone()
    }

    /// Says so.
    pub fn set_idle(&self, idle: Vec<i64>) {
        *self.lock() = idle;
    }

    /// `[n, input_dim]` to what goes on, and the mean and deviation taken out of it.
    fn prepare(&self, x: &Tensor) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
        if !self.shape.normalize {
            return Ok((x.clone(), None));
        }
        let mean = x.mean_keepdim(D::Minus1)?;
        let centred = x.broadcast_sub(&mean)?;
        let degrees = self.shape.input_dim.saturating_sub(1).max(1) as f64;
        let deviation = centred.sqr()?.sum_keepdim(D::Minus1)?.affine(1.0 / degrees, 0.0)?.sqrt()?;
        let scaled = centred.broadcast_div(&deviation.affine(1.0, 1e-5)?)?;
        Ok((scaled, Some((mean, deviation))))
    }

    /// `[n, input_dim]` to `[n, hidden_dim]`, before any is left out.
    fn encode(&self, x: &Tensor, context: &Context) -> Result<(Tensor, Parts)> {
        let parts = Parts {
            pre_bias: ops::parameter(context, &self.pre_bias)?,
            weight: ops::parameter(context, &self.weight)?,
            latent_bias: ops::parameter(context, &self.latent_bias)?,
        };
        let x = x.broadcast_sub(&parts.pre_bias)?;
        let latents = ops::dot_products(&x, &parts.weight)?.broadcast_add(&parts.latent_bias)?;
        Ok((latents, parts))
    }

    /// `latents` with all but the `k` largest positive values of each row zero; `uses` are marked by who has one.
    fn largest(latents: &Tensor, k: usize, allowed: Option<&[bool]>, uses: Option<&mut [bool]>) -> Result<Tensor> {
        let (rows, width) = latents.dims2()?;
        let values = latents.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let mut mask = vec![0.0f32; values.len()];
        let mut used = vec![false; width];
        let mut order: Vec<usize> = Vec::with_capacity(width);
        for (row, mask) in values.chunks_exact(width.max(1)).zip(mask.chunks_exact_mut(width.max(1))) {
            // what may not be chosen counts as 0
            let value = |i: usize| if allowed.is_none_or(|allowed| allowed[i]) { row[i] } else { 0.0 };
            order.clear();
            order.extend(0..width);
            let falling = |a: &usize, b: &usize| value(*b).total_cmp(&value(*a)).then(a.cmp(b));
            if k < width {
                order.select_nth_unstable_by(k, falling);
                order.truncate(k);
            }
            for i in order.iter().copied().filter(|i| value(*i) > 0.0) {
                mask[i] = 1.0;
                used[i] |= row[i] > USED;
            }
        }
        if let Some(uses) = uses {
            uses.iter_mut().zip(used).for_each(|(use_, used)| *use_ |= used);
        }
        let mask = Tensor::from_vec(mask, (rows, width), &Device::Cpu)?;
        Ok(latents.mul(&mask.to_dtype(latents.dtype())?.to_device(latents.device())?)?)
    }

    /// The `k` largest, and the same as a pass of training is noted: who was active, and who was idle once more.
    fn chosen(&self, latents: &Tensor, k: usize, note: bool) -> Result<Tensor> {
        if !note {
            return Self::largest(latents, k, None, None);
        }
        let mut uses = vec![false; self.shape.hidden_dim];
        let chosen = Self::largest(latents, k, None, Some(&mut uses))?;
        for (idle, used) in self.lock().iter_mut().zip(uses) {
            *idle = if used { 1 } else { *idle + 1 };
        }
        Ok(chosen)
    }

    /// The sparse embeddings of dense ones, and what can be made of these again, for the loss; `note` where units'
    /// uses are counted.
    ///
    /// # Errors
    /// When the width is not the autoencoder's.
    pub fn expand(&self, x: &Tensor, context: &Context, note: bool) -> Result<(Tensor, Autoencoded)> {
        let Shape { k, k_aux, dead_threshold, .. } = self.shape;
        let (prepared, scale) = self.prepare(x)?;
        let (latents, parts) = self.encode(&prepared, context)?;
        let few = self.chosen(&latents, k, note)?;
        let idle = match k_aux {
            0 => None,
            most => {
                let dead: Vec<bool> = self.lock().iter().map(|idle| *idle > dead_threshold as i64).collect();
                Some(Self::largest(&latents, most, Some(&dead), None)?)
            }
        };
        let more = self.chosen(&latents, 4 * k, note)?;
        let back = |latents: &Tensor| -> Result<Tensor> {
            let turned = parts.weight.t()?.contiguous()?; // [input_dim, hidden_dim]
            Ok(ops::dot_products(latents, &turned)?.broadcast_add(&parts.pre_bias)?)
        };
        let rescaled = |y: Tensor| -> Result<Tensor> {
            Ok(match &scale {
                Some((mean, deviation)) => y.broadcast_mul(deviation)?.broadcast_add(mean)?,
                None => y,
            })
        };
        let (reconstruction, wide) = (rescaled(back(&few)?)?, rescaled(back(&more)?)?);
        let (mut bias, mut auxiliary) = (parts.pre_bias.clone(), idle.map(|idle| back(&idle)).transpose()?);
        if let Some((_, deviation)) = &scale {
            bias = deviation.broadcast_mul(&bias.unsqueeze(0)?)?;
            auxiliary = auxiliary.map(|y| y.broadcast_mul(deviation)).transpose()?;
        }
        let without_bias = reconstruction.broadcast_sub(&bias)?;
        Ok((few, Autoencoded { input: x.clone(), reconstruction, wide, auxiliary, without_bias }))
    }
}

/// Its parameters in a pass.
struct Parts {
    pre_bias: Tensor,
    weight: Tensor,
    latent_bias: Tensor,
}

impl Module for SparseAutoEncoder {
    fn name(&self) -> &'static str {
        "SparseAutoEncoder"
    }

    fn class_path(&self) -> String {
        super::sparse_path(self.name())
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let (prepared, _) = self.prepare(features.sentence(self.name())?)?;
        let (latents, _) = self.encode(&prepared, context)?;
        let k = features.max_active_dims.unwrap_or(self.shape.k).min(self.shape.hidden_dim);
        features.sentence_embedding = Some(self.chosen(&latents, k, context.is_training())?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let named = |name: &str, param: &Arc<Param>| (name.to_owned(), Arc::clone(param));
        vec![named(PRE_BIAS, &self.pre_bias), named(TIED, &self.weight), named(LATENT_BIAS, &self.latent_bias)]
    }

    fn input_dimension(&self) -> Option<usize> {
        Some(self.shape.input_dim)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.shape.hidden_dim
    }

    fn autoencoder(&self) -> Option<&SparseAutoEncoder> {
        Some(self)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let config = serde_json::to_value(self.shape)
            .map_err(|e| Error::Internal(format!("the autoencoder's configuration cannot be written: {e}")))?;
        write_json(&directory.join("config.json"), &config)?;
        let mut tensors = super::tensors(&self.params())?;
        tensors.push((IDLE.to_owned(), Tensor::new(self.idle(), &Device::Cpu)?));
        weights::save(&directory.join("model.safetensors"), &tensors)
    }
}
