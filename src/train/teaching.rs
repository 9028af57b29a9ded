//! A teacher's embeddings or scores for the rows of a data set, written beside them: labels to distil with.
//!
//! Rows are read once to be checked and once to be taught, some at a time; what is done stands in a file beside the
//! output, and a call that was interrupted goes on there.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::data::OnBadRow;
use crate::data::columns::LABEL_COLUMNS;
use crate::data::probe::{ColumnKind, probe};
use crate::data::report::BadRows;
use crate::data::source::{Cells, Files, Place, Problem, Reason, Rows, Value};
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Encode, EncodeOptions, score_not_finite};
use crate::model::SentenceTransformer;
use crate::scoring::Similarity;
use crate::scoring::rows::Rows as Embedded;
use crate::util::progress::Progress;
use crate::util::{files, interrupt};

/// Rows that are taught, written and safe at a time.
const ROWS: usize = 1024;

/// What a teacher writes beside each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Lesson {
    /// The first column's embedding, a list: for MSELoss, EmbedDistillLoss and SparseMSELoss. With a translation as the
    /// second column a model learns another language.
    Embedding,
    /// Every column's embedding, one after the other, a list: for EmbedDistillLoss.
    Embeddings,
    /// How well two texts belong together, a number: for MSELoss of rerankers, CoSENTLoss.
    Score,
    /// The score of the second column less that of each column after it, with the first as the query; a number, or a list
    /// for several: for MarginMSELoss.
    Margin,
    /// The score of each column after the first, or of each text of a list, a list: for DistillKLDivLoss, MarginMSELoss and
    /// the losses of rerankers on lists.
    Scores,
}

impl Lesson {
    /// What fits the columns, where nothing was asked for.
    fn of(columns: usize, lists: bool) -> Self {
        match (columns, lists) {
            (_, true) => Self::Scores,
            (1, _) => Self::Embedding,
            (2, _) => Self::Score,
            (3, _) => Self::Margin,
            _ => Self::Scores,
        }
    }

    /// Its name in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Embeddings => "embeddings",
            Self::Score => "score",
            Self::Margin => "margin",
            Self::Scores => "scores",
        }
    }

    fn embeds(self) -> bool {
        matches!(self, Self::Embedding | Self::Embeddings)
    }
}

/// What to teach.
#[derive(Debug, Clone)]
pub struct Teaching {
    /// Files, globs and directories.
    pub paths: Vec<PathBuf>,
    /// The columns with texts, the query first; all text columns without. The last may hold lists.
    pub columns: Vec<String>,
    /// What is written; what fits the columns without.
    pub lesson: Option<Lesson>,
    /// The name of the column that is added.
    pub label: String,
    pub on_bad_row: OnBadRow,
    /// Of rerankers: what is applied to logits.
    pub activation_fn: ActivationFn,
    /// How queries and single texts are encoded, and how documents.
    pub query: EncodeOptions,
    pub document: EncodeOptions,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Taught {
    pub rows: usize,
    /// Rows that a call before this one had taught.
    pub resumed: usize,
    pub lesson: Lesson,
    pub columns: Vec<String>,
    /// Columns of the data that are not written.
    pub left_out: Vec<String>,
    /// Of scores and margins: the least, the mean and the largest.
    pub range: Option<(f64, f64, f64)>,
}

/// A row's texts: one a column, of the last column perhaps several.
type Texts = Vec<Vec<String>>;

struct Reader<'a> {
    files: &'a Files,
    columns: &'a [String],
    lists: bool,
}

