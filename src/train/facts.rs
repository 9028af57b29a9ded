//! What a run works on, for its report: data sets with lengths and first rows, and what it is computed with.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::environment::environment;
use super::prepare::Prepared;
use super::sets::DataSet;
use crate::data::DatasetSpec;
use crate::data::report::Lengths;
use crate::data::texts::read_table;
use crate::flow::Labels;
use crate::flow::look::{cut, spread};
use crate::recipe::Plan;
use crate::recipe::plan::{Location, ModelSource};

/// Rows whose lengths are counted; of more, so many at even distances.
const ROWS: usize = 10_000;
/// Rows shown.
const EXAMPLES: usize = 3;
/// Letters kept of a text that is shown.
const LETTERS: usize = 400;

/// What a run works on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    pub datasets: Vec<DatasetFacts>,
    /// Where and in what products are computed.
    pub arithmetic: String,
    /// The machine, by name and value.
    pub environment: Vec<(String, String)>,
    /// Threads of the CPU.
    pub threads: usize,
    /// Numbers that are trained, and numbers in all.
    pub trainable: u64,
    pub parameters: u64,
    /// Language and licence of the base model, where its card lies beside it.
    pub language: Vec<String>,
    pub license: Option<String>,
}

/// One data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatasetFacts {
    pub name: String,
    /// Whether it is trained on; else its loss is measured.
    pub trained: bool,
    pub rows: u64,
    /// The limit that texts are cut to.
    pub max_seq_length: Option<usize>,
    pub columns: Vec<ColumnFacts>,
    /// The label column.
    pub label: Option<String>,
    /// The first rows, label last where there is one.
    pub examples: Vec<Vec<String>>,
}

/// One column of texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnFacts {
    pub name: String,
    /// Texts of all rows, and those of them that were cut.
    pub texts: u64,
    pub truncated: u64,
    /// Tokens a text before cutting, of all rows.
    pub tokens: Lengths,
    /// Tokens and texts with so many of them, after cutting, of the rows looked at.
    pub lengths: Vec<(u32, u64)>,
}

impl RunFacts {
    /// What a prepared run works on.
    #[must_use]
    pub(super) fn new(plan: &Plan, prepared: &Prepared) -> Self {
        let trained = prepared.sets.iter().map(|set| DatasetFacts::new(set, true));
        let measured = prepared.evaluation.sets.iter().map(|set| DatasetFacts::new(&set.set, false));
        let params = prepared.model.params();
        let count = |trained: bool| {
            let wanted = params.iter().filter(|param| !trained || param.trainable());
            wanted.map(|param| param.dims().iter().product::<usize>() as u64).sum()
        };
        let (language, license) = match &plan.model.source {
            ModelSource::Base(Location::Path(directory)) => base_card(directory),
            _ => (Vec::new(), None),
        };
        Self {
            datasets: trained.chain(measured).collect(),
            arithmetic: prepared.arithmetic(),
            environment: environment(),
            threads: rayon::current_num_threads(),
            trainable: count(true),
            parameters: count(false),
            language,
            license,
        }
    }
}

impl ColumnFacts {
    /// The share of texts that were cut, in percent.
    #[must_use]
    pub fn cut(&self) -> f64 {
        100.0 * self.truncated as f64 / self.texts.max(1) as f64
    }
}

impl DatasetFacts {
    /// What a tokenised data set tells. Rows that cannot be read again are not shown.
    fn new(set: &DataSet, trained: bool) -> Self {
        let (store, spec) = (&set.store, &set.spec);
        let report = store.report();
        let (rows, width) = (spread(store.len(), ROWS), store.columns().len());
        let columns = store.columns().iter().enumerate().map(|(column, name)| {
            let mut lengths: BTreeMap<u32, u64> = BTreeMap::new();
            for row in &rows {
                let row = *row as u32;
                // a last column of lists has several texts a row
                let lists = store.has_lists() && column + 1 == width;
                let end = if lists { store.row_sequences(row).unwrap_or(width) } else { column + 1 };
                for place in column..end {
                    if let Ok((tokens, _)) = store.sequence(row, place) {
                        *lengths.entry(tokens.len() as u32).or_default() += 1;
                    }
                }
            }
            let lengths = lengths.into_iter().collect();
            let counted = report.columns.get(column).cloned().unwrap_or_default();
            let (texts, truncated, tokens) = (counted.texts, counted.truncated, counted.lengths);
            ColumnFacts { name: name.clone(), texts, truncated, tokens, lengths }
        });
        Self {
            name: spec.name.clone().unwrap_or_default(),
            trained,
            rows: store.len() as u64,
            max_seq_length: report.max_seq_length,
            columns: columns.collect(),
            label: report.label.as_ref().map(|label| label.column.clone()),
            examples: examples(spec),
        }
    }
}

