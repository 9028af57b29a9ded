//! Small files read whole, as strings: columns and labels for evaluators, plain texts.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::columns::{DatasetSpec, Label, OnBadRow, Roles, Usable};
use super::report::BadRows;
use super::source::files::missing;
use super::source::{Files, Format, Place, Problem, Reason, Rows};
use crate::error::{Error, Result};
use crate::flow::{LabelKind, Labels};
use crate::util::files;

/// Texts that are in memory at a time where they are read one after the other.
const TEXTS_AT_A_TIME: usize = 8192;

/// Columns of strings, and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The input columns' names.
    pub names: Vec<String>,
    /// `[columns][rows]`.
    pub columns: Vec<Vec<String>>,
    /// One label a row, where one was asked for and is there.
    pub labels: Option<Labels>,
    /// Class names by number, where labels were names.
    pub classes: Vec<String>,
    /// Where each row stands.
    pub places: Vec<Place>,
    pub files: Files,
    /// Rows left out, where the spec says so.
    pub skipped: u64,
}

impl Table {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Never: a file without a usable row is an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// `` `dev.jsonl` line 12 ``.
    #[must_use]
    pub fn locate(&self, row: usize) -> String {
        self.places.get(row).map_or_else(|| format!("row {row}"), |place| self.files.locate(*place))
    }
}

/// Reads the named columns (all text columns without names) and, as `needs` says, the label column (found by
/// sentence-transformers' rule unless named).
///
/// # Errors
/// When the file or a column is missing or rows cannot be used; the first of them are named.
pub fn read_columns(path: &Path, columns: Option<&[&str]>, label: Option<&str>, needs: LabelKind) -> Result<Table> {
    let mut spec = DatasetSpec::new(vec![path.to_string_lossy().into_owned()], needs);
    spec.columns = columns.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
    spec.label = label.map(str::to_owned);
    read_table(&spec, Path::new(""))
}

/// Reads all of a data set as strings. Prompts are left to whoever encodes them.
///
/// # Errors
/// As [`read_columns`].
pub fn read_table(spec: &DatasetSpec, base_dir: &Path) -> Result<Table> {
    let files = Files::resolve(&spec.paths, base_dir)?;
    let roles = Roles::resolve(spec, &files)?;
    let mut columns: Vec<Vec<String>> = vec![Vec::new(); roles.inputs.len()];
    let (mut read, mut places) = (Vec::new(), Vec::new());
    let mut bad = BadRows::new(spec.on_bad_row);
    let mut rows = Rows::new(&files, Some(roles.wanted()));
    let (mut rows_read, mut width) = (0, None);
    while spec.limit.is_none_or(|limit| places.len() < limit) {
        let Some((place, cells)) = rows.next_row()? else {
            break;
        };
        rows_read += 1;
        let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
        match cells.and_then(|cells| roles.check(cells, typed)).and_then(|row| same_width(row, &mut width, &roles)) {
            Ok(row) => {
                places.push(place);
                read.push(row.label);
                for (column, text) in columns.iter_mut().zip(row.texts) {
                    column.push(text);
                }
            }
            Err(problem) => bad.add(place, &problem),
        }
    }
    let skipped = bad.finish(&files, rows_read)?.iter().map(|s| s.rows).sum();
    if places.is_empty() {
        return Err(Error::data(format!("no usable rows in {}", files.describe())));
    }
    let (labels, classes) = if roles.label.is_some() { collect(read, spec.needs) } else { (None, Vec::new()) };
    Ok(Table { names: roles.inputs, columns, labels, classes, places, files, skipped })
}

/// The rows of a data set that can be used, one after the other; others are counted.
pub struct UsableRows<'a> {
    files: &'a Files,
    roles: &'a Roles,
    rows: Rows<'a>,
    bad: BadRows,
    read: u64,
}

impl<'a> UsableRows<'a> {
    /// From the first on.
    #[must_use]
    pub fn new(files: &'a Files, roles: &'a Roles, on_bad_row: OnBadRow) -> Self {
        Self { files, roles, rows: Rows::new(files, Some(roles.wanted())), bad: BadRows::new(on_bad_row), read: 0 }
    }

    /// The next.
    ///
    /// # Errors
    /// When a file cannot be read on.
    pub fn next_row(&mut self) -> Result<Option<Usable>> {
        while let Some((place, cells)) = self.rows.next_row()? {
            self.read += 1;
            let typed = self.files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
            match cells.and_then(|cells| self.roles.check(cells, typed)) {
                Ok(row) => return Ok(Some(row)),
                Err(problem) => self.bad.add(place, &problem),
            }
        }
        Ok(None)
    }

    /// How many rows were left out.
    ///
    /// # Errors
    /// When there are some, and the data set is to be refused then; `way_out` says what to do.
    pub fn finish(self, way_out: &str) -> Result<u64> {
        let skipped = self.bad.finish(self.files, self.read).map_err(|e| e.with_hint(way_out))?;
        Ok(skipped.iter().map(|reason| reason.rows).sum())
    }
}

