//! What measures the model is not what it is trained on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::{Finding, OfRecipes, RecipeFile, Rule, Script};
use crate::data::source::{Files, Rows, Value};

/// Rows of each side that are compared, at most.
const MOST_ROWS: usize = 500_000;

/// One row in so many is too much.
const LEAST_SHARE: usize = 100;

pub(in crate::check) const RULE: Rule = Rule {
    id: "train-eval-disjoint",
    summary: "No row is both trained on and measured with.",
    model_types: &[],
    recipe: OfRecipes::Looked(recipe),
    python,
};

const FIX: &str = "measure on rows that were set apart before training";

fn recipe(file: &RecipeFile<'_>) -> Vec<Finding> {
    let plan = file.plan;
    let mut findings = Vec::new();
    let train: Vec<(&Path, &[String])> = plan
        .train_dataset
        .iter()
        .flat_map(|set| set.path.iter().map(|path| (path.as_path(), set.columns.as_slice())))
        .collect();
    let mut held: Vec<(String, PathBuf, &[String])> = Vec::new();
    for (i, evaluator) in plan.evaluator.iter().enumerate() {
        held.push((format!("evaluator.{i}.path"), evaluator.path.clone(), &evaluator.columns));
    }
    for (i, set) in plan.eval_dataset.iter().enumerate() {
        held.extend(
            set.path.iter().map(|path| (format!("eval_dataset.{i}.path"), path.clone(), set.columns.as_slice())),
        );
        if set.hub.is_some() && plan.train_dataset.iter().any(|trained| trained.hub == set.hub) {
            let line = file.line(&format!("eval_dataset.{i}"));
            findings.push(Finding::new(line, format!("`{}` is the split that is trained on", set.name), FIX));
        }
    }
    let mut trained: Option<HashSet<u64>> = None;
    for (key, path, columns) in held {
        let line = file.line(&key);
        let shown = path.display();
        if train.iter().any(|(own, _)| *own == path) {
            findings.push(Finding::new(line, format!("`{shown}` is trained on as well"), FIX));
            continue;
        }
        if !path.is_file() {
            continue;
        }
        let known =
            trained.get_or_insert_with(|| train.iter().flat_map(|(path, columns)| rows(path, columns)).collect());
        let own: Vec<u64> = rows(&path, columns);
        let twice = own.iter().filter(|row| known.contains(row)).count();
        // a few rows that stand in both by accident move no verdict; `inspect` tells of them
        if twice * LEAST_SHARE >= own.len() && twice > 0 {
            let text = format!("{twice} of {} rows of `{shown}` are trained on as well", own.len());
            findings.push(Finding::new(line, text, FIX));
        }
    }
    findings
}

/// Each row's first two texts, as a number; rows that cannot be read are for others to report.
fn rows(path: &Path, columns: &[String]) -> Vec<u64> {
    let Ok(files) = Files::resolve(&[path.to_string_lossy().into_owned()], Path::new("")) else { return Vec::new() };
    let mut reader = Rows::new(&files, None);
    let mut found = Vec::new();
    while let Ok(Some((_, cells))) = reader.next_row() {
        let Ok(cells) = cells else { continue };
        let texts: Vec<&str> = if columns.is_empty() {
            cells.iter().filter_map(|(_, value)| text(value)).take(2).collect()
        } else {
            let named =
                |name: &String| cells.iter().find(|(own, _)| own.as_ref() == name).and_then(|(_, value)| text(value));
            columns.iter().take(2).filter_map(named).collect()
        };
        if !texts.is_empty() {
            found.push(xxh3_64(texts.join("\u{0}").as_bytes()));
        }
        if found.len() >= MOST_ROWS {
            break;
        }
    }
    found
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text.trim()),
        _ => None,
    }
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for trainer in run.trainers() {
        let Some(train) = run.argument_of(trainer, "train_dataset", None) else { continue };
        let trained: Vec<String> = run.items(train).into_iter().map(|set| run.origin(set)).collect();
        let same = |origin: &str| !origin.is_empty() && trained.iter().any(|own| own == origin);
        if let Some(eval) = run.argument_of(trainer, "eval_dataset", None)
            && let Some(set) = run.items(eval).into_iter().find(|set| same(&run.origin(*set)))
        {
            findings.push(Finding::new(set.line(), "`eval_dataset` has the rows that are trained on", FIX));
        }
        for (class, seen) in run.evaluators() {
            if run.reads(seen).into_iter().any(|place| same(&run.origin(place))) {
                findings.push(Finding::new(
                    seen.line(),
                    format!("{class} measures with the rows that are trained on"),
                    FIX,
                ));
            }
        }
    }
    findings
}
