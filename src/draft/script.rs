//! A recipe's values as a training script for sentence-transformers.

mod load;
mod loss;
mod measure;
mod model;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::python::{in_docstring, literal, quoted, variable};
use super::source::held_out_rows;
use super::variants::Learns;
use super::{Draft, Wanted, at};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::render;

/// A keyword argument: its name and the source of its value.
#[derive(Debug, Clone, Serialize)]
struct Argument {
    name: String,
    value: String,
}

/// Names to import, and from where.
#[derive(Debug, Clone, Serialize)]
struct Import {
    names: Vec<String>,
    module: String,
    /// Where versions before 5.4 have them, if elsewhere.
    before: Option<String>,
}

/// A data set of the script.
#[derive(Debug, Clone, Serialize)]
struct Rows {
    /// As a key of a table, and as a part of names.
    key: String,
    variable: String,
    /// The call that loads it.
    load: String,
    columns: Vec<String>,
    /// The columns as a literal, the label renamed to what the trainer looks for.
    columns_literal: String,
    rename: Option<String>,
    loss: String,
}

/// An evaluator of the script.
#[derive(Debug, Clone, Serialize)]
struct Measure {
    class: String,
    /// Which function makes what it reads of rows.
    reads: &'static str,
    load: Option<String>,
    /// A folder in the BEIR layout.
    folder: Option<String>,
    columns: Vec<String>,
    label: Option<String>,
    arguments: Vec<Argument>,
}

/// What a script is made of; texts are ready to stand in it.
#[derive(Debug, Serialize)]
struct Context {
    title: &'static str,
    file: String,
    class: &'static str,
    dependencies: Vec<String>,
    imports: Vec<Import>,
    plain_imports: Vec<String>,
    run_name: String,
    output_dir: String,
    seed: u64,
    base: Option<String>,
    card_name: String,
    model_arguments: Vec<Argument>,
    /// Attributes set on the model afterwards.
    model_settings: Vec<Argument>,
    normalize: bool,
    static_embedding: Option<Vec<Argument>>,
    distill_from: Option<String>,
    tokenizer: Option<String>,
    /// The numbers of the network's layers that the model keeps; all of them without.
    kept: Option<String>,
    lora: Option<Vec<Argument>>,
    /// Of losses that cache gradients: the frozen network has to pass them on.
    cached: bool,
    train: Vec<Rows>,
    eval: Vec<Rows>,
    /// Whether rows to measure with have to be set apart from the first data set.
    splits: bool,
    teacher: Option<String>,
    teaches: &'static str,
    mining: Option<Vec<Argument>>,
    retriever: Option<String>,
    rescorer: Option<String>,
    counts_positives: bool,
    measures: Vec<Measure>,
    metric: Option<String>,
    arguments: Vec<Argument>,
    fixed: Vec<(&'static str, String)>,
    warmup: Option<String>,
    max_steps: String,
    bf16: bool,
    patience: Option<u64>,
    threshold: f64,
    publishes: bool,
    hub_arguments: Vec<Argument>,
    hub_model_id: String,
    loss_names: String,
    described: String,
}

/// Writes the script of a draft.
///
/// # Errors
/// When the recipe has something that a script cannot do.
pub fn python(draft: &Draft, wanted: &Wanted) -> Result<String> {
    let table: toml::Table =
        toml::from_str(&draft.text).map_err(|e| Error::Internal(format!("a draft is not TOML: {e}")))?;
    let values = serde_json::to_value(table).map_err(|e| Error::Internal(format!("a draft as JSON: {e}")))?;
    let Value::Object(values) = values else { return Err(Error::Internal("a draft is no table".to_owned())) };
    let text = render::render(draft.variant.python, &Writer::new(draft, wanted, &values)?.context()?)?;
    Ok(tidy(&text))
}

/// The packages that a draft's script needs.
#[must_use]
pub fn requirements(draft: &Draft) -> Vec<String> {
    let version = if draft.variant.model_type == ModelType::MultiVectorEncoder { "6.0" } else { "5.0" };
    let mut packages = vec![
        format!("sentence-transformers[train]>={version}"),
        "datasets>=2.19".to_owned(),
        "accelerate>=0.26".to_owned(),
    ];
    let model = &draft.loaded.recipe.model;
    if model.lora.is_some() {
        // transformers 5.24 asks for PEFT 0.22, which is not to be had; those before it do with 0.20
        packages.extend(["peft>=0.20".to_owned(), "transformers<5.24".to_owned()]);
    }
    if model.static_embedding.as_ref().is_some_and(|s| s.distill_from.is_some()) {
        packages.push("model2vec".to_owned());
    }
    packages
}

/// At most two blank lines in a row, one at the end.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut blank = 0;
    for line in text.lines() {
        let line = line.trim_end();
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank <= 2 {
            out.push_str(line);
            out.push('\n');
        }
    }
    format!("{}\n", out.trim_end())
}