/// Reads the texts of all columns, some rows at a time; `prompts` are put in front of them. Rows without a usable text
/// are left out: whoever reads the whole data set tells of them.
///
/// # Errors
/// When a file or a column is missing, or `take` fails.
pub fn each_text(spec: &DatasetSpec, base_dir: &Path, take: &mut dyn FnMut(&[String]) -> Result<()>) -> Result<()> {
    let files = Files::resolve(&spec.paths, base_dir)?;
    let roles = Roles { label: None, ..Roles::resolve(spec, &files)? };
    let mut rows = Rows::new(&files, Some(roles.wanted()));
    let (mut block, mut left) = (Vec::new(), spec.limit.unwrap_or(usize::MAX));
    while left > 0 {
        let Some((place, cells)) = rows.next_row()? else {
            break;
        };
        let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
        let Ok(row) = cells.and_then(|cells| roles.check(cells, typed)) else {
            continue;
        };
        left -= 1;
        for (text, prompt) in row.texts.into_iter().zip(&roles.prompts) {
            block.push(match prompt {
                Some(prompt) => format!("{prompt}{text}"),
                None => text,
            });
        }
        if block.len() >= TEXTS_AT_A_TIME {
            take(&block)?;
            block.clear();
        }
    }
    take(&block)
}

fn same_width(row: Usable, width: &mut Option<usize>, roles: &Roles) -> Result<Usable, Problem> {
    let has = if let Label::List(list) = &row.label { list.len() } else { 0 };
    let wanted = *width.get_or_insert(has);
    if wanted == has {
        return Ok(row);
    }
    let column = roles.label.as_ref().map_or("", |l| l.0.as_str());
    let text = "a list of labels of another length than the first row's";
    Err(Problem::cell(Reason::BadLabel, column, text))
}

fn collect(labels: Vec<Label>, needs: LabelKind) -> (Option<Labels>, Vec<String>) {
    let mut classes: Vec<String> = labels
        .iter()
        .filter_map(|l| if let Label::Name(name) = l { Some(name) } else { None })
        .collect::<HashSet<_>>()
        .into_iter()
        .cloned()
        .collect();
    classes.sort();
    if !classes.is_empty() {
        let number: HashMap<&str, i64> = classes.iter().enumerate().map(|(i, n)| (n.as_str(), i as i64)).collect();
        let of = |l: &Label| {
            if let Label::Name(name) = l { number.get(name.as_str()).copied() } else { None }
        };
        return (Some(Labels::Int(labels.iter().filter_map(of).collect())), classes);
    }
    if let Some(Label::List(first)) = labels.first() {
        let width = first.len();
        let data = labels
            .iter()
            .flat_map(|l| if let Label::List(list) = l { list.as_slice() } else { &[] })
            .map(|x| *x as f32)
            .collect();
        return (Some(Labels::Matrix { width, data }), classes);
    }
    let number = |l: &Label| {
        if let Label::Number(x, integer) = l { Some((*x, *integer)) } else { None }
    };
    let numbers: Vec<(f64, bool)> = labels.iter().filter_map(number).collect();
    let integers = needs == LabelKind::Int || (needs == LabelKind::Any && numbers.iter().all(|n| n.1));
    let labels = if integers {
        Labels::Int(numbers.iter().map(|n| n.0 as i64).collect())
    } else {
        Labels::Float(numbers.iter().map(|n| n.0 as f32).collect())
    };
    (Some(labels), classes)
}

/// The lines of a text file, empty ones included, so that the n-th result belongs to the n-th line.
///
/// # Errors
/// When the file is missing or a line is not UTF-8.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    let shown = path.display().to_string();
    if !path.is_file() {
        return Err(missing(&shown, path));
    }
    let bytes = files::read(path)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    if lines.last().is_some_and(|l| l.is_empty()) {
        lines.pop();
    }
    let text = |(i, line): (usize, &[u8])| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        String::from_utf8(line.to_vec()).map_err(|e| {
            let at = e.utf8_error().valid_up_to() + 1;
            Error::data(format!("`{shown}` line {}: bad UTF-8 at byte {at} of the line", i + 1))
                .with_hint("save the file as UTF-8")
        })
    };
    lines.into_iter().enumerate().map(text).collect()
}

/// Texts to encode: a `.txt` file's lines, or one column of a file of rows (its only text column unless named).
///
/// # Errors
/// As [`read_lines`] and [`read_columns`], and when it is not clear which column is meant.
pub fn read_texts(path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    if Format::of(path).is_none() && path.is_file() {
        if let Some(column) = column {
            return Err(Error::data(format!(
                "`{}` is read as plain text and has no column `{column}`",
                path.display()
            ))
            .with_hint("rows are read from `.jsonl`, `.csv`, `.tsv`, `.parquet` and `.arrow` files"));
        }
        return read_lines(path);
    }
    let names = column.map(|c| [c]);
    let mut table = read_columns(path, names.as_ref().map(|n| n.as_slice()), None, LabelKind::None)?;
    if table.columns.len() > 1 {
        let names: Vec<String> = table.names.iter().map(|n| format!("`{n}`")).collect();
        return Err(Error::data(format!("`{}` has several text columns: {}", path.display(), names.join(", ")))
            .with_hint("name the one to use (`--column`)"));
    }
    Ok(table.columns.pop().unwrap_or_default())
}
