//! From a plan to everything the loop needs: model, data, loss, evaluators, sampler, number of steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use super::checkpoint;
use super::evaluation::{EvalSet, Evaluation, build_evaluator};
use super::events::{Event, Listener};
use super::memory::{Estimate, Largest};
use super::sets::{DataSet, Opener, classifier, own_params};
use super::step::Setting;
use super::{from_hub, hard_negatives, own_tokenizer, prompts, routes, static_queries, teaching};
use crate::data::sampler::{BatchSampler, Mixed, MultiDatasetBatchSampler, Sampler, SamplerSettings};
use crate::data::{EpochPlan, Store};
use crate::error::{Error, Result};
use crate::eval::{label_accuracy, trainer_key};
use crate::flow::{Batch, Encode, ModelType};
use crate::model::{
    AutoencoderOptions, ModelOptions, NetworkTokenizer, SentenceTransformer, StaticOptions, StaticSource,
};
use crate::ops::{self, Param, Precision};
use crate::optim::steps::{Cadence, Steps};
use crate::recipe::Plan;
use crate::recipe::plan::{Location, ModelSource};
use crate::util::seed::Rng;
use crate::util::{memory, suggest};

/// Epochs whose batches are counted one by one before the first step.
const EPOCHS_COUNTED: u64 = 32;
/// Batches of the first epoch that are looked at for the largest.
const BATCHES_LOOKED_AT: usize = 200;

/// Everything a run works with.
pub struct Prepared {
    pub model: SentenceTransformer,
    /// The training data, and the loss of each set.
    pub sets: Vec<DataSet>,
    pub evaluation: Evaluation,
    /// Puts the rows of all sets into batches.
    pub sampler: Arc<Mixed>,
    pub steps: Steps,
    pub cadence: Cadence,
    pub warmup: u64,
    /// The metric that decides, without `eval_`.
    pub metric: Option<String>,
    pub greater_is_better: bool,
    pub estimate: Estimate,
    /// Memory that was free before the first step, in bytes; `None` where it is not known or not what counts.
    pub available: Option<u64>,
    /// Tokens of a micro-batch where gradients of embeddings are cached; `None` for a batch at once.
    pub cache_tokens: Option<usize>,
    pub warnings: Vec<String>,
    /// Of the operands of matrix products in training.
    pub precision: Precision,
    /// Where the model is.
    pub device: Device,
}

/// The directory of a model that is local, or a clear refusal.
fn locate(location: &Location, key: &str) -> Result<PathBuf> {
    locate_at(location, None, key)
}

/// As [`locate`], at a revision of what is on the Hub.
fn locate_at(location: &Location, revision: Option<&str>, key: &str) -> Result<PathBuf> {
    match location {
        Location::Path(path) => Ok(path.clone()),
        Location::Hub(id) => crate::hub::fetch(id, revision).map_err(|e| e.within(format!("`{key}`"))),
    }
}

/// The options of a plan's model.
fn options(plan: &Plan, device: &Device) -> ModelOptions {
    ModelOptions {
        model_type: Some(plan.model_type),
        num_labels: plan.model.num_labels,
        activation_fn: plan.model.activation_fn,
        seed: plan.seed,
        device: Some(device.clone()),
        name_prefix: String::new(),
        gradient_checkpointing: plan.args.gradient_checkpointing,
        keep_layers: plan.model.keep_layers.clone(),
        max_seq_length: plan.model.max_seq_length,
        pooling_mode: plan.model.pooling_mode.clone(),
        normalize: plan.model.normalize,
        dropout: plan.model.dropout,
        prompts: plan.model.prompts.clone().unwrap_or_default(),
        truncate_dim: plan.model.truncate_dim,
        default_prompt_name: plan.model.default_prompt_name.clone(),
        multi_vector: plan.model.multi_vector.clone(),
        similarity_fn_name: plan.model.similarity_fn_name.map(|s| s.name().to_owned()),
        // added to a base model; one in a checkpoint has them
        autoencoder: plan.model.sparse_auto_encoder.as_ref().map(|wanted| AutoencoderOptions {
            hidden_dim: wanted.hidden_dim,
            k: wanted.k,
            k_aux: wanted.k_aux,
            normalize: wanted.normalize,
            dead_threshold: wanted.dead_threshold,
        }),
        ..ModelOptions::default()
    }
}

