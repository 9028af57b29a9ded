//! Checkpoints: a folder with the model, the optimizer and where the run was, there whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::best::Tracker;
use super::prepare::Prepared;
use super::sets::own_params;
use crate::error::{Error, Result};
use crate::flow::Metrics;
use crate::model::SentenceTransformer;
use crate::model::weights::{self, Weights};
use crate::ops::Param;
use crate::optim::AdamW;
use crate::util::files;

const OPTIMIZER: &str = "optimizer.safetensors";
/// What is trained beside the model: the losses' parameters and second models, where there are any.
const LOSSES: &str = "losses.safetensors";
/// What is trained of a model with adapters, whose own files have them merged in.
const TRAINED: &str = "trained.safetensors";
/// In [`TRAINED`]: how long each unit of an autoencoder has been idle.
const IDLE: &str = "idle";
const STATE: &str = "trainer_state.json";
const PREFIX: &str = "checkpoint-";

/// Where a run is; with the model and the optimizer all that the next step depends on.
///
/// Random numbers are functions of seed, step and epoch, and so is the order of the rows: the counters are their state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// The epoch the next batch is from, counted from 0.
    pub epoch: u64,
    /// The next batch of that epoch.
    pub batch: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// What was trained on; a hash of contents.
    pub data: String,
    /// Tokens of a micro-batch where gradients of embeddings are cached.
    #[serde(default)]
    pub gradient_cache_tokens: Option<usize>,
    /// What it was computed with: device and products. Other ones give other numbers.
    #[serde(default)]
    pub arithmetic: Option<String>,
    /// Metrics before training.
    pub baseline: Option<Metrics>,
    /// Metrics of the last evaluation.
    pub last_metrics: Option<Metrics>,
    /// The best evaluation.
    pub tracker: Tracker,
    /// Losses since the last log line: their sum, and how many.
    pub loss_sum: f64,
    pub loss_count: u64,
    /// What losses told since the last log line: key, sum, how many.
    #[serde(default)]
    pub told: Vec<(String, f64, u64)>,
    /// What each loss remembers, in the order of the data sets.
    #[serde(default)]
    pub loss_memories: Vec<Option<serde_json::Value>>,
    /// Mean loss of the last log line.
    pub last_loss: f64,
    /// Rows trained on so far.
    pub rows: u64,
    /// Seconds of training before this process' part.
    pub seconds: f64,
    /// What needed attention so far.
    pub warnings: Vec<String>,
}

impl State {
    /// Adds what a loss tells of a batch.
    pub fn tell(&mut self, told: Vec<(&'static str, f64)>) {
        for (key, value) in told {
            match self.told.iter_mut().find(|(known, _, _)| known == key) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
                None => self.told.push((key.to_owned(), value, 1)),
            }
        }
    }
}

/// The folder of the checkpoints of a run.
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

/// The folder of one checkpoint.
pub fn path(run_dir: &Path, step: u64) -> PathBuf {
    folder(run_dir).join(format!("{PREFIX}{step}"))
}

/// Every complete checkpoint, by step.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = folder(run_dir);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(u64, PathBuf)> = files::list(&folder)?
        .into_iter()
        .filter_map(|path| {
            let step = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            path.join(STATE).exists().then_some((step, path))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The newest checkpoint that is whole; those after it that are not are told to `warn`.
///
/// # Errors
/// When there are checkpoints and none is whole, or the folder cannot be listed.
pub fn newest(run_dir: &Path, mut warn: impl FnMut(&str)) -> Result<Option<PathBuf>> {
    let all = list(run_dir)?;
    let found = all.len();
    for (_, path) in all.into_iter().rev() {
        match check(&path) {
            Ok(()) => return Ok(Some(path)),
            Err(e) => warn(&format!("{e}; the checkpoint before it is tried")),
        }
    }
    if found == 0 {
        return Ok(None);
    }
    Err(Error::data(format!("no checkpoint in `{}` is whole", folder(run_dir).display()))
        .with_hint("start a new run from the recipe"))
}

/// Whether a checkpoint's files are as long as they say.
fn check(checkpoint: &Path) -> Result<()> {
    read_state(checkpoint)?;
    let mut found = vec![checkpoint.join(OPTIMIZER)];
    tensor_files(checkpoint, &mut found)?;
    for file in found {
        let handle = files::open(&file)?;
        // SAFETY: the map is only read, and dropped at the end of this turn.
        let bytes = unsafe { memmap2::Mmap::map(&handle) }.map_err(Error::io("map", &file))?;
        safetensors::SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::data(format!("`{}` is damaged: {e}", file.display())))?;
    }
    Ok(())
}

/// The files of tensors in a folder and those below it: a model's modules have them where they please.
fn tensor_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in files::list(folder)? {
        if path.is_dir() {
            tensor_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path);
        }
    }
    Ok(())
}

/// Removes what a process that was killed while it saved has left.
///
/// # Errors
/// When it cannot be removed.
pub fn clean(run_dir: &Path) -> Result<()> {
    let folder = folder(run_dir);
    if !folder.exists() {
        return Ok(());
    }
    for path in files::list(&folder)? {
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!(".{PREFIX}"))) {
            files::remove_dir(&path)?;
        }
    }
    Ok(())
}

