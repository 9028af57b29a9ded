//! How long may texts be, how large a batch, how fast to learn, and does it fit into memory?

use serde_json::{Map, Value, json};

use super::losses::Candidate;
use super::{Goal, Situation};
use crate::catalog::bases::Base;
use crate::catalog::fit;
use crate::data::inspect::Shape;
use crate::flow::{Card, ModelType};
use crate::util::memory::human;

/// What the program itself takes, as the estimate before a run has it.
const PROGRAM: u64 = 160 << 20;
/// Free memory where the system does not tell.
const ASSUMED: u64 = 8 << 30;
/// Networks with so many numbers are adapted rather than trained where memory is short.
const LARGE: u64 = 250_000_000;
/// Rows from which on random static vectors learn enough.
const MANY: u64 = 500_000;

/// The numbers of a run.
#[derive(Debug, Clone)]
pub struct Numbers {
    max_seq_length: Option<usize>,
    batch: usize,
    cache_tokens: Option<usize>,
    epochs: u32,
    learning_rate: f64,
    lora: bool,
    eval_every: f64,
    /// Keys of a wrapper of the loss.
    pub regularizer: Map<String, Value>,
    pub why: Vec<String>,
}

/// Limits that are usual.
const LENGTHS: [usize; 4] = [64, 128, 256, 512];

impl Numbers {
    pub fn of(s: &Situation<'_>, first: &Candidate, base: &Base, from_scratch: bool) -> Self {
        let is_static = from_scratch || base.is_static;
        let card = fit::plain(s.model_type).find(|card| card.name == first.name);
        let mut why = Vec::new();
        let rows = rows(s, first);
        let lengths: Vec<usize> = first
            .columns
            .iter()
            .map(|name| s.data.columns.iter().find(|c| c.name == *name).map_or(0, |c| c.tokens[2] as usize))
            .collect();
        let joined = s.model_type == ModelType::CrossEncoder;
        let longest = if joined { lengths.iter().sum() } else { lengths.iter().copied().max().unwrap_or(0) };
        let fits = LENGTHS.into_iter().find(|limit| *limit >= longest).unwrap_or(512);
        let limit = base.max_seq_length.map_or(fits, |most| fits.min(most));
        let (max_seq_length, about) = if is_static { (None, 512) } else { (Some(limit), limit) };
        if let Some(limit) = max_seq_length {
            why.push(format!(
                "max_seq_length {limit}: 99 of 100 {} have {longest} tokens or fewer",
                if joined { "pairs" } else { "texts" }
            ));
        }
        // a sequence's tokens in the largest batches
        let sequence: usize = if joined { longest.min(about) } else { lengths.iter().map(|n| (*n).min(about)).sum() };
        let available = s.memory.unwrap_or(ASSUMED);
        let lora = !is_static && base.parameters >= LARGE && 16 * base.parameters > available / 2;
        let wanted = wanted(s, card, is_static, rows);
        let memory = Memory { s, base, sequence, lora, is_static, texts: first.columns.len() };
        let (batch, cache_tokens) = memory.fit(wanted, card, available, about, &mut why);
        let epochs = match rows {
            0..2_000 => 3,
            2_000..10_000 => 2,
            _ if is_static && rows < MANY => 3,
            _ => 1,
        };
        let steps = rows.div_ceil(batch as u64) * u64::from(epochs);
        let learning_rate = rate(s, first, base, is_static, lora, &mut why);
        let mut regularizer = Map::new();
        if s.model_type == ModelType::SparseEncoder {
            let (document, query) = weights(steps);
            regularizer.insert("splade.document_regularizer_weight".to_owned(), document.into());
            regularizer.insert("splade.query_regularizer_weight".to_owned(), query.into());
            why.push(format!(
                "regulariser weights for {steps} steps: raise them while active dimensions stay in the thousands, or name \
                 `loss.splade.target_document_active_dims`"
            ));
        }
        why.push(format!("{epochs} epoch(s) of {rows} rows, {steps} steps"));
        let eval_every = if steps < 50 { 0.25 } else { 0.1 };
        Self { max_seq_length, batch, cache_tokens, epochs, learning_rate, lora, eval_every, regularizer, why }
    }

