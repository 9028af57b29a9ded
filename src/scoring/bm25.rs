//! Texts compared by their words: BM25 as a dot product of sparse rows, with a dimension a word.
//!
//! Source: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009), with Lucene's inverse
//! document frequency, `ln(1 + (N - n + 0.5) / (n + 0.5))`, and its `k1` 1.2 and `b` 0.75. Words are runs of letters and
//! digits in lower case; nothing is left out and nothing stemmed.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Similarity;
use super::blocks::Hit;
use super::inverted::InvertedIndex;
use super::rows::Rows;
use crate::flow::SparseEmbeddings;

/// How soon more of the same word stops counting.
const K1: f64 = 1.2;
/// How much a long document's words count less.
const B: f64 = 0.75;

/// The documents' words with their weights.
pub struct Bm25 {
    words: HashMap<String, u32>,
    rows: Rows,
    index: InvertedIndex,
}

impl Bm25 {
    /// Of all documents.
    #[must_use]
    pub fn new(documents: &[String]) -> Self {
        let split: Vec<Vec<String>> = documents.par_iter().map(|text| words(text)).collect();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let counted: Vec<Vec<(u32, f32)>> = split
            .iter()
            .map(|words| {
                let mut counts: HashMap<u32, f32> = HashMap::new();
                for word in words {
                    let next = numbers.len() as u32;
                    let number = match numbers.get(word) {
                        Some(number) => *number,
                        None => *numbers.entry(word.clone()).or_insert(next),
                    };
                    *counts.entry(number).or_default() += 1.0;
                }
                let mut counts: Vec<(u32, f32)> = counts.into_iter().collect();
                counts.sort_unstable_by_key(|(word, _)| *word);
                counts
            })
            .collect();
        let mut with_word = vec![0u32; numbers.len()];
        counted.iter().flatten().for_each(|(word, _)| with_word[*word as usize] += 1);
        let total: usize = split.iter().map(Vec::len).sum();
        let mean = total as f64 / documents.len().max(1) as f64;
        let rarity = |word: u32| {
            let with = f64::from(with_word[word as usize]);
            (1.0 + (documents.len() as f64 - with + 0.5) / (with + 0.5)).ln()
        };
        let mut rows = SparseEmbeddings::new(numbers.len());
        for (words, counts) in split.iter().zip(counted) {
            let length = K1 * (1.0 - B + B * words.len() as f64 / mean.max(f64::MIN_POSITIVE));
            let weight = |(word, count): (u32, f32)| {
                let count = f64::from(count);
                (word, (rarity(word) * count * (K1 + 1.0) / (count + length)) as f32)
            };
            rows.push_entries(&counts.into_iter().map(weight).collect::<Vec<_>>());
        }
        Self { words: numbers, index: InvertedIndex::new(&rows, false), rows: Rows::Sparse(rows) }
    }

    /// Queries as rows: how often each word that a document has is in them.
    #[must_use]
    pub fn queries(&self, texts: &[String]) -> SparseEmbeddings {
        let entries = |text: &String| {
            let mut counts: HashMap<u32, f32> = HashMap::new();
            words(text).iter().filter_map(|word| self.words.get(word)).for_each(|word| {
                *counts.entry(*word).or_default() += 1.0;
            });
            let mut counts: Vec<(u32, f32)> = counts.into_iter().collect();
            counts.sort_unstable_by_key(|(word, _)| *word);
            counts
        };
        let all: Vec<Vec<(u32, f32)>> = texts.par_iter().map(entries).collect();
        let mut rows = SparseEmbeddings::new(self.words.len());
        all.iter().for_each(|entries| rows.push_entries(entries));
        rows
    }

    /// The `k` best documents of each query, best first, equal ones in their order; documents without a common word score
    /// 0, and follow.
    #[must_use]
    pub fn search(&self, queries: &SparseEmbeddings, k: usize) -> Vec<Vec<Hit>> {
        self.index.search(queries, k)
    }

    /// The score of query `a[i]` and document `b[i]`, for every `i`.
    #[must_use]
    pub fn pairs(&self, queries: &SparseEmbeddings, a: &[usize], b: &[usize]) -> Vec<f32> {
        Rows::Sparse(queries.clone()).pairwise(Similarity::Dot, a, &self.rows, b)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The formula, written out for one query and one document.
    fn by_hand(documents: &[&str], query: &str, document: usize) -> f64 {
        let split = |text: &str| words(text);
        let all: Vec<Vec<String>> = documents.iter().map(|d| split(d)).collect();
        let mean = all.iter().map(Vec::len).sum::<usize>() as f64 / all.len() as f64;
        split(query)
            .iter()
            .map(|word| {
                let with = all.iter().filter(|d| d.contains(word)).count() as f64;
                let count = all[document].iter().filter(|w| *w == word).count() as f64;
                let idf = (1.0 + (all.len() as f64 - with + 0.5) / (with + 0.5)).ln();
                idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * all[document].len() as f64 / mean))
            })
            .sum()
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        let documents = ["The cat sat on the mat.", "A dog; a DOG!", "cat and dog", "", "élan vital"];
        let index = Bm25::new(&texts(&documents));
        let asked = ["cat dog dog", "the", "Élan", "nothing known"];
        let queries = index.queries(&texts(&asked));
        let found = index.search(&queries, 5);
        for (query, hits) in asked.iter().zip(&found) {
            assert_eq!(hits.len(), 5);
            for hit in hits {
                let want = by_hand(&documents, query, hit.rank as usize);
                assert!((f64::from(hit.score) - want).abs() < 1e-5, "{query}: {hit:?} {want}");
            }
        }
        // one word of each beats one word twice
        assert_eq!((found[0][0].rank, found[0][1].rank), (2, 1));
        assert_eq!(found[2][0].rank, 4);
        let pair = index.pairs(&queries, &[0], &[2])[0];
        assert!((pair - found[0][0].score).abs() < 1e-6);
        // nothing to search in
        let none = Bm25::new(&[]);
        assert!(none.search(&none.queries(&texts(&["a"])), 3)[0].is_empty());
    }
}
