//! What people can look at behind a metric: how single pairs score, and single items with their texts.

use serde::{Deserialize, Serialize};

/// Items kept of an evaluation; of more, so many at even distances.
pub const ITEMS: usize = 2000;
/// Scores kept of each side; of more, so many at even distances.
pub const SCORES: usize = 5000;
/// Letters kept of a text.
const LETTERS: usize = 280;

/// What stands behind one metric. The items of two models are the same as long as the evaluator is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The metric's key.
    pub key: String,
    /// What an item's value is, as `nDCG@10`; more of it is better.
    pub value: String,
    /// What an item's texts are, as `query`, `relevant document`, `found first`.
    pub texts: Vec<String>,
    pub items: Vec<Item>,
    /// How many items the metric is made of.
    pub of: usize,
    /// How pairs score.
    pub scores: Option<Scores>,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub value: f64,
    /// In the order of [`Look::texts`].
    pub texts: Vec<String>,
}

/// Scores of pairs that should score high and of pairs that should not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// What is scored by, as `cosine similarity`.
    pub name: String,
    /// What the positives are, as `relevant documents`.
    pub positive: String,
    /// What the negatives are.
    pub negative: String,
    pub positives: Vec<f32>,
    pub negatives: Vec<f32>,
    /// Whether the negatives are those that each model found, so that another model has others.
    #[serde(default)]
    pub found: bool,
}

impl Look {
    /// A look behind the metric `key` of `of` items, of which [`Look::chosen`] tells those to be added.
    #[must_use]
    pub fn new(key: &str, value: impl Into<String>, texts: &[&str], of: usize) -> Self {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        Self { key: key.to_owned(), value: value.into(), texts, items: Vec::new(), of, scores: None }
    }

    /// The items to add, by number.
    #[must_use]
    pub fn chosen(&self) -> Vec<usize> {
        spread(self.of, ITEMS)
    }

    /// Adds an item; its texts are cut.
    pub fn push(&mut self, value: f64, texts: &[&str]) {
        self.items.push(Item { value, texts: texts.iter().map(|text| cut(text, LETTERS)).collect() });
    }

    /// With the scores of pairs.
    #[must_use]
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = Some(scores);
        self
    }

    /// Takes in what another evaluation of the same kind saw, and goes by this one's key.
    pub fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.of += other.of;
        match (&mut self.scores, other.scores) {
            (Some(own), Some(other)) => {
                own.positives.extend(other.positives);
                own.negatives.extend(other.negatives);
                own.thin();
            }
            (own @ None, Some(other)) => *own = Some(other),
            _ => {}
        }
        let kept = spread(self.items.len(), ITEMS);
        if kept.len() < self.items.len() {
            self.items = kept.into_iter().map(|i| self.items[i].clone()).collect();
        }
    }
}

impl Scores {
    /// Scores of pairs, each with whether it is a positive one.
    #[must_use]
    pub fn new(name: impl Into<String>, sides: [String; 2], pairs: impl Iterator<Item = (f32, bool)>) -> Self {
        let [positive, negative] = sides;
        let mut scores = Self { name: name.into(), positive, negative, ..Self::default() };
        for (score, is_positive) in pairs.filter(|(score, _)| score.is_finite()) {
            if is_positive { scores.positives.push(score) } else { scores.negatives.push(score) }
        }
        scores.thin();
        scores
    }

    fn thin(&mut self) {
        for side in [&mut self.positives, &mut self.negatives] {
            let kept = spread(side.len(), SCORES);
            if kept.len() < side.len() {
                *side = kept.into_iter().map(|i| side[i]).collect();
            }
        }
    }
}

/// At most `most` of `count` numbers, at even distances.
#[must_use]
pub fn spread(count: usize, most: usize) -> Vec<usize> {
    let kept = count.min(most);
    (0..kept).map(|i| i * count / kept).collect()
}

/// A text's beginning, white space as single blanks, three dots behind it where it goes on. It ends between two words
/// where that leaves half of `letters` or more, else within one: not every script has blanks.
#[must_use]
pub fn cut(text: &str, letters: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        let blank = usize::from(!out.is_empty());
        let length = word.chars().count();
        if count + blank + length > letters {
            if 2 * count < letters {
                if blank == 1 {
                    out.push(' ');
                }
                out.extend(word.chars().take(letters.saturating_sub(count + blank)));
            }
            out.truncate(out.trim_end().len());
            out.push_str(" ...");
            return out;
        }
        if blank == 1 {
            out.push(' ');
        }
        out.push_str(word);
        count += blank + length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_and_many_are_spread() {
        assert_eq!(spread(3, 5), [0, 1, 2]);
        assert_eq!(spread(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(spread(7, 3), [0, 2, 4]);
        assert!(spread(0, 3).is_empty());
    }

    #[test]
    fn texts_are_cut_between_words() {
        assert_eq!(cut(" a  cat\nsat ", 20), "a cat sat");
        assert_eq!(cut("a cat sat", 6), "a cat ...");
        assert_eq!(cut("äöüäöü", 3), "äöü ...");
        assert_eq!(cut("query: 今天天气很好我们去公园", 13), "query: 今天天气很好 ...");
        assert_eq!(cut("a 今天天气", 2), "a ...");
        assert_eq!(cut("cats satonthemat", 8), "cats ...", "half of it is there");
        assert_eq!(cut("", 3), "");
    }

    #[test]
    fn looks_grow_together_within_their_limits() {
        let scored = |n: usize| Scores::new("cosine", ["a".into(), "b".into()], (0..n).map(|i| (i as f32, i % 2 == 0)));
        let mut look = Look::new("x", "nDCG", &["query"], 1500).with_scores(scored(8000));
        (0..1500).for_each(|_| look.push(0.5, &["q"]));
        let other = look.clone();
        look.add(other);
        assert_eq!((look.items.len(), look.of), (ITEMS, 3000));
        let scores = look.scores.unwrap_or_default();
        assert_eq!((scores.positives.len(), scores.negatives.len()), (SCORES, SCORES));
        assert!(Scores::new("x", ["a".into(), "b".into()], [(f32::NAN, true)].into_iter()).positives.is_empty());
    }
}
