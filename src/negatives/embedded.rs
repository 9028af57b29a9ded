//! What comes near to each anchor, by embeddings.

use super::cache::Cache;
use super::candidates::{Block, Depth, Found, Pair, Take, go_on, groups, pairs};
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::flow::{Encode, EncodeOptions};
use crate::scoring::Similarity;
use crate::scoring::rows::{Finder, Rows};
use crate::util::progress::Progress;

/// Texts that are encoded and compared at a time: bounds the memory for documents.
const CHUNK: usize = 4096;
/// As [`CHUNK`], where every token has a vector.
const CHUNK_OF_TOKENS: usize = 512;

/// What is put in front of anchors and of documents; of models with a Router also which route they take.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    pub query: EncodeOptions,
    pub document: EncodeOptions,
}

/// Gives `take` the documents nearest to each anchor, as many as `depth` says, by the model's similarity of normalised
/// embeddings. Exact.
///
/// Memory is that of the anchors' embeddings, a chunk of the documents' and the candidates of some anchors. Where those
/// of all do not fit, documents pass several times: their embeddings are kept meanwhile, or made anew where every token
/// has one.
///
/// `cache` keeps dense embeddings on disk and has those of earlier calls.
///
/// # Errors
/// When a text does not fit the model, an embedding is not finite, or the cache cannot be written; and `take`'s.
pub fn search(
    pool: &Pool,
    model: &dyn Encode,
    prompts: &Prompts,
    depth: Depth,
    cache: Option<&mut Cache>,
    take: &mut Take<'_>,
) -> Result<()> {
    search_groups(pool, model, prompts, groups(pool, depth), cache, take)
}

fn search_groups(
    pool: &Pool,
    model: &dyn Encode,
    prompts: &Prompts,
    groups: Vec<Vec<Block>>,
    mut cache: Option<&mut Cache>,
    take: &mut Take<'_>,
) -> Result<()> {
    let similarity: Similarity =
        model.similarity_fn_name().parse().map_err(|e: Error| e.within("the model's `similarity_fn_name`"))?;
    let of_tokens = model.multi_vector().is_some();
    let dense = model.sparse().is_none() && !of_tokens;
    let chunk = if of_tokens { CHUNK_OF_TOKENS } else { CHUNK };
    let passes = if of_tokens { groups.len() } else { 1 };
    let total = pool.queries().len() + pool.documents().len() * passes;
    let progress = Progress::new("encoding", total as u64);
    let mut encode = |texts: &[String], options: &EncodeOptions| -> Result<Rows> {
        go_on()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let options = EncodeOptions { normalize: dense, ..options.clone() };
        let rows = match cache.as_deref_mut().filter(|_| dense) {
            Some(cache) => {
                let kept = cache.through(&texts, &options, &mut |missing| model.encode(missing, &options))?;
                Rows::Dense(kept).checked(&texts)?
            }
            None => Rows::encode(model, &texts, &options)?,
        };
        progress.inc(texts.len() as u64);
        Ok(rows)
    };
    let mut waiting = Vec::with_capacity(groups.len());
    for group in groups {
        let mut rows = Vec::with_capacity(group.len());
        for block in &group {
            let mut queries: Option<Rows> = None;
            for texts in pool.queries()[block.queries.clone()].chunks(chunk) {
                let rows = encode(texts, &prompts.query)?;
                queries = Some(match queries {
                    Some(before) => before.followed_by(rows)?,
                    None => rows,
                });
            }
            rows.extend(queries);
        }
        waiting.push((group, rows));
    }
    let keep = waiting.len() > 1 && !of_tokens;
    let mut kept: Vec<Rows> = Vec::new();
    let numbers: Vec<u32> = (0..).take(pool.documents().len()).collect();
    for (group, queries) in waiting {
        let mut under_way: Vec<UnderWay> = group
            .into_iter()
            .zip(queries)
            .map(|(block, queries)| UnderWay::new(pool, block, queries, similarity))
            .collect();
        for (i, (texts, numbers)) in pool.documents().chunks(chunk).zip(numbers.chunks(chunk)).enumerate() {
            let rows = match kept.get(i) {
                Some(rows) => rows.clone(),
                None => encode(texts, &prompts.document)?,
            };
            go_on()?;
            under_way.iter_mut().for_each(|block| block.pass(&rows, numbers));
            if keep && kept.len() == i {
                kept.push(rows);
            }
        }
        under_way.into_iter().try_for_each(|block| take(block.finish()))?;
    }
    progress.finish();
    Ok(())
}

