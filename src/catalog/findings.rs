//! What is wrong with a data set, how bad is it, and what is the way out?

use schemars::JsonSchema;
use serde::Serialize;

use crate::data::inspect::{ColumnReport, EvalReport, FalseNegatives, Inspection, LabelFacts, LabelReport, Shape};
use crate::util::numbers::thousands;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Training on it as it is would be wrong.
    Error,
    /// It costs quality, or spoils the measurement.
    Warning,
    /// Good to know.
    Note,
}

/// Something about the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Findings that are told at most.
const MOST: usize = 12;

/// What is to be said of a data set, the worst first.
#[must_use]
pub fn findings(data: &Inspection) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    found.rows(data);
    for column in &data.columns {
        found.column(column, data.rows);
    }
    found.class_names(data);
    found.second_names(data);
    found.order(data);
    if let Some(wrong) = &data.false_negatives {
        found.false_negatives(data, wrong);
    }
    if let Some(label) = &data.label {
        found.label(label, data);
    } else if data.shape == Shape::Pairs && data.ignored.len() == 1 {
        let name = &data.ignored[0];
        found.add(
            Severity::Note,
            format!("column `{name}` has no part in training"),
            format!("if it is the label, set `label = \"{name}\"` (`--label {name}`); else it is ignored"),
        );
    }
    if let Some(eval) = &data.eval {
        found.eval(eval);
    }
    found.0.sort_by_key(|finding| finding.severity);
    found.0.truncate(MOST);
    found.0
}

struct Findings(Vec<Finding>);

/// `12 of 1,000 rows`.
fn of(count: u64, rows: u64) -> String {
    format!("{} of {} rows", thousands(count), thousands(rows))
}

fn percent(part: f64) -> String {
    if part > 0.0 && part < 0.01 { format!("{:.1} %", part * 100.0) } else { format!("{:.0} %", part * 100.0) }
}

