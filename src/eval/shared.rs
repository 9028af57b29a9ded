//! What evaluators share: which similarities to use, prompts, encoding, the name in front of keys.

use super::metrics::correlation::ranks;
use crate::error::{Error, Result};
use crate::flow::{Embeddings, Encode, EncodeOptions, Look, MultiVectors, Scores};
use crate::scoring::Similarity;
use crate::scoring::rows::Rows;

/// `key` with the evaluator's name in front, if it has one.
#[must_use]
pub fn prefixed(name: &str, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { format!("{name}_{key}") }
}

/// Each item once, in the order they came.
#[must_use]
pub fn unique<T: Copy + PartialEq>(items: &[T]) -> Vec<T> {
    let mut seen = Vec::with_capacity(items.len());
    for item in items {
        if !seen.contains(item) {
            seen.push(*item);
        }
    }
    seen
}

/// The similarity functions to evaluate: those named, else the main one, else the model's.
///
/// # Errors
/// [`Error::Usage`] when it is the model's and has a name evaluators of single vectors do not know.
pub fn similarities(named: Option<&[Similarity]>, main: Option<Similarity>, model: &str) -> Result<Vec<Similarity>> {
    match (named.filter(|named| !named.is_empty()), main) {
        (Some(named), _) => Ok(unique(named)),
        (None, Some(main)) => Ok(vec![main]),
        (None, None) => Ok(vec![model.parse().map_err(|e: Error| e.within("the model's `similarity_fn_name`"))?]),
    }
}

/// Refuses a main similarity that is not among those named, whose metric would never be made.
///
/// # Errors
/// [`Error::Usage`] naming both keys.
pub fn check_main(named: (&str, Option<&[Similarity]>), main: (&str, Option<Similarity>)) -> Result<()> {
    match (named.1.filter(|named| !named.is_empty()), main.1) {
        (Some(list), Some(function)) if !list.contains(&function) => {
            Err(Error::usage(format!("`{}` is `{function}`, which is not among `{}`", main.0, named.0))
                .with_hint(format!("add it to `{}`, or leave `{}` out", named.0, named.0)))
        }
        _ => Ok(()),
    }
}

/// Refuses a `truncate_dim` of 0.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_truncate_dim(truncate_dim: Option<usize>) -> Result<()> {
    match truncate_dim {
        Some(0) => Err(Error::usage("`truncate_dim` must be at least 1, got 0")),
        _ => Ok(()),
    }
}

/// Refuses columns of different lengths and empty ones.
///
/// # Errors
/// [`Error::Data`] with the lengths.
pub fn check_columns(columns: &[(&str, usize)]) -> Result<()> {
    let lengths: Vec<String> = columns.iter().map(|(name, len)| format!("{len} `{name}`")).collect();
    let first = columns.first().map_or(0, |(_, len)| *len);
    if first == 0 || columns.iter().any(|(_, len)| *len != first) {
        return Err(Error::data(format!("columns must be equally long and not empty: {}", lengths.join(", "))));
    }
    Ok(())
}

/// Refuses scores that are no numbers.
///
/// # Errors
/// [`Error::Data`] naming the row.
pub fn check_scores(scores: &[f64]) -> Result<()> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(row) => Err(Error::data(format!("row {}: `score` is not a finite number", row + 1))),
        None => Ok(()),
    }
}

/// What is put in front of texts of a role: the prompt as given, the model's prompt of the given name, or the model's
/// prompt for the role; a model without one gets nothing, not its default prompt, as the reference's `encode_query` and
/// `encode_document` do.
///
/// # Errors
/// [`Error::Usage`] when the model has no prompt of that name.
pub fn prompt(model: &dyn Encode, given: Option<&str>, name: Option<&str>, role: &str) -> Result<Option<String>> {
    match (given, name) {
        (Some(given), _) => Ok(Some(given.to_owned())),
        (None, Some(name)) => match model.named_prompt(name) {
            Some(prompt) => Ok(Some(prompt)),
            None => Err(Error::usage(format!("the model has no prompt `{name}`"))
                .with_hint("give the text itself as a prompt instead of a prompt's name")),
        },
        (None, None) => Ok(Some(model.named_prompt(role).unwrap_or_default())),
    }
}

/// What the texts of an item of a ranking are, for [`Look`](crate::flow::Look).
pub const RANKED: [&str; 3] = ["query", "relevant document", "found first"];
/// What the pairs of a ranking are.
pub const DOCUMENTS: [&str; 2] = ["relevant documents", "other documents"];

/// What the pairs of a classification in two are.
pub const PAIRS: [&str; 2] = ["positive pairs", "negative pairs"];

