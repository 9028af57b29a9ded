//! AdamW with torch's meaning (Loshchilov & Hutter, <https://arxiv.org/abs/1711.05101>), exact and cheap for tables.
//!
//! A table's gradient names the rows that occurred. The other rows' gradient is zero, yet dense AdamW still moves
//! them (their momentum fades, their weights decay). Those steps are kept back and replayed, number by number, when
//! a row is needed again or everything is looked at: the result has the same bits as updating every row every step.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::WithDType;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::groups::decays;
use super::moments::Moments;
use crate::error::{Error, Result};
use crate::ops::param::Gradient;
use crate::ops::{Param, simd_fn};
use crate::util::files;

/// The settings that do not change during a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimizer and its state.
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    by_param: HashMap<usize, usize>,
}

/// One parameter's state.
struct Slot {
    param: Arc<Param>,
    weight_decay: f64,
    /// Whether clipping scales its gradient.
    clipped: bool,
    /// What its learning rate is of the others'.
    rate: f64,
    step: u64,
    /// First and second moment, empty until the first gradient.
    m: Vec<f32>,
    v: Vec<f32>,
    /// For tables: up to which step each row has been brought.
    rows: Option<Rows>,
    /// The moments of a composed parameter, which are then nowhere else.
    moments: Option<Moments>,
}

struct Rows {
    width: usize,
    done: Vec<u32>,
    /// Constants of the steps after `base`; earlier ones are done for every row.
    base: u64,
    history: Vec<Constants>,
}

/// What one step multiplies with; the same for every element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub decay: f32,
    pub step_size: f32,
    pub bias2_sqrt: f32,
    pub epsilon: f32,
    pub gradient_scale: f32,
}

/// One element. The order of operations is torch's single-tensor AdamW.
#[inline(always)]
fn update(p: &mut f32, m: &mut f32, v: &mut f32, g: f32, c: &Constants) {
    *p *= c.decay;
    *m += (g - *m) * c.one_minus_beta1;
    *v = *v * c.beta2 + g * g * c.one_minus_beta2;
    let denominator = v.sqrt() / c.bias2_sqrt + c.epsilon;
    *p -= c.step_size * (*m / denominator);
}

simd_fn! {
    fn update_all<T>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Constants) {
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            update(p, m, v, *g * c.gradient_scale, c);
        }
    }
}

simd_fn! {
    /// The steps that a row without gradient takes.
    fn update_idle<T>(p: &mut [f32], m: &mut [f32], v: &mut [f32], steps: &[Constants]) {
        // a few values at a time through all the steps, so that they stay in registers
        const LANES: usize = 16;
        let (p, p_rest) = p.as_chunks_mut::<LANES>();
        let (m, m_rest) = m.as_chunks_mut::<LANES>();
        let (v, v_rest) = v.as_chunks_mut::<LANES>();
        for ((p, m), v) in p.iter_mut().zip(m).zip(v) {
            for constants in steps {
                for ((p, m), v) in p.iter_mut().zip(&mut *m).zip(&mut *v) {
                    update(p, m, v, 0.0, constants);
                }
            }
        }
        for constants in steps {
            for ((p, m), v) in p_rest.iter_mut().zip(&mut *m_rest).zip(&mut *v_rest) {
                update(p, m, v, 0.0, constants);
            }
        }
    }
}

impl AdamW {
    /// State for every trainable parameter, none of it allocated yet.
    #[must_use]
    pub fn new(params: &[Arc<Param>], config: AdamWConfig) -> Self {
        let slots: Vec<Slot> = params
            .iter()
            .filter(|p| p.trainable())
            .map(|param| Slot {
                weight_decay: if decays(param.name()) { config.weight_decay } else { 0.0 },
                param: Arc::clone(param),
                clipped: true,
                rate: 1.0,
                step: 0,
                m: Vec::new(),
                v: Vec::new(),
                rows: None,
                moments: None,
            })
            .collect();
        let by_param = slots.iter().enumerate().map(|(i, s)| (address(&s.param), i)).collect();
        Self { config, slots, by_param }
    }

