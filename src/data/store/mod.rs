//! Where are the tokens of a data set? In memory-mapped files, made once and found again by what went into them.
//!
//! Rows are read, checked and tokenised in one pass with bounded memory; small and large data take the same path.
//! Sequences lie row after row, a row's columns side by side.

mod build;
pub mod cache;
mod made;
mod mapped;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use self::mapped::{Mapped, Seal};
use super::columns::{DatasetSpec, Roles};
use super::report::DataReport;
use super::source::{Files, Place};
use crate::error::{Error, Result};
use crate::flow::{Batch, Labels, PackedBatch, Preprocess};
use crate::util::files;
use crate::util::progress::Progress;

const MAGIC: &str = "tallow-store";
/// Goes up when the files, or what is put into them from the same input, change.
const VERSION: u32 = 1;
const ENDIAN: &str = if cfg!(target_endian = "little") { "little" } else { "big" };

pub use made::MadeRows;

mod names {
    pub const TOKENS: &str = "tokens.u32";
    pub const OFFSETS: &str = "offsets.u64";
    pub const PROMPTS: &str = "prompts.u32";
    pub const TEXTS: &str = "texts.u64";
    pub const RAW: &str = "raw.u64";
    pub const PLACES: &str = "places.u64";
    /// Where a row's sequences begin, for rows of different numbers of them.
    pub const STARTS: &str = "starts.u64";
    pub const LABELS: &str = "labels.f64";
    pub const ALL: &[&str] = &[TOKENS, OFFSETS, PROMPTS, TEXTS, RAW, PLACES, STARTS, LABELS];
    pub const META: &str = "meta.json";
    pub const REPORT: &str = "report.json";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LabelForm {
    Float,
    Int,
    Matrix,
    /// A number for each text of a list.
    Lists,
}

impl LabelForm {
    fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Matrix => "matrix",
            Self::Lists => "lists",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Meta {
    magic: String,
    version: u32,
    endian: String,
    rows: u64,
    columns: Vec<String>,
    tokens: u64,
    has_raw: bool,
    /// How many texts all rows have together, where the last column holds lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequences: Option<u64>,
    /// What the labels are and how many a row has.
    labels: Option<(LabelForm, usize)>,
    files: Vec<(String, Seal)>,
}

/// A tokenised data set. Opening costs no memory in its size; rows are read where they lie.
#[derive(Debug)]
pub struct Store {
    meta: Meta,
    fingerprint: String,
    sources: Files,
    report: DataReport,
    dataset: usize,
    tokens: Mapped<u32>,
    offsets: Mapped<u64>,
    prompts: Mapped<u32>,
    texts: Mapped<u64>,
    raw: Option<Mapped<u64>>,
    places: Mapped<u64>,
    /// `[rows + 1]`: where a row's sequences begin, where rows have different numbers of them.
    starts: Option<Mapped<u64>>,
    labels: Option<Mapped<f64>>,
}

impl Store {
    /// The store for `spec`, found in the cache or made now. Relative paths are taken from `base_dir`; `progress`
    /// moves on by one a row.
    ///
    /// # Errors
    /// When files, columns or labels are not as the spec says, when rows cannot be used and are to be refused, and
    /// when the cache cannot be written to.
    pub fn open_or_build(
        spec: &DatasetSpec,
        base_dir: &Path,
        preprocess: &dyn Preprocess,
        progress: &Progress,
    ) -> Result<Self> {
        Self::open_or_build_in(&cache::folder()?, spec, base_dir, preprocess, progress)
    }

    /// [`Self::open_or_build`] with the folder of the cache's entries given.
    ///
    /// # Errors
    /// As there.
    pub fn open_or_build_in(
        folder: &Path,
        spec: &DatasetSpec,
        base_dir: &Path,
        preprocess: &dyn Preprocess,
        progress: &Progress,
    ) -> Result<Self> {
        let started = Instant::now();
        let within = |error: Error| match &spec.name {
            Some(name) => error.within(format!("data set `{name}`")),
            None => error,
        };
        let sources = Files::resolve(&spec.paths, base_dir).map_err(within)?;
        let roles = Roles::resolve(spec, &sources).map_err(within)?;
        let fingerprint = fingerprint(spec, &sources, &roles, preprocess)?;
        let entry = folder.join(&fingerprint);
        if let Ok(mut store) = Self::open(&entry, &sources, &fingerprint) {
            cache::touch(&entry);
            store.report.name.clone_from(&spec.name);
            store.report.seconds = started.elapsed().as_secs_f64();
            store.report.from_cache = true;
            return Ok(store);
        }
        let draft = cache::Draft::create(&entry)?;
        let (meta, mut report) =
            build::build(&draft.path, spec, &sources, &roles, preprocess, progress).map_err(within)?;
        report.name.clone_from(&spec.name);
        report.files = sources.names();
        report.seconds = started.elapsed().as_secs_f64();
        write_json(&draft.path.join(names::REPORT), &report)?;
        // Last: an entry with it is whole.
        write_json(&draft.path.join(names::META), &meta)?;
        cache::touch(&draft.path);
        draft.publish(&entry, |there| Self::open(there, &sources, &fingerprint).is_ok())?;
        let mut store = Self::open(&entry, &sources, &fingerprint)?;
        store.report.seconds = report.seconds;
        store.report.name = report.name;
        cache::prune(folder, &entry);
        Ok(store)
    }

