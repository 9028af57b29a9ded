//! Several small data sets for retrieval in one folder, as they lie on the Hub: `corpus`, `queries` and `qrels`, each
//! with a Parquet file a data set; for rerankers `bm25`, too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::beir;
use super::reranking::Ranked;
use super::rows::{each_row, get, id_of};
use super::source::{DataFile, Files, Format, Problem, Reason, Value};
use crate::error::{Error, Result};
use crate::util::files;

/// The folders.
const PARTS: [&str; 3] = ["corpus", "queries", "qrels"];

/// Ids with texts of the corpus and of the queries, and the ids of the relevant documents by query id.
pub type Retrieval = (Vec<(String, String)>, Vec<(String, String)>, HashMap<String, HashSet<String>>);

/// The data sets of a folder in this layout, by name; none where it has another.
///
/// # Errors
/// When a folder cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let folder = dir.join(PARTS[0]);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let names: BTreeSet<String> = files::list(&folder)?.iter().filter_map(|path| name_of(path)).collect();
    Ok(names.into_iter().collect())
}

/// `NanoMSMARCO` of `NanoMSMARCO-00000-of-00001.parquet`.
fn name_of(path: &Path) -> Option<String> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
    let shard = |part: &str| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit());
    let name = match stem.rsplit_once("-of-") {
        Some((rest, count)) if shard(count) => match rest.rsplit_once('-') {
            Some((name, number)) if shard(number) => name,
            _ => stem,
        },
        _ => stem,
    };
    Some(name.to_owned())
}

/// The data set `name`. Documents and queries without text are left out, as in the reference.
///
/// # Errors
/// When a file is missing or a row cannot be used.
pub fn read(dir: &Path, name: &str) -> Result<Retrieval> {
    let (mut corpus, mut queries, relevant) = read_all(dir, name)?;
    corpus.retain(|(_, text)| !text.is_empty());
    queries.retain(|(_, text)| !text.is_empty());
    Ok((corpus, queries, relevant))
}

fn read_all(dir: &Path, name: &str) -> Result<Retrieval> {
    let [corpus, queries, judged] = PARTS.map(|part| files_of(&dir.join(part), name));
    let documents = |files: Files| -> Result<Vec<(String, String)>> {
        let rows = each_row(&files, |cells| {
            let text = match get(cells, &["text"]) {
                Some(Value::Text(text)) => text.clone(),
                Some(Value::Null) => String::new(),
                Some(other) => {
                    return Err(Problem::cell(Reason::WrongType, "text", format!("{} instead of text", other.kind())));
                }
                None => return Err(Problem::cell(Reason::MissingColumn, "text", "missing")),
            };
            Ok((id_of(cells, &["_id", "id"])?, text))
        })?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    };
    let (corpus, queries) = (documents(corpus?)?, documents(queries?)?);
    let rows = each_row(&judged?, |cells| {
        let ids = match get(cells, &["corpus-id", "corpus_id"]) {
            Some(Value::Texts(ids)) => ids.clone(),
            _ => vec![id_of(cells, &["corpus-id", "corpus_id"])?],
        };
        Ok((id_of(cells, &["query-id", "query_id"])?, ids))
    })?;
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for (_, (query, documents)) in rows {
        relevant.entry(query).or_default().extend(documents);
    }
    Ok((corpus, queries, relevant))
}

/// Of each query of the data set `name` that has relevant documents those that BM25 found, best first, from the folder
/// `bm25` beside the others.
///
/// # Errors
/// As [`read`]; when a document is not in the corpus, or nothing was found for a query.
pub fn read_found(dir: &Path, name: &str) -> Result<Vec<Ranked>> {
    let (corpus, queries, relevant) = read(dir, name)?;
    let corpus: HashMap<&str, &str> = corpus.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let folder = dir.join("bm25");
    let mut found = beir::found(&files_of(&folder, name)?, &corpus)?;
    let mut samples = Vec::with_capacity(queries.len());
    for (id, query) in &queries {
        let Some(relevant) = relevant.get(id) else { continue };
        let documents = found.remove(id).ok_or_else(|| beir::not_found(&folder, id))?;
        // sets have no order: the corpus has one
        let mut relevant: Vec<&String> = relevant.iter().collect();
        relevant.sort();
        samples.push(beir::ranked(query, relevant, documents, &corpus));
    }
    Ok(samples)
}

/// The Parquet files of a data set in a folder, in order.
fn files_of(folder: &Path, name: &str) -> Result<Files> {
    let found: Vec<PathBuf> = if folder.is_dir() {
        files::list(folder)?.into_iter().filter(|path| name_of(path).as_deref() == Some(name)).collect()
    } else {
        Vec::new()
    };
    if found.is_empty() {
        return Err(Error::data(format!("`{}` has no Parquet file of `{name}`", folder.display()))
            .with_hint("the folder is incomplete: fetch it again"));
    }
    let file = |path: PathBuf| DataFile { shown: path.display().to_string(), path, format: Format::Parquet };
    Ok(Files::from_iter(found.into_iter().map(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_belong_to_a_name() {
        let name = |file: &str| name_of(Path::new(file));
        for file in ["NanoNQ-00000-of-00001.parquet", "NanoNQ-00001-of-00002.parquet", "NanoNQ.parquet"] {
            assert_eq!(name(file).as_deref(), Some("NanoNQ"));
        }
        assert_eq!(name("a-of-b.parquet").as_deref(), Some("a-of-b"));
        assert_eq!(name("README.md"), None);
    }
}