    /// Leaves the gradients of these parameters as they are when others are clipped.
    #[must_use]
    pub fn without_clipping(mut self, params: &[Arc<Param>]) -> Self {
        for param in params {
            if let Some(i) = self.by_param.get(&address(param)) {
                self.slots[*i].clipped = false;
            }
        }
        self
    }

    /// Gives the parameters whose names have a match of `pattern` a learning rate of their own, as a part of the others'.
    ///
    /// # Errors
    /// When there are none.
    pub fn with_rate(mut self, pattern: &regex::Regex, rate: f64) -> Result<Self> {
        let mut found = false;
        for slot in self.slots.iter_mut().filter(|slot| pattern.is_match(slot.param.name())) {
            (slot.rate, found) = (rate, true);
        }
        if found {
            return Ok(self);
        }
        let names: Vec<&str> = self.slots.iter().map(|slot| slot.param.name()).collect();
        Err(Error::usage(format!("`args.learning_rate_mapping`: no trained parameter has a name with `{pattern}`"))
            .with_hint(format!("their names are {}", names.join(", "))))
    }

    /// Brings the rows of tables that a forward pass is about to read up to date.
    ///
    /// # Errors
    /// When a table is not f32.
    pub fn catch_up(&mut self, needed: &[(Arc<Param>, Vec<u32>)]) -> Result<()> {
        for (param, rows) in needed {
            if let Some(i) = self.by_param.get(&address(param)) {
                self.slots[*i].catch_up(rows.iter().copied())?;
            }
        }
        Ok(())
    }

    /// Brings every row of every table up to date, before the model is evaluated or saved.
    ///
    /// # Errors
    /// When a table is not f32.
    pub fn flush(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            slot.flush()?;
        }
        Ok(())
    }

    /// One step with the gradients that backward passes left in the parameters, each multiplied with
    /// `gradient_scale`; then forgets the gradients. Parameters without gradient stay as they are.
    ///
    /// # Errors
    /// When a parameter is not f32.
    pub fn step(&mut self, learning_rate: f64, gradient_scale: f64) -> Result<()> {
        self.step_clipped(learning_rate, gradient_scale, 1.0)
    }

    /// As [`AdamW::step`], with gradients multiplied by `clip`, too, unless they are to be left as they are.
    ///
    /// # Errors
    /// As there.
    pub fn step_clipped(&mut self, learning_rate: f64, gradient_scale: f64, clip: f64) -> Result<()> {
        for slot in &mut self.slots {
            let clip = if slot.clipped { clip } else { 1.0 };
            slot.step(&self.config, learning_rate * slot.rate, clip * gradient_scale)?;
        }
        Ok(())
    }

    /// Writes the state as safetensors: `<parameter>.exp_avg` and `.exp_avg_sq`, the step counts in the metadata.
    /// Call [`AdamW::flush`] before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut states = Vec::new();
        for slot in &self.slots {
            match &slot.moments {
                Some(moments) => {
                    let (m, v) = moments.to_host()?;
                    states.push((slot, Cow::Owned(m), Cow::Owned(v)));
                }
                None if slot.m.is_empty() => {}
                None => states.push((slot, Cow::Borrowed(slot.m.as_slice()), Cow::Borrowed(slot.v.as_slice()))),
            }
        }
        let mut views = Vec::new();
        let mut steps = BTreeMap::new();
        for (slot, m, v) in &states {
            let name = slot.param.name();
            steps.insert(name, slot.step);
            for (kind, values) in [(FIRST, m), (SECOND, v)] {
                let view = TensorView::new(Dtype::F32, slot.param.dims().to_vec(), bytes(values));
                views.push((format!("{name}.{kind}"), view.map_err(|e| internal(&e))?));
            }
        }
        // one entry, since the format's metadata has no order and the file is to be the same every time
        let steps = serde_json::to_string(&steps).map_err(|e| internal(&e))?;
        safetensors::serialize_to_file(views, Some(HashMap::from([(STEPS.to_owned(), steps)])), path).map_err(|e| {
            match e {
                SafeTensorError::IoError(source) => Error::io("write", path)(source),
                other => internal(&other),
            }
        })
    }

    /// Reads back what [`AdamW::save`] wrote.
    ///
    /// # Errors
    /// When the file is damaged or its state does not belong to these parameters.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let data = files::read(path)?;
        let damaged = |e: &dyn std::fmt::Display| Error::data(format!("`{}` is damaged: {e}", path.display()));
        let foreign = |what: String| {
            Error::data(format!("`{}`: {what}", path.display()))
                .with_hint("the checkpoint belongs to another model; resume with the run's own plan")
        };
        let (_, header) = SafeTensors::read_metadata(&data).map_err(|e| damaged(&e))?;
        let steps = header.metadata().as_ref().and_then(|m| m.get(STEPS)).map_or("{}", String::as_str);
        let steps: BTreeMap<String, u64> = serde_json::from_str(steps).map_err(|e| damaged(&e))?;
        let tensors = SafeTensors::deserialize(&data).map_err(|e| damaged(&e))?;
        let mut used = 0;
        for slot in &mut self.slots {
            let name = slot.param.name();
            let Some(step) = steps.get(name) else { continue };
            slot.step = *step;
            for (kind, target) in [(FIRST, &mut slot.m), (SECOND, &mut slot.v)] {
                let view = tensors.tensor(&format!("{name}.{kind}")).map_err(|e| damaged(&e))?;
                if view.shape() != slot.param.dims() || view.dtype() != Dtype::F32 {
                    let dims = slot.param.dims();
                    return Err(foreign(format!(
                        "the state of `{name}` is {:?}, the parameter {dims:?}",
                        view.shape()
                    )));
                }
                let (words, _) = view.data().as_chunks::<4>();
                *target = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            }
            slot.rows = None;
            slot.moments = None;
            used += 1;
        }
        if used != steps.len() {
            return Err(foreign("it has the state of parameters that the model lacks".to_owned()));
        }
        Ok(())
    }
}

