//! Evaluators equal the reference's: keys, their order, values, primary metrics.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};
use tallow::eval::{self, EvaluationData};
use tallow::flow::{Embeddings, Encode, EncodeOptions};

use crate::support::{golden, numbers, shape};

/// Looks every text up in a table of vectors.
struct Table {
    vectors: HashMap<String, Vec<f32>>,
    similarity: String,
}

impl Encode for Table {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> tallow::Result<Embeddings> {
        let dim = self.vectors.values().next().unwrap().len();
        let rows = Embeddings::new(dim, texts.iter().flat_map(|t| self.vectors[*t].clone()).collect());
        Ok(rows.truncated(options.truncate_dim.unwrap_or(dim)))
    }

    fn similarity_fn_name(&self) -> &str {
        &self.similarity
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// The case's data, with every vector under a text of its own.
fn data(case: &Value) -> (EvaluationData, HashMap<String, Vec<f32>>) {
    let mut vectors = HashMap::new();
    let mut texts = |column: &str| -> Vec<String> {
        let embeddings = &case["embeddings"][column];
        let values = numbers(embeddings);
        let rows = values.chunks(shape(embeddings)[1]).enumerate();
        rows.map(|(i, row)| {
            let text = format!("{column} {i}");
            vectors.insert(text.clone(), row.iter().map(|x| *x as f32).collect());
            text
        })
        .collect()
    };
    let inputs = &case["inputs"];
    let data = match case["evaluator"].as_str().unwrap() {
        "InformationRetrievalEvaluator" => EvaluationData::Retrieval {
            queries: strings(&inputs["query_ids"]).into_iter().zip(texts("queries")).collect(),
            corpus: strings(&inputs["corpus_ids"]).into_iter().zip(texts("corpus")).collect(),
            relevant: inputs["relevant_docs"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(query, ids)| (query.clone(), strings(ids).into_iter().collect()))
                .collect(),
        },
        "EmbeddingSimilarityEvaluator" => EvaluationData::ScoredPairs {
            sentences1: texts("sentences1"),
            sentences2: texts("sentences2"),
            scores: inputs["scores"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
        },
        "TripletEvaluator" => EvaluationData::Triplets {
            anchors: texts("anchors"),
            positives: texts("positives"),
            negatives: texts("negatives"),
        },
        other => panic!("no such evaluator: {other}"),
    };
    (data, vectors)
}

#[test]
fn evaluators_equal_the_reference() {
    let golden = golden("evaluators");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut missing_values = 0;
    for (number, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
        let name = case["evaluator"].as_str().unwrap();
        let place = format!("case {number}: {name} {}", case["config"]);
        let mut settings: Map<String, Value> = case["config"].as_object().unwrap().clone();
        let similarity = settings.shift_remove("similarity_fn_name").unwrap().as_str().unwrap().to_owned();
        let (data, vectors) = data(case);
        let model = Table { vectors, similarity };
        let evaluator = eval::build(name, &settings, data).unwrap_or_else(|e| panic!("{place}: {e}"));
        let keys = evaluator.keys(&model.similarity);
        assert!(keys.contains(&evaluator.primary_key(&model.similarity)), "{place}");
        for _ in 0..2 {
            let metrics = evaluator.evaluate(&model).unwrap_or_else(|e| panic!("{place}: {e}"));
            let expected = case["metrics"].as_object().unwrap();
            let got: Vec<&String> = metrics.values.iter().map(|(key, _)| key).collect();
            assert_eq!(got, expected.keys().collect::<Vec<_>>(), "{place}");
            assert_eq!(got, keys.iter().collect::<Vec<_>>(), "{place}");
            for (key, value) in &metrics.values {
                match expected[key].as_f64() {
                    Some(expected) => {
                        assert!((value - expected).abs() <= 1e-6, "{place} {key}: {value}, expected {expected}");
                    }
                    None => {
                        assert!(value.is_nan(), "{place} {key}: {value}, expected NaN");
                        missing_values += 1;
                    }
                }
                assert_eq!(eval::trainer_key(key), case["trainer_keys"][key].as_str().unwrap(), "{place}");
            }
            assert_eq!(metrics.primary, case["primary_metric"].as_str().unwrap(), "{place}");
            assert_eq!(evaluator.primary_key(&model.similarity), metrics.primary, "{place}");
        }
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    assert!(missing_values > 0, "the golden file has cases without a correlation");
    for card in eval::cards() {
        assert!(counts.get(card.name).is_some_and(|count| *count >= 3), "{}: {counts:?}", card.name);
    }
}
