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
/// Sequences that a part has at least.
const SMALLEST_PART: usize = 4;
/// Rows from which on random static vectors learn enough.
const MANY: u64 = 500_000;

/// The numbers of a run.
#[derive(Debug, Clone)]
pub struct Numbers {
    max_seq_length: Option<usize>,
    batch: usize,
    /// Sequences of a part, where a batch at once is too much for the memory.
    pub mini_batch: Option<usize>,
    epochs: u32,
    learning_rate: f64,
    lora: bool,
    eval_every: f64,
    /// Keys of a wrapper of the loss.
    pub regularizer: Map<String, Value>,
    pub why: Vec<String>,
}

/// Limits that are usual, and those of networks that read long texts.
const LENGTHS: [usize; 4] = [64, 128, 256, 512];
const LONG: [usize; 4] = [1024, 2048, 4096, 8192];

impl Numbers {
    pub fn of(s: &Situation<'_>, first: &Candidate, base: &Base, from_scratch: bool) -> Self {
        let is_static = from_scratch || base.is_static;
        let card = fit::plain(s.model_type).find(|card| card.name == first.name);
        let mut why = Vec::new();
        let rows = rows(s, first);
        let lengths = |percentile: usize| -> Vec<usize> {
            let of = |name: &String| s.data.columns.iter().find(|c| c.name == *name);
            first.columns.iter().map(|name| of(name).map_or(0, |c| c.tokens[percentile] as usize)).collect()
        };
        let joined = s.model_type == ModelType::CrossEncoder;
        let together = |lengths: &[usize]| match joined {
            true => lengths.iter().sum(),
            false => lengths.iter().copied().max().unwrap_or(0),
        };
        let longest = together(&lengths(2));
        let limit = length_limit(longest, together(&lengths(1)), base);
        let lengths = lengths(2);
        let (max_seq_length, about) = if is_static { (None, 512) } else { (Some(limit), limit) };
        if let Some(limit) = max_seq_length {
            why.push(format!(
                "{limit} tokens are kept: 99 of 100 {} have {longest} or fewer",
                if joined { "pairs" } else { "texts" }
            ));
        }
        // a sequence's tokens in the largest batches
        let sequence: usize = if joined { longest.min(about) } else { lengths.iter().map(|n| (*n).min(about)).sum() };
        let available = s.memory.unwrap_or(ASSUMED);
        let lora = !is_static && base.parameters >= LARGE && 16 * base.parameters > available / 2;
        let wanted = wanted(s, card, is_static, rows);
        let memory = Memory { s, base, sequence, lora, is_static, texts: first.columns.len() };
        let (batch, mini_batch) = memory.fit(wanted, card, available, about, &mut why);
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
            let table = if mini_batch.is_some() { "cached_splade" } else { "splade" };
            let mut set = |key: &str, value: Value| regularizer.insert(format!("{table}.{key}"), value);
            set("document_regularizer_weight", document.into());
            set("query_regularizer_weight", query.into());
            if let Some(sequences) = mini_batch {
                set("mini_batch_size", sequences.into());
            }
            why.push(format!(
                "regulariser weights for {steps} steps: raise them while active dimensions stay in the thousands, or name \
                 `loss.{table}.target_document_active_dims`"
            ));
        }
        let times = if epochs == 1 { "epoch" } else { "epochs" };
        why.push(format!("{epochs} {times} of {rows} rows, {steps} steps"));
        let eval_every = if steps < 50 { 0.25 } else { 0.1 };
        Self { max_seq_length, batch, mini_batch, epochs, learning_rate, lora, eval_every, regularizer, why }
    }

    /// Keys of `[model]`.
    pub fn model(&self, model_type: ModelType, base: &Base, from_scratch: bool, rows: u64) -> Vec<(String, Value)> {
        if from_scratch {
            let key = |name: &str| format!("static_embedding.{name}");
            return if rows < MANY {
                vec![(key("distill_from"), base.name.clone().into())]
            } else {
                vec![(key("embedding_dim"), 512.into())]
            };
        }
        let mut keys = vec![("base".to_owned(), base.name.clone().into())];
        // queries of ColBERT have a length of their own
        let length = if model_type == ModelType::MultiVectorEncoder { "document_length" } else { "max_seq_length" };
        keys.extend(self.max_seq_length.map(|limit| (length.to_owned(), limit.into())));
        if self.lora {
            keys.extend([("lora.r".to_owned(), 16.into()), ("lora.alpha".to_owned(), 32.into())]);
        }
        keys
    }

    /// Keys of `[args]`.
    pub fn arguments(
        &self,
        model_type: ModelType,
        first: &Candidate,
        metric: Option<&str>,
    ) -> Vec<(&'static str, Value)> {
        let mut keys = vec![
            ("num_train_epochs", self.epochs.into()),
            ("per_device_train_batch_size", self.batch.into()),
            ("learning_rate", self.learning_rate.into()),
            ("warmup_steps", json!(0.1)),
        ];
        keys.extend(sampler(first).map(|name| ("batch_sampler", name.into())));
        if let Some(metric) = metric {
            keys.extend([
                ("eval_steps", json!(self.eval_every)),
                ("save_steps", json!(self.eval_every)),
                ("save_total_limit", json!(2)),
                ("load_best_model_at_end", json!(true)),
                ("metric_for_best_model", metric.into()),
            ]);
            // rerankers are best in the middle of a run more often than at its end
            keys.extend((model_type == ModelType::CrossEncoder).then(|| ("early_stopping_patience", 3.into())));
        }
        keys
    }
}

