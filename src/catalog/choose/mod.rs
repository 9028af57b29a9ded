//! Which type of model does a task ask for? Its words decide; where they do not, there is a question back.
//!
//! [`words`] says which words speak for what and how strongly, [`read`] finds them in a sentence and sees whether they
//! are wanted, ruled out or only mentioned. What is here weighs them.

mod read;
mod words;

use read::{Found, Role};
use words::{Points, Topic};

use crate::flow::ModelType;

/// What a task comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub verdict: Verdict,
    /// From 0 to 1; 0 where nothing is chosen.
    pub confidence: f64,
    /// Which words decided, one sentence each.
    pub reasons: Vec<String>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A type of model.
    Type(ModelType),
    /// It is not clear; what to ask.
    Ask(String),
    /// Not a task for models that compare texts.
    Outside,
}

/// The types in the order in which they are offered.
pub const TYPES: [ModelType; 4] =
    [ModelType::SentenceTransformer, ModelType::CrossEncoder, ModelType::SparseEncoder, ModelType::MultiVectorEncoder];

/// Reasons that are told at most.
const TOLD: usize = 6;

/// Chooses by the words of a task, in any of eleven languages.
#[must_use]
pub fn choose(task: &str) -> Choice {
    let found = read::read(task);
    let reasons: Vec<String> = found.iter().filter_map(Found::reason).take(TOLD).collect();
    let best = |topic: Topic| {
        let of = found.iter().filter(|f| f.topic() == topic && f.role == Role::Wanted);
        of.map(Found::points).max()
    };
    let strength: Vec<(ModelType, Option<Points>)> = TYPES.iter().map(|t| (*t, best(Topic::Type(*t)))).collect();
    let top = strength.iter().filter_map(|(_, points)| *points).max();
    let outside = best(Topic::Outside);
    let out = || Choice { verdict: Verdict::Outside, confidence: 0.9, reasons: reasons.clone() };
    if outside == Some(Points::Names) || (outside.is_some() && top.is_none_or(|top| top <= Points::Hints)) {
        return out();
    }
    let ask = |between: &[ModelType]| Choice {
        verdict: Verdict::Ask(question(between)),
        confidence: 0.0,
        reasons: reasons.clone(),
    };
    let Some(top) = top else {
        let ruled_out = |t: ModelType| found.iter().any(|f| f.topic() == Topic::Type(t) && f.role == Role::RuledOut);
        let left: Vec<ModelType> = TYPES.into_iter().filter(|t| !ruled_out(*t)).collect();
        return ask(&left);
    };
    if let Some(both) = read::joined(&found) {
        return ask(&both);
    }
    let winners: Vec<ModelType> = strength.iter().filter(|(_, p)| *p == Some(top)).map(|(t, _)| *t).collect();
    let [winner] = winners.as_slice() else { return ask(&winners) };
    let against = strength
        .iter()
        .filter(|(other, points)| top == Points::Names && *points == Some(Points::Uses) && !serves(*winner, *other));
    let against: Vec<ModelType> = against.map(|(other, _)| *other).collect();
    if !against.is_empty() {
        let both: Vec<ModelType> = TYPES.into_iter().filter(|t| t == winner || against.contains(t)).collect();
        return ask(&both);
    }
    let others = strength.iter().any(|(t, points)| t != winner && points.is_some());
    let confidence = match top {
        Points::Names if !others => 0.95,
        Points::Names => 0.9,
        Points::Uses if !others => 0.85,
        Points::Uses => 0.75,
        Points::Suits => 0.65,
        Points::Hints => 0.5,
    };
    Choice { verdict: Verdict::Type(*winner), confidence, reasons }
}

/// Whether a model whose kind is named can be meant for what the other type is for: SPLADE finds similar texts, ColBERT
/// reranks, and a reranker may tell duplicates.
fn serves(named: ModelType, used_as: ModelType) -> bool {
    match (named, used_as) {
        (ModelType::SentenceTransformer, _) => false,
        (_, ModelType::SentenceTransformer) => true,
        (named, used_as) => named == ModelType::MultiVectorEncoder && used_as == ModelType::CrossEncoder,
    }
}

/// What a model of a type is for, in a few words.
#[must_use]
pub const fn purpose(model_type: ModelType) -> &'static str {
    match model_type {
        ModelType::SentenceTransformer => {
            "one dense vector a text, for vector search, similarity, clustering, duplicates"
        }
        ModelType::CrossEncoder => "reads two texts together, to reorder the hits of a search or to classify pairs",
        ModelType::SparseEncoder => "weights of words (SPLADE), for an inverted index",
        ModelType::MultiVectorEncoder => "one vector a token (ColBERT), compared by MaxSim",
    }
}

fn question(between: &[ModelType]) -> String {
    let between = if between.len() < 2 { &TYPES[..] } else { between };
    let offers: Vec<String> = between.iter().map(|t| format!("{t} ({})", purpose(*t))).collect();
    format!("What is the model to do? {}?", offers.join("; or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(task: &str) -> Option<ModelType> {
        match choose(task).verdict {
            Verdict::Type(found) => Some(found),
            _ => None,
        }
    }

    #[test]
    fn what_is_named_beats_what_it_is_used_for() {
        assert_eq!(typed("ColBERT to rerank hits"), Some(ModelType::MultiVectorEncoder));
        assert_eq!(typed("a cross-encoder for text similarity"), Some(ModelType::CrossEncoder));
        assert_eq!(typed("an embedding model that reranks"), None);
    }

    #[test]
    fn a_question_offers_what_is_left() {
        let Verdict::Ask(question) = choose("search, but not with a reranker and without SPLADE").verdict else {
            unreachable!("no type was asked for")
        };
        assert!(question.contains("SentenceTransformer") && question.contains("MultiVectorEncoder"), "{question}");
        assert!(!question.contains("CrossEncoder (") && !question.contains("SparseEncoder ("), "{question}");
    }

    #[test]
    fn reasons_name_words() {
        let choice = choose("Embeddings, not a reranker.");
        assert_eq!(
            choice.reasons,
            ["`embeddings` hints at a SentenceTransformer", "`reranker` is ruled out (`not`): no CrossEncoder"]
        );
        assert_eq!(choice.confidence, 0.5);
        assert_eq!(choose("").confidence, 0.0);
    }

    #[test]
    fn nothing_makes_it_stumble() {
        for task in ["\u{0}", "，，，", "not", "not only", "🙂 reranker 🙂", &"re ".repeat(5000), "ſ İ ß"] {
            let _ = choose(task);
        }
        assert_eq!(typed("🙂 reranker 🙂"), Some(ModelType::CrossEncoder));
    }
}
