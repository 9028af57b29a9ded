//! What a card says of the training itself: rows of the data, lengths, and the course of loss and metrics.

use serde::Serialize;

use super::{escape, quoted};
use crate::flow::ModelType;
use crate::flow::look::cut;
use crate::runs::report::Facts;
use crate::train::facts::DatasetFacts;

/// Logged steps in the course, and evaluations; of more, so many of each at even distances, with the last, and the
/// evaluations before training and of the model that was kept.
const LINES: usize = 60;
/// Letters of a text in a table.
const LETTERS: usize = 160;
/// Letters of an example that the Hub shows.
const WIDGET: usize = 300;

/// A table in Markdown, cells ready to be put in place.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// What a card shows of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Shown {
    name: String,
    size: String,
    lengths: Table,
    examples: Table,
}

/// Lengths and first rows of a data set.
pub(super) fn shown(set: &DatasetFacts) -> Shown {
    let lengths = set.columns.iter().map(|column| {
        let (name, tokens) = (format!("`{}`", escape(&column.name)), column.tokens);
        let cut = column.truncated.to_string();
        vec![name, tokens.p50.to_string(), format!("{:.1}", tokens.mean), tokens.max.to_string(), cut]
    });
    let names = set.columns.iter().map(|column| &column.name).chain(&set.label);
    let columns = ["column", "median", "mean", "longest", "cut"].map(str::to_owned).to_vec();
    let limit = set
        .max_seq_length
        .map(|limit| format!(", texts cut to {limit} tokens (the lengths are those before)"))
        .unwrap_or_default();
    let names: Vec<String> = names.map(|name| format!("`{}`", escape(name))).collect();
    // a row without a label that can be shown has one cell less
    let row = |row: &Vec<String>| (0..names.len()).map(|i| cell(row.get(i).map_or("", String::as_str))).collect();
    let rows = set.examples.iter().map(row).collect();
    Shown {
        name: escape(&set.name),
        size: format!("{} rows{limit}", set.rows),
        lengths: Table { columns, rows: lengths.collect() },
        examples: Table { rows, columns: names },
    }
}

/// A text that means nothing else in a table's cell.
fn cell(text: &str) -> String {
    let text = cut(text, LETTERS).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escape(&text).replace('`', "\\`").replace('*', "\\*").replace('_', "\\_").replace('[', "\\[")
}