impl Reader<'_> {
    fn rows(&self) -> Rows<'_> {
        Rows::new(self.files, Some(self.columns.to_vec()))
    }

    fn texts(&self, cells: &Cells) -> Result<Texts, Problem> {
        let last = self.columns.len().saturating_sub(1);
        let column = |(i, name): (usize, &String)| {
            let cell = cells.iter().find(|(column, _)| column.as_ref() == name.as_str()).map(|(_, value)| value);
            let filled = |text: &String| match text.trim().is_empty() {
                true => Err(Problem::cell(Reason::EmptyText, name, "empty text")),
                false => Ok(text.clone()),
            };
            match cell {
                Some(Value::Text(text)) if !(self.lists && i == last) => Ok(vec![filled(text)?]),
                Some(Value::Texts(texts)) if self.lists && i == last && !texts.is_empty() => {
                    texts.iter().map(filled).collect()
                }
                Some(Value::Null) => Err(Problem::cell(Reason::Null, name, "null instead of text")),
                Some(other) => {
                    let wanted = if self.lists && i == last { "a list of texts" } else { "text" };
                    Err(Problem::cell(Reason::WrongType, name, format!("{} instead of {wanted}", other.kind())))
                }
                None => Err(Problem::cell(Reason::MissingColumn, name, "missing")),
            }
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    /// How many rows can be taught.
    fn check(&self, on_bad_row: OnBadRow) -> Result<usize> {
        let mut bad = BadRows::new(on_bad_row);
        let (mut read, mut usable) = (0, 0);
        let mut rows = self.rows();
        while let Some((place, cells)) = rows.next_row()? {
            read += 1;
            match cells.and_then(|cells| self.texts(&cells)) {
                Ok(_) => usable += 1,
                Err(problem) => bad.add(place, &problem),
            }
        }
        bad.finish(self.files, read)
            .map_err(|e| e.with_hint("correct them, or leave them out with `--on-bad-row skip`"))?;
        match usable {
            0 => Err(Error::data(format!("no usable rows in {}", self.files.describe()))),
            usable => Ok(usable),
        }
    }
}

/// Writes the rows of a data set with what a teacher says of them to `output`, as JSON lines; `key` changes with the
/// teacher's weights.
///
/// # Errors
/// When rows cannot be used, the teacher cannot say what is asked for, or the file cannot be written; what was taught is
/// kept beside it.
pub fn teach(teaching: &Teaching, teacher: &SentenceTransformer, key: &str, output: &Path) -> Result<Taught> {
    let paths: Vec<String> = teaching.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let found = Files::resolve(&paths, Path::new(""))?;
    let known = probe(&found)?;
    let named = |name: &str| known.iter().find(|column| column.name == name);
    let columns: Vec<String> = match teaching.columns.as_slice() {
        [] => known
            .iter()
            .filter(|c| {
                matches!(c.kind, ColumnKind::Text | ColumnKind::Texts) && !LABEL_COLUMNS.contains(&c.name.as_str())
            })
            .map(|column| column.name.clone())
            .collect(),
        columns => columns.to_vec(),
    };
    if let Some(missing) = columns.iter().find(|name| named(name).is_none()) {
        let all: Vec<String> = known.iter().map(|column| format!("`{}`", column.name)).collect();
        return Err(Error::data(format!("{} has no column `{missing}`", found.describe()))
            .with_hint(format!("there are {}", all.join(", "))));
    }
    let lists = columns.last().and_then(|name| named(name)).is_some_and(|column| column.kind == ColumnKind::Texts);
    let lesson = teaching.lesson.unwrap_or_else(|| Lesson::of(columns.len(), lists));
    fits(lesson, &columns, lists, teacher)?;
    if columns.contains(&teaching.label) {
        return Err(Error::usage(format!("`{}` is a column of texts and the label's name", teaching.label))
            .with_hint("give the label another name with `--label`"));
    }
    let reader = Reader { files: &found, columns: &columns, lists };
    let usable = reader.check(teaching.on_bad_row)?;
    // everything that a label depends on
    let mut from = format!("{key} {teaching:?} {columns:?} {lesson:?}");
    for file in found.iter() {
        from += &files::fingerprint(&file.path)?;
    }
    let mut draft = Draft::open(output, &format!("{:032x}", xxh3_128(from.as_bytes())))?;
    let resumed = draft.rows;
    let progress = Progress::new("teaching", usable as u64);
    progress.set(resumed as u64);
    let mut rows = reader.rows();
    let (mut block, mut skip): (Vec<(Place, Texts)>, usize) = (Vec::new(), resumed);
    loop {
        let next = rows.next_row()?;
        let done = next.is_none();
        if let Some((place, Ok(cells))) = next
            && let Ok(texts) = reader.texts(&cells)
        {
            if skip > 0 {
                skip -= 1;
            } else {
                block.push((place, texts));
            }
        }
        if block.len() == ROWS || (done && !block.is_empty()) {
            if interrupt::requested() {
                return Err(Error::cancelled(format!("stopped after {} of {usable} rows", draft.rows))
                    .with_hint("the same command goes on there"));
            }
            let labels = labels(lesson, &block, teacher, teaching)?;
            let lines = block
                .iter()
                .zip(&labels)
                .map(|((_, texts), label)| line(&columns, lists, texts, &teaching.label, label));
            draft.add(&lines.collect::<Result<Vec<_>>>()?)?;
            progress.inc(block.len() as u64);
            block.clear();
        }
        if done {
            break;
        }
    }
    progress.finish();
    let rows = draft.rows;
    let range = if lesson.embeds() { None } else { Some(draft.range(&teaching.label)?) };
    draft.publish(output)?;
    let left_out = known.into_iter().map(|column| column.name).filter(|name| !columns.contains(name)).collect();
    Ok(Taught { rows, resumed, lesson, columns, left_out, range })
}

/// Whether the teacher can say that of these columns.
fn fits(lesson: Lesson, columns: &[String], lists: bool, teacher: &SentenceTransformer) -> Result<()> {
    let shown: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
    let refuse = |text: String, hint: &str| Err(Error::usage(text).with_hint(hint));
    let scores = teacher.predictor();
    if lesson.embeds() {
        if scores.is_some() {
            return refuse(
                format!("a {} has no embeddings to teach", teacher.kind()),
                "teach its scores: `--labels score`, `margin` or `scores`",
            );
        }
        if teacher.multi_vector().is_some() {
            return refuse(
                format!("a {} has a vector for each token, which no loss takes as a label", teacher.kind()),
                "teach its scores: `--labels margin` or `scores`",
            );
        }
        if columns.is_empty() || lists {
            return refuse(
                format!("embeddings are of columns with a text a row, not of {}", shown.join(", ")),
                "name them with `--columns`",
            );
        }
        return Ok(());
    }
    if scores.is_some_and(|predictor| predictor.num_labels() != 1) {
        return refuse("the teacher gives a pair several scores".to_owned(), "give a CrossEncoder with one label");
    }
    let (least, most) = match lesson {
        Lesson::Score => (2, 2),
        Lesson::Margin => (3, usize::MAX),
        _ => (if lists { 2 } else { 3 }, if lists { 2 } else { usize::MAX }),
    };
    if columns.len() < least || columns.len() > most || (lists && lesson != Lesson::Scores) {
        return refuse(
            format!("`{}` cannot be taught of {} column(s): {}", lesson.name(), columns.len(), shown.join(", ")),
            "`score` is of two texts, `margin` of a query, a positive and negatives, `scores` of a query and documents or a \
             list of them: name the columns with `--columns`",
        );
    }
    Ok(())
}

/// What is written beside a row.
enum Label {
    One(f32),
    Several(Vec<f32>),
}

fn labels(
    lesson: Lesson,
    block: &[(Place, Texts)],
    teacher: &SentenceTransformer,
    teaching: &Teaching,
) -> Result<Vec<Label>> {
    if lesson.embeds() {
        let count = if lesson == Lesson::Embedding { 1 } else { block.first().map_or(0, |(_, texts)| texts.len()) };
        let texts: Vec<&str> =
            block.iter().flat_map(|(_, texts)| texts[..count].iter().map(|column| column[0].as_str())).collect();
        let embeddings = teacher.encode(&texts, &teaching.query)?;
        if let Some(at) = embeddings.data().iter().position(|value| !value.is_finite()) {
            return Err(crate::flow::embedding_not_finite(texts[at / embeddings.dim().max(1)]));
        }
        let width = (count * embeddings.dim()).max(1);
        return Ok(embeddings.data().chunks(width).map(|row| Label::Several(row.to_vec())).collect());
    }
    // a query with each of its documents
    let pairs: Vec<(&str, &str)> = block
        .iter()
        .flat_map(|(_, texts)| texts[1..].iter().flatten().map(|document| (texts[0][0].as_str(), document.as_str())))
        .collect();
    let scores = match teacher.predictor() {
        Some(predictor) => {
            let scores = predictor.predict(&pairs, Some(teaching.activation_fn), &teaching.query)?;
            scores.data().to_vec()
        }
        None => similarities(&pairs, teacher, teaching)?,
    };
    if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
        return Err(score_not_finite(pairs[at]));
    }
    let mut rest = scores.as_slice();
    let mut labels = Vec::with_capacity(block.len());
    for (_, texts) in block {
        let (own, others) = rest.split_at(texts[1..].iter().map(Vec::len).sum());
        rest = others;
        labels.push(match lesson {
            Lesson::Score => Label::One(own[0]),
            Lesson::Margin if own.len() == 2 => Label::One(own[0] - own[1]),
            Lesson::Margin => Label::Several(own[1..].iter().map(|negative| own[0] - negative).collect()),
            _ => Label::Several(own.to_vec()),
        });
    }
    Ok(labels)
}

