//! Sparse embeddings, what they decode to, their evaluators, and twenty steps of training as the reference's.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value};
use tallow::eval::reranking::Sample;
use tallow::eval::{self, EvaluationData};
use tallow::flow::{Embeddings, Encode, EncodeOptions, EncodeSparse, ModelType, SparseEmbeddings};
use tallow::model::{ModelOptions, SentenceTransformer};
use tallow::train::Options;

use crate::curves::{follow, recipe_of};
use crate::support::{assert_close, golden, numbers, project};
use crate::train::{plan, run};

fn load() -> SentenceTransformer {
    SentenceTransformer::load(&project("tests/fixtures/tiny-splade")).unwrap()
}

pub fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

fn encode(model: &SentenceTransformer, texts: &[String], max_active_dims: Option<usize>) -> SparseEmbeddings {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    model.encode_sparse(&texts, &EncodeOptions { max_active_dims, ..EncodeOptions::default() }).unwrap()
}

pub fn same(what: &str, got: &SparseEmbeddings, want: &Value) {
    let rows = want.as_array().unwrap();
    assert_eq!(got.rows(), rows.len());
    for (i, want) in rows.iter().enumerate() {
        let (indices, values) = got.row(i);
        let wanted: Vec<u64> = want["indices"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect();
        assert_eq!(indices.iter().map(|x| u64::from(*x)).collect::<Vec<_>>(), wanted, "{what}, text {i}");
        let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        assert_close(&format!("{what}, text {i}"), &values, &numbers(&want["values"]), 1e-5);
    }
}

#[test]
fn embeddings_are_the_references() {
    let golden = golden("sparse_encoder");
    let saved = tempfile::tempdir().unwrap();
    load().save(saved.path()).unwrap();
    let texts = texts(&golden["texts"]);
    for model in [load(), SentenceTransformer::load(saved.path()).unwrap()] {
        assert_eq!((model.kind(), model.similarity_fn_name()), (ModelType::SparseEncoder, "dot"));
        let embeddings = encode(&model, &texts, None);
        same("embeddings", &embeddings, &golden["embeddings"]);
        same("seven dimensions", &encode(&model, &texts, Some(7)), &golden["seven"]);
        for (key, got) in [("active_dims", embeddings.active_dims()), ("sparsity_ratio", embeddings.sparsity_ratio())] {
            assert!((got - golden["sparsity"][key].as_f64().unwrap()).abs() < 1e-5, "{key}: {got}");
        }
        for (row, want) in golden["decoded"].as_array().unwrap().iter().enumerate() {
            let got = model.decode(&embeddings, row, Some(5));
            let want: Vec<(&str, f64)> = want
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| (entry[0].as_str().unwrap(), entry[1].as_f64().unwrap()))
                .collect();
            assert_eq!(got.len(), want.len());
            for ((word, weight), (wanted, expected)) in got.iter().zip(want) {
                assert!(word == wanted && (f64::from(*weight) - expected).abs() < 1e-5, "{got:?}");
            }
        }
        let both = embeddings.intersection(0, &embeddings, 1);
        let wanted = &golden["intersection"];
        let values: Vec<f64> = both.iter().map(|(_, value)| f64::from(*value)).collect();
        assert_close("intersection", &values, &numbers(&wanted["values"]), 1e-5);
        assert_eq!(both.len(), wanted["indices"].as_array().unwrap().len());
    }
}

#[test]
fn losses_follow_the_reference() {
    let golden = golden("sparse_encoder");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 3);
    let probes: Vec<String> = texts(&golden["texts"]).into_iter().take(4).collect();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = recipe_of(case, "SparseEncoder");
        for cache in [&[][..], &["args.gradient_cache_tokens=90"]] {
            let model = follow(name, case, &plan(&text, cache));
            let got = encode(&model, &probes, None).to_dense();
            let got: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
            assert_close(name, &got, &numbers(&case["after"]), 1e-3);
        }
    }
}

