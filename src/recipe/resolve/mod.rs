//! What does a recipe come to? Defaults, absolute paths, and the settings that contradict each other.

mod args;
mod checks;
mod cross_encoder;
mod data;
mod model;
mod static_embedding;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::locate::Problem;
use super::paths::Bases;
use super::plan::{ArgsPlan, EvaluatorPlan, HubPlan, LossPlan, Plan};
use super::schema::{HubConfig, HubStrategy, Recipe};
use crate::error::{Error, Result};
use crate::flow::{Card, ModelType};
use crate::optim::interval::Every;
use crate::util::suggest;

/// What the recipe has to know of losses, evaluators and samplers.
pub trait Registry {
    /// The names of the losses of models of a type.
    fn losses(&self, model_type: ModelType) -> Vec<&str>;

    /// The names of the evaluators of models of a type.
    fn evaluators(&self, model_type: ModelType) -> Vec<&str>;

    /// The names of the batch samplers.
    fn samplers(&self) -> Vec<&str>;

    /// What the catalogue says of the loss called `name`.
    fn loss_card(&self, _model_type: ModelType, _name: &str) -> Option<&'static Card> {
        None
    }

    /// A loss's settings with its defaults filled in.
    ///
    /// # Errors
    /// When a setting is unknown or wrong.
    fn loss_settings(&self, _model_type: ModelType, loss: &LossPlan) -> Result<Map<String, Value>> {
        Ok(loss.settings.clone())
    }

    /// An evaluator's settings with its defaults filled in.
    ///
    /// # Errors
    /// When a setting is unknown or wrong.
    fn evaluator_settings(&self, evaluator: &EvaluatorPlan) -> Result<Map<String, Value>> {
        Ok(evaluator.settings.clone())
    }
}

/// What resolving gathers along the way.
struct Resolver<'a> {
    model_type: ModelType,
    /// The model to start from, as written.
    base: Option<String>,
    registry: &'a dyn Registry,
    bases: Bases,
    problems: &'a mut Vec<Problem>,
    notes: Vec<String>,
    defaulted: Vec<String>,
}

impl Resolver<'_> {
    /// The value given for `key`, or its default, which is remembered as such.
    fn or<T>(&mut self, key: &str, given: Option<T>, default: T) -> T {
        given.unwrap_or_else(|| {
            self.defaulted.push(key.to_owned());
            default
        })
    }

    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(key, message).with_hint(hint));
    }

    /// A path that need not exist; one out of the workspace is a problem.
    fn here(&mut self, key: &str, path: &str) -> PathBuf {
        self.bases.within(key, path).unwrap_or_else(|problem| {
            self.problems.push(problem);
            PathBuf::new()
        })
    }

    /// A problem that is a check of its own.
    fn breaks(
        &mut self,
        rule: &'static str,
        key: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem::new(key, message).with_hint(hint).under(rule));
    }

    /// Refuses a name that is not among `known`.
    fn known(&mut self, key: &str, what: &str, name: &str, known: &[&str]) -> bool {
        let found = known.contains(&name);
        // of a type of model that cannot be trained nothing is known, which is told once
        if !found && !known.is_empty() {
            let elsewhere = match what {
                "loss" => crate::loss::elsewhere(self.model_type, name),
                "evaluator" => crate::eval::elsewhere(self.model_type, name),
                _ => None,
            };
            let unknown = || (format!("there is no {what} `{name}`"), suggest::hint(name, known.iter().copied()));
            let (message, hint) = elsewhere.unwrap_or_else(unknown);
            self.problem(key, message, hint);
        }
        found
    }

    /// Takes what a registry says of the settings under `key`.
    fn settings(
        &mut self,
        key: &str,
        given: &Map<String, Value>,
        checked: Result<Map<String, Value>>,
    ) -> Map<String, Value> {
        match checked {
            Ok(settings) => without_nulls(settings),
            Err(error) => {
                // the setting that is meant, where the message names one: its line says more than the table's
                let message = error.to_string();
                let named = given.keys().find(|name| message.contains(&format!("`{name}`")));
                let key = named.map_or_else(|| key.to_owned(), |name| format!("{key}.{name}"));
                let problem = Problem::new(key, message);
                self.problems.push(match error.hint() {
                    Some(hint) => problem.with_hint(hint),
                    None => problem,
                });
                given.clone()
            }
        }
    }
}

