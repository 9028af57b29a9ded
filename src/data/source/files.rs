//! Which files are meant: a file, a glob or a directory, and the format by the file's ending.

use std::path::{Path, PathBuf};

use super::Place;
use crate::error::{Error, Result};
use crate::util::{fence, files, suggest};

/// A file format rows can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    JsonLines,
    Json,
    Csv,
    Tsv,
    Parquet,
    Arrow,
    /// One text a line.
    Texts,
}

const ENDINGS: &[(&str, Format)] = &[
    ("jsonl", Format::JsonLines),
    ("ndjson", Format::JsonLines),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("tab", Format::Tsv),
    ("parquet", Format::Parquet),
    ("pq", Format::Parquet),
    ("arrow", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
];

const KNOWN: &str = "formats are known by their endings: `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, `.arrow`, `.feather`, and `.txt` with one \
     text a line";

impl Format {
    /// By the file's ending.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        ENDINGS.iter().find(|(name, _)| *name == ending).map(|(_, format)| *format)
    }

    /// As [`Format::of`], of a file that was named: a directory's `.txt` files are rather about its data than among it.
    fn of_named(path: &Path) -> Option<Self> {
        let text = || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt"));
        Self::of(path).or_else(|| text().then_some(Self::Texts))
    }

    /// Whether cells carry a type; otherwise (CSV, TSV) all are text, and `0.5` means the number where one is wanted.
    #[must_use]
    pub fn is_typed(self) -> bool {
        !matches!(self, Self::Csv | Self::Tsv)
    }

    /// What a row's number counts.
    #[must_use]
    pub fn counts(self) -> &'static str {
        match self {
            Self::Parquet | Self::Arrow => "row",
            _ => "line",
        }
    }
}

/// One file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    pub path: PathBuf,
    /// The path as the user knows it, for messages.
    pub shown: String,
    pub format: Format,
}

/// The files of a data set, in reading order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files(Vec<DataFile>);

impl std::ops::Deref for Files {
    type Target = [DataFile];

    fn deref(&self) -> &[DataFile] {
        &self.0
    }
}

impl FromIterator<DataFile> for Files {
    fn from_iter<I: IntoIterator<Item = DataFile>>(files: I) -> Self {
        Self(files.into_iter().collect())
    }
}

impl Files {
    /// The files that `paths` mean, relative ones taken from `base_dir`: a file, a directory (all files of known
    /// formats directly in it, by name) or a glob (files of known formats, by name).
    ///
    /// # Errors
    /// When there is no such file, a glob matches nothing, a directory has no data files, or an ending is unknown.
    pub fn resolve(paths: &[String], base_dir: &Path) -> Result<Self> {
        if paths.is_empty() {
            return Err(
                Error::data("the data set names no file").with_hint("set `path` to a file, a glob or a directory")
            );
        }
        let mut found = Self::default();
        for path in paths {
            found.add(path, base_dir)?;
        }
        Ok(found)
    }

    fn add(&mut self, written: &str, base_dir: &Path) -> Result<()> {
        let path = base_dir.join(written);
        if path.is_dir() {
            let inside = files::list(&path)?;
            let before = self.0.len();
            for entry in inside.into_iter().filter(|e| e.is_file() && !is_hidden(e) && !is_description(e)) {
                let format = Format::of(&entry);
                self.push_known(entry, format, base_dir);
            }
            if self.0.len() == before {
                return Err(Error::data(format!("the directory `{written}` has no data files in it")).with_hint(KNOWN));
            }
            return Ok(());
        }
        if path.is_file() {
            let Some(format) = Format::of_named(&path) else {
                return Err(Error::data(format!("`{written}` is of an unknown format")).with_hint(KNOWN));
            };
            self.0.push(DataFile { path, shown: written.to_owned(), format });
            return Ok(());
        }
        if written.contains(['*', '?', '[']) {
            return self.add_glob(written, base_dir);
        }
        Err(missing(written, &path))
    }

