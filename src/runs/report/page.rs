//! The report's page: facts as the strings and charts that its template puts in place.

mod course;

use std::collections::HashSet;

use course::curve;
use serde::Serialize;

use super::captured::Seen;
use super::changes::{self, Change};
use super::chart::{self, Bar, Bins, Scene, bars, histogram};
use super::curves;
use super::facts::Facts;
use crate::error::Result;
use crate::flow::look::{Look, Scores, cut};
use crate::recipe::Plan;
use crate::recipe::plan::ModelSource;
use crate::render;
use crate::runs::verdict::{Judgement, Verdict};
use crate::runs::{RunFolder, State};
use crate::train::facts::DatasetFacts;
use crate::util::numbers::thousands;
use crate::util::{clock, memory};

/// Letters of a query that stand where it is folded up.
const SHORT: usize = 110;
#[derive(Serialize)]
struct Page {
    title: String,
    style: &'static str,
    run_id: String,
    state: &'static str,
    summary: String,
    hero: Hero,
    curves: Vec<Figure>,
    scores: Vec<Figure>,
    scores_note: String,
    items: Option<Items>,
    items_note: String,
    metrics: Vec<Vec<String>>,
    datasets: Vec<Dataset>,
    time: Option<Figure>,
    effort: Vec<(String, String)>,
    recipe: String,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    warnings: Vec<String>,
    made: String,
}

#[derive(Serialize)]
struct Hero {
    /// For its colour: `win`, `marginal`, `regression`, `none`, `failed`, `running`.
    kind: &'static str,
    word: String,
    headline: String,
    numbers: Vec<(String, String)>,
    notes: Vec<String>,
}