/// Resolves `recipe`, which stands (or would stand) in the file `path`; what is wrong goes to `problems`.
pub(super) fn resolve(
    recipe: &Recipe,
    path: &Path,
    registry: &dyn Registry,
    problems: &mut Vec<Problem>,
) -> Result<(Plan, Vec<String>)> {
    let bases = Bases::new(path)?;
    let recipe_path = bases.here(
        path.to_str()
            .ok_or_else(|| Error::usage(format!("`{}`: the path of a recipe must be valid UTF-8", path.display())))?,
    );
    let model_type = recipe.model_type.unwrap_or_default();
    let mut r = Resolver {
        model_type,
        base: recipe.model.base.clone(),
        registry,
        bases,
        problems,
        notes: Vec::new(),
        defaulted: Vec::new(),
    };
    let stem = path.file_stem().map_or_else(|| "run".to_owned(), |s| s.to_string_lossy().into_owned());
    let run_name = r.or("run_name", recipe.run_name.clone(), stem);
    if !is_name(&run_name) {
        r.problem(
            "run_name",
            format!("`{run_name}` can't be the name of a folder"),
            "use letters, digits, `-`, `_` and `.`",
        );
    }
    let output_dir = r.or("output_dir", recipe.output_dir.clone(), "runs".to_owned());
    r.or("model_type", recipe.model_type, model_type);
    let seed = r.or("seed", recipe.seed, 42);
    let model = r.model(&recipe.model, model_type);
    let (train_dataset, eval_dataset) = r.datasets(recipe);
    let evaluator = r.evaluators(recipe);
    let args = r.args(&recipe.args, &evaluator, &eval_dataset);
    let hub = r.hub(&recipe.hub, &args, &run_name);
    let output_dir = r.here("output_dir", &output_dir);
    let mut plan = Plan {
        plan_version: 1,
        run_name,
        model_type,
        seed,
        output_dir,
        recipe: recipe_path,
        defaulted: Vec::new(),
        model,
        args,
        hub,
        train_dataset,
        eval_dataset,
        evaluator,
    };
    cross_encoder::settle(&mut r, &mut plan);
    checks::run(&mut r, recipe, &plan);
    plan.defaulted = r.defaulted;
    Ok((plan, r.notes))
}

impl Resolver<'_> {
    fn hub(&mut self, hub: &HubConfig, args: &ArgsPlan, run_name: &str) -> HubPlan {
        let push_to_hub = self.or("hub.push_to_hub", hub.push_to_hub, false);
        if let Some(id) = &hub.hub_model_id
            && !crate::hub::is_id(id)
        {
            let text = format!("`{id}` is no id of a repository");
            self.problem("hub.hub_model_id", text, "ids look like `owner/name`; a name alone is your own account's");
        }
        let hub_strategy = self.or("hub.hub_strategy", hub.hub_strategy, HubStrategy::End);
        if matches!(hub_strategy, HubStrategy::Checkpoint | HubStrategy::AllCheckpoints) {
            self.problem(
                "hub.hub_strategy",
                "would publish the state of training, which a run goes on from in its own folder only",
                "`every_save` publishes the model of each checkpoint, `end` that of the run; keep the run's folder to go on",
            );
        }
        if push_to_hub && hub_strategy == HubStrategy::EverySave && args.save == Every::No {
            self.notes.push(
                "`hub.hub_strategy = \"every_save\"`: `args.save_strategy` saves no checkpoints, so the model is published \
                 at the end alone"
                    .to_owned(),
            );
        }
        HubPlan {
            push_to_hub,
            hub_model_id: hub.hub_model_id.clone().unwrap_or_else(|| run_name.to_owned()),
            hub_private_repo: self.or("hub.hub_private_repo", hub.hub_private_repo, false),
            hub_strategy,
            hub_always_push: self.or("hub.hub_always_push", hub.hub_always_push, false),
            hub_revision: hub.hub_revision.clone(),
        }
    }
}

/// What has no value has no place in a file.
fn without_nulls(settings: Map<String, Value>) -> Map<String, Value> {
    let inner = |value| match value {
        Value::Object(table) => Value::Object(without_nulls(table)),
        other => other,
    };
    settings.into_iter().filter(|(_, v)| !v.is_null()).map(|(key, value)| (key, inner(value))).collect()
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && !name.chars().any(|c| c.is_control() || "/\\:*?\"<>|".contains(c))
}
