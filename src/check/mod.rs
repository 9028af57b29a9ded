//! Does a file keep what every run has to keep? Rules with stable ids, over recipes and over Python scripts.
//!
//! A rule is a file in `rules/` and one line in [`RULES`]. Of a recipe it looks at the plan, of a script at what runs:
//! calls in the order they are made, without comments, strings and dead code ([`python`]). Many contracts a recipe cannot
//! break, because the run keeps them; the rule then says so.

pub mod python;
mod recipe;
mod rules;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::{Builtin, examine};
use python::Script;
pub(crate) use recipe::RecipeFile;

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From 1; the whole file without.
    pub line: Option<usize>,
    pub message: String,
    /// What to write.
    pub fix: String,
}

impl Finding {
    /// A finding on a line.
    fn new(line: impl Into<Option<usize>>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { line: line.into(), message: message.into(), fix: fix.into() }
    }
}

/// How a rule holds of recipes.
#[derive(Clone, Copy)]
pub(crate) enum OfRecipes {
    /// The run keeps it whatever the recipe says.
    Kept,
    /// Only scripts can break it.
    Never,
    /// To be looked at, beside what resolving the recipe refuses under the rule's id.
    Looked(fn(&RecipeFile<'_>) -> Vec<Finding>),
}

/// Something every run has to keep.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Stable: scripts and references name it.
    pub id: &'static str,
    /// What has to hold, in one sentence.
    pub summary: &'static str,
    /// The models it concerns; all without.
    pub model_types: &'static [ModelType],
    pub(crate) recipe: OfRecipes,
    pub(crate) python: fn(&Script) -> Vec<Finding>,
}

impl Rule {
    fn concerns(&self, model_type: Option<ModelType>) -> bool {
        self.model_types.is_empty() || model_type.is_some_and(|own| self.model_types.contains(&own))
    }
}

macro_rules! rules {
    ($($name:ident),* $(,)?) => {
        /// Every rule, in the order of a run.
        pub static RULES: &[Rule] = &[$(rules::$name::RULE),*];
    };
}

rules! {
    valid,
    trains,
    quiet_http,
    log_tee,
    smoke_test,
    full_precision_weights,
    train_eval_disjoint,
    eval_has_data,
    baseline_eval,
    no_duplicates_sampler,
    cached_loss_without_checkpointing,
    identity_activation,
    splade_regularizer,
    scale_matches_scoring,
    save_multiple_of_eval,
    metric_key_exists,
    early_stopping,
    verdict_line,
    active_dims,
    experiment_logged,
    hub_push_guarded,
}

/// What kind of file is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Recipe,
    Python,
}

/// The kind of a file, by its ending.
#[must_use]
pub fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()? {
        "toml" => Some(Kind::Recipe),
        "py" => Some(Kind::Python),
        _ => None,
    }
}

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Violation {
    /// The rule's id.
    pub rule: &'static str,
    /// From 1; `null` where it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub fix: String,
}

impl Violation {
    fn of(rule: &'static str, finding: Finding) -> Self {
        Self { rule, line: finding.line, message: finding.message, fix: finding.fix }
    }

    /// As an error about a file that was to be written.
    #[must_use]
    pub fn refusal(&self, path: &Path) -> Error {
        let line = self.line.map(|line| format!(" line {line}")).unwrap_or_default();
        Error::usage(format!("`{}`{line} would break `{}`: {}", path.display(), self.rule, self.message))
            .with_hint(self.fix.clone())
    }
}

/// What was found in a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    pub kind: Kind,
    /// The kind of model it trains, where that can be told.
    pub model_type: Option<ModelType>,
    /// The rules that are broken, by line.
    pub violations: Vec<Violation>,
    /// The rules that hold.
    pub passed: Vec<&'static str>,
    /// The rules that the run keeps by itself.
    pub kept_by_the_run: Vec<&'static str>,
}

/// Checks the text of a file, by its ending.
///
/// # Errors
/// When the file is neither a recipe nor a script, or cannot be read as one.
pub fn check(path: &Path, text: &str) -> Result<Report> {
    match kind(path) {
        Some(Kind::Recipe) => check_recipe(path, text),
        Some(Kind::Python) => check_python(path, text),
        None => Err(Error::usage(format!("`{}` is neither a recipe nor a Python script", path.display()))
            .with_hint("recipes end in `.toml`, scripts in `.py`")),
    }
}

fn check_recipe(path: &Path, text: &str) -> Result<Report> {
    let examined = examine(path, text, &Builtin)?;
    let refused = |rule: &str| -> Vec<Finding> {
        let own = |of: Option<&'static str>| of.unwrap_or(rules::valid::RULE.id) == rule;
        let problems = examined.problems.iter().filter(|(_, problem)| own(problem.rule));
        problems
            .map(|(line, problem)| {
                let text = format!("`{}`: {}", problem.key, problem.message);
                Finding::new(*line, text, problem.hint.clone().unwrap_or_default())
            })
            .collect()
    };
    let file = match (&examined.loaded, &examined.plan) {
        (Some(loaded), Some(plan)) => Some(RecipeFile { loaded, plan }),
        _ => None,
    };
    let model_type = file.as_ref().map(|file| file.plan.model_type);
    let mut report = Report::new(Kind::Recipe, model_type);
    for rule in RULES {
        let mut findings = refused(rule.id);
        let concerns = rule.concerns(model_type);
        match (rule.recipe, &file) {
            (OfRecipes::Looked(look), Some(file)) if concerns && findings.is_empty() => findings = look(file),
            (OfRecipes::Looked(_), _) => {}
            (OfRecipes::Kept, _) if concerns => {
                report.kept_by_the_run.push(rule.id);
                continue;
            }
            (OfRecipes::Kept | OfRecipes::Never, _) => continue,
        }
        if concerns || !findings.is_empty() {
            report.enter(rule, findings);
        }
    }
    Ok(report.sorted())
}

fn check_python(path: &Path, text: &str) -> Result<Report> {
    let script = Script::parse(path, text)?;
    let model_type = script.model_type();
    let mut report = Report::new(Kind::Python, model_type);
    for rule in RULES.iter().filter(|rule| rule.concerns(model_type)) {
        report.enter(rule, (rule.python)(&script));
    }
    Ok(report.sorted())
}

impl Report {
    fn new(kind: Kind, model_type: Option<ModelType>) -> Self {
        Self { kind, model_type, violations: Vec::new(), passed: Vec::new(), kept_by_the_run: Vec::new() }
    }

    fn enter(&mut self, rule: &Rule, findings: Vec<Finding>) {
        if findings.is_empty() {
            self.passed.push(rule.id);
        }
        self.violations.extend(findings.into_iter().map(|finding| Violation::of(rule.id, finding)));
    }

    fn sorted(mut self) -> Self {
        self.violations.sort_by_key(|violation| violation.line.unwrap_or(0));
        self
    }
}
