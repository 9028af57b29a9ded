//! The loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;

use super::batches::{Batches, Cursor, Wanted};
use super::checkpoint::{self, State};
use super::events::{Event, Listener, TrainLog};
use super::facts::RunFacts;
use super::prepare::{Prepared, load_model};
use super::sets::{classifier, losses, own_params};
use super::step::{Measured, Setting, forward_backward};
use super::timings::Timings;
use super::{Options, Outcome, guard};
use crate::error::{Error, Result};
use crate::eval::{bootstrap, trainer_key};
use crate::flow::{Encode, Metrics};
use crate::model::{ModelOptions, SentenceTransformer};
use crate::ops::{self, Context, Param, Precision};
use crate::optim::steps::Due;
use crate::optim::{AdamW, AdamWConfig, clip_coefficient, gradient_norm};
use crate::recipe::Plan;
use crate::util::seed::Rng;
use crate::util::{clock, files, interrupt, memory};

/// Keeps the dropouts' numbers apart from those that others draw from the same seed.
const DROPOUT_STREAM: u64 = 0xD209;

/// Trains as planned. Checkpoints go to `<run_dir>/checkpoints`, the model to `<run_dir>/model`.
///
/// # Errors
/// When preparation fails (nothing is written then), when training cannot go on (the last checkpoint stays), and
/// [`Error::Cancelled`] when the process was asked to stop (a checkpoint is written first).
pub fn run(plan: &Plan, run_dir: &Path, options: &Options, listener: &mut dyn Listener) -> Result<Outcome> {
    let started = Instant::now();
    listener.event(&Event::Phase("data"));
    checkpoint::clean(run_dir)?;
    let checkpoint =
        if options.resume { checkpoint::newest(run_dir, |text| listener.event(&Event::Warning(text)))? } else { None };
    let mut timings = Timings::default();
    let prepared = timings.time("prepare", || Prepared::new(plan, checkpoint.as_deref(), listener))?;
    listener.event(&Event::Facts(&RunFacts::new(plan, &prepared)));
    let params = prepared.params();
    let mut optimizer = AdamW::new(
        &params,
        AdamWConfig {
            beta1: plan.args.adam_beta1,
            beta2: plan.args.adam_beta2,
            epsilon: plan.args.adam_epsilon,
            weight_decay: plan.args.weight_decay,
        },
    )
    .without_clipping(&own_params(&prepared.sets));
    for (pattern, rate) in &plan.args.learning_rate_mapping {
        let found = regex::Regex::new(pattern)
            .map_err(|e| Error::usage(format!("`args.learning_rate_mapping.{pattern}`: {e}")))?;
        if plan.args.learning_rate == 0.0 {
            return Err(Error::usage("`args.learning_rate_mapping` needs `args.learning_rate` above 0")
                .with_hint("a rate of 0 is for single parameters: give it in `args.learning_rate_mapping`"));
        }
        optimizer = optimizer.with_rate(&found, rate / plan.args.learning_rate)?;
    }
    let batches_per_epoch = usize::try_from(prepared.steps.batches_per_epoch).unwrap_or(usize::MAX);
    let mut trainer = Trainer {
        plan,
        run_dir,
        params,
        optimizer,
        state: State {
            total_steps: prepared.steps.total,
            data: prepared.fingerprint(),
            gradient_cache_tokens: prepared.cache_tokens,
            ..State::default()
        },
        prepared,
        timings,
        started,
        logged_at: started,
        logged_rows: 0,
        first_step: None,
        rows_before: 0,
        tokens: 0,
        saved_at: None,
        batches_per_epoch,
        stopped_early: false,
    };
    trainer.begin(checkpoint.as_deref(), options, listener)?;
    trainer.train(listener)?;
    trainer.finish(options, listener)
}

struct Trainer<'a> {
    plan: &'a Plan,
    run_dir: &'a Path,
    prepared: Prepared,
    params: Vec<Arc<Param>>,
    optimizer: AdamW,
    state: State,
    timings: Timings,
    started: Instant,
    logged_at: Instant,
    logged_rows: u64,
    first_step: Option<f64>,
    /// Rows trained on before this process.
    rows_before: u64,
    /// Tokens trained on by this process.
    tokens: u64,
    /// The step of the newest checkpoint.
    saved_at: Option<u64>,
    /// Batches of the epoch that the last one was from.
    batches_per_epoch: usize,
    stopped_early: bool,
}

