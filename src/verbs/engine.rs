//! The one place where verbs touch recipes, training and models.

use std::path::{Path, PathBuf};

use super::smoke_test;
use crate::error::{Error, Result};
use crate::flow::{Encode, EncodeOptions, Metrics};
use crate::model::SentenceTransformer;
use crate::recipe::{self, Plan, Registry};
use crate::train::events::Listener;
use crate::train::{self, Outcome};
use crate::util::{memory, suggest};

/// Reads a recipe and resolves it; the notes say what was decided for the user.
pub(super) fn plan(recipe: &Path, set: &[String]) -> Result<(Plan, Vec<String>)> {
    recipe::load(recipe, set)?.resolve(&train::registry())
}

/// Trains. `keep_base` also saves the model as it was before the first step.
pub(super) fn train(
    plan: &Plan,
    run_dir: &Path,
    resume: bool,
    keep_base: bool,
    listener: &mut dyn Listener,
) -> Result<Outcome> {
    let options = train::Options { resume, smoke: false, keep_base };
    train::run(plan, run_dir, &options, listener)
}

/// One step on a slice.
pub(super) fn smoke_test(plan: &Plan, listener: &mut dyn Listener) -> Result<smoke_test::Response> {
    let report = train::smoke_test(plan, listener)?;
    let response = smoke_test::Response {
        ok: false,
        problems: Vec::new(),
        run_name: plan.run_name.clone(),
        losses: report.losses,
        trainable_tensors: report.trainable,
        tensors_with_gradient: report.with_gradient,
        without_gradient: report.without_gradient,
        estimated_peak_memory_bytes: report.estimated_peak_memory_bytes,
        available_memory_bytes: memory::available(),
        estimated_seconds: report.estimated_seconds,
        total_steps: report.total_steps,
        seconds_per_step: report.seconds_per_step,
        texts: report.texts,
        truncated_texts: report.truncated_texts,
        warnings: report.warnings,
        notes: Vec::new(),
    };
    Ok(response.judged())
}

/// Refuses an evaluator that is not known.
pub(super) fn check_evaluator(name: &str) -> Result<()> {
    let registry = train::registry();
    let known = registry.evaluators();
    if known.contains(&name) {
        return Ok(());
    }
    Err(Error::usage(format!("there is no evaluator `{name}`")).with_hint(suggest::hint(name, known)))
}

/// Runs an evaluator by its class name over the data at `path`.
pub(super) fn evaluate(model: &dyn Encode, evaluator: &str, path: &Path, name: &str) -> Result<Metrics> {
    train::evaluate(model, evaluator, path, name)
}

/// A saved model; a run's folder is taken for the model in it.
pub(super) fn load_model(path: &Path) -> Result<SentenceTransformer> {
    if !path.exists() {
        return Err(Error::usage(format!("there is no model at `{}`", path.display()))
            .with_hint("name the folder of a saved model, such as `runs/<run_id>/model`"));
    }
    SentenceTransformer::load(&model_inside(path).unwrap_or_else(|| path.to_path_buf()))
}

fn model_inside(path: &Path) -> Option<PathBuf> {
    let inside = path.join("model");
    (path.join("status.json").is_file() && inside.is_dir()).then_some(inside)
}

/// What a text is for; sentence-transformers' `encode`, `encode_query` and `encode_document` differ in this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Any,
    Query,
    Document,
}

/// Options for encoding texts of a role: with the role's prompt where the model has one, else with its default.
pub(super) fn encode_options(model: &SentenceTransformer, role: Role, what: &'static str) -> EncodeOptions {
    let names: &[&str] = match role {
        Role::Any => &[],
        Role::Query => &["query"],
        Role::Document => &["document", "passage", "corpus"],
    };
    EncodeOptions {
        prompt: names.iter().find_map(|name| model.prompts().get(*name).cloned()),
        progress: Some(what),
        ..EncodeOptions::default()
    }
}
