//! From rows to the store's files, in one pass and bounded memory.

use std::collections::HashMap;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::mapped::{Mapped, Seal, Writer};
use super::{ENDIAN, LabelForm, MAGIC, Meta, VERSION, names};
use crate::data::columns::{DatasetSpec, Label, LabelMode, Roles, Usable};
use crate::data::report::{BadRows, ColumnReport, DataReport, Histogram, LabelReport};
use crate::data::source::{Files, Place, Problem, Reason, Rows};
use crate::error::{Error, Result};
use crate::flow::{Preprocess, Tokens};
use crate::util::interrupt;
use crate::util::progress::Progress;
use crate::util::seed::mix;

/// A block is tokenised at once: this many rows, or fewer when their texts are long.
const BLOCK_ROWS: usize = 4096;
const BLOCK_BYTES: usize = 16 << 20;

/// Different class names a label column may have.
const MOST_NAMES: usize = 100_000;

/// Different labels that are counted one by one in the report.
const MOST_CLASSES: usize = 256;

/// Reads, checks and tokenises all rows into files under `dir`.
pub(super) fn build(
    dir: &Path,
    spec: &DatasetSpec,
    files: &Files,
    roles: &Roles,
    preprocess: &dyn Preprocess,
    progress: &Progress,
) -> Result<(Meta, DataReport)> {
    let mut bad = BadRows::new(spec.on_bad_row);
    let mut rows = Rows::new(files, Some(roles.wanted()));
    let mut sink = Sink::create(dir, roles, preprocess)?;
    let (mut block, mut block_bytes) = (Vec::new(), 0);
    let (mut rows_read, mut used) = (0u64, 0usize);
    while spec.limit.is_none_or(|limit| used < limit) {
        let Some((place, cells)) = rows.next_row()? else {
            break;
        };
        rows_read += 1;
        let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
        match cells.and_then(|cells| roles.check(cells, typed)).and_then(|row| sink.labels.check(row)) {
            Ok(row) => {
                used += 1;
                if !bad.refused() {
                    block_bytes += row.texts.iter().map(String::len).sum::<usize>();
                    block.push((place, row));
                }
            }
            Err(problem) => bad.add(place, &problem),
        }
        if rows_read.is_multiple_of(BLOCK_ROWS as u64) && interrupt::requested() {
            return Err(Error::cancelled("stopped while the data was being tokenised"));
        }
        if block.len() >= BLOCK_ROWS || block_bytes >= BLOCK_BYTES {
            sink.write(&block, preprocess)?;
            progress.inc(block.len() as u64);
            (block_bytes, block) = (0, Vec::new());
        }
    }
    let skipped = bad.finish(files, rows_read)?;
    sink.write(&block, preprocess)?;
    if used == 0 {
        let why = skipped.first().and_then(|s| s.examples.first()).map(|e| e.show(files));
        let error = Error::data(format!("no usable rows in {}", files.describe()));
        return Err(match why {
            Some(why) => error.with_hint(format!("all were left out, the first because of {why}")),
            None => error,
        });
    }
    let (meta, mut report) = sink.finish(dir, roles)?;
    report.rows_read = rows_read;
    report.skipped = skipped;
    report.max_seq_length = preprocess.max_seq_length();
    report.notes.splice(0..0, roles.notes.iter().cloned());
    Ok((meta, report))
}

struct Sink<'a> {
    roles: &'a Roles,
    tokens: Writer<u32>,
    offsets: Writer<u64>,
    prompts: Writer<u32>,
    texts: Writer<u64>,
    raw: Option<Writer<u64>>,
    places: Writer<u64>,
    /// Where each row's sequences begin, where rows have different numbers of them.
    starts: Option<Writer<u64>>,
    sequences: u64,
    rows: u64,
    written: u64,
    columns: Vec<(ColumnReport, Histogram)>,
    labels: LabelSink,
}

