//! What comes near to each anchor: by embeddings, by words, and as a reranker sees it.

use rayon::prelude::*;

use super::cache::Cache;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::flow::{Embeddings, Encode, EncodeOptions, Predict, embedding_not_finite, score_not_finite};
use crate::scoring::Similarity;
use crate::scoring::blocks::Hit;
use crate::scoring::bm25::Bm25;
use crate::scoring::rows::{Finder, Rows};
use crate::util::interrupt;
use crate::util::progress::Progress;

/// Texts that are encoded and compared at a time: bounds the memory for documents.
const CHUNK: usize = 4096;
/// As [`CHUNK`], where every token has a vector.
const CHUNK_OF_TOKENS: usize = 512;
/// Pairs that a reranker gets at a time.
const PAIRS: usize = 4096;
/// Anchors whose candidates are listed for it at a time.
const ANCHORS: usize = 64;

/// What is put in front of anchors and of documents; of models with a Router also which route they take.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    pub query: EncodeOptions,
    pub document: EncodeOptions,
}

/// Candidates, best first, and the scores of positives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// `[anchors]`: `rank` is the number of a document.
    pub candidates: Vec<Vec<Hit>>,
    /// `[anchors]`: one score for each of [`Pool::positives`].
    pub positives: Vec<Vec<f32>>,
}

/// The `k` documents nearest to each anchor, by the model's similarity of normalised embeddings. Exact; memory is that of
/// the anchors' embeddings, a chunk of the documents' and `k` candidates an anchor.
///
/// `cache` keeps dense embeddings on disk and has those of earlier calls.
///
/// # Errors
/// When a text does not fit the model, an embedding is not finite, or the cache cannot be written.
pub fn search(
    pool: &Pool,
    model: &dyn Encode,
    prompts: &Prompts,
    k: usize,
    mut cache: Option<&mut Cache>,
) -> Result<Found> {
    let similarity: Similarity =
        model.similarity_fn_name().parse().map_err(|e: Error| e.within("the model's `similarity_fn_name`"))?;
    let chunk = if model.multi_vector().is_some() { CHUNK_OF_TOKENS } else { CHUNK };
    let progress = Progress::new("encoding", (pool.queries().len() + pool.documents().len()) as u64);
    let mut encode = |texts: &[String], options: &EncodeOptions| -> Result<Rows> {
        if interrupt::requested() {
            return Err(Error::cancelled("mining was stopped"));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rows = match cache.as_deref_mut().filter(|_| dense(model)) {
            Some(cache) => Rows::Dense(cache.through(&texts, options, &mut |missing| {
                model.encode(missing, &EncodeOptions { normalize: true, ..options.clone() })
            })?),
            None => encoded(model, &texts, options)?,
        };
        progress.inc(texts.len() as u64);
        match rows.not_finite().and_then(|row| texts.get(row)) {
            Some(text) => Err(embedding_not_finite(text)),
            None if rows.rows() == texts.len() => Ok(rows),
            None => Err(Error::Internal(format!("{} texts gave {} embeddings", texts.len(), rows.rows()))),
        }
    };
    let mut queries: Option<Rows> = None;
    for texts in pool.queries().chunks(chunk) {
        let rows = encode(texts, &prompts.query)?;
        queries = Some(match queries {
            Some(before) => before.followed_by(rows)?,
            None => rows,
        });
    }
    let Some(queries) = queries else {
        return Ok(Found::default());
    };
    let pairs = by_document(pool);
    let mut positives: Vec<Vec<f32>> = pool.positives().iter().map(|p| vec![f32::NAN; p.len()]).collect();
    let mut finder = Finder::new(similarity, queries.clone(), k);
    let numbers: Vec<u32> = (0..).take(pool.documents().len()).collect();
    let mut begin = 0;
    for (texts, numbers) in pool.documents().chunks(chunk).zip(numbers.chunks(chunk)) {
        let rows = encode(texts, &prompts.document)?;
        let end =
            begin + pairs[begin..].partition_point(|pair| numbers.last().is_some_and(|last| pair.document <= *last));
        let of = |pair: &Pair| (pair.document - numbers[0]) as usize;
        let these = &pairs[begin..end];
        let (a, b): (Vec<usize>, Vec<usize>) = these.iter().map(|pair| (pair.query, of(pair))).unzip();
        for (pair, score) in these.iter().zip(queries.pairwise(similarity, &a, &rows, &b)) {
            positives[pair.query][pair.place] = score;
        }
        begin = end;
        finder.add(rows, numbers);
    }
    progress.finish();
    Ok(Found { candidates: finder.finish(), positives })
}

fn dense(model: &dyn Encode) -> bool {
    model.sparse().is_none() && model.multi_vector().is_none()
}

fn encoded(model: &dyn Encode, texts: &[&str], options: &EncodeOptions) -> Result<Rows> {
    if let Some(late) = model.multi_vector() {
        return Ok(Rows::Tokens(late.encode_multi_vector(texts, options)?));
    }
    match model.sparse() {
        Some(sparse) => Ok(Rows::Sparse(sparse.encode_sparse(texts, options)?)),
        None => Ok(Rows::Dense(model.encode(texts, &EncodeOptions { normalize: true, ..options.clone() })?)),
    }
}

/// An anchor with a positive: the document's number, and its place among the anchor's positives.
struct Pair {
    document: u32,
    query: usize,
    place: usize,
}

fn by_document(pool: &Pool) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (query, documents) in pool.positives().iter().enumerate() {
        pairs.extend(documents.iter().enumerate().map(|(place, document)| Pair { document: *document, query, place }));
    }
    pairs.sort_by_key(|pair| pair.document);
    pairs
}