    /// Opens an entry; an error means that it is not there or not whole.
    fn open(entry: &Path, sources: &Files, fingerprint: &str) -> Result<Self> {
        let meta: Meta = read_json(&entry.join(names::META))?;
        let mut report: DataReport = read_json(&entry.join(names::REPORT))?;
        report.files = sources.names();
        let damaged = |what: String| Error::data(format!("`{}` is damaged: {what}", entry.display()));
        if meta.magic != MAGIC || meta.version != VERSION || meta.endian != ENDIAN || meta.columns.is_empty() {
            return Err(damaged("not an entry of this version".to_owned()));
        }
        for (name, seal) in &meta.files {
            if Seal::of(&entry.join(name))? != *seal {
                return Err(damaged(format!("`{name}` is not what was written")));
            }
        }
        let at = |name: &str| -> PathBuf { entry.join(name) };
        // what a damaged file says is compared with the files' lengths below
        let columns = meta.columns.len() as u64;
        let sequences = meta.sequences.unwrap_or(meta.rows.saturating_mul(columns));
        let last = sequences.saturating_sub(meta.rows.saturating_mul(columns.saturating_sub(1)));
        report.columns.iter_mut().for_each(|column| column.texts = meta.rows);
        if let Some(column) = report.columns.last_mut() {
            column.texts = last;
        }
        let store = Self {
            tokens: Mapped::open(&at(names::TOKENS), meta.tokens)?,
            offsets: Mapped::open(&at(names::OFFSETS), sequences + 1)?,
            prompts: Mapped::open(&at(names::PROMPTS), sequences)?,
            texts: Mapped::open(&at(names::TEXTS), sequences)?,
            raw: if meta.has_raw { Some(Mapped::open(&at(names::RAW), sequences)?) } else { None },
            places: Mapped::open(&at(names::PLACES), meta.rows * 2)?,
            starts: match meta.sequences {
                Some(_) => Some(Mapped::open(&at(names::STARTS), meta.rows + 1)?),
                None => None,
            },
            labels: match meta.labels {
                Some((LabelForm::Lists, _)) => Some(Mapped::open(&at(names::LABELS), last)?),
                Some((_, width)) => Some(Mapped::open(&at(names::LABELS), meta.rows * width as u64)?),
                None => None,
            },
            meta,
            fingerprint: fingerprint.to_owned(),
            sources: sources.clone(),
            report,
            dataset: 0,
        };
        let offsets = store.offsets.slice();
        let starts_fit = store.starts.as_ref().is_none_or(|s| s.slice().last() == Some(&sequences));
        if offsets.first() != Some(&0) || offsets.last() != Some(&store.meta.tokens) || !starts_fit {
            return Err(damaged("the offsets do not fit the tokens".to_owned()));
        }
        Ok(store)
    }

    /// The number that [`Batch::dataset`] tells this data set's rows by.
    #[must_use]
    pub fn with_dataset(mut self, dataset: usize) -> Self {
        self.dataset = dataset;
        self
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meta.rows as usize
    }

    /// Never: a data set without a usable row is an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.rows == 0
    }

    /// The input columns, in the loss's order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.meta.columns
    }

    /// What the data turned out to hold.
    #[must_use]
    pub fn report(&self) -> &DataReport {
        &self.report
    }

