//! Retrieval data in the BEIR layout: a corpus, queries, and which document answers which query.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::reranking::Ranked;
use super::rows::{each_row, get, id_of, one_file};
use super::source::files::missing;
use super::source::{Files, Format, Problem, Reason, Value};
use crate::error::{Error, Result};

/// A retrieval data set in the BEIR layout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Beir {
    /// Id and text (title, a space, text; trimmed), in file order.
    pub corpus: Vec<(String, String)>,
    /// Id and text of the queries that have a relevant document, in file order.
    pub queries: Vec<(String, String)>,
    /// `[queries]`: the relevant documents' ids (score above 0), in file order, those missing in the corpus included.
    pub relevant: Vec<Vec<String>>,
    /// Queries left out because nothing is relevant to them.
    pub queries_without_relevant: usize,
    /// Different document ids judged relevant that the corpus does not have.
    pub missing_documents: usize,
    /// Different query ids judged that `queries.jsonl` does not have.
    pub missing_queries: usize,
}

/// Reads `corpus.jsonl`, `queries.jsonl` and `qrels/{split}.tsv` (with a header line) of a directory.
///
/// # Errors
/// When a file is missing, a row cannot be used, an id occurs twice, or no query is left.
pub fn read_beir(dir: &Path, split: &str) -> Result<Beir> {
    if !dir.is_dir() {
        return Err(missing(&dir.display().to_string(), dir)
            .with_hint("the directory has to hold `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`"));
    }
    let corpus = read_documents(&dir.join("corpus.jsonl"), true)?;
    let all_queries = read_documents(&dir.join("queries.jsonl"), false)?;
    let path = dir.join("qrels").join(format!("{split}.tsv"));
    let judged = read_qrels(&path)?;

    let known: HashSet<&str> = corpus.iter().map(|d| d.0.as_str()).collect();
    let asked: HashSet<&str> = all_queries.iter().map(|q| q.0.as_str()).collect();
    let mut relevant: HashMap<&str, Vec<String>> = HashMap::new();
    let (mut missing_documents, mut missing_queries) = (HashSet::new(), HashSet::new());
    for (query, document, score) in &judged {
        if !asked.contains(query.as_str()) {
            missing_queries.insert(query.as_str());
        } else if *score > 0.0 {
            if !known.contains(document.as_str()) {
                missing_documents.insert(document.as_str());
            }
            let list = relevant.entry(query).or_default();
            if !list.contains(document) {
                list.push(document.clone());
            }
        }
    }
    let mut beir =
        Beir { missing_documents: missing_documents.len(), missing_queries: missing_queries.len(), ..Beir::default() };
    for (id, text) in &all_queries {
        match relevant.remove(id.as_str()) {
            Some(documents) => {
                beir.queries.push((id.clone(), text.clone()));
                beir.relevant.push(documents);
            }
            None => beir.queries_without_relevant += 1,
        }
    }
    if beir.queries.is_empty() {
        return Err(Error::data(format!(
            "no query of `{}` has a relevant document in `{}`",
            dir.display(),
            path.display()
        ))
        .with_hint("the ids in `query-id` must be those of `queries.jsonl`, and scores above 0"));
    }
    beir.corpus = corpus;
    Ok(beir)
}

/// Reads a directory as [`read_beir`] does, and of each query the documents that a search found, best first, from
/// `bm25.jsonl` (`query-id`, `corpus-ids`).
///
/// # Errors
/// As there; when a document is not in the corpus, or nothing was found for a query.
pub fn read_found(dir: &Path, split: &str) -> Result<Vec<Ranked>> {
    let path = dir.join("bm25.jsonl");
    let files = one_file(&path, Format::JsonLines).map_err(|e| {
        e.with_hint("its rows have a `query-id` and, as `corpus-ids`, the documents that a search found, best first")
    })?;
    let beir = read_beir(dir, split)?;
    let corpus: HashMap<&str, &str> = beir.corpus.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let mut found = found(&files, &corpus)?;
    let mut samples = Vec::with_capacity(beir.queries.len());
    for ((id, query), relevant) in beir.queries.iter().zip(&beir.relevant) {
        let documents = found.remove(id).ok_or_else(|| not_found(&path, id))?;
        samples.push(ranked(query, relevant, documents, &corpus));
    }
    Ok(samples)
}

