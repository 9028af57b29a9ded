//! What a run leaves for people: the model's card and the entry in the experiments log.

use std::path::Path;

use serde_json::Value;

use super::engine;
use crate::error::Result;
use crate::eval;
use crate::flow::Encode;
use crate::model::SentenceTransformer;
use crate::model::lora::LoraOptions;
use crate::recipe::Plan;
use crate::recipe::plan::{DatasetPlan, EvaluatorPlan};
use crate::runs::experiments::{self, Entry, base, losses};
use crate::runs::verdict::Judgement;
use crate::runs::{RunFolder, card, report};
use crate::train::Outcome;

/// Puts the entry into the run's experiments log.
pub(super) fn enter(folder: &RunFolder, entry: Entry) -> Result<()> {
    experiments::enter(&folder.experiments_file(), entry).map(drop)
}

/// Writes the saved model's README.
pub(super) fn write_card(folder: &RunFolder, plan: &Plan, outcome: &Outcome, judgement: &Judgement) -> Result<()> {
    let model = engine::load_model(&outcome.model_dir)?;
    let mut facts = facts(plan, outcome, &model, judgement);
    if let Ok(told) = report::Facts::read(folder) {
        facts.course = card::training::course(&report::Facts { outcome: Some(outcome.clone()), ..told.clone() });
        facts.run = told.captured.facts;
    }
    card::write(Path::new(&outcome.model_dir), &facts)
}

fn facts(plan: &Plan, outcome: &Outcome, model: &SentenceTransformer, judgement: &Judgement) -> card::Facts {
    card::Facts {
        name: plan.run_name.clone(),
        model_type: plan.model_type,
        base: base(plan),
        dimension: model.dimension(),
        modules: model.module_names(),
        max_seq_length: model.max_seq_length(),
        similarity: model.similarity_fn_name().to_owned(),
        activation: Some(model.activation_fn().name()),
        prompts: model.prompts().iter().map(|(name, text)| (name.clone(), text.clone())).collect(),
        matryoshka_dims: matryoshka_dims(plan),
        adapters: plan.model.lora.as_ref().map(LoraOptions::described),
        datasets: plan.train_dataset.iter().map(described).collect(),
        rows: outcome.train_rows,
        losses: losses(plan),
        loss_config: loss_config(plan),
        hyperparameters: hyperparameters(plan),
        evaluations: evaluations(plan, outcome, model.similarity_fn_name()),
        judgement: judgement.clone(),
        steps: outcome.steps,
        epochs: outcome.epochs,
        seconds: outcome.seconds,
        peak_memory_bytes: outcome.peak_memory_bytes,
        run: None,
        course: card::training::Table::default(),
    }
}

fn described(dataset: &DatasetPlan) -> card::Dataset {
    card::Dataset {
        name: dataset.name.clone(),
        hub: dataset.hub.as_ref().map(|hub| hub.id.clone()),
        columns: dataset.columns.clone(),
        label: dataset.label.clone(),
    }
}

fn matryoshka_dims(plan: &Plan) -> Vec<usize> {
    let wrappers = plan.train_dataset.iter().filter_map(|d| d.loss.matryoshka.as_ref());
    wrappers.map(|m| m.dims.clone()).next().unwrap_or_default()
}

fn loss_config(plan: &Plan) -> Value {
    let one = |dataset: &DatasetPlan| serde_json::to_value(&dataset.loss).unwrap_or(Value::Null);
    let mut configs: Vec<Value> = Vec::new();
    for config in plan.train_dataset.iter().map(one) {
        if !configs.contains(&config) {
            configs.push(config);
        }
    }
    if configs.len() == 1 { configs.remove(0) } else { Value::Array(configs) }
}

fn hyperparameters(plan: &Plan) -> Vec<(String, String)> {
    let args = serde_json::to_value(&plan.args).unwrap_or(Value::Null);
    let mut named = vec![("seed".to_owned(), plan.seed.to_string())];
    for (name, value) in args.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        named.push((name.clone(), text));
    }
    named
}

/// The metrics of before and after, sorted to the evaluators by their keys, and where those are not known without data
/// by their names.
fn evaluations(plan: &Plan, outcome: &Outcome, similarity: &str) -> Vec<card::Evaluation> {
    let keys = |e: &EvaluatorPlan| eval::find(&e.kind).and_then(|entry| entry.keys(&e.table(), similarity));
    let keys: Vec<Vec<String>> = plan.evaluator.iter().map(|e| keys(e).unwrap_or_default()).collect();
    let mut tables: Vec<card::Evaluation> = plan
        .evaluator
        .iter()
        .map(|e| card::Evaluation { evaluator: e.kind.clone(), name: e.name.clone(), metrics: Vec::new() })
        .collect();
    let mut rest = card::Evaluation { evaluator: card::LOSS.to_owned(), name: String::new(), metrics: Vec::new() };
    for (key, after) in &outcome.final_metrics.values {
        let entry = (key.clone(), outcome.baseline_metrics.get(key), *after);
        let named = |t: &card::Evaluation| {
            if t.name.is_empty() { !key.ends_with("loss") } else { key.starts_with(&format!("{}_", t.name)) }
        };
        let owner = keys
            .iter()
            .position(|keys| keys.contains(key))
            .or_else(|| (0..tables.len()).filter(|i| named(&tables[*i])).max_by_key(|i| tables[*i].name.len()));
        owner.and_then(|i| tables.get_mut(i)).unwrap_or(&mut rest).metrics.push(entry);
    }
    tables.push(rest);
    tables.retain(|t| !t.metrics.is_empty());
    tables
}
