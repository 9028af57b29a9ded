//! What a teacher says of rows, as numbers and as lines of a file.

use std::collections::HashMap;

use super::Teaching;
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::flow::{Encode, embedding_not_finite, score_not_finite};
use crate::model::SentenceTransformer;
use crate::recipe::teacher::Lesson;
use crate::scoring::Similarity;
use crate::scoring::rows::Rows;

/// What is written beside a row.
pub(super) enum Label {
    One(f32),
    Several(Vec<f32>),
}

impl Label {
    /// All its numbers.
    pub fn numbers(&self) -> &[f32] {
        match self {
            Self::One(number) => std::slice::from_ref(number),
            Self::Several(numbers) => numbers,
        }
    }
}

/// What a teacher says of some rows: the texts of each, the query first.
///
/// # Errors
/// The teacher's, and when something it says is no finite number.
pub(super) fn labels(
    lesson: Lesson,
    block: &[Vec<String>],
    teacher: &SentenceTransformer,
    teaching: &Teaching,
) -> Result<Vec<Label>> {
    if lesson.embeds() {
        let count = if lesson == Lesson::Embedding { 1 } else { block.first().map_or(0, Vec::len) };
        let texts: Vec<&str> = block.iter().flat_map(|texts| texts[..count].iter().map(String::as_str)).collect();
        let embeddings = teacher.encode(&texts, &teaching.query)?;
        if let Some(at) = embeddings.data().iter().position(|value| !value.is_finite()) {
            return Err(embedding_not_finite(texts[at / embeddings.dim().max(1)]));
        }
        let width = (count * embeddings.dim()).max(1);
        return Ok(embeddings.data().chunks(width).map(|row| Label::Several(row.to_vec())).collect());
    }
    // a query with each of its documents
    let pairs: Vec<(&str, &str)> = block
        .iter()
        .flat_map(|texts| texts[1..].iter().map(|document| (texts[0].as_str(), document.as_str())))
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
    for texts in block {
        let (own, others) = rest.split_at(texts.len() - 1);
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
    let (queries, a) = numbered(pairs.iter().map(|pair| pair.0));
    let (documents, b) = numbered(pairs.iter().map(|pair| pair.1));
    let queries = Rows::encode(teacher, &queries, &teaching.query)?;
    let documents = Rows::encode(teacher, &documents, &teaching.document)?;
    Ok(queries.pairwise(similarity, &a, &documents, &b))
}

/// Each text once, and which of them stands where.
fn numbered<'a>(texts: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, Vec<usize>) {
    let mut numbers = HashMap::new();
    let mut all = Vec::new();
    let places = texts
        .map(|text| {
            *numbers.entry(text).or_insert_with(|| {
                all.push(text);
                all.len() - 1
            })
        })
        .collect();
    (all, places)
}

/// A row as JSON; numbers as short as f32 has them.
///
/// # Errors
/// Never, as all of it can be written as JSON.
pub(super) fn line(subject: &Subject, texts: &[String], value: &Label) -> Result<String> {
    let json = |value: serde_json::Result<String>| value.map_err(|e| Error::Internal(format!("a row as JSON: {e}")));
    let columns = subject.columns();
    let mut line = String::from("{");
    for (i, name) in columns.iter().enumerate() {
        line += &json(serde_json::to_string(name))?;
        line.push(':');
        line += &json(match subject.lists() && i + 1 == columns.len() {
            true => serde_json::to_string(&texts[i..]),
            false => serde_json::to_string(&texts[i]),
        })?;
        line.push(',');
    }
    line += &json(serde_json::to_string(subject.label()))?;
    line.push(':');
    line += &json(match value {
        Label::One(number) => serde_json::to_string(number),
        Label::Several(numbers) => serde_json::to_string(numbers),
    })?;
    line.push('}');
    Ok(line)
}
