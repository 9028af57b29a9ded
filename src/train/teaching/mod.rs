//! A teacher's embeddings or scores for the rows of a data set, written beside them: labels to distil with.
//!
//! Rows are read once to be checked and once to be taught, some at a time; what is done stands in a file beside the
//! output, and a call that was interrupted goes on there.

mod draft;
mod in_run;
mod labels;
mod subject;

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use self::draft::{Draft, Origin};
pub(super) use self::in_run::local_plan;
pub use self::subject::{Subject, Wanted};
use crate::data::OnBadRow;
use crate::error::{Error, Result};
use crate::eval::shared::{self, DOCUMENT, QUERY};
use crate::flow::{ActivationFn, Encode, EncodeOptions};
use crate::model::{SentenceTransformer, roles};
use crate::recipe::teacher::Teacher;
use crate::util::progress::Progress;
use crate::util::{files, interrupt};

/// Rows that are taught, written and safe at a time.
const ROWS: u64 = 1024;

/// How it is taught.
#[derive(Debug, Clone)]
pub struct Teaching {
    pub on_bad_row: OnBadRow,
    /// Of rerankers: what is applied to logits.
    pub activation_fn: ActivationFn,
    /// How queries and single texts are encoded, and how documents.
    pub query: EncodeOptions,
    pub document: EncodeOptions,
}

impl Teaching {
    /// As the teacher is to be asked, with its own prompts where none are given.
    ///
    /// # Errors
    /// When it cannot be asked so.
    pub fn new(
        subject: &Subject,
        asked: &Teacher,
        teacher: &SentenceTransformer,
        on_bad_row: OnBadRow,
    ) -> Result<Self> {
        let embeds = subject.lesson().embeds();
        asked.check_lesson(subject.lesson())?;
        subject.check_teacher(teacher)?;
        let scores_pairs = teacher.predictor().is_some();
        if scores_pairs && (asked.corpus_prompt.is_some() || asked.corpus_prompt_name.is_some()) {
            return Err(Error::usage(format!(
                "a {} has one prompt, before the pair: `corpus_prompt` and `corpus_prompt_name` mean nothing to it",
                teacher.kind()
            ))
            .with_hint("give it with `query_prompt` or `query_prompt_name`"));
        }
        if !scores_pairs && asked.activation_fn != ActivationFn::Identity {
            return Err(Error::usage(format!(
                "`activation_fn` is for rerankers, and the teacher is a {}",
                teacher.kind()
            ))
            .with_hint("leave it out"));
        }
        let own = EncodeOptions {
            bf16: asked.bf16,
            truncate_dim: asked.truncate_dim,
            normalize: asked.normalize,
            ..EncodeOptions::default()
        };
        let name = asked.query_prompt_name.as_deref();
        let (query, document) = if scores_pairs || embeds {
            let plain = roles::named_options(teacher, asked.query_prompt.clone(), name, ("query_prompt", "teaching"))?;
            (EncodeOptions { prompt: plain.prompt, task: plain.task, ..own }, EncodeOptions::default())
        } else {
            let of = |role: &str, text: Option<&str>, name: Option<&str>| -> Result<EncodeOptions> {
                let prompt = shared::prompt(teacher, text, name, role)?;
                Ok(EncodeOptions { prompt, task: Some(role.to_owned()), ..own.clone() })
            };
            let query = of(QUERY, asked.query_prompt.as_deref(), name)?;
            (query, of(DOCUMENT, asked.corpus_prompt.as_deref(), asked.corpus_prompt_name.as_deref())?)
        };
        Ok(Self { on_bad_row, activation_fn: asked.activation_fn, query, document })
    }
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
    let (usable, skipped) = subject.count(teaching.on_bad_row)?;
    let (mut draft, notice) = Draft::open(output, &origin(subject, teaching, key)?, subject.label())?;
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
        let left = subject.limit().saturating_sub(draft.rows() as u64);
        while (block.len() as u64) < left.min(ROWS)
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
            draft.add(&labels::line(subject, texts, label)?, label.numbers())?;
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
    let settings =
        format!("{teaching:?} {:?} {:?} {} {}", subject.columns(), subject.lesson(), subject.label(), subject.limit());
    Ok(Origin { teacher: hash(key), data: hash(&data), settings: hash(&settings) })
}
