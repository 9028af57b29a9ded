//! The curves of a run: loss, learning rate, gradient, metric, sparsity.

use super::chart::{Lines, Series};
use super::facts::{Facts, Trained};

/// A chart of curves and the name of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub file: &'static str,
    pub lines: Lines,
}

/// Everything that can be drawn over steps.
#[must_use]
pub fn curves(facts: &Facts) -> Vec<Curve> {
    let all = [loss(facts), metric(facts), learning_rate(facts), gradient(facts), sparsity(facts)];
    all.into_iter().flatten().filter(|curve| curve.lines.series.iter().any(|s| !s.points.is_empty())).collect()
}

fn lines(title: impl Into<String>, series: Vec<Series>) -> Lines {
    Lines { title: title.into(), x_label: "step".to_owned(), series, reference: None }
}

fn trained(facts: &Facts, name: &str, value: impl Fn(&Trained) -> Option<f64>) -> Series {
    let points = facts.trained.iter().filter_map(|line| Some((line.step, value(line)?))).collect();
    Series { name: name.to_owned(), points, marked: false }
}

fn evaluated(facts: &Facts, name: &str, key: &str) -> Series {
    let points = facts.evaluated.iter().filter_map(|line| Some((line.step, line.get(key)?))).collect();
    Series { name: name.to_owned(), points, marked: true }
}

fn loss(facts: &Facts) -> Option<Curve> {
    let mut series = vec![trained(facts, "training", |line| Some(line.loss))];
    let keys = facts.evaluated.iter().flat_map(|line| &line.values).map(|(key, _)| key.as_str());
    let mut losses: Vec<&str> = keys.filter(|key| *key == "eval_loss" || key.ends_with("_loss")).collect();
    losses.sort_unstable();
    losses.dedup();
    for key in losses.into_iter().take(3) {
        let name = if key == "eval_loss" { "evaluation data" } else { key.trim_start_matches("eval_") };
        series.push(evaluated(facts, name, key));
    }
    (!facts.trained.is_empty()).then(|| Curve { file: "loss", lines: lines("Loss", series) })
}

fn metric(facts: &Facts) -> Option<Curve> {
    let key = facts.metric()?;
    let series = evaluated(facts, "this run", &key);
    let baseline = facts.baseline().and_then(|line| line.get(&key));
    let reference = baseline.map(|value| (value, format!("before training ({value:.4})")));
    let title = key.trim_start_matches("eval_").to_owned();
    Some(Curve { file: "metric", lines: Lines { reference, ..lines(title, vec![series]) } })
}

fn learning_rate(facts: &Facts) -> Option<Curve> {
    let series = trained(facts, "learning rate", |line| Some(line.learning_rate));
    Some(Curve { file: "learning_rate", lines: lines("Learning rate", vec![series]) })
}

fn gradient(facts: &Facts) -> Option<Curve> {
    let series = trained(facts, "gradient norm", |line| Some(line.grad_norm));
    Some(Curve { file: "gradient", lines: lines("Gradient norm, before clipping", vec![series]) })
}

/// Active dimensions of sparse embeddings: at evaluations, else as the loss tells them.
fn sparsity(facts: &Facts) -> Option<Curve> {
    const ENDING: &str = "active_dims";
    let mut series = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in facts.evaluated.iter().flat_map(|line| &line.values).filter(|(key, _)| key.ends_with(ENDING)) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    for key in keys.into_iter().take(4) {
        let name = key.trim_start_matches("eval_").trim_end_matches(ENDING).trim_end_matches('_').replace('_', " ");
        series.push(evaluated(facts, if name.is_empty() { "embeddings" } else { &name }, key));
    }
    if series.is_empty() {
        let told = facts.trained.iter().flat_map(|line| &line.told).filter(|(key, _)| key.ends_with(ENDING));
        let mut keys: Vec<&str> = told.map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys.into_iter().take(4) {
            let name = key.trim_end_matches(ENDING).trim_end_matches('_').replace('_', " ");
            let value = |line: &Trained| line.told.iter().find(|(k, _)| k == key).map(|(_, value)| *value);
            series.push(trained(facts, &name, value));
        }
    }
    (!series.is_empty()).then(|| Curve { file: "sparsity", lines: lines("Active dimensions", series) })
}