impl Findings {
    fn add(&mut self, severity: Severity, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { severity, what: what.into(), fix: fix.into() });
    }

    fn rows(&mut self, data: &Inspection) {
        if data.unusable > 0 {
            let first = data.first_unusable.as_deref().unwrap_or_default();
            self.add(
                Severity::Error,
                format!("{} cannot be used: {first}", of(data.unusable, data.rows)),
                "correct them, or leave them out with `on_bad_row = \"skip\"` in the data set's table",
            );
        }
        if data.rows < 1000 && data.shape != Shape::Unknown {
            self.add(
                Severity::Note,
                format!("{} rows are few", thousands(data.rows)),
                "start from a model that is trained for the task already, and measure against it",
            );
        }
        let again = data.duplicates;
        if again.normalised > 0 {
            let severity = if again.normalised * 50 > data.rows { Severity::Warning } else { Severity::Note };
            self.add(
                severity,
                format!(
                    "{} have the texts of an earlier one exactly, {} but for case, spaces and punctuation",
                    of(again.exact, data.rows),
                    thousands(again.normalised)
                ),
                "drop them: they weigh more than others, and fall into both parts of a random split",
            );
        }
        if data.shape == Shape::Unknown {
            self.add(
                Severity::Error,
                "no loss takes rows like these",
                "name the columns with texts in the loss's order (`columns`) and the label (`label`); lists of texts need a \
                 list of labels beside them",
            );
        }
    }

    fn column(&mut self, column: &ColumnReport, rows: u64) {
        let name = &column.name;
        if column.near_empty > 0 {
            let severity = if column.near_empty * 100 > rows { Severity::Warning } else { Severity::Note };
            self.add(
                severity,
                format!("`{name}`: {} have two letters or fewer", of(column.near_empty, rows)),
                "look at them: they say too little to learn from",
            );
        }
        let [_, over_256, over_512] = column.over_128_256_512;
        if over_512 > 0.05 {
            self.add(
                Severity::Warning,
                format!("`{name}`: {} of the texts have more than 512 tokens", percent(over_512)),
                "most networks cut them: split them into passages, or start from one that reads 8192 (ModernBERT)",
            );
        } else if over_256 > 0.05 {
            self.add(
                Severity::Note,
                format!("`{name}`: {} of the texts have more than 256 tokens", percent(over_256)),
                "set `model.max_seq_length = 512`, or they are cut where the base model keeps fewer",
            );
        }
    }

    /// A recipe without `columns` takes every column with texts.
    fn second_names(&mut self, data: &Inspection) {
        let Some(label) = data.label.as_ref().filter(|_| !data.second_names.is_empty()) else { return };
        let columns: Vec<&str> = data.columns.iter().map(|column| column.name.as_str()).collect();
        self.add(
            Severity::Note,
            format!(
                "`{}` says the label in `{}` in other words and is no input",
                data.second_names.join("`, `"),
                label.column
            ),
            format!("set `columns = {columns:?}`, or a recipe takes it for one"),
        );
    }

    /// Few different texts beside a class are the class's name.
    fn class_names(&mut self, data: &Inspection) {
        let classes = data.label.as_ref().filter(|l| matches!(l.kind, LabelFacts::Classes | LabelFacts::Names));
        let Some(label) = classes.filter(|_| data.columns.len() > 1) else { return };
        let different = |column: &ColumnReport| data.rows.saturating_sub(column.repeated + column.empty);
        let is_name = |column: &&ColumnReport| different(column) <= label.different as u64;
        let Some(named) = data.columns.iter().find(is_name) else { return };
        let others = data.columns.iter().filter(|column| column.name != named.name);
        let others: Vec<&str> = others.map(|column| column.name.as_str()).collect();
        self.add(
            Severity::Warning,
            format!(
                "`{}` has {} different texts for {} classes in `{}`: it names the class rather than being an input",
                named.name,
                different(named),
                label.different,
                label.column
            ),
            format!("set `columns = {others:?}` (`--columns {}`)", others.join(",")),
        );
    }

    fn order(&mut self, data: &Inspection) {
        let signs = &data.signs;
        let [first, second, ..] = data.columns.as_slice() else { return };
        let swap = |columns: &[&ColumnReport]| {
            let names: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
            format!("columns = [{}]", names.join(", "))
        };
        if data.translated() {
            self.add(
                Severity::Note,
                format!("`{}` and `{}` are in different languages", first.name, second.name),
                "translations: `tallow teach --labels embedding` and MSELoss bring a good model to a new language; ranking \
                 losses train one for both",
            );
        }
        let asks = signs.asks[1] > 0.5 && signs.asks[0] < 0.2;
        let long = first.tokens[0] > 40 && first.tokens[0] > 3 * second.tokens[0];
        let alike = matches!(data.shape, Shape::ScoredPairs | Shape::ClassifiedPairs);
        if (asks || long) && !alike {
            let why = if asks { "asks" } else { "is much shorter" };
            let mut columns: Vec<&ColumnReport> = data.columns.iter().collect();
            columns.swap(0, 1);
            self.add(
                Severity::Warning,
                format!(
                    "`{}` is mostly text that {why}, and comes after `{}`: queries come first",
                    second.name, first.name
                ),
                format!("if they are swapped, set `{}`", swap(&columns)),
            );
        }
        if signs.same > 0.01 && data.label.is_none() {
            self.add(
                Severity::Warning,
                format!(
                    "`{}` and `{}` are the same text in {} of the rows",
                    first.name,
                    second.name,
                    percent(signs.same)
                ),
                "drop those rows: an anchor that is its own positive teaches nothing",
            );
        }
        let Some(third) = data.columns.get(2) else { return };
        if signs.equal_negative > 0.0 {
            self.add(
                Severity::Error,
                format!("`{}` is also the positive in {} of the rows", third.name, percent(signs.equal_negative)),
                "drop those rows",
            );
        }
        if signs.nearer_negative > 0.5 {
            let mut columns: Vec<&ColumnReport> = data.columns.iter().collect();
            columns.swap(1, 2);
            self.add(
                Severity::Warning,
                format!(
                    "in {} of the rows `{}` shares more words with `{}` than `{}` does: negatives may stand where \
                     positives belong",
                    percent(signs.nearer_negative),
                    third.name,
                    first.name,
                    second.name
                ),
                format!("look at some rows; if so, set `{}`", swap(&columns)),
            );
        }
    }

    fn false_negatives(&mut self, data: &Inspection, wrong: &FalseNegatives) {
        let unlabelled = matches!(data.shape, Shape::Pairs | Shape::Triplets);
        if !unlabelled || (wrong.anchors_with_several == 0 && wrong.positives_of_several == 0) {
            return;
        }
        let severity = if wrong.per_batch_32 >= 0.1 { Severity::Warning } else { Severity::Note };
        self.add(
            severity,
            format!(
                "{} anchors have several positives and {} positives several anchors: {} wrong negatives in a batch of 32, {} \
                 in one of 128",
                thousands(wrong.anchors_with_several),
                thousands(wrong.positives_of_several),
                wrong.per_batch_32,
                wrong.per_batch_128
            ),
            "set `args.batch_sampler = \"no_duplicates\"`, which keeps equal texts out of a batch",
        );
    }

    fn label(&mut self, label: &LabelReport, data: &Inspection) {
        let name = &label.column;
        match label.kind {
            LabelFacts::Binary if label.positives() < 0.1 || label.positives() > 0.9 => self.add(
                Severity::Warning,
                format!("`{name}` is 1 in {} of the rows", percent(label.positives())),
                "rerankers: `loss.pos_weight = \"auto\"`; look at average precision, not accuracy",
            ),
            LabelFacts::Scores | LabelFacts::Classes if label.max > 1.0 && data.shape == Shape::ScoredPairs => self
                .add(
                    Severity::Note,
                    format!("`{name}` goes from {} to {}", label.min, label.max),
                    format!("CoSENTLoss takes them as they are; for CosineSimilarityLoss divide by {}", label.max),
                ),
            LabelFacts::Classes if label.min < 0.0 || data.shape == Shape::ClassifiedPairs && label.min > 0.0 => self
                .add(
                    Severity::Warning,
                    format!("classes in `{name}` begin at {}", label.min),
                    "number them from 0 for losses that classify pairs",
                ),
            _ => {}
        }
        if data.shape == Shape::ClassifiedTexts && label.rarest < 2 {
            self.add(
                Severity::Note,
                format!("some class in `{name}` has a single row"),
                "such rows never come into a batch of `group_by_label`: drop the class or give it more",
            );
        }
        if label.different == 1 && label.kind != LabelFacts::Lists {
            self.add(
                Severity::Error,
                format!("all labels in `{name}` are the same"),
                "there is nothing to learn from them",
            );
        }
    }

    fn eval(&mut self, eval: &EvalReport) {
        let what = if eval.beir { "queries" } else { "rows" };
        let (rows, first) = (eval.rows_in_train, eval.first_texts_in_train);
        let many = |count: u64| count * 100 > eval.rows;
        // a shared query leaks its answer, a shared sentence of a compared pair hardly anything
        let queries = !matches!(eval.shape, Shape::ScoredPairs | Shape::ClassifiedPairs);
        let severity = match (many(rows) || (many(first) && eval.beir), rows > 0 || (first > 0 && queries)) {
            (true, _) => Severity::Error,
            (_, true) => Severity::Warning,
            _ => Severity::Note,
        };
        if rows.max(first) > 0 {
            self.add(
                severity,
                format!(
                    "the training data have {} of {} {what} to measure on, and the first texts of {}",
                    thousands(rows),
                    thousands(eval.rows),
                    thousands(first)
                ),
                "take them out of the training data, or the score says little about new texts",
            );
        }
        if eval.other_texts_in_train > 0 {
            self.add(
                Severity::Note,
                format!("the training data have other texts to measure on: {}", thousands(eval.other_texts_in_train)),
                "shared passages are usual where the corpus is the same; shared queries are not",
            );
        }
    }
}