/// The teacher's similarity of each pair; each text is encoded once.
fn similarities(pairs: &[(&str, &str)], teacher: &SentenceTransformer, teaching: &Teaching) -> Result<Vec<f32>> {
    let similarity: Similarity =
        teacher.similarity_fn_name().parse().map_err(|e: Error| e.within("the teacher's `similarity_fn_name`"))?;
    let numbered = |texts: &mut dyn Iterator<Item = &'_ str>| -> (Vec<String>, Vec<usize>) {
        let mut numbers = std::collections::HashMap::new();
        let mut all: Vec<String> = Vec::new();
        let places = texts
            .map(|text| {
                *numbers.entry(text.to_owned()).or_insert_with(|| {
                    all.push(text.to_owned());
                    all.len() - 1
                })
            })
            .collect();
        (all, places)
    };
    let (queries, a) = numbered(&mut pairs.iter().map(|pair| pair.0));
    let (documents, b) = numbered(&mut pairs.iter().map(|pair| pair.1));
    let encode = |texts: &[String], options: &EncodeOptions| -> Result<Embedded> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        crate::eval::shared::encode_rows(teacher, &texts, options)
    };
    let (queries, documents) = (encode(&queries, &teaching.query)?, encode(&documents, &teaching.document)?);
    Ok(queries.pairwise(similarity, &a, &documents, &b))
}