fn data(case: &Value) -> EvaluationData {
    let data = &case["data"];
    let column = |name: &str| texts(&data[name]);
    let numbers =
        |name: &str| -> Vec<f64> { data[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    let map = |name: &str| -> Vec<(String, String)> {
        let object = data[name].as_object().unwrap();
        object.iter().map(|(id, text)| (id.clone(), text.as_str().unwrap().to_owned())).collect()
    };
    match case["evaluator"].as_str().unwrap() {
        "SparseInformationRetrievalEvaluator" => EvaluationData::Retrieval {
            queries: map("queries"),
            corpus: map("corpus"),
            relevant: data["relevant"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(id, documents)| (id.clone(), texts(documents).into_iter().collect()))
                .collect::<HashMap<_, _>>(),
        },
        "SparseEmbeddingSimilarityEvaluator" => EvaluationData::ScoredPairs {
            sentences1: column("sentence1"),
            sentences2: column("sentence2"),
            scores: numbers("score"),
        },
        "SparseTripletEvaluator" => EvaluationData::Triplets {
            anchors: column("anchor"),
            positives: column("positive"),
            negatives: column("negative"),
        },
        "SparseBinaryClassificationEvaluator" => EvaluationData::LabelledPairs {
            sentences1: column("sentence1"),
            sentences2: column("sentence2"),
            labels: numbers("label").iter().map(|x| *x > 0.5).collect(),
        },
        "SparseRerankingEvaluator" => {
            let sample = |sample: &Value| Sample {
                query: sample["query"].as_str().unwrap().to_owned(),
                positive: texts(&sample["positive"]),
                negative: texts(&sample["negative"]),
            };
            EvaluationData::Reranking(data["samples"].as_array().unwrap().iter().map(sample).collect())
        }
        "SparseTranslationEvaluator" => {
            EvaluationData::Parallel { sources: column("source"), targets: column("target") }
        }
        other => panic!("no such evaluator: {other}"),
    }
}

/// A model whose embeddings are never filled up with zeros.
struct OnlySparse(SentenceTransformer);

impl Encode for OnlySparse {
    fn encode(&self, _: &[&str], _: &EncodeOptions) -> tallow::Result<Embeddings> {
        panic!("an evaluator asks for dense embeddings")
    }

    fn similarity_fn_name(&self) -> &str {
        self.0.similarity_fn_name()
    }

    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        self.0.sparse()
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.0.named_prompt(name)
    }
}

#[test]
fn evaluators_equal_the_reference() {
    let golden = golden("sparse_encoder");
    let model = OnlySparse(load());
    let mut seen = BTreeSet::new();
    for case in golden["evaluators"].as_array().unwrap() {
        let name = case["evaluator"].as_str().unwrap();
        let place = format!("{name} {}", case["config"]);
        let settings: Map<String, Value> = case["config"].as_object().unwrap().clone();
        let evaluator = eval::build(name, &settings, data(case)).unwrap_or_else(|e| panic!("{place}: {e}"));
        let metrics = evaluator.evaluate(&model).unwrap_or_else(|e| panic!("{place}: {e}"));
        let wanted = case["metrics"].as_object().unwrap();
        let keys: Vec<&String> = metrics.values.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, wanted.keys().collect::<Vec<_>>(), "{place}");
        assert_eq!(evaluator.keys("dot").iter().collect::<Vec<_>>(), keys, "{place}");
        for (key, value) in &metrics.values {
            let want = wanted[key].as_f64().unwrap();
            assert!((value - want).abs() < 1e-4 * want.abs().max(1.0), "{place} {key}: {value}, expected {want}");
        }
        assert_eq!(metrics.primary, case["primary"].as_str().unwrap(), "{place}");
        for csv in evaluator.csv("dot") {
            assert_eq!(case["csv"][&csv.file].as_str(), Some(csv.header().as_str()), "{place}");
        }
        seen.insert(name.to_owned());
    }
    // that of one differs in data alone; the others are in sparse_more.json
    let others = ["SparseMSEEvaluator", "SparseNanoBEIREvaluator", "ReciprocalRankFusionEvaluator"];
    for entry in eval::sparse::EVALUATORS.iter().filter(|entry| !others.contains(&entry.card.name)) {
        assert!(seen.contains(entry.card.name), "{} has no golden case", entry.card.name);
    }
    let dense = SentenceTransformer::load(&project("tests/fixtures/tiny-bert")).unwrap();
    let case = &golden["evaluators"][1];
    let evaluator = eval::build(case["evaluator"].as_str().unwrap(), &Map::new(), data(case)).unwrap();
    assert!(evaluator.evaluate(&dense).unwrap_err().to_string().contains("the model's are dense"));
}