/// What pairs are scored by, for people.
#[must_use]
pub fn scored_by(similarity: Similarity) -> String {
    match similarity {
        Similarity::Dot => "dot product".to_owned(),
        Similarity::Euclidean | Similarity::Manhattan => format!("{similarity} distance, negative"),
        _ => format!("{similarity} similarity"),
    }
}

/// A look at scored pairs with a label each: the pairs whose labels are above `middle` should score high.
///
/// An item's value is how near the pair's place by score is to its place by label, equal ones in the middle of their
/// places: 0 is the same place and -1 the farthest. The labels are classes where `two` names them.
#[must_use]
pub fn look_at_pairs<'a>(
    key: &str,
    scored_by: &str,
    labels: &[f64],
    scores: &[f64],
    two: Option<[&str; 2]>,
    text: impl Fn(usize) -> [&'a str; 2],
) -> Look {
    let (least, most) = labels.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    let middle = f64::midpoint(least, most);
    let (wanted, got) = (ranks(labels), ranks(scores));
    let mut look = Look::new(key, "agreement in rank", &["first text", "second text", "label"], scores.len());
    let last = scores.len().saturating_sub(1).max(1) as f64;
    for i in look.chosen() {
        let value = -(wanted[i] - got[i]).abs() / last;
        let [first, second] = text(i);
        look.push(value, &[first, second, &format!("{}", (labels[i] * 1e4).round() / 1e4)]);
    }
    let sides = match two {
        Some(names) => names.map(str::to_owned),
        None => [format!("labels above {middle:.2}"), format!("labels up to {middle:.2}")],
    };
    let pairs = scores.iter().zip(labels).map(|(score, label)| (*score as f32, *label > middle));
    look.with_scores(Scores::new(scored_by, sides, pairs))
}

/// The role of queries and anchors.
pub const QUERY: &str = "query";
/// The role of documents, positives and negatives.
pub const DOCUMENT: &str = "document";

/// The embeddings of a column, cut to `truncate_dim`: with the model's prompt for a role, or of no role with its default
/// prompt.
///
/// # Errors
/// As [`encode`].
pub fn embed(
    model: &dyn Encode,
    texts: &[String],
    role: Option<&str>,
    truncate_dim: Option<usize>,
) -> Result<Embeddings> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let prompt = role.map(|role| prompt(model, None, None, role)).transpose()?.flatten();
    let task = role.map(str::to_owned);
    encode(model, &texts, &EncodeOptions { prompt, task, truncate_dim, ..Default::default() })
}

/// As [`embed`], sparse where the model's embeddings are: for evaluators that compare rows.
///
/// # Errors
/// As [`encode`].
pub fn embed_rows(
    model: &dyn Encode,
    texts: &[String],
    role: Option<&str>,
    truncate_dim: Option<usize>,
) -> Result<Rows> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let prompt = role.map(|role| prompt(model, None, None, role)).transpose()?.flatten();
    let task = role.map(str::to_owned);
    Rows::encode(model, &texts, &EncodeOptions { prompt, task, truncate_dim, ..Default::default() })
}

/// `_name`, or nothing for no name: the part of a CSV file's name.
#[must_use]
pub fn part(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("_{name}") }
}

/// Encodes and checks what came: one row a text, all values finite.
///
/// # Errors
/// The model's, or [`Error::Model`] naming the first text whose embedding is not finite.
pub fn encode(model: &dyn Encode, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
    match Rows::Dense(model.encode(texts, options)?).checked(texts)? {
        Rows::Dense(embeddings) => Ok(embeddings),
        Rows::Sparse(embeddings) => Ok(embeddings.to_dense()),
        Rows::Tokens(_) => Err(Error::Internal("single vectors became several".to_owned())),
    }
}

/// As [`encode`], of a model with a vector for each token.
///
/// # Errors
/// As there, and when the model has one vector a text.
pub fn encode_tokens(model: &dyn Encode, texts: &[&str], options: &EncodeOptions) -> Result<MultiVectors> {
    match Rows::encode(model, texts, options)? {
        Rows::Tokens(vectors) => Ok(vectors),
        _ => Err(Error::usage("the model has one vector a text, and texts are to be compared token by token")
            .with_hint("give a MultiVectorEncoder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pairs_value_goes_by_its_place_and_not_by_the_size_of_scores() {
        let values = |scores: &[f64]| -> Vec<f64> {
            let look = look_at_pairs("x", "score", &[1.0, 0.0, 1.0, 0.0], scores, Some(PAIRS), |_| ["a", "b"]);
            look.items.iter().map(|item| item.value).collect()
        };
        let right = values(&[0.9, 0.1, 0.8, 0.2]);
        assert_eq!(right, values(&[9.0, 1.0, 8.0, 2.0]));
        let wrong = values(&[0.9, 0.85, 0.1, 0.2]);
        assert!(wrong[1] < right[1] && wrong[2] < right[2], "{wrong:?}, right {right:?}");
    }
}