/// The model a plan starts from, or the one in a checkpoint, on `device`.
///
/// # Errors
/// When it is not there, broken, or of a type that cannot be trained.
pub fn load_model(plan: &Plan, checkpoint: Option<&Path>, device: &Device) -> Result<SentenceTransformer> {
    load_model_as(plan, checkpoint, device, "")
}

/// As [`load_model`], with something before the names of its parameters.
fn load_model_as(
    plan: &Plan,
    checkpoint: Option<&Path>,
    device: &Device,
    name_prefix: &str,
) -> Result<SentenceTransformer> {
    let options = ModelOptions { name_prefix: name_prefix.to_owned(), ..options(plan, device) };
    if let Some(lora) = &plan.model.lora {
        /// Keeps the adapters' numbers apart from other things drawn from the same seed.
        const STREAM: u64 = 0x10A4_0000;
        let mut model = from_source(plan, options)?;
        let base = match &plan.model.source {
            ModelSource::Base(Location::Hub(id)) => id.clone(),
            ModelSource::Base(Location::Path(path)) => path.display().to_string(),
            _ => String::new(),
        };
        model.add_adapter(lora, &base, Rng::new(plan.seed).fork(STREAM))?;
        // a checkpoint's model has the adapters merged in; what was trained stands beside it. A second model's is a loss's
        if let Some(directory) = checkpoint.filter(|_| name_prefix.is_empty()) {
            checkpoint::restore_trained(directory, &model)?;
        }
        return Ok(model);
    }
    if let Some(directory) = checkpoint {
        let made = ModelOptions { autoencoder: None, keep_layers: None, ..options };
        return SentenceTransformer::load_with(directory, &made);
    }
    from_source(plan, options)
}

/// The model before any training.
fn from_source(plan: &Plan, options: ModelOptions) -> Result<SentenceTransformer> {
    let options = ModelOptions { static_queries: static_queries::options(plan), ..options };
    match &plan.model.source {
        ModelSource::Base(location) => {
            let revision = plan.model.revision.as_deref();
            SentenceTransformer::load_with(&locate_at(location, revision, "model.base")?, &options)
        }
        ModelSource::StaticEmbedding { embedding_dim, tokenizer } => {
            let from = StaticOptions {
                tokenizer: locate(tokenizer, "model.static_embedding.tokenizer")?,
                embedding_dim: *embedding_dim,
            };
            SentenceTransformer::new_static(&from, &options, Rng::new(plan.seed))
        }
        ModelSource::StaticEmbeddingAndTokenizer { embedding_dim, training } => {
            let source = StaticSource::RandomFor(own_tokenizer::train(plan, *training)?, *embedding_dim);
            SentenceTransformer::new_static_from(&source, &options, Rng::new(plan.seed))
        }
        ModelSource::Distilled { teacher, how } => {
            let directory = locate(teacher, "model.static_embedding.distill_from")?;
            let source = StaticSource::Teacher(directory, how.clone());
            let made = SentenceTransformer::new_static_from(&source, &options, Rng::new(plan.seed));
            made.map_err(|e| e.within("`model.static_embedding.distill_from`"))
        }
        ModelSource::Config { config, tokenizer } => {
            let tokenizer = NetworkTokenizer::File(locate(tokenizer, "model.tokenizer")?);
            SentenceTransformer::new_network(config, &tokenizer, &options)
        }
        ModelSource::ConfigAndTokenizer { config, training } => {
            let tokenizer = NetworkTokenizer::Bytes(own_tokenizer::train(plan, *training)?);
            SentenceTransformer::new_network(config, &tokenizer, &options)
        }
    }
}

