//! TripletEvaluator: is the positive more similar than the negative?

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::shared::{self, DOCUMENT, QUERY, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, LabelKind, Look, Metrics, Scores, Statistic};
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive, negative) triplets"],
    columns: (3, 3),
    labels: LabelKind::None,
    gotchas: &[
        "Easy negatives give accuracies near 1 that hide progress; mine hard ones, or evaluate retrieval.",
        "Equal similarities count as wrong.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("TripletEvaluator", "How often the positive is more similar to the anchor than the negative.")
};

/// By how much the positive has to be more similar: the same for every similarity function, or for each its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Margin {
    /// For all.
    All(f64),
    /// By similarity function; 0 for those not named.
    Each(BTreeMap<Similarity, f64>),
}

impl Margin {
    fn of(&self, similarity: Similarity) -> f64 {
        match self {
            Self::All(margin) => *margin,
            Self::Each(margins) => margins.get(&similarity).copied().unwrap_or(0.0),
        }
    }
}

impl Serialize for Margin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(margin) => margin.serialize(serializer),
            Self::Each(margins) => margins.serialize(serializer),
        }
    }
}

// Written out, since serde's untagged enums cannot say which key is wrong.
impl<'de> Deserialize<'de> for Margin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Margin;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or a table of numbers by similarity function")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Margin, E> {
                Ok(Margin::All(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Margin, E> {
                Ok(Margin::All(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Margin, E> {
                Ok(Margin::All(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Margin, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Margin::Each)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Margin {
    fn schema_name() -> Cow<'static, str> {
        "Margin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Similarity::ALL.map(Similarity::name);
        json_schema!({
            "anyOf": [
                { "type": "number" },
                { "type": "object", "propertyNames": { "enum": names }, "additionalProperties": { "type": "number" } },
            ]
        })
    }
}

/// What a recipe may set of a [`TripletEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TripletSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The similarity functions to evaluate; the model's when left out.
    pub similarity_fn_names: Option<Vec<Similarity>>,
    /// The one whose accuracy is the primary metric; the best of all when left out and there are several.
    pub main_similarity_function: Option<Similarity>,
    /// By how much the positive has to be more similar: a number, or a table by similarity function; 0 when left out.
    pub margin: Option<Margin>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for TripletSettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)?;
        let margins = Similarity::ALL.iter().map(|s| self.margin.as_ref().map_or(0.0, |m| m.of(*s)));
        if let Some(margin) = margins.into_iter().find(|margin| !margin.is_finite()) {
            return Err(Error::usage(format!("`margin` must be a finite number, got {margin}")));
        }
        let named = self.similarity_fn_names.as_deref();
        shared::check_main(("similarity_fn_names", named), ("main_similarity_function", self.main_similarity_function))
    }
}

impl TripletSettings {
    fn similarities(&self, model: &str) -> Result<Vec<Similarity>> {
        let named = self.similarity_fn_names.as_deref();
        shared::similarities(named, self.main_similarity_function, model)
    }
}

impl EvaluatorSettings for TripletSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        let key = match (self.main_similarity_function, self.similarities(similarity_fn_name).as_deref()) {
            (Some(main), _) => format!("{main}_accuracy"),
            (None, Ok([one])) => format!("{one}_accuracy"),
            (None, Ok(_)) => "max_accuracy".to_owned(),
            (None, Err(_)) => format!("{similarity_fn_name}_accuracy"),
        };
        prefixed(&self.name, &key)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let mut names: Vec<&str> = similarities.iter().map(|s| s.name()).collect();
        if names.len() > 1 {
            names.push("max");
        }
        names.iter().map(|n| prefixed(&self.name, &format!("{n}_accuracy"))).collect()
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let csv = Csv::new(self.write_csv, format!("triplet_evaluation{}_results.csv", shared::part(&self.name)));
        let csv = csv.map(|csv| {
            similarities
                .iter()
                .fold(csv, |csv, s| csv.column(format!("accuracy_{s}"), prefixed(&self.name, &format!("{s}_accuracy"))))
        });
        csv.into_iter().collect()
    }
}

/// The share of triplets with `sim(anchor, positive) > sim(anchor, negative) + margin`.
///
/// Anchors are encoded as queries, positives and negatives as documents, each with the model's prompt for it.
/// Keys: `<similarity>_accuracy`, and `max_accuracy` with several similarity functions.
///
/// Source: `evaluation/triplet.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "TripletEvaluator"
/// path = "dev-triplets.jsonl"
/// ```
#[derive(Debug, Clone)]
pub struct TripletEvaluator {
    settings: TripletSettings,
    anchors: Vec<String>,
    positives: Vec<String>,
    negatives: Vec<String>,
}

impl TripletEvaluator {
    /// An evaluator of three columns.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when the columns are empty or differ in length.
    pub fn new(
        anchors: Vec<String>,
        positives: Vec<String>,
        negatives: Vec<String>,
        settings: TripletSettings,
    ) -> Result<Self> {
        settings.validate()?;
        shared::check_columns(&[
            ("anchor", anchors.len()),
            ("positive", positives.len()),
            ("negative", negatives.len()),
        ])?;
        Ok(Self { settings, anchors, positives, negatives })
    }
}

impl TripletEvaluator {
    /// The triplets by how much nearer the positive is.
    fn look(&self, key: &str, similarity: Similarity, near: &[f32], far: &[f32]) -> Look {
        let mut look = Look::new(key, "margin", &["anchor", "positive", "negative"], self.anchors.len());
        for i in look.chosen() {
            look.push(f64::from(near[i] - far[i]), &[&self.anchors[i], &self.positives[i], &self.negatives[i]]);
        }
        let pairs = near.iter().map(|score| (*score, true)).chain(far.iter().map(|score| (*score, false)));
        let sides = ["positives", "negatives"].map(str::to_owned);
        look.with_scores(Scores::new(shared::scored_by(similarity), sides, pairs))
    }
}

impl Evaluator for TripletEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarities = self.settings.similarities(model.similarity_fn_name())?;
        let encode = |texts: &[String], role| shared::embed_rows(model, texts, Some(role), self.settings.truncate_dim);
        let anchors = encode(&self.anchors, QUERY)?;
        let positives = encode(&self.positives, DOCUMENT)?;
        let negatives = encode(&self.negatives, DOCUMENT)?;

        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        let (mut best, mut columns) = (0.0f64, Vec::new());
        for similarity in &similarities {
            let margin = self.settings.margin.as_ref().map_or(0.0, |m| m.of(*similarity)) as f32;
            let near = anchors.pairs(*similarity, &positives);
            let far = anchors.pairs(*similarity, &negatives);
            let right: Vec<f64> =
                near.iter().zip(&far).map(|(near, far)| f64::from(u8::from(*near > *far + margin))).collect();
            let main = self.settings.main_similarity_function.is_none_or(|main| main == *similarity);
            if model.looked_at() && metrics.looks.is_empty() && main {
                metrics.looks.push(self.look(&metrics.primary, *similarity, &near, &far));
            }
            let accuracy = right.iter().sum::<f64>() / self.anchors.len() as f64;
            best = best.max(accuracy);
            if main {
                columns.push(right);
            }
            metrics.push(prefixed(self.name(), &format!("{similarity}_accuracy")), accuracy);
        }
        if similarities.len() > 1 {
            metrics.push(prefixed(self.name(), "max_accuracy"), best);
        }
        metrics.push_sample(Statistic::Mean, Vec::new(), columns);
        Ok(metrics)
    }
}

impl FromData for TripletEvaluator {
    type Settings = TripletSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Triplets;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Triplets { anchors, positives, negatives } => {
                Some(Self::new(anchors, positives, negatives, settings))
            }
            _ => None,
        }
    }
}
