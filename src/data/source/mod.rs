//! Where do rows come from? Files of several formats, read in order, one row at a time, in bounded memory.

mod array;
pub mod arrow;
pub mod csv;
pub mod files;
mod guard;
pub mod jsonl;
mod lines;
pub mod parquet;
pub mod txt;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use files::{DataFile, Files, Format};

use crate::error::Result;

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
    /// Something no column can be used for, by what it is: `an object`.
    Other(&'static str),
}

impl Value {
    /// What it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Numbers(_) => "a list of numbers",
            Self::Texts(_) => "a list of texts",
            Self::Other(what) => what,
        }
    }

    /// A list's value: numbers or texts where all items are of one kind.
    pub(crate) fn list(items: Vec<Value>) -> Self {
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        let count = items.len();
        for item in items {
            match item {
                Self::Integer(x) => numbers.push(x as f64),
                Self::Number(x) => numbers.push(x),
                Self::Text(text) => texts.push(text),
                _ => return Self::Other("a nested or mixed list"),
            }
        }
        if texts.len() == count {
            Self::Texts(texts)
        } else if numbers.len() == count {
            Self::Numbers(numbers)
        } else {
            Self::Other("a nested or mixed list")
        }
    }
}

/// A row's cells by column name, in the file's order.
pub type Cells = Vec<(Arc<str>, Value)>;

/// Why a row cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Malformed,
    BadUtf8,
    MissingColumn,
    WrongType,
    Null,
    EmptyText,
    BadLabel,
}

impl Reason {
    /// As people say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadUtf8 => "bad UTF-8",
            Self::MissingColumn => "missing column",
            Self::WrongType => "wrong type",
            Self::Null => "null",
            Self::EmptyText => "empty text",
            Self::BadLabel => "bad label",
        }
    }
}

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub reason: Reason,
    /// The column, where it is one column's fault.
    pub column: Option<String>,
    /// The finding, without the place.
    pub text: String,
}

impl Problem {
    /// A problem of a whole row.
    pub fn row(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, column: None, text: text.into() }
    }

    /// A problem of one cell.
    pub fn cell(reason: Reason, column: &str, text: impl Into<String>) -> Self {
        Self { reason, column: Some(column.to_owned()), text: text.into() }
    }
}

/// Where a row stands: which file, and its line (text formats) or row number (binary ones), from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: u32,
    pub number: u64,
}

/// A row, or what is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Line or row number in its file, from 1.
    pub number: u64,
    pub cells: Result<Cells, Problem>,
}

/// One open file of rows.
pub trait Source: Send {
    /// The next row in file order; `None` at the end.
    ///
    /// # Errors
    /// When the file as a whole cannot be read on. What concerns one row alone is in [`Row::cells`].
    fn next_row(&mut self) -> Result<Option<Row>>;
}

/// Opens one file. With `wanted`, formats stored by column read only the columns named there.
///
/// # Errors
/// When the file cannot be opened or is not of its format.
pub fn open(file: &DataFile, wanted: Option<&[String]>) -> Result<Box<dyn Source>> {
    Ok(match file.format {
        Format::JsonLines => Box::new(jsonl::Lines::open(file)?),
        Format::Json => jsonl::open_json(file)?,
        Format::Csv => Box::new(csv::Delimited::open(file, b',')?),
        Format::Tsv => Box::new(csv::Delimited::open(file, b'\t')?),
        Format::Parquet => Box::new(parquet::open(file, wanted)?),
        Format::Arrow => Box::new(arrow::open(file, wanted)?),
        Format::Texts => Box::new(txt::Texts::open(file)?),
    })
}

/// All rows of several files, one file after the other.
pub struct Rows<'a> {
    files: &'a Files,
    wanted: Option<Vec<String>>,
    next: usize,
    current: Option<Box<dyn Source>>,
}

impl<'a> Rows<'a> {
    /// The rows of `files`; with `wanted`, the cells of other columns may be left out.
    #[must_use]
    pub fn new(files: &'a Files, wanted: Option<Vec<String>>) -> Self {
        Self { files, wanted, next: 0, current: None }
    }

    /// The next row and where it stands.
    ///
    /// # Errors
    /// When a file cannot be read on.
    pub fn next_row(&mut self) -> Result<Option<(Place, Result<Cells, Problem>)>> {
        loop {
            if let Some(source) = &mut self.current {
                if let Some(row) = source.next_row()? {
                    let place = Place { file: (self.next - 1) as u32, number: row.number };
                    return Ok(Some((place, row.cells)));
                }
                self.current = None;
            }
            let Some(file) = self.files.get(self.next) else {
                return Ok(None);
            };
            self.current = Some(open(file, self.wanted.as_deref())?);
            self.next += 1;
        }
    }
}

/// Column names shared between rows.
#[derive(Debug, Default)]
struct Names(Vec<Arc<str>>);

impl Names {
    /// More different names than this in one file are not columns; they are no longer kept.
    const MOST: usize = 4096;

    fn get(&mut self, name: &str, position: usize) -> Arc<str> {
        if let Some(known) = self.0.get(position).filter(|n| n.as_ref() == name) {
            return Arc::clone(known);
        }
        if let Some(known) = self.0.iter().find(|n| n.as_ref() == name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        if self.0.len() < Self::MOST {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}