impl Prepared {
    /// Reads and checks everything, before any time is spent on training.
    ///
    /// # Errors
    /// When anything a plan names is missing, broken, or does not fit the rest.
    pub fn new(plan: &Plan, checkpoint: Option<&Path>, listener: &mut dyn Listener) -> Result<Self> {
        set_threads(plan.args.num_threads);
        let device = if plan.args.use_cpu { Device::Cpu } else { ops::device::first()? };
        listener.event(&Event::Message(&format!("computing on {}", ops::device::name(&device))));
        let plan = &from_hub::fetch(plan, checkpoint.is_some(), listener)?;
        let mined = hard_negatives::local_plan(plan, &device, listener)?;
        let plan = mined.as_ref().unwrap_or(plan);
        let taught = teaching::local_plan(plan, &device, listener)?;
        let plan = taught.as_ref().unwrap_or(plan);
        let mut model = load_model(plan, checkpoint, &device)?;
        if !model.params().iter().any(|param| param.trainable()) {
            return Err(Error::usage("the model has nothing to train: none of its modules has trainable parameters")
                .with_hint(
                    "a JinaBERT network serves as teacher (`tallow teach`) or `guide` only; of word embeddings set \
                     `update_embeddings` in wordembedding_config.json to true; a Dense module would be trained",
                ));
        }
        if plan.args.gradient_checkpointing && model.layers() == 0 {
            return Err(Error::usage("`args.gradient_checkpointing`: the model has no layers to compute again")
                .with_hint("leave it out: it is for networks such as BERT"));
        }
        let mut warnings = Vec::new();
        let precision = if plan.args.bf16 && device.is_cpu() { Precision::Bf16 } else { Precision::Full };
        if plan.args.bf16 && !device.is_cpu() {
            warnings.push("`args.bf16`: a GPU computes in f32 so far; as exact, and not faster".to_owned());
        } else if plan.args.bf16 && ops::bf16_products().is_none() {
            warnings.push(
                "`args.bf16`: this machine multiplies nothing faster than f32 (it has neither AVX512-BF16 nor AVX2 \
                 without AVX-512), so products are computed in f32: as exact, and not faster"
                    .to_owned(),
            );
        }
        let again = |prefix: &str| load_model_as(plan, checkpoint, &device, prefix);
        let mut opener = Opener::new(plan, &model, &device, &again);
        let mut sets = Vec::with_capacity(plan.train_dataset.len());
        for (i, train) in plan.train_dataset.iter().enumerate() {
            let single = plan.train_dataset.len() == 1;
            let key = if single { "train_dataset".to_owned() } else { format!("train_dataset.{i}") };
            let set = opener.train(train, &key)?;
            describe(&set.store, listener);
            sets.push(set);
        }
        if plan.evaluator.iter().any(|e| e.kind == label_accuracy::CARD.name) && classifier(&sets).is_none() {
            return Err(Error::usage(format!(
                "`{}` measures the classifier that SoftmaxLoss trains, and this run trains none, or several",
                label_accuracy::CARD.name
            ))
            .with_hint(
                "give the training data sets one SoftmaxLoss with the same settings, or leave the evaluator out",
            ));
        }
        let tasks = routes::tasks(plan, &model, &sets)?;
        let evaluation = evaluation(plan, &mut opener, &tasks, listener)?;
        evaluation.evaluators.iter().for_each(|evaluator| evaluator.meet(&model));
        warnings.append(&mut opener.warnings);
        model.set_column_tasks(tasks);
        let names = |set: &DataSet| set.store.report().label.as_ref().map(|label| label.names.clone());
        if let Some(names) = sets.iter().filter_map(names).find(|names| names.len() == model.dimension()) {
            model.name_classes(&names);
        }
        if let [first, ..] = model.unknown_words().as_slice()
            && plan.model.multi_vector.skiplist_words.is_some()
        {
            let unknown = model.unknown_words().len();
            warnings.push(format!(
                "`model.skiplist_words`: {unknown} of them, `{first}` for one, are not one token each, and documents are \
                 compared by them"
            ));
        }
        let stores = || sets.iter().map(|set| set.store.as_ref());
        prompts::check(plan, stores().chain(evaluation.sets.iter().map(|set| set.set.store.as_ref())))?;
        let adopted = prompts::adopt(plan, &mut model, stores());
        adopted.message.iter().for_each(|text| listener.event(&Event::Message(text)));
        warnings.extend(adopted.warning);
        let similarity = model.similarity_fn_name().to_owned();
        let metric = choose_metric(plan, &evaluation, &similarity)?;
        let sampler = Arc::new(sampler(plan, &sets)?);
        warnings.extend(lonely_rows(plan, &sets, &sampler));
        let largest = largest_batch(&model, &sets, &sampler)?;
        let steps = count_steps(plan, &sampler)?;
        let cadence = Cadence::new(
            steps,
            plan.args.logging_steps,
            plan.args.eval,
            plan.args.save,
            plan.args.load_best_model_at_end,
        )?;
        let estimate = Estimate::new(
            &[model.params(), own_params(&sets)].concat(),
            model.activation_floats(),
            match model.kind() {
                // a vector for each token
                ModelType::MultiVectorEncoder => model.dimension() * largest.tokens.div_ceil(largest.sequences.max(1)),
                _ => model.dimension(),
            },
            sets.iter().filter_map(|set| set.decoder.as_ref()).map(|d| d.activation_floats()).max().unwrap_or(0),
            largest,
        );
        // a device's memory is not the host's
        let available = memory::available().filter(|_| device.is_cpu());
        // what the recipe says of stepping comes before what the loss wishes
        let wishes = sets.iter().filter_map(|set| set.loss.micro_batch()).map(|part| part.tokens(largest.longest));
        let wished = || wishes.min();
        let stepping = estimate.stepping(plan.args.gradient_cache_tokens.or_else(wished), available);
        warnings.extend(stepping.warning);
        Ok(Self {
            warmup: plan.args.warmup_steps.resolve(steps.total),
            greater_is_better: plan.args.greater_is_better,
            model,
            sets,
            evaluation,
            sampler,
            steps,
            cadence,
            metric,
            estimate,
            available,
            cache_tokens: stepping.cache_tokens,
            warnings,
            precision,
            device,
        })
    }