/// Training arguments that a script writes down whatever the recipe says, with what stands there where it says nothing.
const FIXED: [(&str, &str); 5] = [
    ("eval_strategy", "\"steps\""),
    ("save_strategy", "\"steps\""),
    ("load_best_model_at_end", "True"),
    ("greater_is_better", "True"),
    ("report_to", "\"none\""),
];

struct Writer<'a> {
    draft: &'a Draft,
    wanted: &'a Wanted,
    values: &'a Map<String, Value>,
    model_type: ModelType,
    imports: Vec<Import>,
    plain: Vec<String>,
}

fn refused(key: &str, why: &str) -> Error {
    Error::usage(format!("`{key}`: {why}"))
        .with_hint("leave it out, or render a recipe, which has it: `--target recipe`")
}

fn argument(name: &str, value: &Value) -> Argument {
    Argument { name: name.to_owned(), value: literal(value) }
}

impl<'a> Writer<'a> {
    fn new(draft: &'a Draft, wanted: &'a Wanted, values: &'a Map<String, Value>) -> Result<Self> {
        Ok(Self { draft, wanted, values, model_type: draft.variant.model_type, imports: Vec::new(), plain: Vec::new() })
    }

    fn value(&self, path: &str) -> Option<&'a Value> {
        at(self.values, path)
    }

    fn text(&self, path: &str) -> Option<&'a str> {
        self.value(path).and_then(Value::as_str)
    }

    fn table(&self, path: &str) -> Map<String, Value> {
        self.value(path).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// The package of the model's kind.
    const fn package(&self) -> &'static str {
        match self.model_type {
            ModelType::SentenceTransformer => "sentence_transformer",
            ModelType::CrossEncoder => "cross_encoder",
            ModelType::SparseEncoder => "sparse_encoder",
            ModelType::MultiVectorEncoder => "multi_vector_encoder",
        }
    }

    fn import(&mut self, name: &str, what: &str) {
        let dense = self.model_type == ModelType::SentenceTransformer;
        let (module, before) = match what {
            "losses" | "evaluation" => {
                let module = format!("sentence_transformers.{}.{what}", self.package());
                (module, dense.then(|| format!("sentence_transformers.{what}")))
            }
            "sampler" => (
                "sentence_transformers.base.sampler".to_owned(),
                Some("sentence_transformers.training_args".to_owned()),
            ),
            "sequence" => (
                "sentence_transformers.base.evaluation".to_owned(),
                Some("sentence_transformers.evaluation".to_owned()),
            ),
            "modules" => (
                "sentence_transformers.sentence_transformer.modules".to_owned(),
                Some("sentence_transformers.models".to_owned()),
            ),
            other => (other.to_owned(), None),
        };
        match self.imports.iter_mut().find(|import| import.module == module) {
            Some(import) if import.names.iter().any(|own| own == name) => {}
            Some(import) => import.names.push(name.to_owned()),
            None => self.imports.push(Import { names: vec![name.to_owned()], module, before }),
        }
    }

    fn context(mut self) -> Result<Context> {
        let variant = self.draft.variant;
        let teacher = self.wanted.teacher.clone().or_else(|| variant.teacher.map(str::to_owned));
        let train = self.train()?;
        let eval = self.rows("eval_dataset")?;
        if train.len() > 1
            && let Some(i) = eval.iter().position(|rows| train.iter().all(|own| own.key != rows.key))
        {
            let names: Vec<&str> = train.iter().map(|rows| rows.key.as_str()).collect();
            let why = format!("takes its loss from a training data set of the same `name`: {}", names.join(", "));
            return Err(refused(&format!("eval_dataset.{i}"), &why));
        }
        let splits =
            !self.draft.held_out && (self.wanted.data.is_some() || self.value("train_dataset.0.path").is_some());
        let measures = self.measures(splits)?;
        let metric = self.text("args.metric_for_best_model").map(|key| key.trim_start_matches("eval_"));
        if metric.is_some_and(|key| key == "loss" || key.ends_with("_loss")) {
            return Err(refused("args.metric_for_best_model", "a script goes by an evaluator's metric"));
        }
        let learnt = self.text("loss.name").unwrap_or_default();
        let labelled = self.value("train_dataset.0.label").is_some();
        let teaches = match (variant.learns, labelled, self.model_type) {
            (_, true, _) | (Learns::Data | Learns::Lists, ..) => "",
            (Learns::Translations, ..) => "translations",
            (Learns::Teacher, _, ModelType::SentenceTransformer) => "embeddings",
            (Learns::Teacher, ..) if learnt == "MSELoss" => "scores",
            (Learns::Teacher, ..) => "margins",
        };
        let (mining, retriever, rescorer) = self.mining()?;
        let early = self.value("args.early_stopping_patience").and_then(Value::as_u64);
        let patience = early.or_else(|| (self.model_type == ModelType::CrossEncoder).then_some(3));
        let (model_arguments, model_settings) = self.model()?;
        let (static_embedding, distill_from, tokenizer) = self.static_embedding()?;
        let lora = self.lora()?;
        let arguments = self.arguments()?;
        let needs_teacher = !teaches.is_empty() || measures.iter().any(|m| m.reads == "taught");
        if needs_teacher && matches!(teaches, "scores" | "margins") {
            self.import("CrossEncoder", "sentence_transformers");
        }
        if (needs_teacher && !matches!(teaches, "scores" | "margins")) || mining.is_some() {
            self.import("SentenceTransformer", "sentence_transformers");
        }
        if rescorer.is_some() {
            self.import("CrossEncoder", "sentence_transformers");
        }
        if mining.is_some() {
            self.import("mine_hard_negatives", "sentence_transformers.util");
        }
        if self.value("model.normalize") == Some(&Value::Bool(true))
            || teaches == "embeddings"
            || teaches == "translations"
        {
            self.import("Normalize", "modules");
        }
        let class = self.model_type.name();
        for name in ["", "ModelCardData", "Trainer", "TrainingArguments"] {
            self.import(&format!("{class}{name}"), "sentence_transformers");
        }
        if patience.is_some() {
            self.import("EarlyStoppingCallback", "transformers");
        }
        if measures.len() > 1 {
            self.import("SequentialEvaluator", "sequence");
        }
        let counts = learnt == "BinaryCrossEntropyLoss" && self.text("loss.pos_weight") == Some("auto");
        let base = self.text("model.base").map(str::to_owned);
        let run_name = self.draft.run_name();
        let hub = self.table("hub");
        let losses = self.draft.losses().join(", ");
        self.imports.sort_by(|a, b| a.module.cmp(&b.module));
        for import in &mut self.imports {
            import.names.sort();
        }
        self.plain.sort();
        self.plain.dedup();
        let batch = self.value("args.per_device_train_batch_size").map(literal).unwrap_or_default();
        let rate = self.value("args.learning_rate").map(literal).unwrap_or_default();
        Ok(Context {
            title: variant.title,
            file: in_docstring(
                &self.wanted.file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            ),
            class,
            run_name: quoted(&run_name),
            output_dir: quoted(self.text("output_dir").unwrap_or("models")),
            seed: self.value("seed").and_then(Value::as_u64).unwrap_or(12),
            card_name: quoted(&run_name),
            base: base.as_deref().map(quoted),
            model_arguments,
            model_settings,
            normalize: self.value("model.normalize") == Some(&Value::Bool(true)),
            static_embedding,
            distill_from,
            tokenizer,
            kept: self.value("model.keep_layers").map(literal),
            cached: lora.is_some() && learnt.starts_with("Cached"),
            lora,
            splits,
            teacher: needs_teacher.then_some(teacher).flatten().as_deref().map(quoted),
            teaches,
            mining,
            retriever,
            rescorer,
            counts_positives: counts,
            metric: metric.map(quoted),
            warmup: self.value("args.warmup_steps").or_else(|| self.value("args.warmup_ratio")).map(literal),
            max_steps: self.value("args.max_steps").map_or_else(|| "-1".to_owned(), literal),
            bf16: self.value("args.bf16") != Some(&Value::Bool(false)),
            patience,
            threshold: self.value("args.early_stopping_threshold").and_then(Value::as_f64).unwrap_or(0.0),
            publishes: hub.get("push_to_hub") == Some(&Value::Bool(true)),
            hub_model_id: hub.get("hub_model_id").map_or_else(|| "RUN_NAME".to_owned(), literal),
            hub_arguments: [("hub_private_repo", "private"), ("hub_revision", "revision")]
                .iter()
                .filter_map(|(key, name)| hub.get(*key).map(|value| argument(name, value)))
                .collect(),
            fixed: self.fixed(),
            loss_names: quoted(&losses),
            described: quoted(&format!("batch {batch}, learning rate {rate}")),
            arguments,
            train,
            eval,
            measures,
            dependencies: requirements(self.draft),
            imports: self.imports,
            plain_imports: self.plain,
        })
    }

    fn train(&mut self) -> Result<Vec<Rows>> {
        let mut train = self.rows("train_dataset")?;
        for (i, rows) in train.iter_mut().enumerate() {
            let own = self.value(&format!("train_dataset.{i}.loss")).cloned();
            let loss = own.or_else(|| self.values.get("loss").cloned()).unwrap_or_default();
            rows.loss = self.loss(&loss)?;
        }
        Ok(train)
    }

    fn rows(&mut self, list: &str) -> Result<Vec<Rows>> {
        let count = self.value(list).and_then(Value::as_array).map_or(0, Vec::len);
        let mut all: Vec<Rows> = Vec::new();
        for i in 0..count {
            let at = |key: &str| format!("{list}.{i}.{key}");
            let mined = i > 0 || list != "train_dataset";
            for (key, here, why) in [
                ("on_bad_row", true, "a script reads rows as they are"),
                ("prompts", true, "a script has prompts of a data set in `args.prompts`, under its name"),
                ("hard_negatives", mined, "a script looks for negatives of the first data set alone"),
            ] {
                if here && self.value(&at(key)).is_some() {
                    return Err(refused(&at(key), why));
                }
            }
            let load = self.load(&format!("{list}.{i}"))?;
            let columns: Vec<String> = self
                .value(&at("columns"))
                .and_then(Value::as_array)
                .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            let label = self.text(&at("label"));
            let known = label.filter(|label| ["label", "labels", "score", "scores"].contains(label));
            let mut selected = columns.clone();
            selected.extend(known.map(str::to_owned).or_else(|| label.map(|_| "label".to_owned())));
            let named = self.text(&at("name")).or_else(|| self.text(&at("id")).and_then(|id| id.rsplit('/').next()));
            let key =
                named.map_or_else(|| if i == 0 { "rows".to_owned() } else { format!("rows-{}", i + 1) }, str::to_owned);
            let twice = all.iter().filter(|rows| rows.key == quoted(&key)).count();
            let key = if twice > 0 { format!("{key}-{}", i + 1) } else { key };
            all.push(Rows {
                variable: variable(&key),
                key: quoted(&key),
                load,
                columns_literal: if selected.is_empty() { String::new() } else { literal(&json!(selected)) },
                columns,
                rename: label.filter(|_| known.is_none()).map(quoted),
                loss: String::new(),
            });
        }
        Ok(all)
    }

    fn fixed(&self) -> Vec<(&'static str, String)> {
        let value = |name: &str| self.value(&format!("args.{name}")).map(literal);
        FIXED.iter().map(|(name, own)| (*name, value(name).unwrap_or_else(|| (*own).to_owned()))).collect()
    }

    /// The training arguments that are the same in both.
    fn arguments(&mut self) -> Result<Vec<Argument>> {
        let mut out = Vec::new();
        for (key, value) in self.table("args") {
            let word = value.as_str().unwrap_or_default().to_owned();
            let source = match key.as_str() {
                // written elsewhere, or about the native run alone
                "max_steps"
                | "warmup_steps"
                | "warmup_ratio"
                | "bf16"
                | "fp16"
                | "metric_for_best_model"
                | "early_stopping_patience"
                | "early_stopping_threshold"
                | "num_threads" => continue,
                name if FIXED.iter().any(|(own, _)| *own == name) => continue,
                "max_tokens_per_batch" | "gradient_cache_tokens" | "shuffle" => {
                    return Err(refused(&format!("args.{key}"), "the Trainer has no counterpart of it"));
                }
                "batch_sampler" => {
                    self.import("BatchSamplers", "sampler");
                    format!("BatchSamplers.{}", word.to_uppercase())
                }
                "multi_dataset_batch_sampler" => {
                    self.import("MultiDatasetBatchSamplers", "sampler");
                    let word = word.trim_start_matches("MultiDatasetBatchSamplers.").to_uppercase();
                    format!("MultiDatasetBatchSamplers.{word}")
                }
                _ => literal(&value),
            };
            out.push(Argument { name: key, value: source });
        }
        let batch = out.iter().find(|a| a.name == "per_device_train_batch_size").map(|a| a.value.clone());
        if let Some(value) = batch.filter(|_| !out.iter().any(|a| a.name == "per_device_eval_batch_size")) {
            out.push(Argument { name: "per_device_eval_batch_size".to_owned(), value });
        }
        Ok(out)
    }
}
