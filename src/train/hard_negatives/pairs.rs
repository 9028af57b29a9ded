//! The pairs that negatives are looked for.

use std::path::{Path, PathBuf};

use crate::data::OnBadRow;
use crate::data::columns::{Roles, text_columns};
use crate::data::probe::probe;
use crate::data::source::Files;
use crate::data::texts::UsableRows;
use crate::error::{Error, Result};

/// Where pairs stand.
#[derive(Debug, Clone)]
pub struct Pairs {
    files: Files,
    /// Two columns: anchors and positives.
    roles: Roles,
    /// Only the first rows.
    limit: usize,
    on_bad_row: OnBadRow,
    /// What to do about rows that cannot be used.
    way_out: &'static str,
}

/// What is wanted of which files.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Files, globs and directories.
    pub paths: &'a [PathBuf],
    /// The column with anchors; the first text column without.
    pub anchor: Option<&'a str>,
    /// The column with positives; the second text column without.
    pub positive: Option<&'a str>,
    /// Only the first rows.
    pub limit: Option<u64>,
    pub on_bad_row: OnBadRow,
    /// What to do about rows that cannot be used: how they are left out here.
    pub way_out: &'static str,
}

/// Anchors with their positives, row by row, and how many rows were left out.
pub(super) type Read = (Vec<(String, String)>, u64);

impl Pairs {
    /// The files and columns that are meant, told by the first rows.
    ///
    /// # Errors
    /// When a file or a column is missing, or it is not clear which columns are meant.
    pub fn find(wanted: &Wanted<'_>) -> Result<Self> {
        let paths: Vec<String> = wanted.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let files = Files::resolve(&paths, Path::new(""))?;
        let columns = probe(&files)?;
        let texts = text_columns(&columns, false);
        let other = |taken: Option<&str>| texts.iter().map(String::as_str).find(|name| Some(*name) != taken);
        let anchor = wanted.anchor.or_else(|| other(wanted.positive));
        let positive = wanted.positive.or_else(|| other(anchor));
        let (Some(anchor), Some(positive)) = (anchor, positive) else {
            return Err(Error::data(format!("{} has fewer than two text columns", files.describe()))
                .with_hint("pairs have an anchor and a positive"));
        };
        if anchor == positive {
            return Err(Error::usage(format!("`{anchor}` is the column of anchors and of positives"))
                .with_hint("name a column for each"));
        }
        let roles = Roles::of_texts(vec![anchor.to_owned(), positive.to_owned()], &columns, false, &files)?;
        let limit = wanted.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self { files, roles, limit, on_bad_row: wanted.on_bad_row, way_out: wanted.way_out })
    }

    /// The names of the columns: anchors, positives.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        let name = |i: usize| self.roles.inputs.get(i).map_or("", String::as_str);
        (name(0), name(1))
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Their name in messages.
    #[must_use]
    pub fn describe(&self) -> String {
        self.files.describe()
    }

    /// Reads them, once.
    pub(super) fn read(&self) -> Result<Read> {
        let mut rows = UsableRows::new(&self.files, &self.roles, self.on_bad_row);
        let mut pairs = Vec::new();
        while pairs.len() < self.limit
            && let Some(row) = rows.next_row()?
        {
            let mut texts = row.texts.into_iter();
            pairs.extend(texts.next().zip(texts.next()));
        }
        let skipped = rows.finish(self.way_out)?;
        match pairs.is_empty() {
            true => Err(Error::data(format!("no usable rows in {}", self.files.describe()))),
            false => Ok((pairs, skipped)),
        }
    }
}