/// A chart with its numbers.
#[derive(Serialize)]
struct Figure {
    svg: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Items {
    value: String,
    summary: String,
    sides: Vec<Side>,
}

#[derive(Serialize)]
struct Side {
    title: &'static str,
    kind: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    short: String,
    change: String,
    numbers: String,
    texts: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Dataset {
    name: String,
    note: String,
    columns: Vec<Vec<String>>,
    lengths: Option<Figure>,
    /// The first rows: name and text.
    examples: Vec<Vec<(String, String)>>,
}

/// The page.
///
/// # Errors
/// Only if the template and this file disagree.
pub fn html(folder: &RunFolder, facts: &Facts) -> Result<String> {
    render::render("report.html", &page(folder, facts))
}

fn page(folder: &RunFolder, facts: &Facts) -> Page {
    let status = &facts.status;
    let (before, after) = facts.seen();
    let scores = |seen: Option<&Seen>| seen.and_then(|s| s.look.as_ref()?.scores.clone());
    let (before_scores, after_scores) = (scores(before), scores(after));
    let later = match (status.state, after) {
        (State::Done, _) | (_, None) => "After training".to_owned(),
        (_, Some(seen)) => format!("At step {}", seen.step),
    };
    let charts = changes::distributions(before_scores.as_ref(), (later.as_str(), after_scores.as_ref()));
    let separations = [before_scores.as_ref(), after_scores.as_ref()].map(|s| s.and_then(changes::separation));
    let looks = (before.and_then(|s| s.look.as_ref()), after.and_then(|s| s.look.as_ref()));
    let changed = if let (Some(a), Some(b)) = looks { changes::compare(a, b).map(|c| (b, c)) } else { None };
    Page {
        title: status.run_name.clone(),
        style: chart::STYLE,
        run_id: folder.run_id().to_owned(),
        state: status.state.name(),
        summary: summary(facts),
        hero: hero(facts),
        curves: curves::curves(facts).iter().filter_map(curve).collect(),
        scores: charts.iter().map(plain).collect(),
        scores_note: scores_note(separations, charts.is_empty(), before_scores.or(after_scores).as_ref()),
        items_note: items_note(changed.is_some(), looks),
        items: changed.map(|(look, changes)| items(&look.value, look.of, look.items.len(), &changes)),
        metrics: metrics(facts),
        datasets: facts.captured.facts.iter().flat_map(|run| &run.datasets).map(dataset).collect(),
        time: time(facts),
        effort: effort(facts),
        recipe: facts.recipe.clone().unwrap_or_default(),
        settings: facts.plan.as_ref().map(settings).unwrap_or_default(),
        environment: machine(facts),
        warnings: warnings(facts),
        made: clock::now(),
    }
}

/// Each once; those of a run that is not done too.
fn warnings(facts: &Facts) -> Vec<String> {
    let mut all = facts.captured.warnings.clone();
    for text in facts.outcome.iter().flat_map(|outcome| &outcome.warnings) {
        if !all.contains(text) {
            all.push(text.clone());
        }
    }
    all
}

/// Why no single items are shown.
fn items_note(shown: bool, (before, after): (Option<&Look>, Option<&Look>)) -> String {
    let known = |look: Option<&Look>| look.is_some_and(|look| !look.items.is_empty());
    let text = match (known(before), known(after)) {
        _ if shown => "",
        (true, false) => "There is no evaluation after training to compare with.",
        (true, true) => "The items of the evaluation before training are others than those after it.",
        _ => "No single items are known of the metric that decides, or nothing was evaluated.",
    };
    text.to_owned()
}

/// Model, data and loss in a line.
fn summary(facts: &Facts) -> String {
    let Some(plan) = &facts.plan else { return String::new() };
    let base = match &plan.model.source {
        ModelSource::Base(location) => format!("from {}", last(&location.to_string())),
        ModelSource::Distilled { teacher, .. } => format!("distilled from {}", last(&teacher.to_string())),
        _ => "from scratch".to_owned(),
    };
    let mut losses: Vec<&str> = plan.train_dataset.iter().map(|set| set.loss.name.as_str()).collect();
    losses.dedup();
    let data: Vec<&str> = plan.train_dataset.iter().map(|set| set.name.as_str()).collect();
    format!("{} {base}, trained on {} with {}", plan.model_type, data.join(", "), losses.join(" + "))
}

fn last(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
}

fn number(value: f64) -> String {
    if !value.is_finite() {
        "n/a".to_owned()
    } else if value != 0.0 && value.abs() < 1e-3 {
        format!("{value:.2e}")
    } else if value.abs() >= 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

fn whole(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "n/a".to_owned() }
}

fn hero(facts: &Facts) -> Hero {
    let status = &facts.status;
    let mut notes = Vec::new();
    let mut numbers = Vec::new();
    let judged = facts.judgement.as_ref().filter(|judgement| judgement.verdict != Verdict::None);
    if let Some(judgement) = judged {
        let shown = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), number);
        numbers.push(("before training".to_owned(), shown(judgement.baseline)));
        let after = if status.state == State::Done { "after training" } else { "so far" };
        numbers.push((after.to_owned(), shown(judgement.score)));
        notes.extend(judgement.interval_line());
    }
    let metric = judged.and_then(|judgement| judgement.metric.clone());
    let metric = metric.map(|key| key.trim_start_matches("eval_").to_owned()).unwrap_or_default();
    let headline = judged.and_then(|judgement| judgement.delta).map(|delta| match facts.greater_is_better() {
        true => format!("{delta:+.4} {metric}"),
        false if delta >= 0.0 => format!("{metric} lower by {delta:.4}"),
        false => format!("{metric} higher by {:.4}", -delta),
    });
    let of = if status.total_steps > 0 { format!(" of {}", status.total_steps) } else { String::new() };
    let (kind, word, otherwise) = match status.state {
        State::Done => {
            let verdict = facts.judgement.as_ref().map_or(Verdict::None, |judgement: &Judgement| judgement.verdict);
            let kind = match verdict {
                Verdict::Win => "win",
                Verdict::Marginal => "marginal",
                Verdict::Regression => "regression",
                Verdict::None => "none",
            };
            if let Some(best) = facts.outcome.as_ref().and_then(|outcome| outcome.best_step) {
                notes.push(format!("The model that was kept is that of step {best}, the best."));
            }
            if verdict == Verdict::None {
                notes.push("Without an evaluator or evaluation data there is no before and after.".to_owned());
            }
            (kind, verdict.name().to_owned(), format!("trained {} steps", status.step))
        }
        State::Queued => ("running", "QUEUED".to_owned(), status.message.clone().unwrap_or_default()),
        State::Running => ("running", "RUNNING".to_owned(), format!("step {}{of}", status.step)),
        State::Failed => ("failed", "FAILED".to_owned(), format!("after step {}{of}", status.step)),
        State::Cancelled => ("none", "CANCELLED".to_owned(), format!("after step {}{of}", status.step)),
    };
    if matches!(status.state, State::Failed | State::Cancelled) {
        notes.extend(status.message.clone());
        notes.extend(status.hint.clone().map(|hint| format!("Way out: {hint}")));
    }
    // how far a run that did not end well came says more than what it had reached
    let ended = matches!(status.state, State::Failed | State::Cancelled);
    let headline = match headline {
        Some(headline) if ended => {
            notes.insert(0, format!("{headline} at its last evaluation"));
            otherwise
        }
        Some(headline) => headline,
        None => otherwise,
    };
    Hero { kind, word, headline, numbers, notes }
}

fn figure(scene: &Scene, columns: Vec<String>, rows: Vec<Vec<String>>) -> Figure {
    Figure { svg: chart::svg(scene), columns, rows }
}