/// Writes a checkpoint, then removes the oldest beyond `limit`, the best one spared.
///
/// # Errors
/// When it cannot be written; earlier checkpoints are untouched.
pub fn save(
    run_dir: &Path,
    prepared: &Prepared,
    optimizer: &mut AdamW,
    state: &State,
    limit: Option<usize>,
) -> Result<PathBuf> {
    optimizer.flush()?;
    let target = path(run_dir, state.step);
    files::create_dir(&folder(run_dir))?;
    let temporary = files::temporary_name(&target);
    files::remove_dir(&temporary)?;
    let write = || -> Result<()> {
        files::create_dir(&temporary)?;
        prepared.model.save_into(&temporary)?;
        if prepared.model.lora().is_some() {
            let trained = trained(&prepared.model).into_iter();
            let mut tensors: Vec<_> = trained.map(|p| (p.name().to_owned(), p.value().clone())).collect();
            if let Some(autoencoder) = prepared.model.autoencoder() {
                tensors.push((IDLE.to_owned(), Tensor::new(autoencoder.idle(), &Device::Cpu)?));
            }
            weights::save(&temporary.join(TRAINED), &tensors)?;
        }
        let losses: Vec<_> =
            trained_beside(prepared).iter().map(|p| (p.name().to_owned(), p.value().clone())).collect();
        if !losses.is_empty() {
            weights::save(&temporary.join(LOSSES), &losses)?;
        }
        optimizer.save(&temporary.join(OPTIMIZER))?;
        let text = serde_json::to_string_pretty(state)
            .map_err(|e| Error::Internal(format!("cannot serialise the trainer state: {e}")))?;
        files::write_atomic(&temporary.join(STATE), text.as_bytes())?;
        files::publish_dir(&temporary, &target)
    };
    if let Err(error) = write() {
        let _ = files::remove_dir(&temporary);
        return Err(error);
    }
    prune(run_dir, state, limit)?;
    Ok(target)
}

/// The model in a checkpoint, without what only a run needs, as a folder of its own; contents are shared where the file
/// system can.
///
/// # Errors
/// When it cannot be written.
pub fn copy_model(checkpoint: &Path, to: &Path) -> Result<()> {
    files::create_dir(to)?;
    for path in files::list(checkpoint)? {
        let Some(name) = path.file_name() else { continue };
        let of_the_run = [OPTIMIZER, LOSSES, TRAINED, STATE].iter().any(|own| name == *own);
        let target = to.join(name);
        if path.is_dir() {
            copy_model(&path, &target)?;
        } else if !of_the_run && std::fs::hard_link(&path, &target).is_err() {
            files::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// The parameters of a model that training changes.
fn trained(model: &SentenceTransformer) -> Vec<Arc<Param>> {
    model.params().into_iter().filter(|param| param.trainable()).collect()
}

/// The parameters that losses train beside the model; a second model with adapters is frozen but for these.
fn trained_beside(prepared: &Prepared) -> Vec<Arc<Param>> {
    own_params(&prepared.sets).into_iter().filter(|param| param.trainable()).collect()
}

/// Gives a model with adapters what a checkpoint's had learnt.
///
/// # Errors
/// When the checkpoint is of another model, or damaged.
pub fn restore_trained(checkpoint: &Path, model: &SentenceTransformer) -> Result<()> {
    let file = checkpoint.join(TRAINED);
    let mut saved = Weights::load_file(&file, &Device::Cpu)?;
    for param in trained(model) {
        let value = saved.take("", param.name(), param.dims())?;
        param.assign(&value.value().to_device(param.value().device())?)?;
    }
    if let Some(autoencoder) = model.autoencoder()
        && let Some(idle) = weights::integers(&file, IDLE)?
    {
        autoencoder.set_idle(idle.into_iter().map(i64::from).collect());
    }
    Ok(())
}

fn prune(run_dir: &Path, state: &State, limit: Option<usize>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let best = state.tracker.best.as_ref().map(|b| b.step);
    let all = list(run_dir)?;
    let mut kept = all.len();
    for (step, path) in all {
        if kept <= limit.max(1) {
            break;
        }
        // As the Trainer: the best one stays, and so does the newest, which a resumed run needs.
        if Some(step) != best && step != state.step {
            files::remove_dir(&path)?;
            kept -= 1;
        }
    }
    Ok(())
}

/// Reads where the run of a checkpoint was.
///
/// # Errors
/// When the file is missing or damaged.
pub fn read_state(checkpoint: &Path) -> Result<State> {
    let file = checkpoint.join(STATE);
    serde_json::from_str(&files::read_text(&file)?).map_err(|e| {
        Error::data(format!("`{}` is damaged: {e}", file.display()))
            .with_hint("remove that checkpoint's folder to resume from the one before")
    })
}

/// Gives the optimizer its state back, and checks that the checkpoint belongs to what was prepared.
///
/// # Errors
/// When it does not, or its files are damaged.
pub fn restore(checkpoint: &Path, state: &State, prepared: &Prepared, optimizer: &mut AdamW) -> Result<()> {
    let refuse = |what: &str| {
        Err(Error::data(format!("`{}`: {what}", checkpoint.display()))
            .with_hint("start a new run instead of resuming; the checkpoint's model can be its `model.base`"))
    };
    if state.data != prepared.fingerprint() {
        return refuse("the training data are not what they were when it was written");
    }
    if state.total_steps != prepared.steps.total {
        return refuse(&format!(
            "the run had {} steps when it was written, now it would have {}",
            state.total_steps, prepared.steps.total
        ));
    }
    let losses = trained_beside(prepared);
    if !losses.is_empty() {
        let mut saved = Weights::load_file(&checkpoint.join(LOSSES), &prepared.device)?;
        for param in losses {
            param.assign(saved.take("", param.name(), param.dims())?.value())?;
        }
    }
    optimizer.load(&checkpoint.join(OPTIMIZER))
}