/// Tokens to keep of a text, or of a pair that is read together: nearly all of it where that is usual, else of nine in
/// ten as much as the base reads.
fn length_limit(p99: usize, p90: usize, base: &Base) -> usize {
    let most = base.max_seq_length.unwrap_or(512);
    let usual = LENGTHS.into_iter().find(|limit| *limit >= p99);
    let fits = usual.or_else(|| LENGTHS.into_iter().chain(LONG).find(|limit| *limit >= p90.max(512)));
    fits.unwrap_or(8192).min(most)
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
    /// The peak of a step, in bytes, in parts of so many sequences of so many tokens or at once.
    fn peak(&self, batch: usize, part: Option<(usize, usize)>) -> u64 {
        let copies = if self.lora { 5 } else { 16 };
        let tokens = batch * self.sequence;
        let at_once = part.map_or(tokens, |(sequences, longest)| tokens.min(sequences * longest)) as u64;
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

    /// The batch size, and the sequences of a part, that fit: losses whose negatives are the batch keep it, and say in how
    /// large parts where they have a form with cached gradients. A run finds parts for the others by itself.
    fn fit(
        &self,
        wanted: usize,
        card: Option<&'static Card>,
        available: u64,
        longest: usize,
        why: &mut Vec<String>,
    ) -> (usize, Option<usize>) {
        let room = available / 5 * 4;
        let kept = card.is_some_and(|card| card.in_batch_negatives || card.compares_labels);
        let (mut batch, mut part) = (wanted, None);
        if kept && self.peak(batch, None) > room {
            let mut sequences = batch;
            while sequences > SMALLEST_PART && self.peak(batch, Some((sequences, longest))) > room {
                sequences /= 2;
            }
            part = Some((sequences, longest));
        }
        let smallest = if kept { 8 } else { 4 };
        while batch > smallest && self.peak(batch, part) > room {
            batch /= 2;
        }
        let named = part.map(|(sequences, _)| sequences).filter(|_| card.is_some_and(|c| self.has_cached_form(c)));
        let parts = match (part, named) {
            (None, _) => String::new(),
            (_, Some(sequences)) => format!(" in parts of {sequences} sequences, gradients cached"),
            (_, None) => " in parts that the run chooses".to_owned(),
        };
        let free = self.s.memory.map_or_else(|| "8 GB assumed".to_owned(), |bytes| format!("{} free", human(bytes)));
        let peak = self.peak(batch, part);
        let short = if peak > available { ", which is too little: take a smaller base" } else { "" };
        why.push(format!("batch {batch}{parts}: about {} of {free}{short}", human(peak)));
        (batch, named)
    }

    fn has_cached_form(&self, card: &Card) -> bool {
        match self.s.model_type {
            ModelType::SparseEncoder => card.in_batch_negatives,
            model_type => fit::cached(model_type, card.name).is_some(),
        }
    }
}