/// A chart whose numbers are told in words.
fn plain(scene: &Scene) -> Figure {
    figure(scene, Vec::new(), Vec::new())
}

fn scores_note([before, after]: [Option<f64>; 2], nothing: bool, scores: Option<&Scores>) -> String {
    if nothing {
        return "The evaluator that decides compares no pairs that could be told apart, or there is none.".to_owned();
    }
    if scores.is_some_and(|scores| scores.found) {
        return "The negatives are those that each model found itself: the two pictures do not have the same ones."
            .to_owned();
    }
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    match (before, after) {
        (Some(before), Some(after)) => format!(
            "A positive scores higher than a negative in {} of all pairings before training, and in {} later.",
            share(before),
            share(after)
        ),
        (Some(before), None) => {
            format!("Before training a positive scores higher than a negative in {} of all pairings.", share(before))
        }
        _ => String::new(),
    }
}

fn items(value: &str, of: usize, kept: usize, changes: &changes::Changes) -> Items {
    let [rose, fell, stayed] = changes.counts;
    let sample = if kept < of { format!(" (of {} looked at)", thousands(kept as u64)) } else { String::new() };
    let row = |change: &Change| Row {
        short: change.texts.first().map(|(_, text)| cut(text, SHORT)).unwrap_or_default(),
        change: format!("{:+.3}", change.after - change.before),
        // adding zero turns -0 into 0
        numbers: format!("{:.3} to {:.3}", change.before + 0.0, change.after + 0.0),
        texts: change.texts.clone(),
    };
    let side = |title, kind, list: &[Change]| Side { title, kind, rows: list.iter().map(row).collect() };
    Items {
        value: value.to_owned(),
        summary: format!(
            "{} rose, {} fell, {} stayed{sample}",
            thousands(rose as u64),
            thousands(fell as u64),
            thousands(stayed as u64)
        ),
        sides: vec![side("Gained most", "up", &changes.gained), side("Lost most", "down", &changes.lost)],
    }
}

/// Every metric: name, before, after, change.
fn metrics(facts: &Facts) -> Vec<Vec<String>> {
    let (before, after) = (facts.baseline(), facts.kept());
    let mut seen = HashSet::new();
    let keys = after.iter().chain(before.iter()).flat_map(|line| &line.values).map(|(key, _)| key.as_str());
    keys.filter(|key| seen.insert(*key))
        .map(|key| {
            let (old, new) = (before.and_then(|line| line.get(key)), after.and_then(|line| line.get(key)));
            let shown = |value: Option<f64>| value.map_or_else(String::new, number);
            let change = match (old, new) {
                (Some(old), Some(new)) if (new - old).is_finite() => format!("{:+.4}", new - old),
                _ => String::new(),
            };
            vec![key.trim_start_matches("eval_").to_owned(), shown(old), shown(new), change]
        })
        .collect()
}

fn dataset(set: &DatasetFacts) -> Dataset {
    let columns = set.columns.iter().map(|column| {
        let tokens = column.tokens;
        let cut = match column.truncated {
            0 => "none".to_owned(),
            cut => format!("{} ({:.1} %)", thousands(cut), column.cut()),
        };
        vec![column.name.clone(), tokens.p50.to_string(), format!("{:.1}", tokens.mean), tokens.max.to_string(), cut]
    });
    let names: Vec<String> = set.columns.iter().map(|column| column.name.clone()).chain(set.label.clone()).collect();
    let limit = set
        .max_seq_length
        .map(|limit| format!(", cut to {limit} tokens; the table has the lengths before"))
        .unwrap_or_default();
    let use_of = if set.trained { "training" } else { "evaluation" };
    Dataset {
        name: set.name.clone(),
        note: format!("{} rows of {use_of} data{limit}", thousands(set.rows)),
        columns: columns.collect(),
        lengths: lengths(set),
        examples: set.examples.iter().map(|row| names.iter().cloned().zip(row.iter().cloned()).collect()).collect(),
    }
}

