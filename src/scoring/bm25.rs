//! Texts compared by their words: BM25 as a dot product of sparse rows, with a dimension a word.
//!
//! Source: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009), with Lucene's inverse
//! document frequency, `ln(1 + (N - n + 0.5) / (n + 0.5))`, and its `k1` 1.2 and `b` 0.75. Words are runs of letters and
//! digits in lower case; nothing is left out and nothing stemmed.

use std::collections::HashMap;

use rayon::prelude::*;

use super::blocks::Hit;
use super::inverted::InvertedIndex;
use crate::flow::SparseEmbeddings;

/// How soon more of the same word stops counting.
const K1: f64 = 1.2;
/// How much a long document's words count less.
const B: f64 = 0.75;

/// The documents' words with their weights.
pub struct Bm25 {
    words: HashMap<String, u32>,
    index: InvertedIndex,
    /// Words of a document, on average.
    mean: f64,
}

/// Documents whose words are counted, some at a time.
#[derive(Debug, Default)]
pub struct Counted {
    words: HashMap<String, u32>,
    /// `[words]`: documents with how often each has the word, in their order.
    lists: Vec<Vec<(u32, f32)>>,
    /// `[documents]`: how many words each has.
    lengths: Vec<u32>,
}

impl Counted {
    /// Counts the words of the documents that come next.
    pub fn add(&mut self, documents: &[String]) {
        let split: Vec<Vec<String>> = documents.par_iter().map(|text| words(text)).collect();
        for words in split {
            let document = self.lengths.len() as u32;
            self.lengths.push(words.len() as u32);
            for word in words {
                let next = self.lists.len() as u32;
                let number = *self.words.entry(word).or_insert(next);
                if number == next {
                    self.lists.push(Vec::new());
                }
                let list = &mut self.lists[number as usize];
                match list.last_mut() {
                    Some((last, count)) if *last == document => *count += 1.0,
                    _ => list.push((document, 1.0)),
                }
            }
        }
    }

    /// Weighs what was counted.
    #[must_use]
    pub fn weigh(self) -> Bm25 {
        let Self { words, mut lists, lengths } = self;
        let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let mean = total as f64 / lengths.len().max(1) as f64;
        let documents = lengths.len();
        lists.par_iter_mut().for_each(|list| {
            let rarity = rarity(list.len(), documents);
            for (document, weight) in list {
                *weight = weigh(rarity, f64::from(*weight), lengths[*document as usize], mean);
            }
        });
        Bm25 { words, index: InvertedIndex::of_lists(lists, documents), mean }
    }
}

/// The inverse frequency of a word that `with` of all documents have.
fn rarity(with: usize, documents: usize) -> f64 {
    let with = with as f64;
    (1.0 + (documents as f64 - with + 0.5) / (with + 0.5)).ln()
}

/// What a word that a document of that many words has `count` times adds to its score.
fn weigh(rarity: f64, count: f64, words: u32, mean: f64) -> f32 {
    let length = K1 * (1.0 - B + B * f64::from(words) / mean.max(f64::MIN_POSITIVE));
    (rarity * count * (K1 + 1.0) / (count + length)) as f32
}

impl Bm25 {
    /// Queries as rows: how often each word that a document has is in them.
    #[must_use]
    pub fn queries(&self, texts: &[String]) -> SparseEmbeddings {
        self.rows(texts, |_, count, _| count)
    }

    /// Documents, of those that were counted or others, as rows of weights.
    #[must_use]
    pub fn documents<T: AsRef<str> + Sync>(&self, texts: &[T]) -> SparseEmbeddings {
        self.rows(texts, |word, count, length| {
            weigh(rarity(self.index.having(word), self.index.rows()), f64::from(count), length, self.mean)
        })
    }

    /// A row a text: of each known word the value that its number, its count and the text's length give.
    fn rows<T: AsRef<str> + Sync>(&self, texts: &[T], value: impl Fn(u32, f32, u32) -> f32 + Sync) -> SparseEmbeddings {
        let entries = |text: &T| {
            let words = words(text.as_ref());
            let mut counts: HashMap<u32, f32> = HashMap::new();
            words.iter().filter_map(|word| self.words.get(word)).for_each(|word| {
                *counts.entry(*word).or_default() += 1.0;
            });
            let value = |(word, count)| (word, value(word, count, words.len() as u32));
            let mut entries: Vec<(u32, f32)> = counts.into_iter().map(value).collect();
            entries.sort_unstable_by_key(|(word, _)| *word);
            entries
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
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::Similarity;
    use crate::scoring::rows::Rows;

    fn index(documents: &[&str], at_a_time: usize) -> Bm25 {
        let mut counted = Counted::default();
        texts(documents).chunks(at_a_time).for_each(|some| counted.add(some));
        counted.weigh()
    }

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
        // some of them twice, and words twice in one
        let documents = [
            "The cat sat on the mat.",
            "A dog; a DOG!",
            "cat and dog",
            "",
            "élan vital",
            "cat and dog",
            "dog, cat and",
        ];
        let index = index(&documents, 2);
        let asked = ["cat dog dog", "the", "Élan", "nothing known"];
        let queries = index.queries(&texts(&asked));
        let found = index.search(&queries, documents.len());
        for (query, hits) in asked.iter().zip(&found) {
            assert_eq!(hits.len(), documents.len());
            for hit in hits {
                let want = by_hand(&documents, query, hit.rank as usize);
                assert!((f64::from(hit.score) - want).abs() < 1e-5, "{query}: {hit:?} {want}");
            }
        }
        // one word of each beats one word twice, and equal documents keep their order
        assert_eq!(found[0][..4].iter().map(|hit| hit.rank).collect::<Vec<_>>(), [2, 5, 6, 1]);
        assert_eq!(found[2][0].rank, 4);
        // a document by itself scores as in the index
        let all = Rows::Sparse(index.documents(&documents));
        let pairs = Rows::Sparse(queries).pairwise(Similarity::Dot, &[0; 7], &all, &[0, 1, 2, 3, 4, 5, 6]);
        for hit in &found[0] {
            assert!((pairs[hit.rank as usize] - hit.score).abs() < 1e-6);
        }
        // nothing to search in
        let none = Counted::default().weigh();
        assert!(none.search(&none.queries(&texts(&["a"])), 3)[0].is_empty());
    }
}
