//! Which losses are worth a run on the data, in which order, with which arguments, and why?

use serde_json::{Map, Value, json};

use super::{Goal, Mining, RankedLoss, Rejected, Situation};
use crate::catalog::bases::Base;
use crate::catalog::fit;
use crate::data::inspect::{Inspection, LabelFacts, LabelReport, Shape};
use crate::flow::ModelType::{self, CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder};

/// A loss with what it needs.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: String,
    pub arguments: Map<String, Value>,
    pub why: String,
    /// The input columns it gets.
    pub columns: Vec<String>,
    /// `model.num_labels`.
    pub classes: Option<usize>,
    /// Keys of `[train_dataset.hard_negatives]`.
    pub hard_negatives: Map<String, Value>,
    /// What to mind, where it is the first.
    pub minds: Vec<String>,
}

impl Candidate {
    pub fn into_ranked(self) -> RankedLoss {
        RankedLoss { name: self.name, arguments: self.arguments, why: self.why }
    }

    fn minding(mut self, what: impl Into<String>) -> Self {
        self.minds.push(what.into());
        self
    }

    fn classified(mut self, classes: usize) -> Self {
        self.classes = Some(classes);
        self
    }

    fn mined(mut self, settings: Value) -> Self {
        self.hard_negatives = map(settings);
        self
    }

    fn on(mut self, columns: &[String]) -> Self {
        self.columns = columns.to_vec();
        self
    }
}