fn lengths(set: &DatasetFacts) -> Option<Figure> {
    let all = set.columns.iter().flat_map(|column| &column.lengths).map(|(length, _)| f64::from(*length));
    let bins = Bins::around(all, 40, true)?;
    let shares = set.columns.iter().take(chart::SERIES).map(|column| {
        (column.name.clone(), bins.shares(column.lengths.iter().map(|(length, times)| (f64::from(*length), *times))))
    });
    let shares: Vec<(String, Vec<f64>)> = shares.collect();
    let highest = shares.iter().flat_map(|(_, shares)| shares).fold(0.0f64, |most, share| most.max(*share));
    let cut = set.columns.iter().any(|column| column.truncated > 0);
    let title = if cut { "Tokens a text, after cutting" } else { "Tokens a text" };
    let scene = histogram(title, "tokens", bins, &shares, highest);
    let rows = (0..bins.count).map(|bin| {
        let edge = format!("{} to {}", whole(bins.edge(bin)), whole(bins.edge(bin + 1) - 1.0));
        let share = |(_, shares): &(String, Vec<f64>)| format!("{:.1} %", 100.0 * shares[bin]);
        std::iter::once(edge).chain(shares.iter().map(share)).collect()
    });
    let columns = std::iter::once("tokens".to_owned()).chain(shares.iter().map(|(name, _)| name.clone()));
    Some(figure(&scene, columns.collect(), rows.collect()))
}

/// Where the wall time of the last process went.
fn time(facts: &Facts) -> Option<Figure> {
    let outcome = facts.outcome.as_ref()?;
    let mut parts: Vec<(String, f64)> = outcome.timings.iter().map(|(name, s)| (name.clone(), *s)).collect();
    let known: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    // of a resumed run the earlier processes' time is in the whole
    if outcome.seconds - known > 0.005 * outcome.seconds {
        parts.push(("other".to_owned(), outcome.seconds - known));
    }
    parts.retain(|(_, seconds)| *seconds > 0.0);
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let share = |seconds: f64| format!("{:.0} %", 100.0 * seconds / outcome.seconds.max(1e-9));
    let drawn: Vec<Bar> = parts
        .iter()
        .map(|(name, seconds)| Bar {
            name: name.clone(),
            value: *seconds,
            text: format!("{} ({})", clock::human(*seconds), share(*seconds)),
        })
        .collect();
    let rows = parts.iter().map(|(name, seconds)| vec![name.clone(), clock::human(*seconds), share(*seconds)]);
    let columns = ["part", "time", "share"].map(str::to_owned).to_vec();
    (!drawn.is_empty()).then(|| figure(&bars("Wall time", &drawn), columns, rows.collect()))
}

fn effort(facts: &Facts) -> Vec<(String, String)> {
    let mut rows = vec![
        ("Started".to_owned(), started(&facts.status.started)),
        ("Steps".to_owned(), thousands(facts.status.step)),
        ("Epochs".to_owned(), format!("{:.2}", facts.status.epoch)),
    ];
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    match &facts.outcome {
        Some(outcome) => {
            add("Wall time", clock::human(outcome.seconds));
            add("To the first step", clock::human(outcome.seconds_to_first_step));
            add("Speed in training", format!("{:.1} rows/s", outcome.rows_per_second));
            add("Tokens trained on", thousands(outcome.train_tokens));
            add("Most memory", memory::human(outcome.peak_memory_bytes));
            if let Some(best) = outcome.best_step {
                add("Model kept", format!("of step {best}, the best"));
            }
            if outcome.stopped_early {
                add("Stopped", "early, by its evaluations".to_owned());
            }
        }
        None => add("Wall time of its last process", clock::human(facts.status.seconds)),
    }
    let evaluating: f64 = facts.evaluated.iter().map(|line| line.seconds).filter(|s| s.is_finite()).sum();
    if !facts.evaluated.is_empty() {
        let count = facts.evaluated.len();
        add("Evaluations", format!("{count} in {}", clock::human(evaluating)));
    }
    rows
}

/// `2026-08-21 10:20:30 UTC`.
fn started(stamp: &str) -> String {
    match (stamp.get(..10), stamp.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => stamp.to_owned(),
    }
}

/// What decides a run, by name.
fn settings(plan: &Plan) -> Vec<(String, String)> {
    let args = serde_json::to_value(&plan.args).unwrap_or_default();
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let args = args.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    std::iter::once(("seed".to_owned(), plan.seed.to_string()))
        .chain(args.map(|(name, value)| (name.clone(), text(value))))
        .collect()
}

fn machine(facts: &Facts) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Some(run) = &facts.captured.facts {
        rows.extend(run.environment.iter().cloned());
        rows.push(("Computed on".to_owned(), run.arithmetic.clone()));
        rows.push(("Threads".to_owned(), run.threads.to_string()));
        let trained = format!("{} of {}", thousands(run.trainable), thousands(run.parameters));
        rows.push(("Parameters trained".to_owned(), trained));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_that_each_model_found_are_not_compared() {
        let found = Scores { found: true, ..Scores::default() };
        let note = |scores: &Scores| scores_note([Some(0.5), Some(0.75)], false, Some(scores));
        assert!(note(&found).contains("each model found") && !note(&found).contains('%'));
        assert!(note(&Scores::default()).contains("in 50.0 % of all pairings before training, and in 75.0 %"));
    }
}