impl<'a> Sink<'a> {
    fn create(dir: &Path, roles: &'a Roles, preprocess: &dyn Preprocess) -> Result<Self> {
        let mut offsets = Writer::create(dir.join(names::OFFSETS))?;
        offsets.push(&[0])?;
        let prompted = roles.prompts.iter().any(Option::is_some);
        let column = |(name, prompt): (&String, &Option<String>)| {
            let report = ColumnReport { name: name.clone(), prompt: prompt.clone(), ..ColumnReport::default() };
            (report, Histogram::default())
        };
        if preprocess.max_seq_length() == Some(0) {
            return Err(Error::data("a `max_seq_length` of 0 leaves nothing of the texts"));
        }
        Ok(Self {
            roles,
            tokens: Writer::create(dir.join(names::TOKENS))?,
            offsets,
            prompts: Writer::create(dir.join(names::PROMPTS))?,
            texts: Writer::create(dir.join(names::TEXTS))?,
            raw: if prompted { Some(Writer::create(dir.join(names::RAW))?) } else { None },
            places: Writer::create(dir.join(names::PLACES))?,
            starts: if roles.lists { Some(Writer::create(dir.join(names::STARTS))?) } else { None },
            sequences: 0,
            rows: 0,
            written: 0,
            columns: roles.inputs.iter().zip(&roles.prompts).map(column).collect(),
            labels: LabelSink::create(dir, roles)?,
        })
    }

    fn write(&mut self, block: &[(Place, Usable)], preprocess: &dyn Preprocess) -> Result<()> {
        if self.rows + block.len() as u64 > u64::from(u32::MAX) {
            return Err(
                Error::data("more than 4,294,967,295 rows in one data set").with_hint("split it, or set `limit`")
            );
        }
        let width = self.columns.len();
        // of a last column of lists all texts of a row
        let texts_of = |row: &Usable, c: usize| if c + 1 == width { c..row.texts.len() } else { c..c + 1 };
        let mut columns: Vec<std::vec::IntoIter<Tokens>> = Vec::with_capacity(width);
        for (c, prompt) in self.roles.prompts.iter().enumerate() {
            let texts = block.iter().flat_map(|(_, row)| row.texts.get(texts_of(row, c)).unwrap_or(&[]));
            let texts: Vec<&str> = texts.map(String::as_str).collect();
            let column = self.roles.inputs.get(c).map_or("", String::as_str);
            let tokens = preprocess.tokenize_column((c, column), &texts, prompt.as_deref())?;
            if tokens.len() != texts.len() {
                let (got, wanted) = (tokens.len(), texts.len());
                return Err(Error::Internal(format!("the tokenizer returned {got} sequences for {wanted} texts")));
            }
            columns.push(tokens.into_iter());
        }
        for (place, row) in block {
            if let Some(starts) = &mut self.starts {
                starts.push(&[self.sequences])?;
            }
            for (i, text) in row.texts.iter().enumerate() {
                let c = i.min(width - 1);
                let Some(tokens) = columns[c].next() else { continue };
                self.sequences += 1;
                let (report, lengths) = &mut self.columns[c];
                let length = tokens.ids.len() as u64;
                report.truncated += u64::from(u64::from(tokens.full_length) > length);
                report.without_tokens += u64::from(length == 0);
                report.tokens += length;
                lengths.add(tokens.full_length.max(length as u32));
                self.written += length;
                self.tokens.push(&tokens.ids)?;
                self.offsets.push(&[self.written])?;
                self.prompts.push(&[tokens.prompt_length])?;
                let raw = xxh3_64(text.as_bytes());
                if let Some(out) = &mut self.raw {
                    out.push(&[raw])?;
                }
                self.texts.push(&[match &self.roles.prompts[c] {
                    None => raw,
                    Some(prompt) => {
                        let mut hash = Xxh3::new();
                        hash.update(prompt.as_bytes());
                        hash.update(text.as_bytes());
                        hash.digest()
                    }
                }])?;
            }
            self.places.push(&[u64::from(place.file), place.number])?;
            self.labels.write(&row.label)?;
        }
        self.rows += block.len() as u64;
        Ok(())
    }