/// Of each query the texts that a search found, best first, by its id; rows with `query-id` and `corpus-ids`.
pub(super) fn found(files: &Files, corpus: &HashMap<&str, &str>) -> Result<HashMap<String, Vec<String>>> {
    let rows = each_row(files, |cells| {
        let query = id_of(cells, &["query-id", "query_id"])?;
        let name = "corpus-ids";
        let found = match get(cells, &[name, "corpus_ids"]) {
            Some(Value::Texts(ids)) if !ids.is_empty() => ids,
            Some(other) => {
                let text = format!("{} instead of a list of ids", other.kind());
                return Err(Problem::cell(Reason::WrongType, name, text));
            }
            None => return Err(Problem::cell(Reason::MissingColumn, name, "missing")),
        };
        let text = |id: &String| {
            corpus
                .get(id.as_str())
                .map(|text| (*text).to_owned())
                .ok_or_else(|| Problem::cell(Reason::WrongType, name, format!("the id `{id}` is not in the corpus")))
        };
        Ok((query, found.iter().map(text).collect::<Result<Vec<_>, _>>()?))
    })?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// A query for which `path` has no row.
pub(super) fn not_found(path: &Path, query: &str) -> Error {
    Error::data(format!("`{}` has no row for the query `{query}`", path.display()))
        .with_hint("every query with a relevant document needs one")
}

/// A query with the texts of its relevant documents, those of them that are in the corpus, and what was found for it.
pub(super) fn ranked<'a>(
    query: &str,
    relevant: impl IntoIterator<Item = &'a String>,
    documents: Vec<String>,
    corpus: &HashMap<&str, &str>,
) -> Ranked {
    let positive = relevant.into_iter().filter_map(|id| corpus.get(id.as_str()).map(|text| (*text).to_owned()));
    Ranked { query: query.to_owned(), positive: positive.collect(), documents: Some(documents), ..Ranked::default() }
}

fn read_documents(path: &Path, titled: bool) -> Result<Vec<(String, String)>> {
    let files = one_file(path, Format::JsonLines)?;
    let rows = each_row(&files, |cells| {
        let id = id_of(cells, &["_id", "id"])?;
        let part = |name: &str| match get(cells, &[name]) {
            Some(Value::Text(text)) => Ok(Some(text.as_str())),
            Some(Value::Null) | None => Ok(None),
            Some(other) => Err(Problem::cell(Reason::WrongType, name, format!("{} instead of text", other.kind()))),
        };
        let title = if titled { part("title")?.unwrap_or_default() } else { "" };
        let Some(text) = part("text")? else {
            return Err(Problem::cell(Reason::MissingColumn, "text", "missing"));
        };
        let text = if titled { format!("{title} {text}").trim().to_owned() } else { text.to_owned() };
        Ok((id, text))
    })?;
    if rows.is_empty() {
        return Err(Error::data(format!("no rows in `{}`", path.display())));
    }
    let mut seen = HashSet::new();
    if let Some((place, (id, _))) = rows.iter().find(|(_, (id, _))| !seen.insert(id.as_str())) {
        return Err(Error::data(format!("{}: the id `{id}` occurs a second time", files.locate(*place))));
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Query id, document id, score.
fn read_qrels(path: &Path) -> Result<Vec<(String, String, f64)>> {
    let files = one_file(path, Format::Tsv)?;
    let rows = each_row(&files, |cells| {
        let score = match get(cells, &["score", "relevance"]) {
            Some(Value::Text(text)) => text.trim().parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| {
                Problem::cell(Reason::WrongType, "score", format!("`{}` is not a number", text.trim()))
            })?,
            _ => return Err(Problem::cell(Reason::MissingColumn, "score", "missing")),
        };
        Ok((id_of(cells, &["query-id", "query_id"])?, id_of(cells, &["corpus-id", "corpus_id"])?, score))
    })
    .map_err(|e| {
        e.with_hint("the file has to begin with the header `query-id`, `corpus-id`, `score`, separated by tabs")
    })?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_search_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("qrels")).unwrap();
        write("corpus.jsonl", "{\"_id\":\"a\",\"title\":\"T\",\"text\":\"x\"}\n{\"_id\":\"b\",\"text\":\"y\"}\n");
        write("queries.jsonl", "{\"_id\":\"1\",\"text\":\"q\"}\n{\"_id\":\"2\",\"text\":\"r\"}\n");
        write("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tgone\t1\n");
        let told = || read_found(dir.path(), "test").unwrap_err().to_string();
        assert!(told().contains("bm25.jsonl"));
        write("bm25.jsonl", "{\"query-id\":\"1\",\"corpus-ids\":[\"b\",\"a\"]}\n");
        let samples = read_found(dir.path(), "test").unwrap();
        let expected = Ranked {
            query: "q".into(),
            positive: vec!["T x".into()],
            documents: Some(vec!["y".into(), "T x".into()]),
            ..Ranked::default()
        };
        assert_eq!(samples, [expected]);
        write("bm25.jsonl", "{\"query-id\":\"1\",\"corpus-ids\":[\"c\"]}\n");
        assert!(told().contains("line 1") && told().contains("the id `c` is not in the corpus"), "{}", told());
        write("bm25.jsonl", "{\"query-id\":\"2\",\"corpus-ids\":[\"a\"]}\n");
        assert!(told().contains("no row for the query `1`"));
    }
}
