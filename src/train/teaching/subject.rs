//! What is taught of which rows: the files, the columns and the lesson, settled before a teacher is there.

use std::path::{Path, PathBuf};

use crate::data::OnBadRow;
use crate::data::columns::{Roles, text_columns};
use crate::data::probe::probe;
use crate::data::source::Files;
use crate::data::texts::UsableRows;
use crate::error::{Error, Result};
use crate::flow::Encode;
use crate::model::SentenceTransformer;
use crate::recipe::teacher::Lesson;

/// Which rows, and what is to be taught of them.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub paths: &'a [PathBuf],
    /// The columns with texts, the query first; the last may hold lists. None for all text columns.
    pub columns: &'a [String],
    /// `None` for what fits the columns.
    pub lesson: Option<Lesson>,
    /// The name of the column that is added.
    pub label: &'a str,
    /// Only so many of the rows that can be used.
    pub limit: Option<u64>,
}

/// Rows, and what is taught of them.
#[derive(Debug, Clone)]
pub struct Subject {
    files: Files,
    roles: Roles,
    lesson: Lesson,
    label: String,
    limit: u64,
}

impl Subject {
    /// What is wanted, settled.
    ///
    /// # Errors
    /// When files or columns are missing, or the lesson cannot be taught of them.
    pub fn settle(wanted: &Wanted<'_>) -> Result<Self> {
        let Wanted { columns, lesson, label, limit, .. } = *wanted;
        let paths: Vec<String> = wanted.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let files = Files::resolve(&paths, Path::new(""))?;
        let known = probe(&files)?;
        let names = if columns.is_empty() { text_columns(&known, true) } else { columns.to_vec() };
        let roles = Roles::of_texts(names, &known, true, &files)?;
        if roles.inputs.iter().any(|name| name == label) {
            return Err(Error::usage(format!("`{label}` is a column of texts and the label's name"))
                .with_hint("give the label another name with `--label`"));
        }
        let lesson = lesson.unwrap_or_else(|| Lesson::of(roles.inputs.len(), roles.lists));
        let limit = limit.unwrap_or(u64::MAX);
        let subject = Self { files, roles, lesson, label: label.to_owned(), limit };
        subject.check_columns()?;
        Ok(subject)
    }

    /// What is taught.
    #[must_use]
    pub fn lesson(&self) -> Lesson {
        self.lesson
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The columns with texts.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.roles.inputs
    }

    /// The name of the column that is added.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many of the rows that can be used are taught at most.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Columns that are not read.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.roles.ignored
    }

    /// Whether the last column holds lists.
    pub(super) fn lists(&self) -> bool {
        self.roles.lists
    }

    /// The rows that can be used.
    pub(super) fn rows(&self, on_bad_row: OnBadRow) -> UsableRows<'_> {
        UsableRows::new(&self.files, &self.roles, on_bad_row)
    }

    /// Reads all rows: how many can be taught, and how many are left out.
    pub(super) fn count(&self, on_bad_row: OnBadRow) -> Result<(usize, u64)> {
        let mut rows = self.rows(on_bad_row);
        let mut usable = 0;
        while (usable as u64) < self.limit && rows.next_row()?.is_some() {
            usable += 1;
        }
        let skipped = rows.finish("correct them, or leave them out with `--on-bad-row skip`")?;
        match usable {
            0 => Err(Error::data(format!("no usable rows in {}", self.files.describe()))),
            usable => Ok((usable, skipped)),
        }
    }

    fn shown(&self) -> String {
        let shown: Vec<String> = self.roles.inputs.iter().map(|name| format!("`{name}`")).collect();
        shown.join(", ")
    }

    /// Whether that can be said of these columns.
    fn check_columns(&self) -> Result<()> {
        let (columns, lists) = (self.roles.inputs.len(), self.roles.lists);
        if self.lesson.embeds() {
            return match lists {
                true => {
                    Err(Error::usage(format!("embeddings are of columns with a text a row, not of {}", self.shown()))
                        .with_hint("name them with `--columns`"))
                }
                false => Ok(()),
            };
        }
        let (least, most) = match self.lesson {
            Lesson::Score => (2, 2),
            Lesson::Margin => (3, usize::MAX),
            _ if lists => (2, 2),
            _ => (3, usize::MAX),
        };
        if columns < least || columns > most || (lists && self.lesson != Lesson::Scores) {
            return Err(Error::usage(format!(
                "`{}` cannot be taught of {columns} column(s): {}",
                self.lesson.name(),
                self.shown()
            ))
            .with_hint(
                "`score` is of two texts, `margin` of a query, a positive and negatives, `scores` of a query and documents \
                 or a list of them: name the columns with `--columns`",
            ));
        }
        Ok(())
    }

    /// Refuses a teacher that cannot say what is taught.
    ///
    /// # Errors
    /// When it has no embeddings, a vector for each token, or several scores a pair.
    pub fn check_teacher(&self, teacher: &SentenceTransformer) -> Result<()> {
        let refuse = |text: String, hint: &str| Err(Error::usage(text).with_hint(hint));
        match teacher.predictor() {
            Some(_) if self.lesson.embeds() => refuse(
                format!("a {} has no embeddings to teach", teacher.kind()),
                "teach its scores: `--labels score`, `margin` or `scores`",
            ),
            None if self.lesson.embeds() && teacher.multi_vector().is_some() => refuse(
                format!("a {} has a vector for each token, which no loss takes as a label", teacher.kind()),
                "teach its scores: `--labels margin` or `scores`",
            ),
            Some(predictor) if predictor.num_labels() != 1 => {
                refuse("the teacher gives a pair several scores".to_owned(), "give a CrossEncoder with one label")
            }
            _ => Ok(()),
        }
    }
}
