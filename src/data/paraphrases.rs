//! Sentences with ids, and which of them mean the same.

use std::path::{Path, PathBuf};

use super::rows::{any_file, each_row, id_of, text_of};
use super::source::files::missing;
use crate::error::{Error, Result};

/// Endings of files with rows, as they are looked for.
const ENDINGS: [&str; 5] = ["jsonl", "csv", "tsv", "parquet", "arrow"];

/// Sentences and pairs of duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paraphrases {
    /// Id and text.
    pub sentences: Vec<(String, String)>,
    /// Pairs of ids.
    pub duplicates: Vec<(String, String)>,
}

/// Reads a folder with `sentences.jsonl` (`id`, `text`) and `duplicates.jsonl` (`id1`, `id2`), or the same as `.csv`,
/// `.tsv`, `.parquet` or `.arrow`.
///
/// # Errors
/// When a file is missing or a row cannot be used.
pub fn read_paraphrases(dir: &Path) -> Result<Paraphrases> {
    const HINT: &str = "the folder has to hold `sentences.jsonl` (`id`, `text`) and `duplicates.jsonl` (`id1`, `id2`)";
    if !dir.is_dir() {
        let error = if dir.is_file() {
            Error::data(format!("`{}` is a file, and a folder is wanted", dir.display()))
        } else {
            missing(&dir.display().to_string(), dir)
        };
        return Err(error.with_hint(HINT));
    }
    let files = any_file(&find(dir, "sentences").ok_or_else(|| absent(dir, "sentences").with_hint(HINT))?)?;
    let sentences =
        each_row(&files, |cells| Ok((id_of(cells, &["id", "_id", "qid"])?, text_of(cells, &["text", "sentence"])?)))?;
    let files = any_file(&find(dir, "duplicates").ok_or_else(|| absent(dir, "duplicates").with_hint(HINT))?)?;
    let duplicates = each_row(&files, |cells| Ok((id_of(cells, &["id1", "qid1"])?, id_of(cells, &["id2", "qid2"])?)))?;
    let values = |rows: Vec<(_, (String, String))>| rows.into_iter().map(|(_, row)| row).collect();
    Ok(Paraphrases { sentences: values(sentences), duplicates: values(duplicates) })
}

fn absent(dir: &Path, stem: &str) -> Error {
    Error::data(format!("`{}` has no `{stem}.jsonl`, nor one with another ending", dir.display()))
}

fn find(dir: &Path, stem: &str) -> Option<PathBuf> {
    ENDINGS.iter().map(|ending| dir.join(format!("{stem}.{ending}"))).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_files_of_any_format() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_paraphrases(dir.path()).unwrap_err();
        assert!(error.to_string().contains("`sentences.jsonl`"), "{error}");
        std::fs::write(dir.path().join("sentences.tsv"), "id\tsentence\n1\ta\n2\tb\n").unwrap();
        std::fs::write(dir.path().join("duplicates.jsonl"), "{\"id1\":1,\"id2\":2}\n").unwrap();
        let read = read_paraphrases(dir.path()).unwrap();
        assert_eq!(read.sentences[1], ("2".to_owned(), "b".to_owned()));
        assert_eq!(read.duplicates, [("1".to_owned(), "2".to_owned())]);
        std::fs::write(dir.path().join("duplicates.jsonl"), "{\"id1\":1}\n").unwrap();
        assert!(read_paraphrases(dir.path()).unwrap_err().to_string().contains("`id2`"));
    }
}
