//! The saved model's `README.md`: a model card in the Hub's format.
//!
//! Metadata: <https://github.com/huggingface/hub-docs/blob/main/modelcard.md>; tags and the model index are those
//! sentence-transformers writes, so that the Hub shows both alike.

mod kinds;
pub mod training;

use std::path::Path;

use serde::Serialize;

use training::{Shown, Table as Course};

use super::experiments::escape;
use super::verdict::Judgement;
use crate::error::Result;
use crate::flow::ModelType;
use crate::hub;
use crate::render;
use crate::train::facts::RunFacts;
use crate::util::{clock, files, memory};

/// What a card is made of.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The run's name, the card's title.
    pub name: String,
    pub model_type: ModelType,
    /// The base model as the recipe names it (Hub id or folder); none for one initialised from scratch.
    pub base: Option<String>,
    /// Of an embedding, or the labels of a pair.
    pub dimension: usize,
    pub max_seq_length: Option<usize>,
    /// `cosine`, `dot`, `euclidean`, `manhattan`.
    pub similarity: String,
    /// What a CrossEncoder applies to its logits.
    pub activation: Option<&'static str>,
    /// Its modules' class names.
    pub modules: Vec<&'static str>,
    /// Prompt names and texts.
    pub prompts: Vec<(String, String)>,
    /// Widths the embeddings can be cut to (MatryoshkaLoss); empty otherwise.
    pub matryoshka_dims: Vec<usize>,
    /// The adapters that were trained in its place, in a line.
    pub adapters: Option<String>,
    pub datasets: Vec<Dataset>,
    /// Rows of all of them.
    pub rows: u64,
    /// The loss, wrappers first, as in `["MatryoshkaLoss", "CoSENTLoss"]`.
    pub losses: Vec<String>,
    pub loss_config: serde_json::Value,
    /// Name and value, in order.
    pub hyperparameters: Vec<(String, String)>,
    pub evaluations: Vec<Evaluation>,
    pub judgement: Judgement,
    pub steps: u64,
    pub epochs: f64,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
    /// What it was trained on, as the run wrote it down; none where that is not to be had.
    pub run: Option<RunFacts>,
    /// The course of loss and metrics.
    pub course: Course,
}

/// One training data set.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name in the recipe, or its file's.
    pub name: String,
    /// Its id, where it is on the Hub.
    pub hub: Option<String>,
    /// Empty for all the file has.
    pub columns: Vec<String>,
    pub label: Option<String>,
}

/// What stands in [`Evaluation::evaluator`] for the loss on the evaluation data: shown, but not indexed.
pub const LOSS: &str = "Loss";

/// One evaluator's metrics before and after training.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// sentence-transformers' class name.
    pub evaluator: String,
    /// The evaluator's name, which is also its metrics' prefix; may be empty.
    pub name: String,
    /// Key (with the prefix), before, after.
    pub metrics: Vec<(String, Option<f64>, f64)>,
}

/// What the template sees: strings ready to be put in place.
#[derive(Serialize)]
struct Context {
    title: String,
    title_quoted: String,
    model_type: String,
    origin: String,
    purpose: &'static str,
    summary: String,
    tags: Vec<String>,
    base_model: Option<String>,
    hub_datasets: Vec<String>,
    pipeline_tag: &'static str,
    metrics: Vec<String>,
    results: Vec<ResultEntry>,
    facts: Vec<Named>,
    python_usage: String,
    tallow_usage: String,
    evaluations: Vec<Table>,
    verdict: Option<String>,
    verdict_metric: String,
    rows: u64,
    datasets: Vec<DatasetRow>,
    loss_names: String,
    loss_config: String,
    hyperparameters: Vec<Named>,
    effort: String,
    language: Vec<String>,
    license: Option<String>,
    widget: Vec<String>,
    shown: Vec<Shown>,
    course: Course,
    interval: Option<String>,
    version: &'static str,
}

