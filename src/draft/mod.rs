//! How does a recipe or a training script begin? From a variant, the data at hand and the settings a user has.
//!
//! A variant's recipe template asks for every key with the value it would give it; what a user sets stands in its place,
//! and what the template does not ask for is added to its table. The recipe that comes out is the one set of values: a
//! Python script is written from it, so a setting means the same in both.

pub mod launch;
mod python;
mod script;
mod settings;
mod shape;
mod source;
pub mod variants;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::{self, Loaded};
use crate::render;
use crate::render::Keys as _;
pub use script::{python, requirements};
use settings::Filled;
use source::Sources;
pub use variants::Variant;

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub model_type: ModelType,
    /// `default` without.
    pub variant: Option<String>,
    /// Rows to train on, and held-out rows or a folder in the BEIR layout; read relative to the current directory.
    pub data: Option<String>,
    pub eval: Option<String>,
    /// The model to start from.
    pub base: Option<String>,
    /// The model a script learns from or mines with.
    pub teacher: Option<String>,
    /// Values by dotted key, each over the ones before.
    pub settings: Vec<(String, Value)>,
    /// The same as `key=value` texts, over all others.
    pub set: Vec<String>,
    /// The file that is to be written; names the run, and relative paths in a recipe are read from its folder.
    pub file: PathBuf,
}

/// A recipe that was written.
#[derive(Debug, Clone)]
pub struct Draft {
    pub variant: &'static Variant,
    /// The file's text.
    pub text: String,
    /// What it says.
    pub loaded: Loaded,
    /// What was decided for the user.
    pub notes: Vec<String>,
    /// Whether held-out rows are named; where not, a script makes some.
    pub(crate) held_out: bool,
}

impl Draft {
    /// What the run is called.
    #[must_use]
    pub fn run_name(&self) -> String {
        self.loaded.recipe.run_name.clone().unwrap_or_default()
    }

    /// The losses of its data sets.
    #[must_use]
    pub fn losses(&self) -> Vec<String> {
        let recipe = &self.loaded.recipe;
        let own = recipe.train_dataset.0.iter().filter_map(|set| set.loss.as_ref());
        own.chain(&recipe.loss).map(|loss| loss.name.clone()).collect()
    }
}

/// What recipe templates are filled with.
#[derive(Debug, Serialize)]
struct Context {
    /// The file's name, for the commands in its header.
    file: String,
    title: &'static str,
    run_name: String,
    model_type: &'static str,
    base: Option<String>,
    /// Keys of the data sets and the evaluators with their values, in their order.
    train: Vec<Vec<(String, Value)>>,
    eval: Vec<(String, Value)>,
    evaluators: Vec<Vec<(String, Value)>>,
    loss: String,
    /// Whether its batches must not have a text twice.
    in_batch_negatives: bool,
    /// How batches are put together otherwise, where it matters.
    sampler: Option<&'static str>,
    /// Whether rows are pairs for which negatives are looked for, and the model that finds them.
    mines: bool,
    retriever: Option<String>,
    /// What active dimensions cost.
    document_weight: f64,
    query_weight: f64,
    epochs: Value,
    batch: usize,
    learning_rate: f64,
}

/// Writes a recipe.
///
/// # Errors
/// When there is no such variant, the data cannot be read or does not suit it, or a setting cannot be meant.
pub fn recipe(wanted: &Wanted) -> Result<Draft> {
    write(wanted, true)
}

/// As [`recipe`], for the values alone: files that a script makes or fetches by itself need not be there.
///
/// # Errors
/// As [`recipe`].
pub fn values(wanted: &Wanted) -> Result<Draft> {
    write(wanted, false)
}

fn write(wanted: &Wanted, complete: bool) -> Result<Draft> {
    let variant = variants::find(wanted.model_type, wanted.variant.as_deref().unwrap_or("default"))?;
    let tree = recipe::tree(&wanted.settings, &wanted.set)?;
    let new_model = ["config", "static_embedding"].iter().any(|key| at(&tree, &format!("model.{key}")).is_some());
    let by_words = at(&tree, "train_dataset.0.hard_negatives.bm25").and_then(Value::as_bool) == Some(true);
    let sources = Sources::settle(variant, wanted, &tree, complete)?;
    let context = Context {
        file: shown(&wanted.file),
        title: variant.title,
        run_name: run_name(&wanted.file, variant),
        model_type: variant.model_type.name(),
        base: wanted.base.clone().or_else(|| variant.base.filter(|_| !new_model).map(str::to_owned)),
        in_batch_negatives: sources.in_batch_negatives,
        sampler: sources.compares_labels.then_some("group_by_label"),
        mines: sources.mines,
        retriever: if by_words { None } else { wanted.teacher.clone().or_else(|| variant.teacher.map(str::to_owned)) },
        document_weight: variant.weights.0,
        query_weight: variant.weights.1,
        loss: sources.loss.clone(),
        train: sources.train,
        eval: sources.eval,
        evaluators: sources.evaluators,
        epochs: variant.epochs.into(),
        batch: variant.batch,
        learning_rate: variant.learning_rate,
    };
    let filled = Filled::new(tree);
    let rendered = render::render_filled(variant.recipe, &context, filled.clone())?;
    let text = filled.finish(&rendered)?;
    let loaded = recipe::parse(&wanted.file, &text, &[])?;
    Ok(Draft { variant, text, loaded, notes: sources.notes, held_out: sources.held_out })
}

/// A recipe's text from its tables.
///
/// # Errors
/// When a table has no form in TOML.
pub fn text(tables: Map<String, Value>) -> Result<String> {
    let filled = Filled::new(tables);
    let skeleton = format!("{}\n{}\n", filled.rest(""), filled.tables());
    filled.finish(&skeleton)
}

/// A value as it stands in a recipe.
#[must_use]
pub fn value(value: &Value) -> String {
    settings::toml(value)
}

/// A file's name in a comment: on one line, whatever it is called.
fn shown(file: &Path) -> String {
    file.display().to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// After the file; characters that a folder's name cannot have become `-`.
fn run_name(file: &Path, variant: &Variant) -> String {
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { '-' } else { c }).collect();
    let name = name.trim().trim_start_matches('.');
    if name.is_empty() || name == "-" { variant.run_name() } else { name.to_owned() }
}

/// `key=value` pairs of a JSON document with a `settings` object of dotted keys, or of such an object itself.
///
/// # Errors
/// When it is no JSON, or has none.
pub fn settings_of(name: &str, text: &str) -> Result<Vec<(String, Value)>> {
    let document: Value = serde_json::from_str(text).map_err(|e| {
        Error::usage(format!("`{name}` is not JSON: {e}")).with_hint("`tallow recommend --json` writes one")
    })?;
    let none = || {
        Error::usage(format!("`{name}` has no object `settings`"))
            .with_hint("it looks like `{\"settings\": {\"loss.name\": \"CoSENTLoss\", \"args.learning_rate\": 2e-5}}`")
    };
    let settings = match document {
        Value::Object(mut object) => object.shift_remove("settings").ok_or_else(none)?,
        _ => return Err(none()),
    };
    match settings {
        Value::Object(settings) => Ok(settings.into_iter().collect()),
        _ => Err(none()),
    }
}

/// A value inside nested tables and lists.
fn at<'a>(tree: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let mut value = tree.get(parts.next()?)?;
    for part in parts {
        value = match value {
            Value::Object(table) => table.get(part)?,
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}