/// A block of anchors that documents pass by.
struct UnderWay {
    similarity: Similarity,
    first: usize,
    queries: Rows,
    finder: Finder,
    /// In the documents' order.
    pairs: Vec<Pair>,
    /// Pairs whose documents have passed.
    passed: usize,
    positives: Vec<Vec<f32>>,
}

impl UnderWay {
    fn new(pool: &Pool, block: Block, queries: Rows, similarity: Similarity) -> Self {
        let mut pairs: Vec<Pair> = pairs(pool, block.queries.clone()).collect();
        pairs.sort_by_key(|pair| pair.document);
        let positives = pool.positives()[block.queries.clone()].iter().map(|own| vec![f32::NAN; own.len()]).collect();
        let finder = Finder::new(similarity, queries.clone(), block.k);
        Self { similarity, first: block.queries.start, queries, finder, pairs, passed: 0, positives }
    }

    /// Lets documents with consecutive numbers pass.
    fn pass(&mut self, rows: &Rows, numbers: &[u32]) {
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return };
        let rest = &self.pairs[self.passed..];
        let these = &rest[..rest.partition_point(|pair| pair.document <= *last)];
        let (a, b): (Vec<usize>, Vec<usize>) =
            these.iter().map(|pair| (pair.query - self.first, (pair.document - first) as usize)).unzip();
        for (pair, score) in these.iter().zip(self.queries.pairwise(self.similarity, &a, rows, &b)) {
            self.positives[pair.query - self.first][pair.place] = score;
        }
        self.passed += a.len();
        self.finder.add(rows.clone(), numbers);
    }

    fn finish(self) -> Found {
        Found { first: self.first, candidates: self.finder.finish(), positives: self.positives }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::{Embeddings, EncodeMultiVector, MultiVectors};
    use crate::negatives::candidates::groups_of;
    use crate::util::seed::Rng;

    /// Few different values, drawn by the text's length and last letter, so that similarities tie.
    struct Drawn {
        tokens: bool,
    }

    fn values(text: &str) -> Vec<f32> {
        let seed = text.bytes().fold(7u64, |hash, byte| hash * 31 + u64::from(byte));
        let mut rng = Rng::new(seed);
        (0..5).map(|_| rng.below(4) as f32 - 1.4).collect()
    }

    impl Encode for Drawn {
        fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
            let rows = Embeddings::new(5, texts.iter().flat_map(|text| values(text)).collect());
            Ok(if options.normalize { rows.normalized() } else { rows })
        }

        fn similarity_fn_name(&self) -> &str {
            if self.tokens { "maxsim" } else { "cosine" }
        }

        fn multi_vector(&self) -> Option<&dyn EncodeMultiVector> {
            self.tokens.then_some(self as &dyn EncodeMultiVector)
        }
    }

    impl EncodeMultiVector for Drawn {
        fn encode_multi_vector(&self, texts: &[&str], _: &EncodeOptions) -> Result<MultiVectors> {
            let mut vectors = MultiVectors::new(5);
            texts.iter().for_each(|text| vectors.push(&[values(text), values(&format!("{text}!"))].concat()));
            Ok(vectors)
        }
    }

    #[test]
    fn several_passes_find_what_one_finds() {
        let pairs = (0..150).flat_map(|anchor| {
            let rows = if anchor % 70 == 3 { 9 } else { 1 };
            (0..rows).map(move |row| (format!("q{anchor}"), format!("d{} {row}", anchor % 40)))
        });
        let pool = Pool::new(pairs.collect(), Some((0..900).map(|i| format!("c{i}")).collect())).unwrap();
        for tokens in [false, true] {
            let all = |depth, most_hits| {
                let groups = groups_of(&pool, depth, most_hits);
                let (count, mut found) = (groups.len(), Found::default());
                search_groups(&pool, &Drawn { tokens }, &Prompts::default(), groups, None, &mut |next| {
                    assert_eq!(next.first, found.candidates.len());
                    found.candidates.extend(next.candidates);
                    found.positives.extend(next.positives);
                    Ok(())
                })
                .unwrap();
                (count, found)
            };
            let (one, whole) = all(Depth::Same(20), usize::MAX);
            let (several, parts) = all(Depth::Same(20), 700);
            assert!(one == 1 && several == 5);
            assert!(whole.positives.iter().flatten().all(|score| score.is_finite()));
            assert_eq!(whole, parts);
            // each anchor's best, as many as its own positives need
            for (few, many) in all(Depth::Beside(4), 700).1.candidates.iter().zip(&whole.candidates) {
                assert!(few.len() >= 5 && few[..] == many[..few.len()]);
            }
        }
    }
}