    /// The files the rows come from.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.sources
    }

    /// A hash of the files' contents, the roles, the prompts and the tokenizer; no path goes in.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn span(&self, row: u32) -> Result<std::ops::Range<usize>> {
        let width = self.meta.columns.len();
        if u64::from(row) >= self.meta.rows {
            return Err(Error::Internal(format!("row {row} of a data set of {} rows", self.meta.rows)));
        }
        let first = row as usize * width;
        let Some(starts) = &self.starts else { return Ok(first..first + width) };
        match starts.slice().get(row as usize..row as usize + 2) {
            Some(&[from, to]) if from + width as u64 <= to => Ok(from as usize..to as usize),
            _ => Err(self.damaged(row, 0)),
        }
    }

    fn damaged(&self, row: u32, column: usize) -> Error {
        Error::data(format!(
            "the tokenised data of {} is damaged at row {row}, column {column}",
            self.sources.describe()
        ))
        .with_hint(format!("remove the folder `{}` from the cache", self.fingerprint))
    }

    /// Whether the last column holds lists of texts.
    #[must_use]
    pub fn has_lists(&self) -> bool {
        self.starts.is_some()
    }

    /// How many texts a row has: one a column, unless the last holds a list.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn row_sequences(&self, row: u32) -> Result<usize> {
        Ok(self.span(row)?.len())
    }

    fn cut<'a, T: mapped::Plain>(&self, mapped: &'a Mapped<T>, row: u32) -> &'a [T] {
        self.span(row).ok().and_then(|span| mapped.slice().get(span)).unwrap_or(&[])
    }

    /// `[texts]`: a hash of each of a row's texts with its prompt; empty for a row that does not exist.
    #[must_use]
    pub fn text_ids(&self, row: u32) -> &[u64] {
        self.cut(&self.texts, row)
    }

    /// `[texts]`: a hash of each of a row's texts as the data has it, without prompts: what samplers compare.
    #[must_use]
    pub fn raw_text_ids(&self, row: u32) -> &[u64] {
        self.cut(self.raw.as_ref().unwrap_or(&self.texts), row)
    }

    /// The tokens of one of a row's texts, where they lie, and how many of them are its prompt's. The texts are those of
    /// the columns in their order, of a last column of lists all.
    ///
    /// # Errors
    /// When there is no such row or column, or the entry was damaged on disk.
    pub fn sequence(&self, row: u32, column: usize) -> Result<(&[u32], u32)> {
        let span = self.span(row)?;
        let at = span.start + column;
        let found = (column < span.len()).then_some(()).and_then(|()| {
            let (offsets, prompts) = (self.offsets.slice(), self.prompts.slice());
            let (from, to) = (*offsets.get(at)?, *offsets.get(at + 1)?);
            Some((self.tokens.slice().get(from as usize..to as usize)?, *prompts.get(at)?))
        });
        found.ok_or_else(|| self.damaged(row, column))
    }

    /// How many tokens each row has over all columns: what a batch of it costs.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn row_tokens(&self, row: u32) -> Result<usize> {
        let span = self.span(row)?;
        let offsets = self.offsets.slice();
        let ends = (offsets.get(span.start), offsets.get(span.end));
        Ok(if let (Some(from), Some(to)) = ends { to.saturating_sub(*from) as usize } else { 0 })
    }

    /// The batch of these rows: all sequences of column 0, then those of column 1, ...; of a column of lists those of
    /// the first row, then those of the second, ...
    ///
    /// # Errors
    /// When a row does not exist, the batch has more than 2^32 tokens, or the entry was damaged on disk.
    pub fn batch(&self, rows: &[u32]) -> Result<Batch> {
        let columns: Vec<(usize, &[u32])> = (0..self.meta.columns.len()).map(|column| (column, rows)).collect();
        self.batch_of(&columns)
    }

    /// As [`Store::batch`], with for each column of the batch the column of the data and its rows, equally many; labels
    /// and numbers are those of the first one's rows.
    ///
    /// # Errors
    /// As there.
    pub fn batch_of(&self, columns: &[(usize, &[u32])]) -> Result<Batch> {
        let rows = columns.first().map_or(&[][..], |(_, rows)| rows);
        let mut sequences = Vec::with_capacity(rows.len() * columns.len());
        let mut text_ids = Vec::with_capacity(columns.len());
        let mut tokens = 0;
        let mut lists = Vec::new();
        for (column, rows) in columns {
            let is_list = self.has_lists() && column + 1 == self.meta.columns.len();
            let mut ids = Vec::with_capacity(rows.len());
            for row in *rows {
                let end = if is_list { self.row_sequences(*row)? } else { column + 1 };
                if is_list {
                    lists.push(end - column);
                }
                for place in *column..end {
                    let sequence = self.sequence(*row, place)?;
                    tokens += sequence.0.len();
                    sequences.push(sequence);
                }
                ids.extend_from_slice(self.text_ids(*row).get(*column..end).unwrap_or(&[]));
            }
            text_ids.push(ids);
        }
        if u32::try_from(tokens).is_err() {
            return Err(Error::data(format!("a batch of {} rows has {tokens} tokens", rows.len()))
                .with_hint("set a smaller `per_device_train_batch_size` or `max_seq_length`"));
        }
        Ok(Batch {
            packed: PackedBatch::pack(sequences),
            columns: columns.len(),
            rows: rows.len(),
            lists,
            text_ids,
            labels: self.labels(rows),
            row_ids: rows.iter().map(|r| u64::from(*r)).collect(),
            dataset: self.dataset,
        })
    }

    /// The labels of these rows, where the data has them and the loss takes them.
    #[must_use]
    pub fn labels(&self, rows: &[u32]) -> Option<Labels> {
        let (form, width) = self.meta.labels?;
        let all = self.labels.as_ref()?.slice();
        if form == LabelForm::Lists {
            let single = self.meta.columns.len() - 1;
            let of = |row: &u32| {
                let span = self.span(*row).ok()?;
                let before = *row as usize * single;
                all.get(span.start - before..span.end - before - single)
            };
            let rows: Vec<&[f64]> = rows.iter().map(|row| of(row).unwrap_or(&[])).collect();
            return Some(Labels::Lists {
                lengths: rows.iter().map(|row| row.len()).collect(),
                data: rows.into_iter().flatten().map(|x| *x as f32).collect(),
            });
        }
        let of = |row: &u32| all.get(*row as usize * width..(*row as usize + 1) * width).unwrap_or(&[]).iter();
        let values = rows.iter().flat_map(of);
        Some(match form {
            LabelForm::Float => Labels::Float(values.map(|x| *x as f32).collect()),
            LabelForm::Int => Labels::Int(values.map(|x| *x as i64).collect()),
            LabelForm::Matrix | LabelForm::Lists => Labels::Matrix { width, data: values.map(|x| *x as f32).collect() },
        })
    }

    /// A row's class, where labels are classes.
    #[must_use]
    pub fn row_class(&self, row: u32) -> Option<i64> {
        match self.labels(&[row])? {
            Labels::Int(classes) => classes.first().copied(),
            Labels::Float(_) | Labels::Matrix { .. } | Labels::Lists { .. } => None,
        }
    }

    /// Where a row stands in its file, for messages: `` `train.jsonl` line 812 ``.
    #[must_use]
    pub fn locate(&self, row: u32) -> String {
        let at = row as usize * 2;
        match self.places.slice().get(at..at + 2) {
            Some(&[file, number]) => self.sources.locate(Place { file: file as u32, number }),
            _ => format!("row {row}"),
        }
    }
}