/// A recipe whose lines can be changed.
fn recipe(loss: &str) -> String {
    format!(
        r#"
        model_type = "SparseEncoder"
        [model]
        base = "tests/fixtures/tiny-bert"
        [train_dataset]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        {loss}
        [args]
        max_steps = 2
        save_strategy = "no"
        "#
    )
}

fn refused(text: &str) -> String {
    let loaded = tallow::recipe::parse(&project("test.toml"), text, &[]).unwrap_or_else(|e| panic!("{e}"));
    loaded.resolve(&tallow::recipe::Builtin).err().unwrap_or_else(|| panic!("{text}")).to_string()
}

/// As sentence-transformers saves it, `max_active_dims` is a number in the model's configuration.
fn most_active_dimensions_are_the_models(saved: &Path, again: &Path) {
    let file = saved.join("config_sentence_transformers.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut load = |most: Value| {
        config["max_active_dims"] = most;
        std::fs::write(&file, config.to_string()).unwrap();
        SentenceTransformer::load(saved)
    };
    let probe = ["a text of several words".to_owned()];
    assert!(encode(&load(Value::Null).unwrap(), &probe, None).active_dims() > 4.0);
    let limited = load(4.into()).unwrap();
    assert_eq!(encode(&limited, &probe, None).active_dims(), 4.0);
    assert_eq!(encode(&limited, &probe, Some(6)).active_dims(), 6.0);
    limited.save(again).unwrap();
    assert_eq!(encode(&SentenceTransformer::load(again).unwrap(), &probe, None).active_dims(), 4.0);
    assert!(load(0.into()).err().unwrap().to_string().contains("`max_active_dims` is 0"));
}

#[test]
fn a_bi_encoder_becomes_splade_with_its_own_words() {
    let text = recipe(
        "[loss]\nname = \"SpladeLoss\"\nloss = { name = \"SparseMultipleNegativesRankingLoss\" }\n\
         document_regularizer_weight = 0.01\nquery_regularizer_weight = 0.01",
    );
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = run(&plan(&text, &[]), dir.path(), Options::default());
    let saved = outcome.unwrap().model_dir;
    let trained = SentenceTransformer::load(&saved).unwrap();
    assert_eq!(trained.module_names(), ["Transformer", "SpladePooling"]);
    most_active_dimensions_are_the_models(&saved, &dir.path().join("again"));
    assert_eq!(trained.dimension(), trained.tokenizer().vocabulary());
    let options = ModelOptions { model_type: Some(ModelType::SparseEncoder), ..ModelOptions::default() };
    let new = SentenceTransformer::load_with(&project("tests/fixtures/tiny-bert"), &options).unwrap();
    assert_eq!(new.new_layers().len(), 1);
    let error = SentenceTransformer::load_with(&project("tests/fixtures/tiny-static"), &options).err().unwrap();
    assert!(error.hint().unwrap().contains("network such as BERT"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bare = "[loss]\nname = \"SparseMultipleNegativesRankingLoss\"";
    let with = |more: &str| format!("{bare}\n[loss.splade]\n{more}");
    for (loss, message) in [
        (bare.to_owned(), "needs a regulariser"),
        (with(""), "`document_regularizer_weight` is required but missing"),
        (with("document_regularizer_weight = -1.0"), "must be 0 or more"),
        (
            with(
                "document_regularizer_weight = 1.0\nquery_regularizer_weight = 1.0\nuse_document_regularizer_only = true",
            ),
            "has no effect with `use_document_regularizer_only`",
        ),
        ("[loss]\nname = \"CoSENTLoss\"".to_owned(), "the loss `CoSENTLoss` is for a SentenceTransformer"),
    ] {
        let told = refused(&recipe(&loss));
        assert!(told.contains(message), "{message}: {told}");
    }
}
