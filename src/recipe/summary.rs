//! The plan as a person reads it at the start of a run.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::plan::{DatasetPlan, LossPlan, ModelSource, Plan};
use crate::eval::nano_beir;
use crate::flow::ActivationFn;
use crate::model::QueryExpansion;
use crate::optim::interval::Interval;

/// Lines of key and value.
struct Table<'a> {
    rows: Vec<(String, String)>,
    defaulted: &'a [String],
}

impl Table<'_> {
    /// A line; `key` tells whether the value was a default.
    fn row(&mut self, name: &str, key: &str, value: impl std::fmt::Display) {
        let mark = if self.defaulted.iter().any(|k| k == key) { " (default)" } else { "" };
        self.rows.push((name.to_owned(), format!("{value}{mark}")));
    }

    /// A line that is left out when there is no value.
    fn optional<T: std::fmt::Display>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.row(name, "", value);
        }
    }
}

impl Plan {
    /// Aligned lines: what was given, and what was decided for the user, marked `(default)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut table = Table { rows: Vec::new(), defaulted: &self.defaulted };
        table.row("run_name", "run_name", &self.run_name);
        table.row("model_type", "model_type", self.model_type);
        table.row("seed", "seed", self.seed);
        table.row("output_dir", "output_dir", self.output_dir.display());
        self.model_rows(&mut table);
        for dataset in &self.train_dataset {
            table.row("train_dataset", "", describe(dataset));
        }
        for loss in distinct(&self.train_dataset) {
            table.row("loss", "", loss_text(loss));
        }
        for dataset in &self.eval_dataset {
            table.row("eval_dataset", "", describe(dataset));
        }
        for evaluator in &self.evaluator {
            let name = if evaluator.name.is_empty() { String::new() } else { format!(" `{}`", evaluator.name) };
            let place = match nano_beir::on_the_hub(&evaluator.kind, &evaluator.settings) {
                Some(wanted) if evaluator.path.as_os_str().is_empty() => format!("{} on the Hub", wanted.id),
                _ => evaluator.path.display().to_string(),
            };
            let text = format!("{}{name} on {place}{}", evaluator.kind, settings(&evaluator.settings));
            table.row("evaluator", "", text);
        }
        self.args_rows(&mut table);
        let width = table.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &table.rows {
            // writing to a String can't fail
            let _ = writeln!(text, "{name:width$}  {value}");
        }
        text
    }

    fn model_rows(&self, table: &mut Table<'_>) {
        let model = &self.model;
        let source = match &model.source {
            ModelSource::Base(location) => location.to_string(),
            ModelSource::StaticEmbedding { embedding_dim, tokenizer } => {
                format!("a new static embedding of {embedding_dim} dimensions, tokenizer {tokenizer}")
            }
            ModelSource::StaticEmbeddingAndTokenizer { embedding_dim, training } => {
                let case = if training.lowercase { "without case" } else { "with case" };
                format!(
                    "a new static embedding of {embedding_dim} dimensions, and a {} tokenizer {case} of at most {} \
                     tokens learnt from the training data",
                    training.algorithm.name(),
                    training.vocab_size
                )
            }
            ModelSource::Distilled { teacher, .. } => format!("a static embedding distilled from {teacher}"),
            ModelSource::Config { config, tokenizer } => {
                let kind = config.get("model_type").and_then(Value::as_str).unwrap_or("network");
                format!("a new {kind} from scratch, tokenizer {tokenizer}")
            }
            ModelSource::ConfigAndTokenizer { config, training } => {
                let kind = config.get("model_type").and_then(Value::as_str).unwrap_or("network");
                format!(
                    "a new {kind} from scratch, and a tokenizer of at most {} tokens learnt from the training data",
                    training.vocab_size
                )
            }
        };
        table.row("model", "", source);
        if let Some(keep) = &model.keep_layers {
            let numbers: Vec<String> = keep.iter().map(usize::to_string).collect();
            table.row("keep_layers", "", format!("{}; the others are dropped", numbers.join(", ")));
        }
        if let Some(lora) = &model.lora {
            table.row("adapters", "", format!("{}; the network is frozen", lora.described()));
        }
        if let Some(queries) = &model.sparse_static_embedding {
            let from = match (&queries.idf, queries.corpus.as_slice()) {
                (Some(file), _) => format!("from {}", file.display()),
                (None, []) => "all 1 to begin with".to_owned(),
                (None, files) => {
                    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                    format!("the idf of words in {}", files.join(", "))
                }
            };
            let stays = if queries.frozen { ", not trained" } else { "" };
            table.row("queries", "", format!("weights of words, {from}{stays}"));
        }
        if let Some(autoencoder) = &model.sparse_auto_encoder {
            let k = autoencoder.k.map_or_else(String::new, |k| format!(", {k} active dimensions"));
            table.row("sparse_auto_encoder", "", format!("a new one{k}"));
        }
        table.optional("max_seq_length", model.max_seq_length);
        if !model.pooling_mode.is_empty() {
            let names: Vec<String> = model.pooling_mode.iter().map(plain).collect();
            table.row("pooling_mode", "", names.join(", "));
        }
        table.optional("normalize", model.normalize);
        table.optional("truncate_dim", model.truncate_dim);
        table.optional("dropout", model.dropout.map(|p| format!("{p:?}")));
        table.optional("similarity_fn_name", model.similarity_fn_name.as_ref().map(plain));
        table.optional("num_labels", model.num_labels);
        table.optional("activation_fn", model.activation_fn.map(ActivationFn::name));
        let vectors = &model.multi_vector;
        table.optional("embedding_dim", vectors.embedding_dim);
        table.optional("query_length", vectors.query_length);
        table.optional("document_length", vectors.document_length);
        let expansion = |e: &QueryExpansion| format!("{} tokens, {}", e.length, plain(&e.strategy));
        table.optional("query_expansion", vectors.query_expansion.as_ref().map(expansion));
        table.optional("skiplist_words", vectors.skiplist_words.as_ref().map(|words| words.join(" ")));
        for (name, prompt) in model.prompts.iter().flatten() {
            table.row("prompt", "", format!("{name}: {prompt:?}"));
        }
        table.optional("default_prompt_name", model.default_prompt_name.as_ref());
    }

    fn args_rows(&self, table: &mut Table<'_>) {
        let args = &self.args;
        let mut row = |name: &str, value: String| table.row(name, &format!("args.{name}"), value);
        match args.max_steps {
            Some(steps) => row("max_steps", steps.to_string()),
            None => row("num_train_epochs", number(args.num_train_epochs)),
        }
        row("per_device_train_batch_size", args.per_device_train_batch_size.to_string());
        if let Some(tokens) = args.max_tokens_per_batch {
            row("max_tokens_per_batch", tokens.to_string());
        }
        row("per_device_eval_batch_size", args.per_device_eval_batch_size.to_string());
        row("gradient_accumulation_steps", args.gradient_accumulation_steps.to_string());
        row("learning_rate", number(args.learning_rate));
        row("lr_scheduler_type", args.lr_scheduler_type.to_string());
        row("warmup_steps", steps(args.warmup_steps));
        row("weight_decay", number(args.weight_decay));
        row("adam_beta1", number(args.adam_beta1));
        row("adam_beta2", number(args.adam_beta2));
        row("adam_epsilon", number(args.adam_epsilon));
        row("max_grad_norm", number(args.max_grad_norm));
        row("batch_sampler", args.batch_sampler.clone());
        if self.train_dataset.len() > 1 {
            row("multi_dataset_batch_sampler", args.multi_dataset_batch_sampler.clone());
        }
        row("shuffle", args.shuffle.to_string());
        row("dataloader_drop_last", args.dataloader_drop_last.to_string());
        row("logging_steps", steps(args.logging_steps));
        row("eval_strategy", args.eval.to_string());
        row("save_strategy", args.save.to_string());
        if let Some(limit) = args.save_total_limit {
            row("save_total_limit", limit.to_string());
        }
        row("load_best_model_at_end", args.load_best_model_at_end.to_string());
        let metric = args.metric_for_best_model.as_deref().unwrap_or("the first evaluator's primary metric");
        let better = if args.greater_is_better { "more is better" } else { "less is better" };
        if args.metric_for_best_model.is_some() || !self.evaluator.is_empty() {
            row("metric_for_best_model", format!("{metric}, {better}"));
        }
        if let Some(stop) = args.early_stopping {
            row("early_stopping_patience", stop.patience.to_string());
            row("early_stopping_threshold", number(stop.threshold));
        }
        row("bf16", args.bf16.to_string());
        if let Some(tokens) = args.gradient_cache_tokens {
            row("gradient_cache_tokens", tokens.to_string());
        }
        if args.gradient_checkpointing {
            row("gradient_checkpointing", "true".to_owned());
        }
        row("use_cpu", args.use_cpu.to_string());
        row("full_determinism", args.full_determinism.to_string());
        if !args.router_mapping.is_empty() {
            let routes: Vec<String> = args.router_mapping.iter().map(|(c, r)| format!("{c} to {r}")).collect();
            row("router_mapping", routes.join(", "));
        }
        for (pattern, rate) in &args.learning_rate_mapping {
            row("learning_rate_mapping", format!("{pattern} at {}", number(*rate)));
        }
        if let Some(prompts) = &args.prompts {
            row("prompts", prompts.describe());
        }
        row("num_threads", args.num_threads.to_string());
        if !args.report_to.is_empty() {
            row("report_to", args.report_to.join(", "));
            if let Some(project) = &args.project {
                row("project", project.clone());
            }
        }
    }
}