    /// Keys of `[model]`.
    pub fn model(&self, base: &Base, from_scratch: bool, rows: u64) -> Vec<(String, Value)> {
        if from_scratch {
            let key = |name: &str| format!("static_embedding.{name}");
            return if rows < MANY {
                vec![(key("distill_from"), base.name.clone().into())]
            } else {
                vec![(key("embedding_dim"), 512.into())]
            };
        }
        let mut keys = vec![("base".to_owned(), base.name.clone().into())];
        keys.extend(self.max_seq_length.map(|limit| ("max_seq_length".to_owned(), limit.into())));
        if self.lora {
            keys.extend([("lora.r".to_owned(), 16.into()), ("lora.alpha".to_owned(), 32.into())]);
        }
        keys
    }

    /// Keys of `[args]`.
    pub fn arguments(&self, first: &Candidate, metric: Option<&str>) -> Vec<(&'static str, Value)> {
        let mut keys = vec![
            ("num_train_epochs", self.epochs.into()),
            ("per_device_train_batch_size", self.batch.into()),
            ("learning_rate", self.learning_rate.into()),
            ("warmup_steps", json!(0.1)),
        ];
        keys.extend(self.cache_tokens.map(|tokens| ("gradient_cache_tokens", tokens.into())));
        keys.extend(sampler(first).map(|name| ("batch_sampler", name.into())));
        if let Some(metric) = metric {
            keys.extend([
                ("eval_steps", json!(self.eval_every)),
                ("save_steps", json!(self.eval_every)),
                ("save_total_limit", json!(2)),
                ("load_best_model_at_end", json!(true)),
                ("metric_for_best_model", metric.into()),
            ]);
        }
        keys
    }
}

/// Rows there will be: hard negatives make more of them.
fn rows(s: &Situation<'_>, first: &Candidate) -> u64 {
    let rows = s.data.rows - s.data.unusable;
    match first.hard_negatives.get("output_format").and_then(Value::as_str) {
        Some("labeled-pair") => {
            rows * (1 + first.hard_negatives.get("num_negatives").and_then(Value::as_u64).unwrap_or(0))
        }
        _ => rows,
    }
}

/// How batches are put together, as the loss wants it.
fn sampler(first: &Candidate) -> Option<&'static str> {
    let types = crate::catalog::choose::TYPES;
    let card = types.into_iter().flat_map(fit::plain).find(|card| card.name == first.name)?;
    // the same text twice in a row is a duplicate by intent
    match (card.in_batch_negatives, card.compares_labels) {
        (true, _) => Some("no_duplicates"),
        (_, true) => Some("group_by_label"),
        _ => None,
    }
}

/// The batch size to begin with: as many negatives as pay, and still some steps an epoch.
fn wanted(s: &Situation<'_>, card: Option<&'static Card>, is_static: bool, rows: u64) -> usize {
    let in_batch = card.is_some_and(|card| card.in_batch_negatives);
    let name = card.map_or("", |card| card.name);
    let most: usize = match (s.model_type, in_batch) {
        _ if name == "DenoisingAutoEncoderLoss" => 8,
        (ModelType::SentenceTransformer, true) if is_static => 1024,
        (ModelType::SentenceTransformer, true) => 64,
        (_, true) => 32,
        (ModelType::CrossEncoder, false) if s.data.shape == Shape::Lists => 8,
        _ if card.is_some_and(|card| card.compares_labels) => 32,
        _ => 16,
    };
    let mut batch = most;
    while batch > 8 && rows / (batch as u64) < 20 {
        batch /= 2;
    }
    batch
}

