//! What to train with on given data? Losses in order, and all that goes with the first of them, as keys of a recipe.
//!
//! [`losses`] ranks what takes the data, [`numbers`] settles lengths, batches, learning rate and memory, [`measure`] finds
//! the evaluator and the metric's key. What is said here is what a good trainer begins with; only a run tells.

mod losses;
mod measure;
mod numbers;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::bases::{self, Base};
use super::fit;
use crate::data::columns::LABEL_COLUMNS;
use crate::data::inspect::{Inspection, Shape};
use crate::error::{Error, Result};
use crate::flow::{LabelKind, ModelType};
use losses::Candidate;
use numbers::Numbers;

/// What the model is for, where the data do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Finding documents for queries.
    Retrieval,
    /// How alike texts are: also duplicates and paraphrases.
    Similarity,
    /// Groups of like texts.
    Clustering,
    /// Classes of texts.
    Classification,
    /// As fast as can be on a CPU: static embeddings.
    Speed,
}

/// What advice rests on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    pub model_type: ModelType,
    pub goal: Option<Goal>,
    pub data: &'a Inspection,
    /// The data set, as a recipe names it.
    pub path: &'a str,
    /// What to measure on, as a recipe names it.
    pub eval: Option<&'a str>,
    /// The model to start from, if it is settled.
    pub base: Option<Base>,
    /// Free memory in bytes, where the system tells.
    pub memory: Option<u64>,
}

/// A loss that is worth a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RankedLoss {
    pub name: String,
    /// Its keys in `[loss]`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    pub why: String,
}

/// A loss that is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rejected {
    pub name: &'static str,
    pub why: String,
}

/// What to look for before training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Mining {
    pub how: String,
    pub why: String,
}

/// How to measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Measure {
    #[serde(rename = "type")]
    pub kind: String,
    /// The key that a run logs and `metric_for_best_model` names.
    pub metric: String,
    /// What it needs, where there is no file to measure on yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

/// The advice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Advice {
    /// The best first.
    pub losses: Vec<RankedLoss>,
    pub rejected: Vec<Rejected>,
    /// The model to start from, and others.
    pub bases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluator: Option<Measure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mine_first: Option<Mining>,
    /// Why numbers are what they are, and what to mind.
    pub why: Vec<String>,
    /// Keys of a recipe and their values, those of lists of tables by number: `evaluator.0.type`.
    pub settings: Map<String, Value>,
}

/// The advice for a situation.
///
/// # Errors
/// When no loss of the type takes the data: with the way to rows that one takes.
pub fn recommend(situation: &Situation<'_>) -> Result<Advice> {
    let Situation { model_type, data, .. } = *situation;
    let ranked = losses::ranked(situation);
    let Some(first) = ranked.first() else {
        let way = super::reshape::ways(model_type, data).into_iter().next();
        let hint = way.map_or_else(
            || format!("`tallow inspect {} --model-type {model_type}` says what the rows are", situation.path),
            |way| format!("for {}: {}", way.losses.join(", "), way.how),
        );
        return Err(Error::data(format!("no loss of a {model_type} takes {} ({})", situation.path, data.shape.name()))
            .with_hint(hint));
    };
    let english = english(data);
    let mut offered = bases::suggest(model_type, english);
    if long(data, first) {
        offered.sort_by_key(|known| known.max_seq_length <= 512);
    }
    let base = situation.base.clone().or_else(|| offered.first().map(|known| Base::from(*known)));
    let base = base.ok_or_else(|| Error::Internal(format!("no base model for a {model_type}")))?;
    let from_scratch =
        situation.goal == Some(Goal::Speed) && situation.base.is_none() && model_type == ModelType::SentenceTransformer;
    let numbers = Numbers::of(situation, first, &base, from_scratch);
    let (evaluator, evaluator_settings) = measure::measure(situation, first, &base)?;

    let mut settings = Map::new();
    let mut set = |key: String, value: Value| settings.insert(key, value);
    set("model_type".into(), model_type.name().into());
    for (key, value) in numbers.model(model_type, &base, from_scratch, data.rows) {
        set(format!("model.{key}"), value);
    }
    if let Some(classes) = first.classes {
        set("model.num_labels".into(), classes.into());
    }
    for (key, value) in dataset(situation, first) {
        set(format!("train_dataset.0.{key}"), value);
    }
    for (key, value) in losses::keys(model_type, first, numbers.mini_batch).iter().chain(&numbers.regularizer) {
        set(format!("loss.{key}"), value.clone());
    }
    for (key, value) in &evaluator_settings {
        set(key.clone(), value.clone());
    }
    let metric = evaluator.as_ref().filter(|_| !evaluator_settings.is_empty()).map(|e| e.metric.as_str());
    for (key, value) in numbers.arguments(model_type, first, metric) {
        set(format!("args.{key}"), value);
    }
    if let Some(prompts) = prompts(&base, first, data) {
        set("args.prompts".into(), prompts);
    }

    let mut why = first.minds.clone();
    why.extend(numbers.why);
    if data.unusable > 0 {
        why.push(format!("rows that cannot be used are left out: {}", data.unusable));
    }
    Ok(Advice {
        rejected: losses::rejected(model_type, &ranked, data),
        bases: base_lines(&base, situation.base.is_some(), from_scratch, &offered),
        evaluator,
        mine_first: losses::mining(situation, &base),
        losses: ranked.into_iter().map(Candidate::into_ranked).collect(),
        why,
        settings,
    })
}