    /// Where and in what products are computed.
    pub fn arithmetic(&self) -> String {
        let device = if self.device.is_cpu() { "the CPU" } else { "a GPU" };
        let products = ops::bf16_products().filter(|_| self.device.is_cpu() && self.precision == Precision::Bf16);
        format!("{device}, products in {}", products.map_or("f32", ops::Bf16Products::name))
    }

    /// What a batch of that data set is stepped with.
    ///
    /// # Errors
    /// When there is no such data set.
    pub fn setting(&self, dataset: usize) -> Result<Setting<'_>> {
        let set = self.sets.get(dataset).ok_or_else(|| Error::Internal(format!("there is no data set {dataset}")))?;
        Ok(Setting {
            model: &self.model,
            twin: set.twin.as_deref(),
            decoder: set.decoder.as_deref(),
            loss: set.loss.as_ref(),
            guide: set.guide.as_ref(),
            precision: self.precision,
            cache_tokens: self.cache_tokens,
            step: None,
        })
    }

    /// The rows of embedding tables that a step on `batch` reads.
    pub fn rows(&self, batch: &Batch) -> Vec<(Arc<Param>, Vec<u32>)> {
        let mut rows = self.model.rows(batch);
        if let Some(set) = self.sets.get(batch.dataset) {
            rows.extend(set.twin.iter().flat_map(|twin| twin.rows(batch)));
            let whole = |table: Arc<Param>| {
                let all = (0..table.dims().first().copied().unwrap_or(0) as u32).collect();
                (table, all)
            };
            rows.extend(set.decoder.iter().flat_map(|decoder| decoder.whole_tables()).map(whole));
        }
        rows
    }

    /// These rows of a data set, as the first epoch has them.
    ///
    /// # Errors
    /// When there are no such rows.
    pub fn batch(&self, dataset: usize, rows: &[u32]) -> Result<Batch> {
        let set = self.sets.get(dataset).ok_or_else(|| Error::Internal(format!("there is no data set {dataset}")))?;
        Ok(Batch { dataset, ..set.feed.batch(rows, 0)? })
    }

    /// The sequences of a batch as the model reads them; `rng` is that of the step's batch.
    ///
    /// # Errors
    /// As [`SentenceTransformer::arrange`].
    pub fn arrange(&self, batch: Batch, rng: Rng) -> Result<Batch> {
        /// Keeps the drawing of negatives apart from dropouts.
        const STREAM: u64 = 0x9A12;
        let pairing = self.setting(batch.dataset)?.loss.pairing();
        self.model.arrange(batch, pairing, rng.fork(STREAM))
    }

    /// Everything that is trained: the model's parameters, then those of the losses and their second models.
    pub fn params(&self) -> Vec<Arc<Param>> {
        [self.model.params(), own_params(&self.sets)].concat()
    }

    /// The parameters that these batches can reach: the model's, and those of the losses of their data sets.
    pub fn reached(&self, batches: &[Batch]) -> Vec<Arc<Param>> {
        let mut params = self.model.params();
        for (i, set) in self.sets.iter().enumerate().filter(|(i, _)| batches.iter().any(|b| b.dataset == *i)) {
            let seen = self.sets[..i].iter().any(|other| Arc::ptr_eq(&other.loss, &set.loss));
            params.extend(set.own_params().into_iter().filter(|_| !seen));
        }
        params
    }

    /// Rows of all training data.
    pub fn train_rows(&self) -> u64 {
        self.sets.iter().map(|set| set.store.len() as u64).sum()
    }

    /// What is trained on: a hash of contents, the same for the same data in the same order.
    pub fn fingerprint(&self) -> String {
        self.sets.iter().map(|set| set.store.fingerprint()).collect::<Vec<_>>().join("+")
    }
}

