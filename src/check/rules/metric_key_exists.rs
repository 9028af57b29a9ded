//! The metric that decides is one that the evaluation gives.

use serde_json::{Map, json};

use super::{Finding, OfRecipes, Place, RecipeFile, Rule, Run, Script, arguments, is_true};
use crate::eval;
use crate::util::suggest;

pub(in crate::check) const RULE: Rule = Rule {
    id: "metric-key-exists",
    summary: "`metric_for_best_model` is a key that the evaluator or the evaluation data give.",
    model_types: &[],
    recipe: OfRecipes::Looked(recipe),
    python,
};

fn recipe(file: &RecipeFile<'_>) -> Vec<Finding> {
    let key = "args.metric_for_best_model";
    let Some(metric) = &file.plan.args.metric_for_best_model else { return Vec::new() };
    match file.metric_keys() {
        Ok(keys) if !keys.is_empty() && !keys.contains(metric) => {
            let fix = suggest::hint(metric, keys.iter().map(String::as_str));
            vec![Finding::new(file.line(key), format!("no evaluation gives `{metric}`"), fix)]
        }
        _ => Vec::new(),
    }
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for (trainer, call) in arguments(&run) {
        let given = |name| run.argument_of(trainer, name, None).filter(|p| run.resolve(*p).node.kind() != "none");
        let Some(metric) = run.argument_of(call, "metric_for_best_model", None) else {
            if is_true(&run, call, "load_best_model_at_end") && given("eval_dataset").is_none() {
                findings.push(Finding::new(
                    call.line(),
                    "the best model goes by the loss on evaluation data, and there are none",
                    "`metric_for_best_model=f\"eval_{evaluator.primary_metric}\"`",
                ));
            }
            continue;
        };
        match run.string(metric) {
            Some(text) => findings.extend(literal(&run, metric, &text, given("eval_dataset").is_some())),
            None => findings.extend(composed(&run, metric)),
        }
    }
    findings
}

/// A key that is written out, against those of the evaluators, where all of these can be told.
fn literal(run: &Run<'_>, metric: Place<'_>, text: &str, data: bool) -> Option<Finding> {
    let wanted = eval::trainer_key(text);
    if data && wanted.ends_with("loss") {
        return None;
    }
    let mut keys = Vec::new();
    for (class, seen) in run.evaluators() {
        if class == "SequentialEvaluator" {
            keys.push("eval_sequential_score".to_owned());
            continue;
        }
        let mut settings = Map::new();
        if let Some(name) = run.argument(seen, "name", None) {
            settings.insert("name".to_owned(), json!(run.string(name)?));
        }
        let entry = eval::find(class).ok()?;
        if ["dataset_names", "rerank_k", "truncate_dim"].iter().any(|other| run.argument(seen, other, None).is_some()) {
            return None;
        }
        for similarity in ["cosine", "dot", "euclidean", "manhattan", "maxsim"] {
            keys.extend(entry.keys(&settings, similarity).unwrap_or_default().iter().map(|key| eval::trainer_key(key)));
        }
    }
    if keys.is_empty() || keys.contains(&wanted) {
        return None;
    }
    let fix = format!(
        "{}; or `f\"eval_{{evaluator.primary_metric}}\"`",
        suggest::hint(&wanted, keys.iter().map(String::as_str))
    );
    Some(Finding::new(metric.line(), format!("no evaluator gives `{wanted}`"), fix))
}

/// A key out of `primary_metric`, which has the evaluator's name in it only once that has been called.
fn composed(run: &Run<'_>, metric: Place<'_>) -> Option<Finding> {
    let part = run
        .parts(metric)
        .into_iter()
        .find(|part| part.node.kind() == "attribute" && run.text(part.node).ends_with(".primary_metric"))?;
    let before = run.evaluations().into_iter().any(|seen| run.ran_before(seen, part));
    (!before).then(|| {
        Finding::new(
            part.line(),
            "`primary_metric` gets the evaluator's name only when the evaluator is called, and it was not yet",
            "evaluate the model before this line",
        )
    })
}