#[derive(Serialize)]
struct Named {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct ResultEntry {
    task_type: &'static str,
    task_name: &'static str,
    dataset: String,
    metrics: Vec<IndexMetric>,
}

#[derive(Serialize)]
struct IndexMetric {
    r#type: String,
    value: String,
    name: String,
}

#[derive(Serialize)]
struct Table {
    title: String,
    rows: Vec<TableRow>,
}

#[derive(Serialize)]
struct TableRow {
    name: String,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct DatasetRow {
    name: String,
    columns: String,
    label: String,
}

/// Writes `README.md` into the model's folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write(model_dir: &Path, facts: &Facts) -> Result<()> {
    files::write_atomic(&model_dir.join("README.md"), text(facts)?.as_bytes())
}

/// The card's text.
///
/// # Errors
/// Only if the template and this file disagree.
pub fn text(facts: &Facts) -> Result<String> {
    render::render("model_card.md", &context(facts))
}

fn context(facts: &Facts) -> Context {
    let hub_id = facts.base.as_deref().filter(|b| is_hub_id(b));
    let rows = facts.rows;
    let mut tags = vec!["sentence-transformers".to_owned()];
    tags.extend(kinds::tags(facts).iter().map(|tag| (*tag).to_owned()));
    tags.extend(["generated_from_trainer".to_owned(), format!("dataset_size:{rows}")]);
    tags.extend(facts.losses.iter().map(|l| format!("loss:{l}")));
    tags.push("tallow".to_owned());
    Context {
        title: facts.name.clone(),
        title_quoted: quoted(&facts.name),
        model_type: facts.model_type.to_string(),
        origin: match (hub_id, &facts.base) {
            (Some(id), _) => format!("fine-tuned from [{id}](https://huggingface.co/{id})"),
            (None, Some(base)) => format!("fine-tuned from `{}`", last_part(base)),
            (None, None) => "trained from scratch".to_owned(),
        },
        purpose: kinds::purpose(facts),
        summary: summary(facts, rows),
        tags: tags.iter().map(|t| quoted(t)).collect(),
        base_model: hub_id.map(quoted),
        hub_datasets: hub_datasets(facts),
        pipeline_tag: kinds::pipeline(facts),
        metrics: metric_names(facts).iter().map(|m| quoted(m)).collect(),
        results: facts
            .evaluations
            .iter()
            .filter(|e| e.evaluator != LOSS)
            .map(index_entry)
            .filter(|r| !r.metrics.is_empty())
            .collect(),
        facts: model_facts(facts),
        python_usage: kinds::python(facts),
        tallow_usage: kinds::shell(facts),
        evaluations: facts.evaluations.iter().map(table).collect(),
        verdict: facts.judgement.delta.map(|_| facts.judgement.line()),
        verdict_metric: facts.judgement.metric.clone().unwrap_or_default(),
        rows,
        datasets: facts.datasets.iter().map(dataset_row).collect(),
        loss_names: facts.losses.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(" over "),
        loss_config: serde_json::to_string_pretty(&facts.loss_config).unwrap_or_default(),
        hyperparameters: facts
            .hyperparameters
            .iter()
            .map(|(name, value)| Named { name: name.clone(), value: one_line(value) })
            .collect(),
        effort: format!(
            "{} steps ({:.2} epochs) in {}, with at most {} of memory.",
            facts.steps,
            facts.epochs,
            clock::human(facts.seconds),
            memory::human(facts.peak_memory_bytes)
        ),
        language: facts.run.iter().flat_map(|run| &run.language).map(|language| quoted(language)).collect(),
        license: facts.run.as_ref().and_then(|run| run.license.as_deref()).map(quoted),
        widget: facts.run.as_ref().map(|run| training::widget(facts.model_type, &run.datasets)).unwrap_or_default(),
        shown: facts.run.iter().flat_map(|run| &run.datasets).map(training::shown).collect(),
        course: facts.course.clone(),
        interval: facts.judgement.interval_line(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The ids of its data sets on the Hub, each once, in order.
fn hub_datasets(facts: &Facts) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for id in facts.datasets.iter().filter_map(|d| d.hub.as_deref()).map(quoted) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn summary(facts: &Facts, rows: u64) -> String {
    let losses = facts.losses.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(" over ");
    let data = facts.datasets.iter().map(|d| format!("`{}`", d.name)).collect::<Vec<_>>().join(", ");
    format!("Trained on {rows} rows of {data} with {losses}.")
}

fn model_facts(facts: &Facts) -> Vec<Named> {
    let mut named = kinds::output(facts);
    let length = facts.max_seq_length.map_or_else(|| "unlimited".to_owned(), |n| format!("{n} tokens"));
    named.insert(1, ("Maximum length", length));
    if !facts.matryoshka_dims.is_empty() {
        let dims: Vec<String> = facts.matryoshka_dims.iter().map(usize::to_string).collect();
        named.push(("Can be truncated to", format!("{} dimensions", dims.join(", "))));
    }
    if let Some(adapters) = &facts.adapters {
        named.push(("Trained as adapters (LoRA, merged here)", adapters.clone()));
    }
    named.extend(kinds::prompts(facts));
    named.into_iter().map(|(name, value)| Named { name: name.to_owned(), value }).collect()
}

fn dataset_row(dataset: &Dataset) -> DatasetRow {
    DatasetRow {
        name: match &dataset.hub {
            Some(id) => format!("[{}](https://huggingface.co/datasets/{id})", escape(&dataset.name)),
            None => escape(&dataset.name),
        },
        columns: if dataset.columns.is_empty() {
            "all".to_owned()
        } else {
            dataset.columns.iter().map(|c| format!("`{}`", escape(c))).collect::<Vec<_>>().join(", ")
        },
        label: dataset
            .label
            .as_ref()
            .map_or_else(|| "by its usual name, if any".to_owned(), |l| format!("`{}`", escape(l))),
    }
}

fn table(evaluation: &Evaluation) -> Table {
    let of = if evaluation.name.is_empty() { String::new() } else { format!(" on `{}`", evaluation.name) };
    let number = |x: f64| format!("{x:.4}");
    Table {
        title: format!("{}{of}", evaluation.evaluator),
        rows: evaluation
            .metrics
            .iter()
            .map(|(key, before, after)| TableRow {
                name: escape(bare(key, &evaluation.name)),
                before: before.map_or_else(|| "n/a".to_owned(), number),
                after: number(*after),
            })
            .collect(),
    }
}

fn index_entry(evaluation: &Evaluation) -> ResultEntry {
    let (task_type, task_name) = match evaluation.evaluator.as_str() {
        "InformationRetrievalEvaluator" => ("information-retrieval", "Information Retrieval"),
        "EmbeddingSimilarityEvaluator" => ("semantic-similarity", "Semantic Similarity"),
        "TripletEvaluator" => ("triplet", "Triplet"),
        "BinaryClassificationEvaluator" => ("binary-classification", "Binary Classification"),
        "RerankingEvaluator" => ("reranking", "Reranking"),
        "TranslationEvaluator" => ("translation", "Translation"),
        "MSEEvaluator" => ("knowledge-distillation", "Knowledge Distillation"),
        "ParaphraseMiningEvaluator" => ("paraphrase-mining", "Paraphrase Mining"),
        "NanoBEIREvaluator" => ("nano-beir", "Nano BEIR"),
        "CrossEncoderRerankingEvaluator" => ("cross-encoder-reranking", "Cross Encoder Reranking"),
        "CrossEncoderNanoBEIREvaluator" => ("cross-encoder-nano-beir", "Cross Encoder Nano BEIR"),
        "CrossEncoderClassificationEvaluator" => ("cross-encoder-classification", "Cross Encoder Classification"),
        "CrossEncoderCorrelationEvaluator" => ("cross-encoder-correlation", "Cross Encoder Correlation"),
        _ => ("feature-extraction", "Feature Extraction"),
    };
    let dataset = if evaluation.name.is_empty() { "unknown" } else { &evaluation.name };
    ResultEntry {
        task_type,
        task_name,
        dataset: quoted(dataset),
        metrics: evaluation
            .metrics
            .iter()
            .filter(|(_, _, after)| after.is_finite())
            .map(|(key, _, after)| {
                let key = bare(key, &evaluation.name);
                IndexMetric { r#type: quoted(key), value: format!("{after:?}"), name: quoted(&title_case(key)) }
            })
            .collect(),
    }
}

fn metric_names(facts: &Facts) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for evaluation in facts.evaluations.iter().filter(|e| e.evaluator != LOSS) {
        for (key, _, _) in &evaluation.metrics {
            let name = bare(key, &evaluation.name).to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The key without the evaluator's name.
fn bare<'a>(key: &'a str, evaluator: &str) -> &'a str {
    let key = key.strip_prefix("eval_").unwrap_or(key);
    if evaluator.is_empty() {
        return key;
    }
    key.strip_prefix(evaluator).and_then(|k| k.strip_prefix('_')).unwrap_or(key)
}

fn title_case(key: &str) -> String {
    let word = |w: &str| {
        let mut letters = w.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect::<String>())
    };
    key.split('_').map(word).collect::<Vec<_>>().join(" ")
}

/// A YAML scalar that means exactly this text: YAML reads JSON strings, but for letters that it does not take as they are
/// (<https://yaml.org/spec/1.2.2/#51-character-set>), and those that some readers take for the end of a line.
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => out.push(letter),
        }
    }
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A folder of the form of an id is none.
fn is_hub_id(base: &str) -> bool {
    hub::is_id(base) && !Path::new(base).exists()
}

/// A folder's own name: a card is published, and paths of the machine are nobody's business.
fn last_part(base: &str) -> String {
    Path::new(base).file_name().map_or_else(|| base.to_owned(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