/// The first rows, each text and then the label.
fn examples(spec: &DatasetSpec) -> Vec<Vec<String>> {
    let few = DatasetSpec { limit: Some(EXAMPLES.min(spec.limit.unwrap_or(EXAMPLES))), ..spec.clone() };
    let Ok(table) = read_table(&few, Path::new("")) else { return Vec::new() };
    let label = |row: usize| -> Option<String> {
        let shown = |x: &f32| format!("{}", (f64::from(*x) * 1e4).round() / 1e4);
        Some(match table.labels.as_ref()? {
            Labels::Float(values) => shown(values.get(row)?),
            Labels::Int(classes) => {
                let class = *classes.get(row)?;
                let name = usize::try_from(class).ok().and_then(|class| table.classes.get(class));
                name.map_or_else(|| class.to_string(), Clone::clone)
            }
            Labels::Matrix { width, data } => {
                let values = data.get(row * width..(row + 1) * width)?;
                let first: Vec<String> = values.iter().take(4).map(shown).collect();
                format!("[{}{}]", first.join(", "), if values.len() > 4 { ", ..." } else { "" })
            }
            Labels::Lists { .. } => return None,
        })
    };
    let row = |row: usize| table.columns.iter().map(|texts| cut(&texts[row], LETTERS)).chain(label(row)).collect();
    (0..table.len()).map(row).collect()
}

/// `language` and `license` of a model card's front matter; nothing where there is none.
#[must_use]
pub fn base_card(directory: &Path) -> (Vec<String>, Option<String>) {
    let Ok(text) = crate::util::files::read_text(&directory.join("README.md")) else { return Default::default() };
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return Default::default();
    }
    let plain = |text: &str| {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        (!text.is_empty() && text.chars().all(known)).then(|| text.to_owned())
    };
    let (mut languages, mut license, mut within) = (Vec::new(), None, false);
    for line in lines.take_while(|line| *line != "---") {
        if let Some(value) = line.strip_prefix("language:") {
            let list = value.trim().trim_start_matches('[').trim_end_matches(']');
            languages.extend(list.split(',').filter_map(plain));
            within = value.trim().is_empty();
        } else if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| within) {
            languages.extend(plain(item));
        } else {
            within = false;
            license = license.or_else(|| line.strip_prefix("license:").and_then(plain));
        }
    }
    (languages, license)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_bases_card_tells_language_and_licence() {
        let dir = tempfile::tempdir().unwrap();
        let told = |text: &str| {
            std::fs::write(dir.path().join("README.md"), text).unwrap();
            base_card(dir.path())
        };
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let card = told("---\nlanguage: en\nlicense: apache-2.0\ntags:\n- x\n---\nlanguage: de\n");
        assert_eq!(card, (own(&["en"]), Some("apache-2.0".to_owned())));
        let card = told("---\ntags:\n- a\nlanguage:\n- de\n- \"fr\"\nlicense: 'mit'\nwidget:\n- es\n---\n");
        assert_eq!(card, (own(&["de", "fr"]), Some("mit".to_owned())));
        assert_eq!(told("---\nlanguage: [en, de]\n---\n").0, own(&["en", "de"]));
        assert_eq!(told("# no front matter\nlicense: mit\n"), (Vec::new(), None));
        assert_eq!(told("---\nlicense: a b: c\n---\n"), (Vec::new(), None));
        assert_eq!(base_card(&dir.path().join("none")), (Vec::new(), None));
    }

    #[test]
    fn what_was_cut_is_a_share_of_texts() {
        assert_eq!(ColumnFacts { texts: 40, truncated: 30, ..ColumnFacts::default() }.cut(), 75.0);
        assert_eq!(ColumnFacts::default().cut(), 0.0);
        // of an earlier version
        let old: RunFacts =
            serde_json::from_str(r#"{"datasets": [{"name": "a", "columns": [{"name": "b"}]}]}"#).unwrap();
        assert!(old.environment.is_empty() && old.datasets[0].columns[0].name == "b");
    }
}