/// The names of the losses of a type that take the data as they are: those that are recommended first.
#[must_use]
pub fn fitting(model_type: ModelType, data: &Inspection) -> Vec<&'static str> {
    let situation = Situation { model_type, goal: None, data, path: "", eval: None, base: None, memory: None };
    let ranked = losses::ranked(&situation);
    let mut found: Vec<&'static str> = fit::fitting(model_type, data).map(|card| card.name).collect();
    found.sort_by_key(|name| ranked.iter().position(|c| c.name == *name).unwrap_or(ranked.len()));
    found
}

/// Whether many texts are longer than most networks read.
fn long(data: &Inspection, first: &Candidate) -> bool {
    let used = data.columns.iter().filter(|column| first.columns.contains(&column.name));
    used.into_iter().any(|column| column.over_128_256_512[2] > 0.05)
}

/// Whether all texts whose language could be told are English.
fn english(data: &Inspection) -> bool {
    data.columns.iter().flat_map(|column| &column.languages).all(|language| language == "en")
}

/// The data set's keys.
fn dataset(situation: &Situation<'_>, first: &Candidate) -> Vec<(String, Value)> {
    let data = situation.data;
    let mut keys = vec![("path".to_owned(), situation.path.into()), ("columns".to_owned(), json!(first.columns))];
    let takes_label = fit::plain(situation.model_type)
        .any(|card| card.name == first.name && card.labels != LabelKind::None && first.hard_negatives.is_empty());
    if let Some(label) =
        data.label.as_ref().filter(|label| takes_label && !LABEL_COLUMNS.contains(&label.column.as_str()))
    {
        keys.push(("label".to_owned(), label.column.clone().into()));
    }
    if data.unusable > 0 {
        keys.push(("on_bad_row".to_owned(), "skip".into()));
    }
    let mined = first.hard_negatives.iter().map(|(key, value)| (format!("hard_negatives.{key}"), value.clone()));
    keys.extend(mined);
    keys
}

/// The base model's prompts by column: that for queries first, where the columns are not alike.
fn prompts(base: &Base, first: &Candidate, data: &Inspection) -> Option<Value> {
    let [query, document] = &base.prompts;
    let mut columns = first.columns.clone();
    columns.dedup();
    if query.is_empty() && document.is_empty() {
        return None;
    }
    let alike = data.translated()
        || matches!(
            data.shape,
            Shape::ScoredPairs | Shape::ClassifiedPairs | Shape::ClassifiedTexts | Shape::Texts | Shape::EmbeddedTexts
        );
    let prompt = |i: usize| match (alike, i) {
        // of models with two prompts the first is for texts that are compared with their like
        (true, _) if document.is_empty() => "",
        (true, _) | (false, 0) => query.as_str(),
        (false, _) => document.as_str(),
    };
    let by_column = columns.iter().enumerate().filter(|(i, _)| !prompt(*i).is_empty());
    let by_column: Map<String, Value> = by_column.map(|(i, c)| (c.clone(), prompt(i).into())).collect();
    (!by_column.is_empty()).then_some(Value::Object(by_column))
}

fn base_lines(base: &Base, given: bool, from_scratch: bool, offered: &[&bases::Published]) -> Vec<String> {
    if from_scratch {
        return vec![
            "a static embedding: one vector a token, no network; hundreds of times faster, at some cost".to_owned(),
        ];
    }
    let mut lines = Vec::new();
    if given {
        let kind = base.model_type.map_or_else(|| "not trained for texts yet".to_owned(), |t| format!("a {t}"));
        lines.push(format!("{}: as asked for, {kind}", base.name));
    }
    let known = offered.iter().filter(|known| known.id != base.name || !given);
    lines.extend(known.map(|known| {
        let kind = known.model_type.map_or_else(|| "a plain network".to_owned(), |t| format!("a {t}"));
        let prompts = if known.prompts[0].is_empty() { "" } else { ", with prompts" };
        let dimensions = match known.model_type {
            Some(ModelType::SentenceTransformer) => format!("{} dimensions, ", known.hidden),
            _ => String::new(),
        };
        format!(
            "{}: {kind}, {} M parameters, {dimensions}{} tokens, {}{prompts}",
            known.id, known.parameters, known.max_seq_length, known.licence
        )
    }));
    lines
}

impl Advice {
    /// Cut to what fits a short answer.
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.losses.truncate(3);
        self.rejected.truncate(3);
        self.bases.truncate(2);
        self.why.truncate(6);
        self
    }
}

#[cfg(test)]
mod tests;