/// A hash of all that decides what goes into an entry.
fn fingerprint(spec: &DatasetSpec, sources: &Files, roles: &Roles, preprocess: &dyn Preprocess) -> Result<String> {
    let mut settings = serde_json::json!({
        "version": VERSION,
        "inputs": roles.inputs,
        "prompts": roles.prompts,
        "label": roles.label,
        "limit": spec.limit,
        "on_bad_row": spec.on_bad_row,
        // What the report says of them.
        "notes": roles.notes,
        "formats": sources.iter().map(|f| format!("{:?}", f.format)).collect::<Vec<_>>(),
        "preprocess": preprocess.fingerprint(),
    });
    if roles.lists {
        settings["lists"] = true.into();
    }
    let settings = settings.to_string();
    let mut hash = Xxh3::new();
    hash.update(settings.as_bytes());
    let mut buffer = vec![0; 1 << 20];
    for source in sources.iter() {
        let mut file = files::open(&source.path)?;
        let mut bytes = 0u64;
        loop {
            let read = file.read(&mut buffer).map_err(Error::io("read", &source.path))?;
            let Some(chunk) = buffer.get(..read).filter(|c| !c.is_empty()) else {
                break;
            };
            hash.update(chunk);
            bytes += read as u64;
        }
        // Between files, so that no text can move from one to the next unseen.
        hash.update(&bytes.to_le_bytes());
    }
    Ok(format!("{:032x}", hash.digest128()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&files::read(path)?)
        .map_err(|e| Error::data(format!("`{}` cannot be read: {e}", path.display())))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    files::write_atomic(path, &text)
}