    fn finish(self, dir: &Path, roles: &Roles) -> Result<(Meta, DataReport)> {
        self.tokens.finish()?;
        self.offsets.finish()?;
        self.prompts.finish()?;
        self.texts.finish()?;
        self.places.finish()?;
        let lists = self.starts.is_some();
        if let Some(mut starts) = self.starts {
            starts.push(&[self.sequences])?;
            starts.finish()?;
        }
        let has_raw = self.raw.is_some();
        if let Some(raw) = self.raw {
            raw.finish()?;
        }
        let mut report = DataReport { rows_used: self.rows, total_tokens: self.written, ..DataReport::default() };
        let labels = self.labels.finish(dir, roles, &mut report)?;
        let width = self.columns.len();
        let ids = Mapped::<u64>::open(&dir.join(if has_raw { names::RAW } else { names::TEXTS }), self.sequences)?;
        let starts = match lists {
            true => Some(Mapped::<u64>::open(&dir.join(names::STARTS), self.rows + 1)?),
            false => None,
        };
        let start = |row: usize| match &starts {
            Some(starts) => starts.slice().get(row).map_or(0, |at| *at as usize),
            None => row * width,
        };
        let rows = 0..self.rows as usize;
        for (c, (mut column, lengths)) in self.columns.into_iter().enumerate() {
            column.lengths = lengths.lengths();
            let texts = |row: usize| {
                if c + 1 == width { start(row) + c..start(row + 1) } else { start(row) + c..start(row) + c + 1 }
            };
            let of_column = rows.clone().flat_map(texts).filter_map(|at| ids.slice().get(at).copied());
            let count = if c + 1 == width { self.sequences - self.rows * (width as u64 - 1) } else { self.rows };
            column.repeated = repeated(of_column, count);
            report.columns.push(column);
        }
        let whole = |row: usize| {
            let row = ids.slice().get(start(row)..start(row + 1)).unwrap_or(&[]);
            row.iter().fold(0, |h: u64, id| mix(h.rotate_left(1) ^ *id))
        };
        report.repeated_rows = repeated(rows.map(whole), self.rows);
        drop((ids, starts));
        let mut seals = Vec::new();
        for name in names::ALL {
            if dir.join(name).exists() {
                seals.push(((*name).to_owned(), Seal::of(&dir.join(name))?));
            }
        }
        let meta = Meta {
            magic: MAGIC.to_owned(),
            version: VERSION,
            endian: ENDIAN.to_owned(),
            rows: self.rows,
            columns: roles.inputs.clone(),
            tokens: self.written,
            has_raw,
            sequences: lists.then_some(self.sequences),
            labels,
            files: seals,
        };
        Ok((meta, report))
    }
}

/// How many values equal an earlier one. Memory stays flat: values are looked at in slices of the hash space, each
/// of which holds a few million.
fn repeated(values: impl Iterator<Item = u64> + Clone, count: u64) -> u64 {
    const AT_ONCE: u64 = 1 << 22;
    let slices = count.div_ceil(AT_ONCE).max(1);
    let mut total = 0;
    for slice in 0..slices {
        let within = |id: &u64| ((u128::from(mix(*id)) * u128::from(slices)) >> 64) as u64 == slice;
        let mut held: Vec<u64> = values.clone().filter(within).collect();
        let before = held.len();
        held.sort_unstable();
        held.dedup();
        total += (before - held.len()) as u64;
    }
    total
}

/// Labels on their way to the file, all as f64; what they are is settled when all have been seen.
struct LabelSink {
    mode: Option<LabelMode>,
    /// As many labels as a row has texts in its list.
    lists: bool,
    out: Option<Writer<f64>>,
    column: String,
    width: Option<usize>,
    all_integers: bool,
    /// Class names by the number they have in the file until they are sorted.
    known: HashMap<String, usize>,
    counts: HashMap<u64, u64>,
    rows: u64,
    values: u64,
    min: f64,
    max: f64,
    sum: f64,
}

impl LabelSink {
    fn create(dir: &Path, roles: &Roles) -> Result<Self> {
        Ok(Self {
            mode: roles.label.as_ref().map(|l| l.1),
            lists: roles.lists,
            out: match &roles.label {
                Some(_) => Some(Writer::create(dir.join(names::LABELS))?),
                None => None,
            },
            column: roles.label.as_ref().map(|l| l.0.clone()).unwrap_or_default(),
            width: None,
            all_integers: true,
            known: HashMap::new(),
            counts: HashMap::new(),
            rows: 0,
            values: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
        })
    }

    /// All rows' labels have to be of one width, the first row's, unless they belong to lists of texts.
    fn check(&mut self, row: Usable) -> Result<Usable, Problem> {
        if self.lists {
            return Ok(row);
        }
        let width = match &row.label {
            Label::None => return Ok(row),
            Label::Number(..) | Label::Name(_) => 0,
            Label::List(list) => list.len(),
        };
        match *self.width.get_or_insert(width) {
            wanted if wanted == width => Ok(row),
            wanted => {
                let show = |w: usize| {
                    if w == 0 { "one label".to_owned() } else { format!("{w} labels") }
                };
                let text = format!("{} where the first row has {}", show(width), show(wanted));
                Err(Problem::cell(Reason::BadLabel, &self.column, text))
            }
        }
    }