/// The rows of all training data as batches, each of one data set.
fn sampler(plan: &Plan, sets: &[DataSet]) -> Result<Mixed> {
    let args = &plan.args;
    let kind = BatchSampler::from_name(&args.batch_sampler)?;
    let how = MultiDatasetBatchSampler::from_name(&args.multi_dataset_batch_sampler)?;
    let mut samplers: Vec<Arc<dyn Sampler>> = Vec::with_capacity(sets.len());
    for (seed, set) in (plan.seed..).zip(sets) {
        let settings = SamplerSettings {
            batch_size: set.feed.rows_taken(args.per_device_train_batch_size),
            max_tokens: args.max_tokens_per_batch,
            drop_last: args.dataloader_drop_last,
            shuffle: args.shuffle,
            seed,
        };
        let name = set.store.report().name.clone().unwrap_or_default();
        let sampler = kind.build(Arc::new(set.feed.clone()) as _, settings);
        samplers.push(sampler.map_err(|e| e.within(format!("data set `{name}`")))?.into());
    }
    Ok(Mixed::new(samplers, how, args.shuffle, plan.seed))
}

/// Threads for everything, once a process; 0 for one a core.
fn set_threads(threads: usize) {
    // A second run in the same process keeps the first one's threads.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

fn describe(store: &Store, listener: &mut dyn Listener) {
    for line in store.report().lines(store.files()) {
        listener.event(&Event::Message(&line));
    }
}

fn evaluation(
    plan: &Plan,
    opener: &mut Opener<'_>,
    tasks: &[Option<String>],
    listener: &mut dyn Listener,
) -> Result<Evaluation> {
    let mut evaluation = Evaluation::default();
    for (i, set) in plan.eval_dataset.iter().enumerate() {
        let key = format!("eval_dataset.{i}");
        let set = opener.evaluate(set, &key)?;
        routes::same(plan, tasks, &set.store, &key)?;
        describe(&set.store, listener);
        let settings = SamplerSettings {
            batch_size: set.feed.rows_taken(plan.args.per_device_eval_batch_size),
            max_tokens: plan.args.max_tokens_per_batch,
            drop_last: plan.args.dataloader_drop_last,
            shuffle: false,
            seed: plan.seed,
        };
        let sampler =
            BatchSampler::from_name(&plan.args.batch_sampler)?.build(Arc::new(set.feed.clone()) as _, settings);
        let sampler = sampler.map_err(|e| e.within(format!("`{key}`, `args.per_device_eval_batch_size`")))?;
        evaluation.sets.push(EvalSet { batches: sampler.epoch(0), set });
    }
    for evaluator in &plan.evaluator {
        evaluation.evaluators.push(build_evaluator(evaluator)?);
    }
    Ok(evaluation)
}

/// The deciding metric, checked against what the evaluators will give.
fn choose_metric(plan: &Plan, evaluation: &Evaluation, similarity: &str) -> Result<Option<String>> {
    let keys = evaluation.keys(similarity);
    let Some(wanted) = &plan.args.metric_for_best_model else {
        return Ok(evaluation.primary(similarity));
    };
    match keys.iter().find(|key| trainer_key(key) == trainer_key(wanted)) {
        Some(key) => Ok(Some(key.clone())),
        None => {
            let legal: Vec<String> = keys.iter().map(|key| trainer_key(key)).collect();
            let near = suggest::nearest(wanted, legal.iter().map(String::as_str));
            let list = legal.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            Err(Error::usage(format!("`args.metric_for_best_model`: there will be no metric `{wanted}`")).with_hint(
                match (near, legal.is_empty()) {
                    (_, true) => "add an `[[evaluator]]` or an `[eval_dataset]`".to_owned(),
                    (Some(near), _) => format!("did you mean `{near}`? This run has {list}"),
                    (None, _) => format!("this run has {list}"),
                },
            ))
        }
    }
}

/// The length of the run. A sampler's epochs can differ by a few batches, so each is counted.
fn count_steps(plan: &Plan, sampler: &Mixed) -> Result<Steps> {
    let args = &plan.args;
    let first = sampler.batches_per_epoch(0) as u64;
    let mut steps = Steps::new(first, args.gradient_accumulation_steps, args.num_train_epochs, args.max_steps)?;
    if args.max_steps.is_some() {
        return Ok(steps);
    }
    let parts = args.gradient_accumulation_steps.max(1);
    let per_epoch = |epoch: u64| (sampler.batches_per_epoch(epoch) as u64).div_ceil(parts);
    let whole = args.num_train_epochs.floor() as u64;
    let counted = whole.min(EPOCHS_COUNTED);
    let mut total: u64 = (0..counted).map(per_epoch).sum();
    // of a very long run the rest is taken to be like the first epoch
    total = total.saturating_add((whole - counted).saturating_mul(steps.per_epoch));
    let part = args.num_train_epochs.fract();
    if part > 0.0 {
        let last = if whole < EPOCHS_COUNTED { per_epoch(whole) } else { steps.per_epoch };
        total = total.saturating_add((last as f64 * part).ceil() as u64);
    }
    steps.total = total.max(1);
    Ok(steps)
}

/// A warning where the budget of tokens leaves rows alone in their batches that should be compared with others.
fn lonely_rows(plan: &Plan, sets: &[DataSet], sampler: &Mixed) -> Vec<String> {
    let Some(most) = plan.args.max_tokens_per_batch else { return Vec::new() };
    let told = |(set, epoch): (&DataSet, &Arc<EpochPlan>)| {
        let card = set.loss.base_card();
        // hard negatives give a row something to be compared with
        if !(card.compares_rows || (card.in_batch_negatives && set.store.columns().len() < 3)) {
            return None;
        }
        let (alone, all) = (epoch.single_by_tokens(), epoch.len());
        (alone > 0).then(|| {
            format!(
                "`args.max_tokens_per_batch`: at {most} tokens {alone} of {all} batches of the first epoch have a \
                 single row, on which {} is the same whatever the model does: raise it, or lower `model.max_seq_length`",
                card.name
            )
        })
    };
    sets.iter().zip(sampler.epoch(0).plans()).filter_map(told).collect()
}

/// The largest of the first batches.
fn largest_batch(model: &SentenceTransformer, sets: &[DataSet], sampler: &Mixed) -> Result<Largest> {
    let plan = sampler.epoch(0);
    let mut largest = Largest::default();
    for (set, rows) in plan.from(0).take(BATCHES_LOOKED_AT) {
        let Some(DataSet { feed, loss, .. }) = sets.get(set) else { continue };
        let batch = feed.batch(rows, 0)?;
        // a text can be embedded more than once
        let times = loss.views().map_or(batch.columns, <[_]>::len).div_ceil(batch.columns.max(1)).max(1);
        let batch = model.arrange(batch, loss.pairing(), Rng::new(0))?;
        let offsets = model.token_offsets(&batch);
        let longest = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
        largest.longest = largest.longest.max(longest);
        largest.tokens = largest.tokens.max(offsets.last().map_or(0, |all| *all as usize) * times);
        largest.sequences = largest.sequences.max(batch.packed.len() * times);
    }
    Ok(largest)
}