fn distinct(datasets: &[DatasetPlan]) -> Vec<&LossPlan> {
    let mut losses: Vec<&LossPlan> = Vec::new();
    for dataset in datasets {
        if !losses.contains(&&dataset.loss) {
            losses.push(&dataset.loss);
        }
    }
    losses
}

fn describe(dataset: &DatasetPlan) -> String {
    let paths: Vec<String> = dataset.path.iter().map(|p: &std::path::PathBuf| Path::display(p).to_string()).collect();
    let place = match &dataset.hub {
        Some(hub) => {
            let subset = hub.subset.as_ref().map(|subset| format!("{subset}, ")).unwrap_or_default();
            let revision = hub.revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
            format!("{}{revision} on the Hub, {subset}{}", hub.id, hub.split)
        }
        None => paths.join(", "),
    };
    let mut text = format!("`{}`: {place}", dataset.name);
    if !dataset.columns.is_empty() {
        let _ = write!(text, "; columns {}", dataset.columns.join(", "));
    }
    if let Some(label) = &dataset.label {
        let _ = write!(text, "; label {label}");
    }
    if let Some(limit) = dataset.limit {
        let _ = write!(text, "; first {limit} rows");
    }
    if let Some(mining) = &dataset.hard_negatives {
        let from = mining.model.as_deref().unwrap_or("words in common (BM25)");
        let limits = mining.limits().map(|(limit, value)| format!("{} {value}, ", limit.name()));
        let _ = write!(
            text,
            "; {} hard negatives of each anchor by {from}, {}rows as {}",
            mining.num_negatives,
            limits.collect::<String>(),
            mining.output_format.name()
        );
    }
    if let Some(teacher) = &dataset.teacher {
        let what = teacher.labels.map_or("what fits the columns", |lesson| lesson.name());
        let _ = write!(text, "; labels ({what}) of the teacher {}", teacher.model);
    }
    text
}

fn loss_text(loss: &LossPlan) -> String {
    let mut text = format!("{}{}", loss.name, settings(&loss.settings));
    if let Some(matryoshka) = &loss.matryoshka {
        let dims: Vec<String> = matryoshka.dims.iter().map(usize::to_string).collect();
        let _ = write!(text, "; matryoshka {}", dims.join(", "));
    }
    text
}

fn settings(settings: &Map<String, Value>) -> String {
    let parts: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
}

fn plain<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// `2e-5`, `0.01`, `1.0`.
fn number(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 { format!("{x:e}") } else { format!("{x:?}") }
}

fn steps(interval: Interval) -> String {
    match interval {
        Interval::Steps(n) => n.to_string(),
        Interval::Fraction(x) => format!("{x} of all steps"),
    }
}