    fn write(&mut self, label: &Label) -> Result<()> {
        let number;
        let values: &[f64] = match label {
            Label::None => return Ok(()),
            Label::Number(x, integer) => {
                self.all_integers &= *integer;
                number = [*x];
                &number
            }
            Label::Name(name) => {
                let next = self.known.len();
                if next >= MOST_NAMES && !self.known.contains_key(name) {
                    let text = format!("the label column `{}` has more than 100,000 different texts", self.column);
                    return Err(Error::data(text).with_hint("name another column with `label`"));
                }
                number = [*self.known.entry(name.clone()).or_insert(next) as f64];
                &number
            }
            Label::List(list) => list,
        };
        if let Some(out) = &mut self.out {
            out.push(values)?;
        }
        self.rows += 1;
        for x in values {
            self.values += 1;
            (self.min, self.max, self.sum) = (self.min.min(*x), self.max.max(*x), self.sum + x);
            // One more than are shown tells that there are too many.
            if self.counts.len() <= MOST_CLASSES || !self.known.is_empty() {
                *self.counts.entry((x + 0.0).to_bits()).or_default() += 1;
            }
        }
        Ok(())
    }

    fn finish(self, dir: &Path, roles: &Roles, report: &mut DataReport) -> Result<Option<(LabelForm, usize)>> {
        let (Some(out), Some((column, _)), Some(mode)) = (self.out, &roles.label, self.mode) else {
            return Ok(None);
        };
        out.finish()?;
        let width = self.width.unwrap_or(0);
        let form = match mode {
            _ if self.lists => LabelForm::Lists,
            _ if width > 0 => LabelForm::Matrix,
            LabelMode::Class | LabelMode::ClassName => LabelForm::Int,
            LabelMode::Any if self.all_integers => LabelForm::Int,
            _ => LabelForm::Float,
        };
        let (mut sum, mut counts) = (self.sum, self.counts);
        let mut class_names: Vec<(String, usize)> = self.known.into_iter().collect();
        if !class_names.is_empty() {
            class_names.sort();
            // From the number by first appearance to the one by name.
            let mut number = vec![0.0; class_names.len()];
            for (sorted, (_, first)) in class_names.iter().enumerate() {
                number[*first] = sorted as f64;
            }
            renumber(dir, self.rows, &number)?;
            let map = |(x, n): (u64, u64)| (number[f64::from_bits(x) as usize], n);
            let mapped: Vec<(f64, u64)> = counts.into_iter().map(map).collect();
            sum = mapped.iter().map(|(x, n)| x * *n as f64).sum();
            counts = mapped.into_iter().map(|(x, n)| (x.to_bits(), n)).collect();
            let shown: Vec<String> =
                class_names.iter().take(10).enumerate().map(|(i, (name, _))| format!("`{name}` is {i}")).collect();
            let more = if class_names.len() > shown.len() { ", …" } else { "" };
            report.notes.push(format!("labels of `{column}` are numbered by name: {}{more}", shown.join(", ")));
        }
        let mut classes: Vec<(f64, u64)> = counts.into_iter().map(|(x, n)| (f64::from_bits(x), n)).collect();
        classes.sort_by(|a, b| a.0.total_cmp(&b.0));
        if classes.len() > MOST_CLASSES {
            classes.clear();
        }
        report.label = Some(LabelReport {
            column: column.clone(),
            kind: form.name().to_owned(),
            min: self.min,
            max: self.max,
            mean: sum / self.values.max(1) as f64,
            classes,
            names: class_names.into_iter().map(|c| c.0).collect(),
        });
        Ok(Some((form, width.max(1))))
    }
}

/// Rewrites the label file with each number replaced.
fn renumber(dir: &Path, rows: u64, number: &[f64]) -> Result<()> {
    let path = dir.join(names::LABELS);
    let first = dir.join("labels.first");
    std::fs::rename(&path, &first).map_err(Error::io("rename", &path))?;
    let old = Mapped::<f64>::open(&first, rows)?;
    let mut out = Writer::create(path)?;
    for chunk in old.slice().chunks(BLOCK_ROWS) {
        let new: Vec<f64> = chunk.iter().map(|x| number.get(*x as usize).copied().unwrap_or(*x)).collect();
        out.push(&new)?;
    }
    out.finish()?;
    drop(old);
    std::fs::remove_file(&first).map_err(Error::io("remove", &first))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn repetition_is_counted_over_slices() {
        let n = 9_000_000u64;
        // Every value once, and the first third twice more.
        let values = (0..n).chain(0..n / 3).chain(0..n / 3);
        assert_eq!(repeated(values, n + 2 * (n / 3)), 2 * (n / 3));
        assert_eq!(repeated(std::iter::empty(), 0), 0);
    }
}
