//! What was tried, and what was learned: drawn from what differs from the run before, and from the numbers.

use super::compare::{Difference, differences, shown};
use super::entry::Entry;
use super::table::short;
use crate::catalog::iterate::noise;

/// Changes that are named; more are counted.
const NAMED: usize = 5;

/// What differs from the run before with the same metric on the same held-out data.
pub(super) fn tried(entry: &Entry, before: Option<&Entry>) -> String {
    let Some(before) = before else {
        return if entry.metric.is_some() { "the first run with this metric on these data" } else { "" }.to_owned();
    };
    let changes: Vec<String> = match entry.plan.is_empty() || before.plan.is_empty() {
        false => differences(&before.plan, &entry.plan).iter().map(change).collect(),
        // what both tables say
        true => [
            ("base", short(&before.base), short(&entry.base)),
            ("data", before.data.clone(), entry.data.clone()),
            ("loss", before.loss.clone(), entry.loss.clone()),
            ("arguments", before.settings.clone(), entry.settings.clone()),
        ]
        .into_iter()
        .filter(|(_, first, second)| first != second)
        .map(|(name, first, second)| format!("{name} {first} -> {second}"))
        .collect(),
    };
    let than = format!("than `{}`", before.run_id);
    match changes.len() {
        0 => format!("nothing else {than}"),
        n if n > NAMED => format!("{}; {} more; otherwise no other {than}", changes[..NAMED].join("; "), n - NAMED),
        _ => format!("{}; otherwise no other {than}", changes.join("; ")),
    }
}

fn change(difference: &Difference) -> String {
    let value = |value: &serde_json::Value| {
        let text = shown(value);
        if text.contains('/') && text.len() > 40 { short(&text) } else { text }
    };
    format!("`{}` {} -> {}", difference.key, value(&difference.first), value(&difference.second))
}

/// What the numbers say, against the base model and against the run before.
pub(super) fn learned(entry: &Entry, before: Option<&Entry>) -> String {
    let mut parts = Vec::new();
    match (entry.delta, entry.delta_interval) {
        (Some(delta), Some([low, high])) if low <= 0.0 && high >= 0.0 => {
            parts.push(format!("{delta:+.4} over the base, within noise ({low:+.4} to {high:+.4})"));
        }
        (Some(delta), Some([low, high])) => {
            parts.push(format!("{delta:+.4} over the base, more than noise ({low:+.4} to {high:+.4})"));
        }
        (Some(delta), None) if delta.abs() < noise::SEEDS => {
            parts.push(format!("{delta:+.4} over the base, which two seeds can make"));
        }
        (Some(delta), None) => parts.push(format!("{delta:+.4} over the base")),
        (None, _) if entry.message.is_some() => parts.push("no score: it did not come to its end".to_owned()),
        (None, _) => parts.push("no score from before and after".to_owned()),
    }
    if let Some(before) = before
        && let Some(gain) = noise::gain(&before.past(), &entry.past())
    {
        let noise = if gain.is_noise() { ", within noise" } else { "" };
        parts.push(format!("{:+.4} against `{}`{noise}", gain.gain, before.run_id));
    }
    if let (Some(best), Some(steps)) = (entry.best_step, entry.steps)
        && best * 2 < steps
    {
        parts.push(format!("the best model came early, at step {best} of {steps}"));
    }
    parts.join("; ")
}