/// A row as JSON; numbers as short as f32 has them.
fn line(columns: &[String], lists: bool, texts: &Texts, label: &str, value: &Label) -> Result<String> {
    let json = |value: serde_json::Result<String>| value.map_err(|e| Error::Internal(format!("a row as JSON: {e}")));
    let mut line = String::from("{");
    for (i, (name, cell)) in columns.iter().zip(texts).enumerate() {
        line += &json(serde_json::to_string(name))?;
        line.push(':');
        line += &match cell.as_slice() {
            [text] if !(lists && i + 1 == columns.len()) => json(serde_json::to_string(text))?,
            several => json(serde_json::to_string(several))?,
        };
        line.push(',');
    }
    line += &json(serde_json::to_string(label))?;
    line.push(':');
    line += &json(match value {
        Label::One(number) => serde_json::to_string(number),
        Label::Several(numbers) => serde_json::to_string(numbers),
    })?;
    line.push('}');
    Ok(line)
}

/// The rows so far, in a file beside the output that says what they are made of.
struct Draft {
    path: PathBuf,
    notes: PathBuf,
    file: BufWriter<File>,
    rows: usize,
}

impl Draft {
    fn open(output: &Path, from: &str) -> Result<Self> {
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = output.with_file_name(format!(".{name}.part"));
        let notes = output.with_file_name(format!(".{name}.part-of"));
        let goes_on = path.exists() && notes.exists() && files::read_text(&notes)? == from;
        let mut rows = 0;
        if goes_on {
            // whole lines count; what was being written when the process ended does not
            let mut reader = BufReader::new(files::open(&path)?);
            let (mut bytes, mut whole) = (Vec::new(), 0u64);
            loop {
                bytes.clear();
                let read = reader.read_until(b'\n', &mut bytes).map_err(Error::io("read", &path))?;
                if read == 0 || bytes.last() != Some(&b'\n') {
                    break;
                }
                whole += read as u64;
                rows += 1;
            }
            let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?;
            file.set_len(whole).map_err(Error::io("write", &path))?;
        } else {
            drop(files::create(&path)?);
            files::write_atomic(&notes, from.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io("open", &path))?;
        if file.try_lock().is_err() {
            return Err(Error::usage(format!("another process is writing `{}`", output.display()))
                .with_hint("wait for it, or name another `--output`"));
        }
        Ok(Self { path, notes, file: BufWriter::new(file), rows })
    }

    fn add(&mut self, lines: &[String]) -> Result<()> {
        for line in lines {
            writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))?;
        }
        self.file.flush().map_err(Error::io("write", &self.path))?;
        self.rows += lines.len();
        Ok(())
    }

    /// The least, the mean and the largest of all labels.
    fn range(&self, label: &str) -> Result<(f64, f64, f64)> {
        let (mut least, mut sum, mut most, mut count) = (f64::INFINITY, 0.0, f64::NEG_INFINITY, 0usize);
        for line in BufReader::new(files::open(&self.path)?).lines() {
            let line = line.map_err(Error::io("read", &self.path))?;
            let row: serde_json::Value =
                serde_json::from_str(&line).map_err(|e| Error::Internal(format!("a row that was written: {e}")))?;
            let numbers = match &row[label] {
                serde_json::Value::Array(numbers) => numbers.iter().filter_map(serde_json::Value::as_f64).collect(),
                number => number.as_f64().into_iter().collect::<Vec<f64>>(),
            };
            for number in numbers {
                (least, sum, most, count) = (least.min(number), sum + number, most.max(number), count + 1);
            }
        }
        Ok((least, sum / count.max(1) as f64, most))
    }

    fn publish(self, output: &Path) -> Result<()> {
        drop(self.file);
        std::fs::rename(&self.path, output).map_err(Error::io("write", output))?;
        let _ = std::fs::remove_file(&self.notes);
        Ok(())
    }
}
