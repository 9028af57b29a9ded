//! Samples to rerank: queries, each with documents that answer it and documents that do not.

use std::collections::HashMap;
use std::path::Path;

use super::columns::LABEL_COLUMNS;
use super::rows::{any_file, each_row, get, text_of};
use super::source::{Cells, Problem, Reason, Value};
use crate::error::Result;

/// A query with its positive and its negative documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranked {
    pub query: String,
    pub positive: Vec<String>,
    pub negative: Vec<String>,
    /// In place of negatives: what a search found, best first, positives among it.
    pub documents: Option<Vec<String>>,
}

/// What a search found for a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundFor {
    pub query_id: String,
    pub query: String,
    pub positive: Vec<String>,
    /// Best first.
    pub documents: Vec<String>,
}

/// Reads a file of `query_id`, `query`, `positive`, `documents` rows, the last two lists of texts or single ones.
///
/// # Errors
/// When the file is missing or a row cannot be used.
pub fn read_rankings(path: &Path) -> Result<Vec<FoundFor>> {
    let rows = each_row(&any_file(path)?, |cells| {
        Ok(FoundFor {
            query_id: id(cells)?,
            query: text_of(cells, &["query"])?,
            positive: texts(cells, "positive")?,
            documents: texts(cells, "documents")?,
        })
    })?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Ids are texts or whole numbers.
fn id(cells: &Cells) -> Result<String, Problem> {
    match get(cells, &["query_id"]) {
        Some(Value::Integer(number)) => Ok(number.to_string()),
        _ => text_of(cells, &["query_id"]),
    }
}

/// One row of a file.
enum Row {
    Lists(Ranked),
    Judged { query: String, document: String, relevant: bool },
}

/// Reads a file of `query`, `positive`, `negative` rows, the last two lists of texts or single ones; or of `query`,
/// `passage` rows with a label above 0 for relevant passages, rows of the same query being one sample.
///
/// `columns` are other names for the columns, `label` for the label.
///
/// # Errors
/// When the file is missing or a row cannot be used.
pub fn read_reranking(path: &Path, columns: &[String], label: Option<&str>) -> Result<Vec<Ranked>> {
    read(path, columns, label, false)
}

/// As [`read_reranking`], where a row may have `documents` in place of `negative`: what a search found, best first.
///
/// # Errors
/// As there.
pub fn read_ranked(path: &Path, columns: &[String], label: Option<&str>) -> Result<Vec<Ranked>> {
    read(path, columns, label, true)
}

fn read(path: &Path, columns: &[String], label: Option<&str>, found: bool) -> Result<Vec<Ranked>> {
    let files = any_file(path)?;
    let name = |i: usize, default: &'static str| columns.get(i).map_or(default, String::as_str);
    let (query, second, third) = (name(0, "query"), name(1, "positive"), name(2, "negative"));
    let passage = name(1, "passage");
    let labels: Vec<&str> = label.map_or_else(|| LABEL_COLUMNS.to_vec(), |label| vec![label]);
    let rows = each_row(&files, |cells| {
        let asked = text_of(cells, &[query])?;
        let listed = get(cells, &["positive", "negative"]).is_some() || (found && get(cells, &["documents"]).is_some());
        let judged = columns.len() == 2 || (columns.is_empty() && !listed);
        if judged {
            let names: &[&str] = if columns.is_empty() { &["passage", "document", "text"] } else { &[passage] };
            return Ok(Row::Judged {
                query: asked,
                document: text_of(cells, names)?,
                relevant: judgement(cells, &labels)?,
            });
        }
        let positive = texts(cells, second)?;
        if found && (third == "documents" || (columns.is_empty() && get(cells, &["documents"]).is_some())) {
            if get(cells, &["negative"]).is_some_and(|cell| *cell != Value::Null) {
                let problem = "a row has either this or `documents`, the negatives among them";
                return Err(Problem::cell(Reason::WrongType, "negative", problem));
            }
            let documents = texts(cells, "documents")?;
            if documents.is_empty() {
                return Err(Problem::cell(Reason::EmptyText, "documents", "an empty list"));
            }
            return Ok(Row::Lists(Ranked { query: asked, positive, documents: Some(documents), ..Ranked::default() }));
        }
        Ok(Row::Lists(Ranked { query: asked, positive, negative: texts(cells, third)?, documents: None }))
    })?;
    let mut samples: Vec<Ranked> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for (_, row) in rows {
        match row {
            Row::Lists(sample) => samples.push(sample),
            Row::Judged { query, document, relevant } => {
                let number = *numbers.entry(query.clone()).or_insert_with(|| {
                    samples.push(Ranked { query, ..Ranked::default() });
                    samples.len() - 1
                });
                let sample = &mut samples[number];
                if relevant { &mut sample.positive } else { &mut sample.negative }.push(document);
            }
        }
    }
    Ok(samples)
}

fn texts(cells: &Cells, name: &str) -> Result<Vec<String>, Problem> {
    match get(cells, &[name]) {
        Some(Value::Texts(list)) => match list.iter().find(|text| text.trim().is_empty()) {
            Some(_) => Err(Problem::cell(Reason::EmptyText, name, "empty text in the list")),
            None => Ok(list.clone()),
        },
        Some(Value::Null) => Ok(Vec::new()),
        _ => text_of(cells, &[name]).map(|text| vec![text]),
    }
}

fn judgement(cells: &Cells, names: &[&str]) -> Result<bool, Problem> {
    let name = names.first().copied().unwrap_or_default();
    let wrong = |what: String| Problem::cell(Reason::BadLabel, name, what);
    match get(cells, names) {
        Some(Value::Bool(label)) => Ok(*label),
        Some(Value::Integer(label)) => Ok(*label > 0),
        Some(Value::Number(label)) => Ok(*label > 0.0),
        Some(Value::Text(text)) => match text.trim().parse::<f64>() {
            Ok(label) if label.is_finite() => Ok(label > 0.0),
            _ => Err(wrong(format!("`{}` is not a number", text.trim()))),
        },
        Some(other) => Err(wrong(format!("{} instead of a number", other.kind()))),
        None => Err(Problem::cell(Reason::MissingColumn, name, "missing")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(name: &str, content: &str, columns: &[&str]) -> Result<Vec<Ranked>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        read_reranking(&path, &columns, None)
    }

    #[test]
    fn lists_and_judged_rows_are_the_same_samples() {
        let rows = "{\"query\":\"a\",\"positive\":[\"x\"],\"negative\":[\"y\",\"z\"]}\n\
                    {\"query\":\"b\",\"positive\":\"u\",\"negative\":[]}\n";
        let lists = read("a.jsonl", rows, &[]).unwrap();
        let judged = "query,passage,label\na,x,1\nb,u,1\na,y,0\na,z,0\n";
        assert_eq!(lists, read("a.csv", judged, &[]).unwrap());
        assert_eq!(lists[0].negative, ["y", "z"]);
        let named = judged.replace("passage", "answer");
        assert_eq!(lists, read("a.csv", &named, &["query", "answer"]).unwrap());
    }

    #[test]
    fn what_a_search_found_may_stand_for_negatives() {
        let read = |content: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.jsonl");
            std::fs::write(&path, content).unwrap();
            read_ranked(&path, &[], None)
        };
        let found = "{\"query\":\"a\",\"positive\":[\"x\"],\"documents\":[\"y\",\"x\"]}\n";
        let samples = read(&format!("{found}{{\"query\":\"b\",\"positive\":\"u\",\"negative\":[\"v\"]}}\n")).unwrap();
        assert_eq!(samples[0].documents.as_deref().unwrap(), ["y", "x"]);
        assert_eq!((samples[1].negative.as_slice(), &samples[1].documents), (&["v".to_owned()][..], &None));
        let told = |content: &str| read(content).unwrap_err().to_string();
        assert!(told(&found.replace("[\"y\",\"x\"]", "[]")).contains("`documents`"));
        let both = told(&found.replace("\"query\"", "\"negative\":[\"n\"],\"query\""));
        assert!(both.contains("line 1") && both.contains("`negative`"), "{both}");
    }

    #[test]
    fn rankings_have_an_id_and_what_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dense.jsonl");
        let row = "{\"query_id\":7,\"query\":\"a\",\"positive\":\"x\",\"documents\":[\"y\",\"x\"]}\n";
        std::fs::write(&path, row).unwrap();
        let [read] = read_rankings(&path).unwrap().try_into().unwrap();
        assert_eq!((read.query_id.as_str(), read.positive.len(), read.documents.len()), ("7", 1, 2));
        std::fs::write(&path, row.replace("query_id", "id")).unwrap();
        assert!(read_rankings(&path).unwrap_err().to_string().contains("`query_id`"));
    }

    #[test]
    fn mistakes_name_row_and_column() {
        let error = read("a.csv", "query,passage,label\na,x,yes\n", &[]).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`yes` is not a number"), "{error}");
        let error = read("a.jsonl", "{\"query\":\"a\",\"positive\":\"x\"}\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`negative`"), "{error}");
    }
}