/// Epoch, step, training loss and the metrics of evaluations; the line of the model that was kept is bold.
#[must_use]
pub fn course(facts: &Facts) -> Table {
    let mut keys: Vec<String> = Vec::new();
    let loss = |key: &str| key == "eval_loss" || key.ends_with("_loss");
    let deciding = facts.metric();
    for (key, _) in facts.evaluated.iter().flat_map(|line| &line.values) {
        let wanted = loss(key) || Some(key) == deciding.as_ref() || key.ends_with("active_dims");
        if wanted && !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    let kept = facts.outcome.as_ref().and_then(|outcome| outcome.best_step);
    let every = |count: usize| count.div_ceil(LINES).max(1);
    let evaluated: Vec<u64> = facts.evaluated.iter().map(|line| line.step as u64).collect();
    let mut steps: Vec<u64> = evaluated.iter().rev().step_by(every(evaluated.len())).copied().collect();
    steps.extend(evaluated.iter().filter(|step| **step == 0 || Some(**step) == kept));
    steps.extend(facts.trained.iter().rev().step_by(every(facts.trained.len())).map(|line| line.step as u64));
    steps.sort_unstable();
    steps.dedup();
    let rows = steps.into_iter().map(|step| {
        let trained = facts.trained.iter().find(|line| line.step as u64 == step);
        let evaluated = facts.evaluated.iter().find(|line| line.step as u64 == step);
        let epoch = trained.map(|line| line.epoch).or(evaluated.map(|line| line.epoch)).unwrap_or_default();
        let number = |value: Option<f64>| match value {
            Some(value) if value.is_finite() => format!("{value:.4}"),
            _ => "-".to_owned(),
        };
        let first = [format!("{epoch:.4}"), step.to_string(), number(trained.map(|line| line.loss))];
        let metrics = keys.iter().map(|key| number(evaluated.and_then(|line| line.get(key))));
        let bold = kept == Some(step);
        first.into_iter().chain(metrics).map(|cell| if bold { format!("**{cell}**") } else { cell }).collect()
    });
    let columns = ["epoch", "step", "training loss"].map(str::to_owned).into_iter();
    let names = keys.iter().map(|key| escape(key.trim_start_matches("eval_")));
    Table { rows: rows.collect(), columns: columns.chain(names).collect() }
}

/// Lines of YAML with examples that the Hub lets people try.
pub(super) fn widget(model_type: ModelType, sets: &[DatasetFacts]) -> Vec<String> {
    let text = |text: &String| quoted(&cut(text, WIDGET));
    let mut lines = Vec::new();
    for set in sets.iter().filter(|set| set.trained).take(2) {
        let texts = |row: &Vec<String>| row.iter().take(set.columns.len()).map(text).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = set.examples.iter().map(texts).collect();
        let Some(source) = rows.first().and_then(|row| row.first()) else { continue };
        match model_type {
            ModelType::SentenceTransformer | ModelType::MultiVectorEncoder => {
                let mut others: Vec<&String> = Vec::new();
                for other in rows.iter().flat_map(|row| row.iter().skip(usize::from(row.len() > 1))) {
                    if other != source && !others.contains(&other) {
                        others.push(other);
                    }
                }
                if others.is_empty() {
                    continue;
                }
                lines.push(format!("- source_sentence: {source}"));
                lines.push("  sentences:".to_owned());
                lines.extend(others.iter().take(4).map(|other| format!("  - {other}")));
            }
            ModelType::SparseEncoder => {
                lines.extend(rows.iter().flatten().take(3).map(|text| format!("- text: {text}")))
            }
            ModelType::CrossEncoder => {}
        }
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runs::RunFolder;
    use crate::runs::status::{self, Status};

    #[test]
    fn a_long_course_is_thinned() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        status::write(&folder, &Status::starting(folder.run_id(), "a")).unwrap();
        let line = |step: u32| format!("{{\"step\": {step}, \"epoch\": 0.1, \"eval_loss\": 0.5}}\n");
        std::fs::write(folder.metrics_file(), (0..1000).map(line).collect::<String>()).unwrap();
        let table = course(&Facts::read(&folder).unwrap());
        let steps: Vec<&str> = table.rows.iter().map(|row| row[1].as_str()).collect();
        assert!(steps.len() > LINES / 2 && steps.len() <= LINES + 2, "{}", steps.len());
        assert_eq!((steps.first(), steps.last()), (Some(&"0"), Some(&"999")));
    }

    #[test]
    fn cells_stay_cells() {
        assert_eq!(cell("a | b\n<b>*c*</b>"), "a \\| b &lt;b&gt;\\*c\\*&lt;/b&gt;");
    }

    #[test]
    fn examples_to_try() {
        let row = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let column = |name: &str| crate::train::facts::ColumnFacts { name: name.into(), ..Default::default() };
        let set = DatasetFacts {
            trained: true,
            columns: vec![column("a"), column("b")],
            examples: vec![row(&["q: \"1\"", "p1", "0.5"]), row(&["q2", "p2", "1"])],
            ..DatasetFacts::default()
        };
        let lines = widget(ModelType::SentenceTransformer, std::slice::from_ref(&set));
        assert_eq!(lines, ["- source_sentence: \"q: \\\"1\\\"\"", "  sentences:", "  - \"p1\"", "  - \"p2\""]);
        assert!(widget(ModelType::CrossEncoder, std::slice::from_ref(&set)).is_empty());
        assert_eq!(widget(ModelType::SparseEncoder, &[set])[0], "- text: \"q: \\\"1\\\"\"");
    }
}