fn rate(s: &Situation<'_>, first: &Candidate, base: &Base, is_static: bool, lora: bool, why: &mut Vec<String>) -> f64 {
    let (rate, reason) = if is_static && s.goal == Some(Goal::Speed) && s.data.rows < MANY {
        (1e-2, "distilled static vectors are moved gently")
    } else if is_static {
        (2e-1, "static vectors are each seen rarely")
    } else if lora {
        (2e-4, "adapters learn slowly; the whole network would not fit into half of the memory")
    } else if first.name.contains("ContrastiveTension") {
        (1e-5, "usual for this loss")
    } else if matches!(first.name.as_str(), "MSELoss" | "EmbedDistillLoss")
        && s.model_type == ModelType::SentenceTransformer
    {
        (1e-4, "the loss is a small mean over all values")
    } else {
        let fresh = base.model_type != Some(s.model_type);
        match s.model_type {
            ModelType::SparseEncoder | ModelType::MultiVectorEncoder if fresh => {
                (1e-4, "its head is new; 2e-5 from a model of the type")
            }
            _ => (2e-5, "usual for encoders"),
        }
    };
    why.push(format!("learning rate {rate:e}: {reason}"));
    rate
}

/// What the words of documents and queries cost: the papers' weights are for many thousand steps.
fn weights(steps: u64) -> (f64, f64) {
    match steps {
        0..2_000 => (3e-3, 5e-3),
        2_000..20_000 => (3e-4, 5e-4),
        _ => (3e-5, 5e-5),
    }
}

/// What decides how much memory a step needs.
struct Memory<'a> {
    s: &'a Situation<'a>,
    base: &'a Base,
    /// Tokens of a row.
    sequence: usize,
    lora: bool,
    is_static: bool,
    /// Columns of texts.
    texts: usize,
}

impl Memory<'_> {
    /// The peak of a step, in bytes, in micro-batches of so many tokens or at once.
    fn peak(&self, batch: usize, cache_tokens: Option<usize>) -> u64 {
        let copies = if self.lora { 5 } else { 16 };
        let tokens = batch * self.sequence;
        let at_once = cache_tokens.map_or(tokens, |most| most.min(tokens)) as u64;
        // rows of pre-norm networks keep a little more
        let floats = if self.is_static { 0 } else { self.base.activations() as u64 * 5 / 4 };
        let width = match self.s.model_type {
            ModelType::SparseEncoder => self.base.vocabulary,
            ModelType::MultiVectorEncoder => 128 * self.sequence,
            _ => self.base.hidden.max(1),
        } as u64;
        let sequences = (batch * self.texts) as u64;
        let embeddings = 4 * (sequences * width * 6 + sequences * sequences * 4);
        copies * self.base.parameters + 4 * floats * at_once + embeddings + PROGRAM
    }

    /// The batch size, and tokens of a micro-batch, that fit: losses whose negatives are the batch keep it.
    fn fit(
        &self,
        wanted: usize,
        card: Option<&'static Card>,
        available: u64,
        limit: usize,
        why: &mut Vec<String>,
    ) -> (usize, Option<usize>) {
        let room = available / 5 * 4;
        let kept = card.is_some_and(|card| card.in_batch_negatives || card.compares_labels);
        let (mut batch, mut cache) = (wanted, None);
        if kept && self.peak(batch, None) > room {
            let least = limit.next_power_of_two();
            let mut tokens = 16_384;
            while tokens > least && self.peak(batch, Some(tokens)) > room {
                tokens /= 2;
            }
            cache = Some(tokens);
        }
        let smallest = if kept { 8 } else { 4 };
        while batch > smallest && self.peak(batch, cache) > room {
            batch /= 2;
        }
        let cached = cache.map_or_else(String::new, |tokens| format!(" in micro-batches of {tokens} tokens"));
        let free = self.s.memory.map_or_else(|| "8 GB assumed".to_owned(), |bytes| format!("{} free", human(bytes)));
        let peak = self.peak(batch, cache);
        let short = if peak > available { ", which is too little: take a smaller base" } else { "" };
        why.push(format!("batch {batch}{cached}: about {} of {free}{short}", human(peak)));
        (batch, cache)
    }
}
