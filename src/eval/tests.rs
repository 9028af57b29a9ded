#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::json;

use super::*;
use crate::error::Kind;
use crate::flow::{Embeddings, EncodeOptions};

/// Texts are their own embeddings, numbers with blanks between; remembers the prompts it was given.
#[derive(Default)]
struct Numbers {
    similarity: &'static str,
    prompts: HashMap<&'static str, &'static str>,
    calls: RefCell<Vec<(usize, Option<String>)>>,
}

impl Encode for Numbers {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        self.calls.borrow_mut().push((texts.len(), options.prompt.clone()));
        let rows: Vec<Vec<f32>> = texts.iter().map(|t| t.split(' ').map(|x| x.parse().unwrap()).collect()).collect();
        Ok(Embeddings::new(rows[0].len(), rows.concat()).truncated(options.truncate_dim.unwrap_or(0)))
    }

    fn similarity_fn_name(&self) -> &str {
        if self.similarity.is_empty() { "cosine" } else { self.similarity }
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.prompts.get(name).map(|prompt| (*prompt).to_owned())
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

fn ids(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
}

fn retrieval() -> EvaluationData {
    EvaluationData::Retrieval {
        queries: ids(&[("q1", "1 0"), ("q2", "0 1"), ("q3", "1 1")]),
        corpus: ids(&[("d", "1 0"), ("b", "2 0"), ("c", "0 1"), ("a", "-1 0")]),
        relevant: HashMap::from([
            ("q1".to_owned(), HashSet::from(["d".to_owned()])),
            ("q2".to_owned(), HashSet::from(["c".to_owned(), "gone".to_owned()])),
        ]),
    }
}

fn made(name: &str, settings: Value, data: EvaluationData) -> Result<Box<dyn Evaluator>> {
    build(name, settings.as_object().unwrap(), data)
}

fn message(result: Result<Box<dyn Evaluator>>) -> String {
    result.map(|evaluator| evaluator.config()).unwrap_err().to_string()
}

#[test]
fn retrieval_breaks_ties_by_id() {
    let evaluator =
        made("InformationRetrievalEvaluator", json!({"name": "dev", "corpus_chunk_size": 1}), retrieval()).unwrap();
    let model = Numbers::default();
    let metrics = evaluator.evaluate(&model).unwrap();
    // `b` and `d` have cosine 1 with the first query; the relevant `d` comes second.
    assert_eq!(metrics.get("dev_cosine_accuracy@1"), Some(0.5));
    assert_eq!(metrics.get("dev_cosine_mrr@10"), Some(0.75));
    assert_eq!(metrics.get("dev_cosine_recall@10"), Some(0.75));
    assert_eq!(metrics.primary, "dev_cosine_ndcg@10");
    // Queries at once, then the corpus by chunks.
    assert_eq!(model.calls.borrow().iter().map(|call| call.0).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
    let dot = Numbers { similarity: "dot", ..Default::default() };
    assert_eq!(evaluator.evaluate(&dot).unwrap().primary, "dev_dot_ndcg@10");
}

#[test]
fn predictions_name_ids_in_order() {
    let settings = json!({"name": "a/b", "write_predictions": true, "score_functions": ["dot"]});
    let evaluator = made("InformationRetrievalEvaluator", settings, retrieval()).unwrap();
    let documents = evaluator.evaluate(&Numbers::default()).unwrap().documents;
    assert_eq!(documents[0].file, "Information-Retrieval_evaluation_a_b_predictions_dot.jsonl");
    let first: Value = serde_json::from_str(documents[0].text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["query_id"], &first["query"]), (&json!("q1"), &json!("1 0")));
    assert_eq!(first["results"][0], json!({"corpus_id": "b", "score": 2.0}));
    assert_eq!(first["results"][3]["corpus_id"], "a");
}

#[test]
fn the_best_score_function_of_the_first_evaluation_stays_primary() {
    let settings = json!({"score_functions": ["dot", "cos_sim"]});
    let evaluator = made("InformationRetrievalEvaluator", settings, retrieval()).unwrap();
    assert_eq!(evaluator.primary_key("cosine"), "cosine_ndcg@10");
    let metrics = evaluator.evaluate(&Numbers::default()).unwrap();
    assert!(metrics.get("dot_ndcg@10") <= metrics.get("cosine_ndcg@10"));
    assert_eq!(metrics.primary, "cosine_ndcg@10");
    assert_eq!(metrics.values[0].0, "dot_accuracy@1");
}

#[test]
fn prompts_are_the_ones_for_the_role() {
    let model = || Numbers {
        prompts: HashMap::from([("query", "q: "), ("document", "p: "), ("other", "o: ")]),
        ..Default::default()
    };
    let prompts = |settings: Value| {
        let model = model();
        made("InformationRetrievalEvaluator", settings, retrieval()).unwrap().evaluate(&model).unwrap();
        let calls = model.calls.borrow();
        calls.iter().map(|call| call.1.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(prompts(json!({})), ["q: ", "p: "]);
    assert_eq!(prompts(json!({"query_prompt": "", "corpus_prompt_name": "other"})), ["", "o: "]);
    let evaluator = made("InformationRetrievalEvaluator", json!({"query_prompt_name": "nope"}), retrieval()).unwrap();
    assert!(evaluator.evaluate(&model()).unwrap_err().to_string().contains("no prompt `nope`"));

    let triplets = EvaluationData::Triplets {
        anchors: texts(&["1 0", "0 1"]),
        positives: texts(&["1 0", "1 0"]),
        negatives: texts(&["0 1", "1 0"]),
    };
    let model = model();
    let metrics = made("TripletEvaluator", json!({}), triplets).unwrap().evaluate(&model).unwrap();
    assert_eq!(metrics.values, [("cosine_accuracy".to_owned(), 0.5)]);
    let calls: Vec<_> = model.calls.borrow().iter().map(|call| call.1.clone().unwrap()).collect();
    assert_eq!(calls, ["q: ", "p: ", "p: "]);
}

fn pairs(scores: &[f64]) -> EvaluationData {
    EvaluationData::ScoredPairs {
        sentences1: texts(&["1 0", "1 0", "1 0"]),
        sentences2: texts(&["1 0", "1 1", "0 1"]),
        scores: scores.to_vec(),
    }
}

#[test]
fn correlations_without_variance_are_nan_and_improve_on_nothing() {
    let evaluate = |scores: &[f64]| {
        let settings = json!({"name": "sts", "similarity_fn_names": ["cosine", "dot"]});
        made("EmbeddingSimilarityEvaluator", settings, pairs(scores)).unwrap().evaluate(&Numbers::default()).unwrap()
    };
    let metrics = evaluate(&[5.0, 3.0, 0.0]);
    assert!((metrics.get("sts_spearman_cosine").unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(metrics.primary, "sts_spearman_max");
    let nan = evaluate(&[3.0, 3.0, 3.0]).primary_value().unwrap();
    assert!(nan.is_nan());
    assert!(!improves(nan, None) && !improves(nan, Some(0.1)) && !improves(nan, Some(nan)));
    assert!(improves(-0.5, None) && improves(-0.5, Some(nan)) && improves(0.2, Some(0.1)));
    assert!(!improves(0.1, Some(0.1)));
}

#[test]
fn embeddings_that_are_not_finite_are_refused() {
    let data = EvaluationData::ScoredPairs {
        sentences1: texts(&["1 0", "NaN 0"]),
        sentences2: texts(&["1 0", "1 1"]),
        scores: vec![0.0, 1.0],
    };
    let error =
        made("EmbeddingSimilarityEvaluator", json!({}), data).unwrap().evaluate(&Numbers::default()).unwrap_err();
    assert_eq!(error.to_string(), "the model's embedding of `NaN 0` has values that are not finite");
    assert_eq!(error.kind(), Kind::Failed);
}

#[test]
fn margins_are_a_number_or_a_table() {
    let triplets = || EvaluationData::Triplets {
        anchors: texts(&["1 0"]),
        positives: texts(&["1 0"]),
        negatives: texts(&["1 1"]),
    };
    let accuracy = |margin: Value| {
        let settings = json!({"similarity_fn_names": ["cosine", "euclidean"], "margin": margin});
        let evaluator = made("TripletEvaluator", settings, triplets()).unwrap();
        assert_eq!(evaluator.keys("dot"), ["cosine_accuracy", "euclidean_accuracy", "max_accuracy"]);
        evaluator.evaluate(&Numbers::default()).unwrap().values.iter().map(|v| v.1).collect::<Vec<_>>()
    };
    // Cosines 1 and 0.707, distances 0 and 1.
    assert_eq!(accuracy(json!(null)), [1.0, 1.0, 1.0]);
    assert_eq!(accuracy(json!(0.5)), [0.0, 1.0, 1.0]);
    assert_eq!(accuracy(json!(1)), [0.0, 0.0, 0.0]);
    assert_eq!(accuracy(json!({"euclidean": 2})), [1.0, 0.0, 1.0]);
    let wrong = message(made("TripletEvaluator", json!({"margin": {"cosin": 1}}), triplets()));
    assert!(wrong.starts_with("`TripletEvaluator` setting `margin`: unknown variant `cosin`"), "{wrong}");
    let wrong = message(made("TripletEvaluator", json!({"margin": "wide"}), triplets()));
    assert!(wrong.contains("a number, or a table of numbers"), "{wrong}");
}

#[test]
fn settings_are_checked_before_data() {
    for (name, settings, part) in [
        ("InformationRetrievalEvaluator", json!({"ndcg_at_k": []}), "`ndcg_at_k` must not be empty"),
        ("InformationRetrievalEvaluator", json!({"map_at_k": [0]}), "`map_at_k` must hold numbers of at least 1"),
        ("InformationRetrievalEvaluator", json!({"corpus_chunk_size": 0}), "`corpus_chunk_size` must be at least 1"),
        ("InformationRetrievalEvaluator", json!({"truncate_dim": 0}), "`truncate_dim` must be at least 1"),
        ("InformationRetrievalEvaluator", json!({"mrr_at": [10]}), "has no setting `mrr_at`"),
        (
            "InformationRetrievalEvaluator",
            json!({"score_functions": ["dot"], "main_score_function": "cosine"}),
            "`main_score_function` is `cosine`, which is not among `score_functions`",
        ),
        ("InformationRetrievalEvaluator", json!({"query_prompt": "a", "query_prompt_name": "b"}), "exclude each other"),
        ("EmbeddingSimilarityEvaluator", json!({"main_similarity": "cosin"}), "setting `main_similarity`"),
        ("EmbeddingSimilarityEvaluator", json!({"precise": "int8"}), "has no setting `precise`"),
    ] {
        let error = find(name).unwrap().settings(settings.as_object().unwrap()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.kind(), Kind::Usage);
    }
    let error = find("InformationRetrieval").map(|entry| entry.data).unwrap_err();
    assert_eq!(error.hint(), Some("did you mean `InformationRetrievalEvaluator`?"));
    for entry in EVALUATORS {
        let defaults = (entry.defaults)();
        assert_eq!(json!(entry.settings(&Map::new()).unwrap()), defaults);
        let named = Map::from_iter([("name".to_owned(), json!("dev"))]);
        let (primary, keys) = (entry.primary_key(&named, "dot").unwrap(), entry.keys(&named, "dot").unwrap());
        assert!(keys.contains(&primary) && keys.iter().all(|key| key.starts_with("dev_")), "{keys:?}");
        assert!((entry.schema)().get("properties").is_some());
    }
}

#[test]
fn data_is_checked() {
    let ir = |queries: &[(&str, &str)], corpus: &[(&str, &str)], relevant: &[(&str, &str)]| {
        let relevant = relevant.iter().map(|(q, d)| ((*q).to_owned(), HashSet::from([(*d).to_owned()]))).collect();
        let data = EvaluationData::Retrieval { queries: ids(queries), corpus: ids(corpus), relevant };
        message(made("InformationRetrievalEvaluator", json!({}), data))
    };
    let (q, d) = ([("q", "1")], [("d", "1")]);
    assert!(ir(&q, &d, &[("other", "d")]).ends_with("none of the 1 queries has a relevant document"));
    assert!(ir(&q, &d, &[("q", "x")]).ends_with("none of the relevant documents is among the 1 of the corpus"));
    assert!(ir(&q, &[], &[("q", "d")]).contains("among the 0 of the corpus"));
    assert!(ir(&[("q", "1"), ("q", "2")], &d, &[("q", "d")]).ends_with("query id `q` occurs twice"));
    assert!(ir(&q, &[("d", "1"), ("d", "2")], &[("q", "d")]).contains("document id `d` occurs twice"));

    let wrong = message(made("EmbeddingSimilarityEvaluator", json!({}), pairs(&[1.0])));
    assert!(wrong.ends_with("3 `sentence1`, 3 `sentence2`, 1 `score`"), "{wrong}");
    let wrong = message(made("EmbeddingSimilarityEvaluator", json!({}), pairs(&[1.0, f64::NAN, 0.0])));
    assert!(wrong.contains("row 2: `score` is not a finite number"), "{wrong}");
    let wrong = message(made("TripletEvaluator", json!({}), retrieval()));
    assert!(wrong.contains("reads (anchor, positive, negative) triplets, got queries, corpus"), "{wrong}");
}

#[test]
fn data_of_the_others_is_checked() {
    let sample = |positive: &[&str], negative: &[&str]| reranking::Sample {
        query: "1 0".into(),
        positive: texts(positive),
        negative: texts(negative),
    };
    let lists = EvaluationData::Reranking(vec![sample(&["1 0"], &[]), sample(&[], &["1 0"])]);
    let wrong = message(made("RerankingEvaluator", json!({"mrr_at_k": 5}), lists));
    assert!(wrong.ends_with("none of the 2 queries has both positive and negative documents"), "{wrong}");

    let wide = Embeddings::new(3, vec![0.0; 3]);
    let taught = |settings| {
        let data = EvaluationData::Teacher { sentences: texts(&["1 0"]), embeddings: wide.clone() };
        made("MSEEvaluator", settings, data).unwrap().evaluate(&Numbers::default())
    };
    let error = taught(json!({})).unwrap_err();
    assert!(error.to_string().contains("have 2 values, the teacher's 3"), "{error}");
    assert!(error.hint().unwrap().contains("`truncate_dim` to 2"));
    assert_eq!(taught(json!({"truncate_dim": 1})).unwrap().primary_value(), Some(-100.0));

    let mined = |duplicates: &[(&str, &str)]| {
        let sentences = ids(&[("a", "1 0"), ("b", "0 1")]);
        message(made(
            "ParaphraseMiningEvaluator",
            json!({}),
            EvaluationData::Paraphrases { sentences, duplicates: ids(duplicates) },
        ))
    };
    assert!(mined(&[("a", "c")]).contains("none of the 1 duplicates is a pair of the 2 sentences"));

    let nano =
        |settings| made("NanoBEIREvaluator", settings, EvaluationData::Retrievals(vec![("own".into(), retrieval())]));
    assert!(message(nano(json!({"dataset_names": ["nq"]}))).contains("there is no data set `nq`"));
    assert!(message(nano(json!({"query_prompts": {"nq": "q: "}}))).contains("no prompt for the data set `own`"));
    let model = Numbers::default();
    let metrics = nano(json!({"query_prompts": "q: "})).unwrap().evaluate(&model).unwrap();
    assert_eq!(metrics.get("own_cosine_mrr@10"), metrics.get("NanoBEIR_mean_cosine_mrr@10"));
    assert_eq!(model.calls.borrow()[0].1.as_deref(), Some("q: "));
}

#[test]
fn a_similarity_that_is_not_known_is_refused() {
    let evaluator = made("EmbeddingSimilarityEvaluator", json!({}), pairs(&[1.0, 2.0, 3.0])).unwrap();
    let model = Numbers { similarity: "hamming", ..Default::default() };
    assert!(evaluator.keys("hamming").is_empty());
    let error = evaluator.evaluate(&model).unwrap_err();
    assert_eq!(error.to_string(), "the model's `similarity_fn_name`: unknown similarity function `hamming`");
}

/// Scores a pair by the number that its second text is, once for each label.
struct Ranker {
    num_labels: usize,
    prompts: RefCell<Vec<Option<String>>>,
}

impl Ranker {
    fn new(num_labels: usize) -> Self {
        Self { num_labels, prompts: RefCell::default() }
    }
}

impl crate::flow::Predict for Ranker {
    fn predict(
        &self,
        pairs: &[(&str, &str)],
        _: Option<crate::flow::ActivationFn>,
        options: &EncodeOptions,
    ) -> Result<Embeddings> {
        self.prompts.borrow_mut().push(options.prompt.clone());
        let scores = pairs.iter().flat_map(|(_, b)| vec![b.parse().unwrap(); self.num_labels]);
        Ok(Embeddings::new(self.num_labels, scores.collect()))
    }

    fn num_labels(&self) -> usize {
        self.num_labels
    }
}

impl Encode for Ranker {
    fn encode(&self, _: &[&str], _: &EncodeOptions) -> Result<Embeddings> {
        Err(Error::usage("no embeddings"))
    }

    fn similarity_fn_name(&self) -> &str {
        "cosine"
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        (name == "rank").then(|| "rank: ".to_owned())
    }

    fn predictor(&self) -> Option<&dyn crate::flow::Predict> {
        Some(self)
    }
}

fn to_rank(positive: &[&str], negative: &[&str]) -> EvaluationData {
    EvaluationData::RankedDocuments(vec![cross_encoder::reranking::Sample {
        query: "q".into(),
        positive: texts(positive),
        others: cross_encoder::reranking::Others::Negative(texts(negative)),
    }])
}

#[test]
fn a_reranker_that_scores_all_alike_gets_nothing_for_the_order() {
    let evaluator = made("CrossEncoderRerankingEvaluator", json!({}), to_rank(&["1"], &["1", "1", "1"])).unwrap();
    let metrics = evaluator.evaluate(&Ranker::new(1)).unwrap();
    assert_eq!(metrics.get("mrr@10"), Some(0.25));
    assert_eq!(metrics.get("map"), Some(0.25));
    let alone = made("CrossEncoderRerankingEvaluator", json!({"at_k": 3}), to_rank(&["1"], &[])).unwrap();
    assert_eq!(alone.evaluate(&Ranker::new(1)).unwrap().get("ndcg@3"), Some(1.0));
    let none = message(made("CrossEncoderRerankingEvaluator", json!({}), to_rank(&[], &["1"])));
    assert!(none.ends_with("none of the 1 queries has a positive document to rank"), "{none}");
}

#[test]
fn evaluators_of_pairs_want_a_model_of_pairs() {
    let ranking = || made("CrossEncoderRerankingEvaluator", json!({}), to_rank(&["1"], &["0"])).unwrap();
    let error = ranking().evaluate(&Numbers::default()).unwrap_err();
    assert!(error.to_string().contains("measures a CrossEncoder"), "{error}");
    assert!(error.hint().unwrap().contains("RerankingEvaluator"));
    let error = ranking().evaluate(&Ranker::new(3)).unwrap_err();
    assert!(error.to_string().contains("one score a pair, this one has 3"), "{error}");

    let prompted = |name: &str| {
        let settings = json!({"prompt_name": name});
        let model = Ranker::new(1);
        let evaluator = made("CrossEncoderRerankingEvaluator", settings, to_rank(&["1"], &["0"])).unwrap();
        evaluator.evaluate(&model).map(|_| model.prompts.borrow()[0].clone())
    };
    assert_eq!(prompted("rank").unwrap().as_deref(), Some("rank: "));
    assert!(prompted("other").unwrap_err().to_string().contains("no prompt `other`"));

    let scores = EvaluationData::ScoredPairs {
        sentences1: texts(&["a", "a"]),
        sentences2: texts(&["1", "nan"]),
        scores: vec![0.0, 1.0],
    };
    let evaluator = made("CrossEncoderCorrelationEvaluator", json!({}), scores).unwrap();
    let error = evaluator.evaluate(&Ranker::new(1)).unwrap_err();
    assert!(error.to_string().contains("the model's score of (`a`, `nan`) is not finite"), "{error}");
}

#[test]
fn what_is_measured_of_classes_depends_on_the_model() {
    let classes = |labels: &[i64]| {
        let data = EvaluationData::ClassifiedPairs {
            sentences1: texts(&["a", "a", "a"]),
            sentences2: texts(&["1", "2", "0"]),
            labels: labels.to_vec(),
        };
        made("CrossEncoderClassificationEvaluator", json!({"name": "dev"}), data).unwrap()
    };
    let two = classes(&[1, 1, 0]);
    assert_eq!(two.primary_key(""), "dev_average_precision");
    two.meet(&Ranker::new(2));
    assert_eq!(two.primary_key(""), "dev_f1_macro");
    assert_eq!(classes(&[1, 2, 0]).keys("").len(), 3);
    let error = classes(&[1, 2, 0]).evaluate(&Ranker::new(1)).unwrap_err();
    assert!(error.to_string().contains("a label is 2, and the model has one score a pair"), "{error}");
}

#[test]
fn unusual_data_sets_are_named_or_left_out() {
    let sets = |names: &[&str], settings: Value| {
        let EvaluationData::RankedDocuments(samples) = to_rank(&["1"], &["0"]) else { unreachable!() };
        let sets = names.iter().map(|name| ((*name).to_owned(), samples.clone())).collect();
        made("CrossEncoderNanoBEIREvaluator", settings, EvaluationData::RankedDocumentSets(sets))
    };
    let keys = |settings| sets(&["NanoArguAna", "NanoNQ"], settings).unwrap().keys("").len();
    assert_eq!((keys(json!({})), keys(json!({"dataset_names": ["arguana", "nq"]}))), (9, 12));
    assert!(message(sets(&["NanoNQ"], json!({"rerank_k": 0}))).contains("`rerank_k` must be at least 1"));
}
