//! Evaluators of several searches, queries that need no network, and sparse autoencoders, as the reference has them.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tallow::eval::reciprocal_rank_fusion::Ranking;
use tallow::eval::{self, EvaluationData, Evaluator};
use tallow::flow::Metrics;
use tallow::model::SentenceTransformer;

use crate::sparse_encoder::texts;
use crate::support::{golden, project};

fn load(name: &str) -> SentenceTransformer {
    SentenceTransformer::load(&project("tests/fixtures").join(name)).unwrap()
}

/// Keys, values, primary metric and headers of CSV files.
fn same_metrics(place: &str, case: &Value, evaluator: &dyn Evaluator, metrics: &Metrics) {
    let wanted = case["metrics"].as_object().unwrap();
    let sorted = |keys: Vec<String>| {
        let mut keys = keys;
        keys.sort();
        keys
    };
    let keys: Vec<String> = metrics.values.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(evaluator.keys("dot"), keys, "{place}");
    assert_eq!(sorted(keys), sorted(wanted.keys().cloned().collect()), "{place}");
    for (key, value) in &metrics.values {
        let want = wanted[key].as_f64().unwrap();
        assert!((value - want).abs() < 1e-4 * want.abs().max(1.0), "{place} {key}: {value}, expected {want}");
    }
    assert_eq!(metrics.primary, case["primary"].as_str().unwrap(), "{place}");
    let files = evaluator.csv("dot");
    assert_eq!(files.len(), case["csv"].as_object().unwrap().len(), "{place}");
    for csv in files {
        assert_eq!(case["csv"][&csv.file].as_str(), Some(csv.header().as_str()), "{place} {}", csv.file);
    }
}

fn settings(case: &Value) -> Map<String, Value> {
    case["config"].as_object().unwrap().clone()
}

#[test]
fn several_searches_score_as_with_the_reference() {
    let golden = golden("sparse_more");
    let model = load("tiny-splade");
    for case in golden["nano"].as_array().unwrap() {
        let numbered = |letter: char, texts: Vec<String>| -> Vec<(String, String)> {
            texts.into_iter().enumerate().map(|(i, text)| (format!("{letter}{i}"), text)).collect()
        };
        let dataset = |(name, set): (&String, &Value)| {
            let queries = numbered('q', texts(&set["queries"]));
            let relevant = (0..queries.len()).map(|i| (format!("q{i}"), HashSet::from([format!("d{i}")]))).collect();
            (name.clone(), EvaluationData::Retrieval { queries, corpus: numbered('d', texts(&set["corpus"])), relevant })
        };
        let sets = case["data"].as_object().unwrap().iter().map(dataset).collect();
        let name = "SparseNanoBEIREvaluator";
        let evaluator = eval::build(name, &settings(case), EvaluationData::Retrievals(sets)).unwrap();
        let metrics = evaluator.evaluate(&model).unwrap();
        same_metrics(&format!("{name} {}", case["config"]), case, evaluator.as_ref(), &metrics);
    }
    let dense = load("tiny-bert");
    let sets = vec![("a".to_owned(), EvaluationData::Retrieval {
        queries: vec![("q".into(), "a".into())],
        corpus: vec![("d".into(), "b".into())],
        relevant: [("q".to_owned(), HashSet::from(["d".to_owned()]))].into(),
    })];
    let evaluator = eval::build("SparseNanoBEIREvaluator", &Map::new(), EvaluationData::Retrievals(sets)).unwrap();
    assert!(evaluator.evaluate(&dense).unwrap_err().to_string().contains("the model's are dense"));
}

#[test]
fn fused_rankings_score_as_with_the_reference() {
    let golden = golden("sparse_more");
    let model = load("tiny-splade");
    let rankings = |value: &Value| -> Vec<Ranking> {
        let ranking = |row: &Value| Ranking {
            query_id: row["query_id"].as_str().unwrap().to_owned(),
            query: row["query"].as_str().unwrap().to_owned(),
            positive: texts(&row["positive"]),
            documents: texts(&row["documents"]),
        };
        value.as_array().unwrap().iter().map(ranking).collect()
    };
    let name = "ReciprocalRankFusionEvaluator";
    for case in golden["fusion"].as_array().unwrap() {
        let data = EvaluationData::Rankings { dense: rankings(&case["dense"]), sparse: rankings(&case["sparse"]) };
        let evaluator = eval::build(name, &settings(case), data).unwrap();
        let metrics = evaluator.evaluate(&model).unwrap();
        same_metrics(&format!("{name} {}", case["config"]), case, evaluator.as_ref(), &metrics);
        let lines = |text: &str| -> Vec<Value> { text.lines().map(|l| serde_json::from_str(l).unwrap()).collect() };
        assert_eq!(metrics.documents.len(), case["documents"].as_object().unwrap().len());
        for document in &metrics.documents {
            let want = case["documents"][&document.file].as_str().unwrap();
            assert_eq!(lines(&document.text), lines(want));
        }
    }
    let case = &golden["fusion"][0];
    let (dense, mut sparse) = (rankings(&case["dense"]), rankings(&case["sparse"]));
    sparse.swap(1, 2);
    let data = EvaluationData::Rankings { dense, sparse };
    let told = eval::build(name, &Map::new(), data).err().unwrap().to_string();
    assert!(told.contains("row 2: `query_id` is `q1` in the dense ranking and `q2` in the sparse one"), "{told}");
}