impl Trainer<'_> {
    fn warn(&mut self, text: String, listener: &mut dyn Listener) {
        listener.event(&Event::Warning(&text));
        self.state.warnings.push(text);
    }

    /// Restores a checkpoint, or measures the model before training.
    fn begin(&mut self, checkpoint: Option<&Path>, options: &Options, listener: &mut dyn Listener) -> Result<()> {
        let steps = self.prepared.steps;
        let restored = checkpoint.map(checkpoint::read_state).transpose()?;
        if let Some(state) = &restored {
            // decided by the memory that was free then; now it has to be the same, or the numbers would not be
            self.prepared.cache_tokens = state.gradient_cache_tokens;
        }
        let cache_tokens = self.prepared.cache_tokens;
        listener.event(&Event::Message(&format!(
            "{} rows, {} batches an epoch, {} optimizer steps ({} warmup), about {} of memory at the peak{}{}",
            self.prepared.train_rows(),
            steps.batches_per_epoch,
            steps.total,
            self.prepared.warmup,
            memory::human(self.prepared.estimate.peak(cache_tokens)),
            cache_tokens.map_or_else(String::new, |tokens| format!(" in micro-batches of {tokens} tokens")),
            match ops::bf16_products().filter(|_| self.prepared.precision == Precision::Bf16) {
                Some(products) => format!(", products in {}", products.name()),
                None => String::new(),
            },
        )));
        if let (Some(checkpoint), Some(state)) = (checkpoint, restored) {
            checkpoint::restore(checkpoint, &state, &self.prepared, &mut self.optimizer)?;
            listener.event(&Event::Message(&format!("continuing after step {} of {}", state.step, state.total_steps)));
            for (loss, memory) in losses(&self.prepared.sets).iter().zip(&state.loss_memories) {
                memory.iter().for_each(|memory| loss.remember(memory));
            }
            self.rows_before = state.rows;
            self.saved_at = Some(state.step);
            self.stopped_early = state.tracker.exhausted(self.plan.args.early_stopping);
            self.state = state;
            if self.state.batch > 0 {
                // of the epoch it stopped in, which can differ from the first; a run that was done takes no further batch
                self.batches_per_epoch = self.prepared.sampler.batches_per_epoch(self.state.epoch);
            }
            let now = self.prepared.arithmetic();
            if let Some(then) = self.state.arithmetic.replace(now.clone()).filter(|then| *then != now) {
                let text = format!(
                    "the run was computed with {then} and goes on with {now}: its numbers will differ a little from \
                     those of a run that was not stopped"
                );
                self.warn(text, listener);
            }
            return Ok(());
        }
        self.state.arithmetic = Some(self.prepared.arithmetic());
        for warning in std::mem::take(&mut self.prepared.warnings) {
            self.warn(warning, listener);
        }
        if options.keep_base {
            self.prepared.model.save(&self.run_dir.join("base"))?;
        }
        if !self.prepared.evaluation.is_empty() {
            listener.event(&Event::Phase("baseline"));
            let keys = self.prepared.evaluation.keys(self.prepared.model.similarity_fn_name());
            let keys: Vec<String> = keys.iter().map(|k| trainer_key(k)).collect();
            listener.event(&Event::Message(&format!("metrics of this run: {}", keys.join(", "))));
            let metrics = self.evaluate(listener)?;
            self.state.baseline = Some(metrics);
        }
        Ok(())
    }

    fn train(&mut self, listener: &mut dyn Listener) -> Result<()> {
        listener.event(&Event::Phase("train"));
        self.logged_at = Instant::now();
        self.logged_rows = self.state.rows;
        if self.stopped_early {
            return Ok(());
        }
        let wanted = Wanted {
            steps: self.state.total_steps.saturating_sub(self.state.step),
            batches_per_step: self.plan.args.gradient_accumulation_steps.max(1),
        };
        let feeds = self.prepared.sets.iter().map(|set| set.feed.clone()).collect();
        let cursor = Cursor { epoch: self.state.epoch, batch: self.state.batch };
        let mut batches = Batches::start(feeds, Arc::clone(&self.prepared.sampler), cursor, wanted)?;
        while self.state.step < self.state.total_steps && !self.stopped_early {
            if interrupt::requested() {
                self.save(listener)?;
                return Err(Error::cancelled(format!(
                    "stopped after step {} of {}; everything is in `{}`",
                    self.state.step,
                    self.state.total_steps,
                    checkpoint::path(self.run_dir, self.state.step).display()
                ))
                .with_hint(format!("go on with `tallow run --resume {}`", self.run_dir.display())));
            }
            let epoch_ended = self.step(&mut batches, listener)?;
            let due = self.prepared.cadence.due_at(self.state.step, epoch_ended);
            self.after_step(due, listener)?;
        }
        Ok(())
    }

    /// One optimizer step over one or several batches; tells whether it ended an epoch.
    fn step(&mut self, source: &mut Batches, listener: &mut dyn Listener) -> Result<bool> {
        let step = self.state.step;
        let rng = Rng::new(self.plan.seed).fork(DROPOUT_STREAM).fork(step);
        let mut batches = Vec::new();
        let mut loss_sum = 0.0;
        let mut epoch_ended = false;
        for micro in 0..self.plan.args.gradient_accumulation_steps.max(1) {
            let next = self.timings.time("data", || source.take())?;
            (self.state.epoch, self.state.batch) = (next.cursor.epoch, next.cursor.batch);
            self.batches_per_epoch = next.batches_per_epoch;
            let (batch, last) = (self.prepared.arrange(next.batch, rng.fork(micro))?, next.last);
            self.timings.time("optimizer", || self.optimizer.catch_up(&self.prepared.rows(&batch)))?;
            let setting =
                Setting { step: Some((step, self.state.total_steps)), ..self.prepared.setting(batch.dataset)? };
            let Measured { loss, told } = forward_backward(setting, &batch, rng.fork(micro), &mut self.timings)?;
            loss_sum += loss;
            self.state.tell(told);
            self.state.rows += batch.rows as u64;
            self.tokens += batch.packed.tokens() as u64;
            batches.push(batch);
            epoch_ended = last;
            if last {
                break;
            }
        }
        let parts = batches.len() as f64;
        let loss = loss_sum / parts;
        if self.first_step.is_none() {
            let coverage = guard::coverage(&self.prepared.reached(&batches))?;
            if let Some(warning) = guard::first_step(&coverage, loss)?
                && step == 0
            {
                self.warn(warning, listener);
            }
        }
        let args = &self.plan.args;
        let rate =
            args.learning_rate * args.lr_scheduler_type.factor(step, self.state.total_steps, self.prepared.warmup);
        let start = Instant::now();
        // as the Trainer, of the model alone: what its losses train beside it is not clipped
        let norm = gradient_norm(&self.prepared.model.params())? / parts;
        let all = gradient_norm(&self.params)? / parts;
        guard::finite(step + 1, loss, all, &batches, &self.prepared.sets)?;
        self.optimizer.step_clipped(rate, 1.0 / parts, clip_coefficient(norm, args.max_grad_norm))?;
        self.timings.add("optimizer", start.elapsed().as_secs_f64());
        losses(&self.prepared.sets).iter().for_each(|loss| loss.after_step(self.state.total_steps));
        self.state.step += 1;
        self.state.loss_sum += loss;
        self.state.loss_count += 1;
        if self.first_step.is_none() {
            self.first_step = Some(self.started.elapsed().as_secs_f64() - self.timings.get("evaluation"));
        }
        listener.event(&Event::Step { step: self.state.step, total: self.state.total_steps });
        if self.prepared.cadence.due_at(self.state.step, epoch_ended).log {
            self.log(rate, norm, listener);
        }
        Ok(epoch_ended)
    }

    /// Epochs done, fractional.
    fn epoch(&self) -> f64 {
        self.state.epoch as f64 + self.state.batch as f64 / self.batches_per_epoch.max(1) as f64
    }

    fn log(&mut self, learning_rate: f64, grad_norm: f64, listener: &mut dyn Listener) {
        let state = &mut self.state;
        let loss = state.loss_sum / state.loss_count.max(1) as f64;
        (state.loss_sum, state.loss_count, state.last_loss) = (0.0, 0, loss);
        let seconds = self.logged_at.elapsed().as_secs_f64();
        let rows = self.state.rows - self.logged_rows;
        let line = TrainLog {
            step: self.state.step,
            epoch: self.epoch(),
            loss,
            learning_rate,
            grad_norm,
            seconds: self.state.seconds + self.started.elapsed().as_secs_f64(),
            rows_per_second: rows as f64 / seconds.max(1e-9),
            told: std::mem::take(&mut self.state.told)
                .into_iter()
                .map(|(key, sum, count)| (key, sum / count.max(1) as f64))
                .collect(),
        };
        (self.logged_at, self.logged_rows) = (Instant::now(), self.state.rows);
        listener.event(&Event::Log(line));
    }

    fn after_step(&mut self, due: Due, listener: &mut dyn Listener) -> Result<()> {
        let pause = Instant::now();
        let mut best = false;
        if due.evaluate && !self.prepared.evaluation.is_empty() {
            listener.event(&Event::Phase("evaluate"));
            let metrics = self.evaluate(listener)?;
            best = self.observe(&metrics);
            if best && self.plan.args.load_best_model_at_end {
                listener.event(&Event::Best { step: self.state.step });
            }
            self.state.last_metrics = Some(metrics);
        }
        let stopping = self.plan.args.early_stopping;
        if self.state.tracker.exhausted(stopping) {
            self.stopped_early = true;
            listener.event(&Event::Message(&format!(
                "stopping early: no improvement in {} evaluations",
                self.state.tracker.waited
            )));
        }
        // The best model is to be loaded at the end, so it has to be on disk.
        if due.save || (best && self.plan.args.load_best_model_at_end) {
            self.save(listener)?;
        }
        if due.evaluate && self.state.step < self.state.total_steps && !self.stopped_early {
            listener.event(&Event::Phase("train"));
        }
        // Evaluations and checkpoints do not count as training speed.
        self.logged_at += pause.elapsed();
        Ok(())
    }

    fn observe(&mut self, metrics: &Metrics) -> bool {
        let Some(key) = self.prepared.metric.as_deref() else { return false };
        let Some(value) = metrics.get(key) else { return false };
        let (greater, stopping) = (self.prepared.greater_is_better, self.plan.args.early_stopping);
        self.state.tracker.observe(self.state.step, value, metrics, greater, stopping)
    }

    fn evaluate(&mut self, listener: &mut dyn Listener) -> Result<Metrics> {
        self.optimizer.flush()?;
        let start = Instant::now();
        let key = self.prepared.metric.as_deref();
        let evaluation = &self.prepared.evaluation;
        let mut metrics = evaluation.run(&self.prepared.model, classifier(&self.prepared.sets), key)?;
        // Checkpoints keep the items of one metric, the one whose change is judged.
        metrics.samples.retain(|sample| key == Some(sample.key.as_str()));
        let seconds = start.elapsed().as_secs_f64();
        self.timings.add("evaluation", seconds);
        let tables = self.prepared.evaluation.csv(self.prepared.model.similarity_fn_name());
        let (step, epoch) = (self.state.step, self.epoch());
        listener.event(&Event::Evaluation { step, epoch, metrics: &metrics, seconds, tables: &tables });
        metrics.documents.clear();
        metrics.looks.clear();
        if let Some(alarm) = metrics.alarm.take() {
            self.warn(format!("after step {step}: {alarm}"), listener);
        }
        Ok(metrics)
    }

    fn save(&mut self, listener: &mut dyn Listener) -> Result<()> {
        if self.saved_at == Some(self.state.step) {
            return Ok(());
        }
        let start = Instant::now();
        let mut state = self.state.clone();
        state.seconds += self.started.elapsed().as_secs_f64();
        state.loss_memories = losses(&self.prepared.sets).iter().map(|loss| loss.memory()).collect();
        let limit = self.plan.args.save_total_limit;
        let path = checkpoint::save(self.run_dir, &self.prepared, &mut self.optimizer, &state, limit)?;
        self.timings.add("checkpoint", start.elapsed().as_secs_f64());
        listener.event(&Event::Checkpoint { step: state.step, path: &path });
        self.saved_at = Some(state.step);
        Ok(())
    }

    /// Where the improvement lies at 95 %, as far as the evaluators tell; takes the items out of the metrics.
    fn delta_interval(&mut self, last: Option<&mut Metrics>) -> Option<[f64; 2]> {
        let before = std::mem::take(&mut self.state.baseline.as_mut()?.samples);
        let after = std::mem::take(&mut last?.samples);
        let [low, high] = bootstrap::interval(before.first()?, after.first()?)?;
        Some(if self.prepared.greater_is_better { [low, high] } else { [-high, -low] })
    }

    /// Saves the model; of one with adapters also these by themselves, and looks whether both are the same.
    fn save_model(
        &self,
        model: &SentenceTransformer,
        model_dir: &Path,
        listener: &mut dyn Listener,
    ) -> Result<Option<PathBuf>> {
        /// Rows of the training data that both are compared on.
        const ROWS: u32 = 8;
        /// Products of sums are no sums of products to the last bit.
        const TOLERANCE: f64 = 1e-3;
        model.save(model_dir)?;
        let Some(lora) = model.lora() else { return Ok(None) };
        let adapter_dir = self.run_dir.join("adapter");
        lora.save(&adapter_dir)?;
        // what is compared is what was saved
        lora.load(&adapter_dir)?;
        let options = ModelOptions { device: Some(self.prepared.device.clone()), ..ModelOptions::default() };
        let mut merged = SentenceTransformer::load_with(model_dir, &options)?;
        merged.set_column_tasks(model.column_tasks().to_vec());
        let rows: Vec<u32> =
            (0..self.prepared.sets.first().map_or(0, |set| set.store.len() as u32).min(ROWS)).collect();
        let batch = self.prepared.arrange(self.prepared.batch(0, &rows)?, Rng::new(0))?;
        let mut apart = 0.0f64;
        let both = [model, &merged].map(|model| model.embed_part(&batch, 0..batch.packed.len(), &Context::inference()));
        let [adapted, merged] = both;
        let values = |x: Tensor| x.flatten_all()?.to_vec1::<f32>();
        let (adapted, merged) = (values(adapted?)?, values(merged?)?);
        let largest = adapted.iter().fold(1.0f64, |most, x| most.max(f64::from(x.abs())));
        for (a, b) in adapted.iter().zip(&merged) {
            let difference = f64::from((a - b).abs()) / largest;
            apart = if difference.is_nan() { f64::INFINITY } else { apart.max(difference) };
        }
        if adapted.len() != merged.len() || apart > TOLERANCE {
            return Err(Error::train(format!(
                "the model with the adapter merged in gives other embeddings than the adapter on its base: they differ by \
                 {apart:.1e}"
            ))
            .with_hint(format!("both are saved: `{}` and `{}`", model_dir.display(), adapter_dir.display())));
        }
        listener.event(&Event::Message(&format!(
            "adapters of {} layers saved in `{}`; merged, the model gives the same embeddings (within {apart:.0e})",
            lora.layers().count(),
            adapter_dir.display()
        )));
        Ok(Some(files::absolute(&adapter_dir)))
    }

    /// Picks the model to keep, saves it, and sums up.
    fn finish(mut self, options: &Options, listener: &mut dyn Listener) -> Result<Outcome> {
        listener.event(&Event::Phase("save"));
        ops::release_scratch();
        self.params.iter().for_each(|param| param.release_spare());
        self.optimizer.flush()?;
        let model_dir = self.run_dir.join("model");
        let mut metrics = self.state.last_metrics.clone();
        let mut best_step = None;
        if self.plan.args.load_best_model_at_end
            && let Some(best) = &self.state.tracker.best
        {
            best_step = Some(best.step);
            metrics = Some(best.metrics.clone());
        }
        let adapter_dir = match best_step.filter(|step| *step != self.state.step) {
            Some(step) => {
                let best = checkpoint::path(self.run_dir, step);
                listener.event(&Event::Message(&format!("keeping the model of step {step}, the best")));
                if self.prepared.model.lora().is_some() {
                    // its files have the adapters merged in: what was trained goes back into the model that has them
                    checkpoint::restore_trained(&best, &self.prepared.model)?;
                    self.save_model(&self.prepared.model, &model_dir, listener)?
                } else {
                    self.save_model(&load_model(self.plan, Some(&best), &self.prepared.device)?, &model_dir, listener)?
                }
            }
            None => self.save_model(&self.prepared.model, &model_dir, listener)?,
        };
        let key = self.prepared.metric.clone();
        let delta_interval = self.delta_interval(metrics.as_mut());
        let value = |metrics: &Option<Metrics>| metrics.as_ref().and_then(|m| m.get(key.as_deref()?));
        let seconds = self.started.elapsed().as_secs_f64();
        let training: f64 =
            ["data", "forward", "backward", "optimizer"].iter().map(|phase| self.timings.get(phase)).sum();
        let base = self.run_dir.join("base");
        let (steps, shares) = (self.state.step, self.timings.shares(seconds));
        listener.event(&Event::Message(&format!("trained {steps} steps in {} ({shares})", clock::human(seconds))));
        Ok(Outcome {
            steps: self.state.step,
            epochs: self.epoch(),
            base_model_dir: (options.keep_base && base.exists()).then_some(base),
            metric: key.as_deref().map(trainer_key),
            greater_is_better: self.prepared.greater_is_better,
            baseline: value(&self.state.baseline),
            score: value(&metrics),
            delta_interval,
            best_step,
            baseline_metrics: self.state.baseline.clone().unwrap_or_default(),
            final_metrics: metrics.clone().unwrap_or_default(),
            last_loss: self.state.last_loss,
            seconds: self.state.seconds + seconds,
            seconds_to_first_step: self.first_step.unwrap_or_default(),
            timings: self.timings.all().clone(),
            rows_per_second: (self.state.rows - self.rows_before) as f64 / training.max(1e-9),
            peak_memory_bytes: memory::peak(),
            train_rows: self.prepared.train_rows(),
            train_tokens: self.tokens,
            stopped_early: self.stopped_early,
            warnings: self.state.warnings.clone(),
            model_dir: files::absolute(&model_dir),
            adapter_dir,
        })
    }
}