    fn add_glob(&mut self, written: &str, base_dir: &Path) -> Result<()> {
        let pattern = if Path::new(written).is_absolute() {
            written.to_owned()
        } else {
            // The base directory is meant literally, whatever characters it has.
            Path::new(&glob::Pattern::escape(&base_dir.to_string_lossy())).join(written).to_string_lossy().into_owned()
        };
        // As in a shell: `*` stays within a folder and leaves hidden files out.
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..glob::MatchOptions::new()
        };
        let matches =
            glob::glob_with(&pattern, options).map_err(|e| Error::data(format!("`{written}` is not a glob: {e}")))?;
        let (mut any, before) = (false, self.0.len());
        for entry in matches {
            let entry = entry.map_err(|e| {
                let path = e.path().to_path_buf();
                Error::io("list", path)(e.into())
            })?;
            // a link in the workspace may lead out of it
            if fence::admit_open(&entry).is_ok() && entry.is_file() {
                any = true;
                let format = Format::of_named(&entry);
                self.push_known(entry, format, base_dir);
            }
        }
        if self.0.len() > before {
            return Ok(());
        }
        let from = std::path::absolute(base_dir).unwrap_or_else(|_| base_dir.to_path_buf());
        Err(if any {
            Error::data(format!("`{written}` matches only files of unknown formats")).with_hint(KNOWN)
        } else {
            Error::data(format!("`{written}` matches no file"))
                .with_hint(format!("the pattern is read from `{}`", from.display()))
        })
    }

    fn push_known(&mut self, path: PathBuf, format: Option<Format>, base_dir: &Path) {
        if let Some(format) = format {
            let shown = path.strip_prefix(base_dir).unwrap_or(&path).display().to_string();
            self.0.push(DataFile { path, shown, format });
        }
    }

    /// `` `train.jsonl` line 812 ``.
    #[must_use]
    pub fn locate(&self, place: Place) -> String {
        match self.0.get(place.file as usize) {
            Some(file) => format!("`{}` {} {}", file.shown, file.format.counts(), place.number),
            None => format!("row {}", place.number),
        }
    }

    /// The names as people wrote them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|f| f.shown.clone()).collect()
    }

    /// `` `a.jsonl` `` or `` `a.jsonl` and 3 more ``.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.0.as_slice() {
            [] => "no file".to_owned(),
            [one] => format!("`{}`", one.shown),
            [first, rest @ ..] => format!("`{}` and {} more", first.shown, rest.len()),
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'))
}

/// What `datasets` puts beside the rows when it saves a data set.
fn is_description(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy());
    name.is_some_and(|n| ["dataset_info.json", "dataset_dict.json", "state.json"].contains(&n.as_ref()))
}

/// The error for a path that is not there, naming the nearest thing that is.
pub(crate) fn missing(written: &str, path: &Path) -> Error {
    let error = Error::data(format!("no such file or directory: `{written}`"));
    let beside: Vec<String> = path
        .parent()
        .and_then(|dir| files::list(dir).ok())
        .unwrap_or_default()
        .iter()
        .filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .collect();
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match suggest::nearest(&name, beside.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => {
            let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
            error.with_hint(format!("looked for `{}`", full.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("da[t]a");
        std::fs::create_dir(&sub).unwrap();
        for name in ["b.jsonl", "a.csv", "README.md", ".hidden.csv", "c.PARQUET", "state.json"] {
            std::fs::write(sub.join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        dir
    }

    fn resolve(dir: &Path, path: &str) -> Result<Vec<String>> {
        Files::resolve(&[path.to_owned()], dir).map(|f| f.names())
    }

    #[test]
    fn files_globs_and_directories() {
        let dir = tree();
        let sub = dir.path().join("da[t]a");
        assert_eq!(resolve(dir.path(), "da[t]a").unwrap(), ["da[t]a/a.csv", "da[t]a/b.jsonl", "da[t]a/c.PARQUET"]);
        assert_eq!(resolve(&sub, "b.jsonl").unwrap(), ["b.jsonl"]);
        assert_eq!(resolve(&sub, "?.*").unwrap(), ["a.csv", "b.jsonl", "c.PARQUET"]);
        assert_eq!(resolve(&sub, "*.csv").unwrap(), ["a.csv"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tree();
        let sub = dir.path().join("da[t]a");
        let error = resolve(&sub, "b.json").unwrap_err();
        assert_eq!(error.to_string(), "no such file or directory: `b.json`");
        assert_eq!(error.hint(), Some("did you mean `b.jsonl`?"));
        assert_eq!(
            resolve(dir.path(), "empty").unwrap_err().to_string(),
            "the directory `empty` has no data files in it"
        );
        assert_eq!(resolve(&sub, "*.tsv").unwrap_err().to_string(), "`*.tsv` matches no file");
        assert!(resolve(&sub, "*.md").unwrap_err().to_string().contains("unknown formats"));
        assert!(resolve(&sub, "README.md").unwrap_err().hint().unwrap().contains("`.jsonl`"));
    }
}