/// The `k` documents with the most telling words in common with each anchor, by BM25. Documents without a common word
/// are no candidates.
#[must_use]
pub fn words(pool: &Pool, k: usize) -> Found {
    let index = Bm25::new(pool.documents());
    let queries = index.queries(pool.queries());
    let mut candidates = index.search(&queries, k);
    candidates.iter_mut().for_each(|hits| hits.retain(|hit| hit.score > 0.0));
    let pairs = by_document(pool);
    let (a, b): (Vec<usize>, Vec<usize>) = pairs.iter().map(|pair| (pair.query, pair.document as usize)).unzip();
    let mut positives: Vec<Vec<f32>> = pool.positives().iter().map(|p| vec![0.0; p.len()]).collect();
    for (pair, score) in pairs.iter().zip(index.pairs(&queries, &a, &b)) {
        positives[pair.query][pair.place] = score;
    }
    Found { candidates, positives }
}

/// Puts a reranker's scores in the place of all scores.
///
/// # Errors
/// When the model gives a pair several scores, or one that is not finite.
pub fn rescore(pool: &Pool, found: &mut Found, model: &dyn Predict) -> Result<()> {
    if model.num_labels() != 1 {
        return Err(Error::usage(format!("the reranker gives a pair {} scores", model.num_labels()))
            .with_hint("give a CrossEncoder with one label"));
    }
    let total: usize = found.candidates.iter().map(Vec::len).sum::<usize>() + pool.pairs().count();
    let progress = Progress::new("rescoring", total as u64);
    let score = |pairs: &[(usize, u32)], take: &mut dyn FnMut(usize, f32)| -> Result<()> {
        let mut done = 0;
        for pairs in pairs.chunks(PAIRS) {
            if interrupt::requested() {
                return Err(Error::cancelled("mining was stopped"));
            }
            let texts: Vec<(&str, &str)> = pairs
                .iter()
                .map(|(query, document)| {
                    (pool.queries()[*query].as_str(), pool.documents()[*document as usize].as_str())
                })
                .collect();
            let scores: Embeddings = model.predict(&texts, None, &EncodeOptions::default())?;
            for (i, score) in scores.data().iter().enumerate() {
                if !score.is_finite() {
                    return Err(score_not_finite(texts[i]));
                }
                take(done + i, *score);
            }
            done += pairs.len();
            progress.inc(pairs.len() as u64);
        }
        Ok(())
    };
    // some anchors at a time, so that the pairs in memory do not grow with the data
    for (first, hits) in found.candidates.chunks_mut(ANCHORS).enumerate() {
        let pairs: Vec<(usize, u32)> = hits
            .iter()
            .enumerate()
            .flat_map(|(i, hits)| hits.iter().map(move |hit| (ANCHORS * first + i, hit.rank)))
            .collect();
        let mut places = hits.iter_mut().flatten();
        score(&pairs, &mut |_, score| {
            if let Some(hit) = places.next() {
                hit.score = score;
            }
        })?;
    }
    let pairs: Vec<(usize, u32)> = pool.pairs().collect();
    let mut places = found.positives.iter_mut().flatten();
    score(&pairs, &mut |_, score| {
        if let Some(place) = places.next() {
            *place = score;
        }
    })?;
    progress.finish();
    // equal scores stay in the order of the first search
    found.candidates.par_iter_mut().for_each(|hits| hits.sort_by(|a, b| b.score.total_cmp(&a.score)));
    Ok(())
}