const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
/// The metadata's entry with the step counts by parameter.
const STEPS: &str = "steps";

fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("cannot serialise the optimizer: {error}"))
}

/// The values as they stand in memory, which is the format's order on every machine this is built for.
fn bytes(values: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "safetensors is little-endian") };
    // SAFETY: every f32 is four bytes, any of which may be read as u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn address(param: &Arc<Param>) -> usize {
    Arc::as_ptr(param) as usize
}

impl Slot {
    fn constants(&mut self, config: &AdamWConfig, learning_rate: f64, gradient_scale: f64) -> Constants {
        self.step += 1;
        let power = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u64) as i32);
        Constants {
            // from f64, as torch: 1 - 0.999 in f32 is off by 1.3e-5
            one_minus_beta1: (1.0 - config.beta1) as f32,
            beta2: config.beta2 as f32,
            one_minus_beta2: (1.0 - config.beta2) as f32,
            decay: (1.0 - learning_rate * self.weight_decay) as f32,
            step_size: (learning_rate / power(config.beta1)) as f32,
            bias2_sqrt: power(config.beta2).sqrt() as f32,
            epsilon: config.epsilon as f32,
            gradient_scale: gradient_scale as f32,
        }
    }

    fn step(&mut self, config: &AdamWConfig, learning_rate: f64, gradient_scale: f64) -> Result<()> {
        let gradient = std::mem::take(&mut *self.param.gradient());
        if matches!(gradient, Gradient::None) {
            return Ok(());
        }
        if let Gradient::Tensor(gradient) = &gradient {
            let constants = self.constants(config, learning_rate, gradient_scale);
            let mut moments = match self.moments.take() {
                Some(moments) => moments,
                None => Moments::new(&self.param, &std::mem::take(&mut self.m), &std::mem::take(&mut self.v))?,
            };
            moments.step(&self.param, gradient, &constants)?;
            self.moments = Some(moments);
            return Ok(());
        }
        if self.m.is_empty() {
            self.m = vec![0.0; self.param.elements()];
            self.v = vec![0.0; self.param.elements()];
        }
        match gradient {
            Gradient::None | Gradient::Tensor(_) => Ok(()),
            Gradient::Dense(data) => {
                self.flush()?;
                self.rows = None;
                let constants = self.constants(config, learning_rate, gradient_scale);
                let gradient = f32::cpu_storage_as_slice(&data)?;
                let (m, v) = (&mut self.m, &mut self.v);
                const CHUNK: usize = 16_384;
                self.param.update::<f32, _>(|p| {
                    p.par_chunks_mut(CHUNK)
                        .zip(m.par_chunks_mut(CHUNK))
                        .zip(v.par_chunks_mut(CHUNK))
                        .zip(gradient.par_chunks(CHUNK))
                        .for_each(|(((p, m), v), g)| update_all::<f32>(p, m, v, g, &constants));
                })?;
                self.param.keep_spare(data);
                Ok(())
            }
            Gradient::Rows(rows) => {
                self.catch_up(rows.rows.iter().copied())?;
                let constants = self.constants(config, learning_rate, gradient_scale);
                let step = self.step;
                let gradient = f32::cpu_storage_as_slice(&rows.data)?;
                let width = rows.width;
                let state = self.rows.get_or_insert_with(|| Rows {
                    width,
                    done: vec![(step - 1) as u32; self.m.len() / width.max(1)],
                    base: step - 1,
                    history: Vec::new(),
                });
                state.history.push(constants);
                for row in &rows.rows {
                    if let Some(done) = state.done.get_mut(*row as usize) {
                        *done = step as u32;
                    }
                }
                let (m, v) = (&mut self.m, &mut self.v);
                self.param.update::<f32, _>(|p| {
                    let work = disjoint_rows(p, m, v, width, &rows.rows);
                    work.into_par_iter()
                        .zip(gradient.par_chunks(width.max(1)))
                        .with_min_len(16)
                        .for_each(|((p, m, v), g)| update_all::<f32>(p, m, v, g, &constants));
                })?;
                Ok(())
            }
        }
    }

    /// Replays what the given rows have missed.
    fn catch_up(&mut self, rows: impl Iterator<Item = u32>) -> Result<()> {
        let Some(state) = &mut self.rows else { return Ok(()) };
        let step = self.step as u32;
        let mut behind: Vec<u32> =
            rows.filter(|r| state.done.get(*r as usize).is_some_and(|done| *done < step)).collect();
        if behind.is_empty() {
            return Ok(());
        }
        behind.sort_unstable();
        behind.dedup();
        let (width, base, history, done) = (state.width, state.base, &state.history, &state.done);
        let decayed = self.weight_decay != 0.0;
        let (m, v) = (&mut self.m, &mut self.v);
        self.param.update::<f32, _>(|p| {
            let work = disjoint_rows(p, m, v, width, &behind);
            work.into_par_iter().zip(behind.par_iter()).with_min_len(16).for_each(|((p, m, v), row)| {
                // A row that never had a gradient and does not decay stays bit for bit.
                if !decayed && v.iter().all(|v| *v == 0.0) && m.iter().all(|m| *m == 0.0) {
                    return;
                }
                let from = (u64::from(done[*row as usize]) - base) as usize;
                update_idle::<f32>(p, m, v, &history[from..]);
            });
        })?;
        for row in behind {
            state.done[row as usize] = step;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(state) = &self.rows else { return Ok(()) };
        let rows = state.done.len() as u32;
        self.catch_up(0..rows)?;
        if let Some(state) = &mut self.rows {
            state.base = self.step;
            state.history.clear();
        }
        Ok(())
    }
}

/// One row of a parameter and of its two moments.
type RowState<'a> = (&'a mut [f32], &'a mut [f32], &'a mut [f32]);

/// The given rows (ascending, each once) of a parameter and its moments, to be changed at the same time.
fn disjoint_rows<'a>(
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    width: usize,
    rows: &[u32],
) -> Vec<RowState<'a>> {
    let mut out = Vec::with_capacity(rows.len());
    let (mut p, mut m, mut v) = (p, m, v);
    let mut at = 0;
    for row in rows {
        let skip = (*row as usize - at) * width;
        let next = |rest: &mut &'a mut [f32]| {
            let (head, tail) = std::mem::take(rest)[skip..].split_at_mut(width);
            *rest = tail;
            head
        };
        out.push((next(&mut p), next(&mut m), next(&mut v)));
        at = *row as usize + 1;
    }
    out
}