/// Keys of `[loss]`: where a batch is taken in parts of so many sequences, the form of the loss that does so.
pub fn keys(model_type: ModelType, first: &Candidate, mini_batch: Option<usize>) -> Map<String, Value> {
    let cached = mini_batch.and_then(|sequences| Some((fit::cached(model_type, &first.name)?, sequences)));
    let mut keys = Map::new();
    keys.insert("name".to_owned(), cached.map_or(first.name.as_str(), |(name, _)| name).into());
    keys.extend(first.arguments.clone());
    if let Some((_, sequences)) = cached {
        keys.insert("mini_batch_size".to_owned(), sequences.into());
    }
    keys
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A loss of dense embeddings by the name that it has for a type.
fn named(model_type: ModelType, name: &str) -> String {
    match model_type {
        SentenceTransformer | CrossEncoder => name.to_owned(),
        SparseEncoder => format!("Sparse{name}"),
        MultiVectorEncoder => format!("MultiVector{name}"),
    }
}

/// Negatives that a search by words finds for a pair.
const MINED_PAIRS: usize = 5;

/// The losses, the best first.
pub fn ranked(s: &Situation<'_>) -> Vec<Candidate> {
    let columns: Vec<String> = s.data.columns.iter().map(|column| column.name.clone()).collect();
    let of = |name: &str, arguments: Value, why: &str| Candidate {
        name: name.to_owned(),
        arguments: map(arguments),
        why: why.to_owned(),
        columns: columns.clone(),
        classes: None,
        hard_negatives: Map::new(),
        minds: Vec::new(),
    };
    match s.model_type {
        SentenceTransformer => dense(s, &columns, &of),
        CrossEncoder => pairs(s, &columns, &of),
        SparseEncoder | MultiVectorEncoder => other(s, &of),
    }
}

type Make<'a> = &'a dyn Fn(&str, Value, &str) -> Candidate;

/// Whole numbers that are grades rather than names of classes: more than the three of inference, or no class 0.
fn graded(label: &LabelReport) -> bool {
    label.kind == LabelFacts::Classes && label.different > 3 && label.max <= 10.0
}

/// The number of classes, by the highest or by the names.
fn classes(label: &LabelReport) -> usize {
    match label.kind {
        LabelFacts::Names => label.different,
        _ => label.max.max(1.0) as usize + 1,
    }
}

fn dense(s: &Situation<'_>, columns: &[String], of: Make<'_>) -> Vec<Candidate> {
    const RANKING: &str = "MultipleNegativesRankingLoss";
    let cosine = json!({"scale": 20.0});
    match s.data.shape {
        Shape::Pairs => {
            let alike = s.data.translated() || matches!(s.goal, Some(Goal::Similarity | Goal::Clustering));
            let guide = match super::english(s.data) {
                true => "sentence-transformers/all-MiniLM-L6-v2",
                false => "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            };
            let mut found = vec![
                of(RANKING, cosine.clone(), "pairs without labels: every other positive of the batch is a negative"),
                of("MultipleNegativesSymmetricRankingLoss", cosine, "both ways: where the two sides are alike"),
                of(
                    "GISTEmbedLoss",
                    json!({"guide": guide}),
                    "a guide hides in-batch negatives that are none; costs its forward pass",
                ),
            ];
            if alike {
                found.swap(0, 1);
            }
            if s.data.translated() {
                found[0].minds.push(
                    "the columns are translations: to move a good model to a new language, `tallow teach --labels \
                     embedding` and MSELoss"
                        .to_owned(),
                );
            }
            found
        }
        Shape::Triplets => vec![
            of(RANKING, cosine, "takes the negatives and adds those of the batch"),
            of(
                "TripletLoss",
                json!({"distance_metric": "cosine", "triplet_margin": 0.3}),
                "the given negatives alone: where those of the batch would be wrong",
            ),
        ],
        Shape::BinaryPairs => vec![
            of("OnlineContrastiveLoss", json!({"margin": 0.5}), "0 and 1: learns from the hard pairs of a batch alone"),
            of("ContrastiveLoss", json!({"margin": 0.5}), "the same on all pairs"),
            of("CoSENTLoss", cosine, "takes 0 and 1 as scores and ranks pairs"),
        ],
        Shape::ScoredPairs => scored(s, of),
        Shape::ClassifiedPairs => match &s.data.label {
            Some(label) if graded(label) => scored(s, of),
            Some(label) => vec![
                of("SoftmaxLoss", json!({"num_labels": classes(label)}), "pairs with classes, as they are")
                    .minding("the pairs of the class that means the same, alone, with MultipleNegativesRankingLoss are usually better"),
            ],
            None => Vec::new(),
        },
        Shape::ClassifiedTexts => vec![
            of("BatchAllTripletLoss", json!({"margin": 0.3}), "classes: every triplet of a batch that breaks the margin")
                .minding("the margin of 0.3 is for normalised embeddings; others take about 5"),
            of("BatchHardSoftMarginTripletLoss", json!({}), "the hardest of each row, without a margin to choose"),
            of("BatchSemiHardTripletLoss", json!({"margin": 0.3}), "where classes are noisy"),
        ],
        Shape::EmbeddedTexts => vec![
            of("MSELoss", json!({}), "regresses the teacher's embeddings")
                .minding("embeddings have to be as wide as the teacher's, or set `loss.projection_dim`"),
            of("EmbedDistillLoss", json!({}), "the same with a choice of distances"),
        ],
        Shape::ScoredTriplets => vec![of("MarginMSELoss", json!({}), "learns a teacher's margins between positive and negatives")],
        Shape::ListedTriplets => listed(s, of),
        Shape::Texts => vec![
            of(RANKING, cosine, "no labels: the same text twice, apart by dropout (SimCSE)")
                .on(&[columns[0].clone(), columns[0].clone()])
                .minding("texts alone teach little: pairs of any kind (title and text, question and answer) are worth more"),
            of("ContrastiveTensionLossInBatchNegatives", json!({}), "a second model beside the first; twice the memory"),
            of("DenoisingAutoEncoderLoss", json!({}), "TSDAE, for a base that is not trained for texts; 10,000 texts and more"),
        ],
        Shape::Lists | Shape::Unknown => Vec::new(),
    }
}

fn scored(s: &Situation<'_>, of: Make<'_>) -> Vec<Candidate> {
    let ranking = named(s.model_type, "CoSENTLoss");
    let mut found = vec![
        of(&ranking, json!({"scale": 20.0}), "pairs with scores: ranks them, whatever the scale"),
        of(&named(s.model_type, "AnglELoss"), json!({"scale": 20.0}), "the same on angles; sometimes better"),
    ];
    let cosine = named(s.model_type, "CosineSimilarityLoss");
    if fit::fitting(s.model_type, s.data).any(|card| card.name == cosine) {
        found.push(of(&cosine, json!({}), "regresses the score; usually weaker"));
    }
    found
}

fn listed(s: &Situation<'_>, of: Make<'_>) -> Vec<Candidate> {
    let scores = of(
        &named(s.model_type, "DistillKLDivLoss"),
        json!({}),
        "learns how a teacher's scores are distributed over the documents",
    )
    .minding("scores of a reranker lie far apart: raise `loss.teacher_temperature` if the loss hardly falls");
    let margins = of(&named(s.model_type, "MarginMSELoss"), json!({}), "learns the teacher's margins");
    let fits = |candidate: &Candidate| fit::fitting(s.model_type, s.data).any(|card| card.name == candidate.name);
    [scores, margins].into_iter().filter(fits).collect()
}

fn pairs(s: &Situation<'_>, columns: &[String], of: Make<'_>) -> Vec<Candidate> {
    let ranking = |why: &str| of("MultipleNegativesRankingLoss", json!({"num_negatives": 4}), why);
    match (s.data.shape, &s.data.label) {
        (Shape::BinaryPairs, _) => vec![
            of("BinaryCrossEntropyLoss", json!({"pos_weight": "auto"}), "pairs with 0 and 1: the usual choice")
                .minding(format!(
                    "pos_weight \"auto\" comes to {}: so many negatives for each positive",
                    weight(s.data)
                )),
            of("MSELoss", json!({}), "regresses the label; weaker for 0 and 1"),
        ],
        (Shape::ScoredPairs, Some(label)) => {
            let taught = of("MSELoss", json!({}), "regresses a teacher's score");
            match label.min >= 0.0 && label.max <= 1.0 {
                true => vec![of("BinaryCrossEntropyLoss", json!({}), "scores between 0 and 1 are soft labels"), taught],
                false => vec![taught],
            }
        }
        (Shape::ClassifiedPairs, Some(label)) if graded(label) => {
            vec![
                of("MSELoss", json!({}), "regresses the grade")
                    .minding("grades of the passages of a query train better as lists (LambdaLoss): a row a query"),
            ]
        }
        (Shape::ClassifiedPairs, Some(label)) => {
            vec![of("CrossEntropyLoss", json!({}), "pairs with classes").classified(classes(label))]
        }
        (Shape::Pairs, _) => vec![
            of(
                "BinaryCrossEntropyLoss",
                json!({"pos_weight": "auto"}),
                "on hard negatives that are looked for first: the usual choice",
            )
            .mined(json!({"bm25": true, "num_negatives": MINED_PAIRS, "output_format": "labeled-pair"}))
            .on(&columns[..2])
            .minding(format!("pos_weight \"auto\" comes to about {MINED_PAIRS}, the negatives for each positive")),
            of("LambdaLoss", json!({}), "on lists of them: trains NDCG itself")
                .mined(json!({"bm25": true, "num_negatives": 7, "output_format": "labeled-list"}))
                .on(&columns[..2]),
            ranking("without looking for negatives: passages of other rows, which are easy"),
        ],
        (Shape::Triplets, _) => vec![ranking("takes the negatives and some of the batch")],
        (Shape::ScoredTriplets | Shape::ListedTriplets, _) => {
            vec![of("MarginMSELoss", json!({}), "learns a teacher's margins between positive and negatives")]
        }
        (Shape::Lists, _) => vec![
            of("LambdaLoss", json!({}), "lists with grades: trains NDCG itself"),
            of("PListMLELoss", json!({"respect_input_order": false}), "the likelihood of the right order"),
            of("ListNetLoss", json!({}), "the distribution of the grades"),
            of("RankNetLoss", json!({}), "pair by pair; slow on long lists"),
        ],
        _ => Vec::new(),
    }
}

/// Negatives for each positive, of labels 0 and 1.
fn weight(data: &Inspection) -> f64 {
    let positives = data.label.as_ref().map_or(0.5, LabelReport::positives).clamp(1e-6, 1.0);
    (10.0 * (1.0 - positives) / positives).round() / 10.0
}

/// SPLADE and ColBERT.
fn other(s: &Situation<'_>, of: Make<'_>) -> Vec<Candidate> {
    let late = s.model_type == MultiVectorEncoder;
    let name = |name: &str| named(s.model_type, name);
    let ranking = |why: &str| {
        let scale = json!({"scale": 1.0});
        let found = of(&name("MultipleNegativesRankingLoss"), scale, why);
        if late {
            found.minding("scale 1 belongs to `maxsim`; with `meanmaxsim` take about the queries' length")
        } else {
            found
        }
    };
    match s.data.shape {
        Shape::Pairs => vec![ranking("pairs without labels: every other positive of the batch is a negative")],
        Shape::Triplets => {
            let mut found = vec![ranking("takes the negatives and adds those of the batch")];
            if !late && s.data.columns.len() == 3 {
                found.push(of("SparseTripletLoss", json!({}), "the given negatives alone"));
            }
            found
        }
        Shape::ScoredTriplets => vec![of(&name("MarginMSELoss"), json!({}), "learns a teacher's margins")],
        Shape::ListedTriplets => listed(s, of),
        Shape::ScoredPairs | Shape::BinaryPairs if !late => scored(s, of),
        _ => Vec::new(),
    }
}

/// Losses that are asked for most, and why they are not the ones: the data first, then what takes them and is weaker.
pub fn rejected(model_type: ModelType, ranked: &[Candidate], data: &Inspection) -> Vec<Rejected> {
    const ASKED_FOR: &[&str] = &[
        "MultipleNegativesRankingLoss",
        "CoSENTLoss",
        "BinaryCrossEntropyLoss",
        "TripletLoss",
        "MarginMSELoss",
        "LambdaLoss",
        "CrossEntropyLoss",
        "DistillKLDivLoss",
        "OnlineContrastiveLoss",
        "BatchAllTripletLoss",
        "SoftmaxLoss",
        "MSELoss",
    ];
    let place = |name: &str| ASKED_FOR.iter().position(|known| name.ends_with(known)).unwrap_or(ASKED_FOR.len());
    let mut found: Vec<Rejected> = fit::plain(model_type)
        .filter(|card| ranked.iter().all(|candidate| candidate.name != card.name))
        .filter_map(|card| Some(Rejected { name: card.name, why: fit::refusal(card, data)? }))
        .collect();
    found.sort_by_key(|rejected| place(rejected.name));
    found
}

/// What to look for before training.
pub fn mining(s: &Situation<'_>, base: &Base) -> Option<Mining> {
    let alike = s.data.translated() || matches!(s.goal, Some(Goal::Similarity | Goal::Clustering));
    let asks = s.data.shape == Shape::Pairs && !alike;
    if !asks {
        return None;
    }
    let embeds = base.model_type.is_some_and(|t| t != CrossEncoder);
    if s.model_type == CrossEncoder {
        return Some(Mining {
            how: "in `settings`; better than `hard_negatives.bm25` is a bi-encoder: `hard_negatives.model = \"FOLDER\"` with \
                  `relative_margin = 0.05`"
                .to_owned(),
            why: "a reranker learns from passages that look right and are not; random ones teach nothing".to_owned(),
        });
    }
    let finder = if embeds { "" } else { ", `bm25 = true`" };
    Some(Mining {
        how: format!(
            "`[train_dataset.hard_negatives]` with `num_negatives = 3`, `relative_margin = 0.05`, `output_format = \
             \"n-tuple\"`{finder}"
        ),
        why: "after a first run on the pairs: hard negatives are what helps most".to_owned(),
    })
}
