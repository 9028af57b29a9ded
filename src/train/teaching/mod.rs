//! A teacher's embeddings or scores for the rows of a data set, written beside them: labels to distil with.
//!
//! Rows are read once to be checked and once to be taught, some at a time; what is done stands in a file beside the
//! output, and a call that was interrupted goes on there.

mod draft;
mod labels;
mod subject;

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use self::draft::{Draft, Origin};
pub use self::subject::{Lesson, Subject};
use crate::data::OnBadRow;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, EncodeOptions};
use crate::model::SentenceTransformer;
use crate::util::progress::Progress;
use crate::util::{files, interrupt};

/// Rows that are taught, written and safe at a time.
const ROWS: usize = 1024;

/// How it is taught.
#[derive(Debug, Clone)]
pub struct Teaching {
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
    /// Rows that could not be used.
    pub skipped: u64,
    /// Of scores and margins: the least, the mean and the largest.
    pub range: Option<(f64, f64, f64)>,
}

/// Writes the rows of a data set with what a teacher says of them to `output`, as JSON lines; `key` changes with the
/// teacher's weights. What the user should know at once goes to `say`.
///
/// # Errors
/// When rows cannot be used, the teacher cannot say what is asked for, or the file cannot be written; what was taught is
/// kept beside it.
pub fn teach(
    subject: &Subject,
    teaching: &Teaching,
    teacher: &SentenceTransformer,
    key: &str,
    output: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Taught> {
    subject.check_teacher(teacher)?;
    let (usable, skipped) = subject.count(teaching.on_bad_row)?;
    let (mut draft, notice) = Draft::open(output, &origin(subject, teaching, key)?, &teaching.label)?;
    notice.iter().for_each(|notice| say(notice));
    let resumed = draft.rows();
    let progress = Progress::new("teaching", usable as u64);
    progress.set(resumed as u64);
    let mut rows = subject.rows(teaching.on_bad_row);
    for _ in 0..resumed {
        rows.next_row()?;
    }
    loop {
        let mut block = Vec::new();
        while block.len() < ROWS
            && let Some(row) = rows.next_row()?
        {
            block.push(row.texts);
        }
        if block.is_empty() {
            break;
        }
        if interrupt::requested() {
            return Err(Error::cancelled(format!("stopped after {} of {usable} rows", draft.rows()))
                .with_hint("the same command goes on there"));
        }
        let labels = labels::labels(subject.lesson(), &block, teacher, teaching)?;
        for (texts, label) in block.iter().zip(&labels) {
            draft.add(&labels::line(subject, texts, &teaching.label, label)?, label.numbers())?;
        }
        draft.flush()?;
        progress.inc(block.len() as u64);
    }
    progress.finish();
    let range = draft.spread().figures().filter(|_| !subject.lesson().embeds());
    let rows = draft.rows();
    draft.publish(output)?;
    Ok(Taught { rows, resumed, skipped, range })
}

/// Everything that a label depends on.
fn origin(subject: &Subject, teaching: &Teaching, key: &str) -> Result<Origin> {
    let hash = |text: &str| format!("{:032x}", xxh3_128(text.as_bytes()));
    let mut data = String::new();
    for path in subject.paths() {
        data += &files::fingerprint(path)?;
    }
    let settings = format!("{teaching:?} {:?} {:?}", subject.columns(), subject.lesson());
    Ok(Origin { teacher: hash(key), data: hash(&data), settings: hash(&settings) })
}
