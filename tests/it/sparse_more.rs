//! Evaluators of several searches, queries that need no network, and sparse autoencoders, as the reference has them.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Map, Value};
use tallow::eval::reciprocal_rank_fusion::Ranking;
use tallow::eval::{self, EvaluationData, Evaluator};
use tallow::flow::{EncodeOptions, EncodeSparse, Metrics, ModelType, PackedBatch, Preprocess, SparseEmbeddings};
use tallow::loss::wrap::csr::CSRLoss;
use tallow::model::module::sparse_auto_encoder::{Shape, SparseAutoEncoder};
use tallow::model::{ModelOptions, SentenceTransformer};
use tallow::ops::{self, Context, composed};
use tallow::train::Options;
use tallow::util::seed::Rng;

use crate::curves::{follow_logs, recipe_of};
use crate::sparse_encoder::{same, texts};
use crate::support::{assert_close, copy_dir, golden, numbers, project, tensor, values};
use crate::train::{plan, run};

fn load(name: &str) -> SentenceTransformer {
    SentenceTransformer::load(&project("tests/fixtures").join(name)).unwrap()
}

fn encode(model: &SentenceTransformer, texts: &[String], task: Option<&str>, most: Option<usize>) -> SparseEmbeddings {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let options = EncodeOptions { task: task.map(str::to_owned), max_active_dims: most, ..EncodeOptions::default() };
    model.encode_sparse(&texts, &options).unwrap()
}

/// With `TALLOW_SAVED` set to a folder, saved models are kept there for check_sparse.py.
fn keep(name: &str, saved: &Path) {
    if let Some(folder) = std::env::var_os("TALLOW_SAVED") {
        copy_dir(saved, &Path::new(&folder).join(name));
    }
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
            (
                name.clone(),
                EvaluationData::Retrieval { queries, corpus: numbered('d', texts(&set["corpus"])), relevant },
            )
        };
        let sets = case["data"].as_object().unwrap().iter().map(dataset).collect();
        let name = "SparseNanoBEIREvaluator";
        let evaluator = eval::build(name, &settings(case), EvaluationData::Retrievals(sets)).unwrap();
        let metrics = evaluator.evaluate(&model).unwrap();
        same_metrics(&format!("{name} {}", case["config"]), case, evaluator.as_ref(), &metrics);
    }
    let dense = load("tiny-bert");
    let sets = vec![(
        "a".to_owned(),
        EvaluationData::Retrieval {
            queries: vec![("q".into(), "a".into())],
            corpus: vec![("d".into(), "b".into())],
            relevant: [("q".to_owned(), HashSet::from(["d".to_owned()]))].into(),
        },
    )];
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

#[test]
fn queries_without_a_network_are_the_references() {
    let golden = golden("sparse_more");
    let texts = texts(&golden["texts"]);
    let saved = tempfile::tempdir().unwrap();
    load("tiny-inference-free").save(saved.path()).unwrap();
    keep("sparse-inference-free", saved.path());
    for model in [load("tiny-inference-free"), SentenceTransformer::load(saved.path()).unwrap()] {
        assert_eq!((model.kind(), model.tasks()), (ModelType::SparseEncoder, vec!["query".into(), "document".into()]));
        assert!(!model.network_for(Some("query")) && model.network_for(Some("document")) && model.network_for(None));
        for case in golden["inference_free"]["cases"].as_array().unwrap() {
            let task = case["task"].as_str().unwrap();
            same(task, &encode(&model, &texts, Some(task), None), &case["embeddings"]);
        }
        // documents are what texts of no task are
        let (plain, document) = (encode(&model, &texts, None, None), encode(&model, &texts, Some("document"), None));
        assert_eq!(plain, document);
    }
    let config = |folder: &str| -> Value {
        let file = saved.path().join(folder).join("config.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    assert_eq!(config("query_0_SparseStaticEmbedding"), serde_json::json!({"frozen": false}));
    let router = std::fs::read_to_string(saved.path().join("router_config.json")).unwrap();
    assert!(router.contains("sparse_encoder.models.MLMTransformer"), "{router}");
    let check = || {
        let model = load("tiny-inference-free");
        let asked: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokens = model.tokenizer_for(Some("query")).unwrap().tokenize(&asked, None).unwrap();
        let context = Context::training(DType::F32, Rng::new(0)).unwrap();
        let out = model.forward_task(&PackedBatch::from_tokens(&tokens), Some("query"), &context).unwrap();
        let wave: Vec<f32> = (0..out.elem_count()).map(|k| (0.1 * k as f64).sin() as f32).collect();
        let wave = Tensor::from_vec(wave, out.dims().to_vec(), &Device::Cpu).unwrap();
        let gradients = (out * wave).unwrap().sum_all().unwrap().backward().unwrap();
        ops::collect(&gradients, &model.params()).unwrap();
        let params = model.params();
        let weight = params.iter().find(|p| p.name() == "0.sub_modules.query.0.weight").unwrap();
        let got = values(&weight.gradient_tensor().unwrap().unwrap());
        assert_close("gradient", &got, &numbers(&golden["inference_free"]["gradient"]), 1e-5);
        assert_eq!(params.iter().filter(|p| p.gradient_tensor().unwrap().is_some()).count(), 1);
    };
    check();
    composed::everywhere(check);
}

#[test]
fn weights_of_words_come_from_a_file_or_are_counted() {
    let golden = golden("sparse_more");
    let dir = tempfile::tempdir().unwrap();
    let idf = dir.path().join("idf.json");
    std::fs::write(&idf, golden["inference_free"]["idf"].to_string()).unwrap();
    let corpus = dir.path().join("corpus.jsonl");
    std::fs::write(&corpus, "{\"text\":\"the w\"}\n{\"text\":\"the the c\"}\n{\"text\":\"the\"}\n").unwrap();
    let recipe = |queries: &str| {
        format!(
            "model_type = \"SparseEncoder\"\n[model]\nbase = \"tests/fixtures/tiny-bert\"\n\
             [model.sparse_static_embedding]\n{queries}\n[train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\n\
             columns = [\"anchor\", \"positive\"]\n[loss]\nname = \"SparseMultipleNegativesRankingLoss\"\n\
             [loss.splade]\ndocument_regularizer_weight = 0.01\n[args]\nmax_steps = 2\nsave_strategy = \"no\"\n\
             [args.router_mapping]\nanchor = \"query\"\npositive = \"document\"\n"
        )
    };
    let trained = |queries: &str| {
        let run_dir = tempfile::tempdir().unwrap();
        let (outcome, _) = run(&plan(&recipe(queries), &[]), run_dir.path(), Options::default());
        let outcome = outcome.unwrap();
        assert!(outcome.warnings.iter().all(|text| !text.contains("stay dense")), "{:?}", outcome.warnings);
        SentenceTransformer::load(&outcome.model_dir).unwrap()
    };
    let weight = |model: &SentenceTransformer| {
        let params = model.params();
        values(params.iter().find(|p| p.name().ends_with("query.0.weight")).unwrap().value())
    };
    // frozen ones are as they were after training
    let model = trained(&format!("idf = \"{}\"\nfrozen = true", idf.display()));
    assert_close("idf", &weight(&model), &numbers(&golden["inference_free"]["weight"]), 1e-6);
    assert_eq!(model.module_names(), ["Router"]);
    let model = trained(&format!("corpus = \"{}\"\nfrozen = true", corpus.display()));
    let weights = weight(&model);
    let of = |word: &str| {
        let ids = model.tokenizer_for(Some("query")).unwrap().tokenize(&[word], None).unwrap()[0].ids.clone();
        assert_eq!(ids.len(), 1, "{word}");
        weights[ids[0] as usize]
    };
    let expected = |with: f64| (1.0 + (3.0 - with + 0.5) / (with + 0.5)).ln();
    assert!((of("the") - expected(3.0)).abs() < 1e-6 && (of("w") - expected(1.0)).abs() < 1e-6, "{}", of("the"));
    let ones = trained("");
    assert!(weight(&ones).iter().any(|w| (w - 1.0).abs() > 1e-9), "they are trained");
    assert!(weight(&ones).iter().all(|w| (w - 1.0).abs() < 1e-2));
    std::fs::write(&idf, "{\"no such word at all\": 1.0}").unwrap();
    let run_dir = tempfile::tempdir().unwrap();
    let text = recipe(&format!("idf = \"{}\"", idf.display()));
    let told = run(&plan(&text, &[]), run_dir.path(), Options::default()).0.unwrap_err().to_string();
    assert!(told.contains("none of them the tokenizer's"), "{told}");
    let text = recipe("")
        .replace("[args.router_mapping]\nanchor = \"query\"\npositive = \"document\"\n", "")
        .replace("tests/fixtures/tiny-bert", "tests/fixtures/tiny-inference-free");
    let told = run(&plan(&text, &[]), run_dir.path(), Options::default()).0.unwrap_err().to_string();
    assert!(told.contains("has a Router already"), "{told}");
}

#[test]
fn sparse_autoencoders_are_the_references() {
    let golden = golden("sparse_more");
    let texts = texts(&golden["texts"]);
    let golden = &golden["csr"];
    let saved = tempfile::tempdir().unwrap();
    load("tiny-csr").save(saved.path()).unwrap();
    keep("sparse-csr", saved.path());
    for model in [load("tiny-csr"), SentenceTransformer::load(saved.path()).unwrap()] {
        assert_eq!(model.module_names(), ["Transformer", "Pooling", "Normalize", "SparseAutoEncoder"]);
        same("embeddings", &encode(&model, &texts, None, None), &golden["embeddings"]);
        same("three", &encode(&model, &texts, None, Some(3)), &golden["three"]);
        same("more than k", &encode(&model, &texts, None, Some(9)), &golden["more"]);
    }
    let modules = std::fs::read_to_string(saved.path().join("modules.json")).unwrap();
    assert!(modules.contains("sentence_transformers.models.Transformer"), "{modules}");
}

#[test]
fn reconstruction_losses_are_the_references() {
    let golden = golden("sparse_more");
    let cases = golden["csr"]["cases"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for (number, case) in cases.iter().enumerate() {
        let check = || {
            let shape: Shape = serde_json::from_value(case["config"].clone()).unwrap();
            let parameter = |name: &str| tensor(&case["parameters"][name], DType::F64);
            let tensors = [parameter("pre_bias"), parameter("encoder.weight"), parameter("latent_bias")];
            let autoencoder = SparseAutoEncoder::of(shape, [&tensors[0], &tensors[1], &tensors[2]], "").unwrap();
            let whole =
                |value: &Value| -> Vec<i64> { value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect() };
            autoencoder.set_idle(whole(&case["before"]));
            let context = Context::training(DType::F64, Rng::new(0)).unwrap();
            let columns: Vec<Var> = case["columns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|column| Var::from_tensor(&tensor(column, DType::F64)).unwrap())
                .collect();
            let (mut both, mut total) = (Vec::new(), Vec::new());
            for (column, want) in columns.iter().zip(case["latents"].as_array().unwrap()) {
                let (latents, through) = autoencoder.expand(column, &context, true).unwrap();
                assert_close(&format!("latents {number}"), &values(&latents), &numbers(want), 1e-9);
                let wave: Vec<f64> = (0..latents.elem_count()).map(|k| (0.1 * k as f64).sin()).collect();
                let wave = Tensor::from_vec(wave, latents.dims().to_vec(), &Device::Cpu).unwrap();
                total.push(latents.mul(&wave).unwrap().sum_all().unwrap());
                both.push(through);
            }
            assert_eq!(autoencoder.idle(), whole(&case["after"]), "case {number}");
            let terms = CSRLoss::reconstruction(&both, case["beta"].as_f64().unwrap()).unwrap();
            for (key, term) in ["k", "4k", "aux"].iter().zip(&terms) {
                let want = case["parts"][format!("reconstruction_loss_{key}")].as_f64().unwrap();
                let got = ops::number(term).unwrap();
                assert!((got - want).abs() < 1e-9 * want.abs().max(1.0), "case {number}, {key}: {got}, {want}");
            }
            total.extend(terms);
            let sum = total.into_iter().reduce(|a, b| a.add(&b).unwrap()).unwrap();
            let gradients = sum.backward().unwrap();
            for (column, want) in columns.iter().zip(case["column_gradients"].as_array().unwrap()) {
                let got = values(gradients.get(column).unwrap());
                assert_close(&format!("gradient of a column {number}"), &got, &numbers(want), 1e-9);
            }
            let params: Vec<_> = tallow::model::module::Module::params(&autoencoder).into_iter().map(|p| p.1).collect();
            ops::collect(&gradients, &params).unwrap();
            for param in params {
                let got = values(&param.gradient_tensor().unwrap().unwrap());
                assert_close(param.name(), &got, &numbers(&case["gradients"][param.name()]), 1e-9);
            }
        };
        check();
        composed::everywhere(check);
    }
}

#[test]
fn trained_ones_follow_the_reference() {
    let golden = golden("sparse_more");
    let probes: Vec<String> = texts(&golden["texts"]).into_iter().take(4).collect();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = recipe_of(case, "SparseEncoder");
        for cache in [&[][..], &["args.gradient_cache_tokens=90"]] {
            let (model, logs) = follow_logs(name, case, &plan(&text, cache));
            for task in ["query", "document"] {
                let tasks = !model.tasks().is_empty();
                let got = encode(&model, &probes, tasks.then_some(task), None).to_dense();
                let got: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
                assert_close(&format!("{name} {task}"), &got, &numbers(&case["after"][task]), 1e-3);
            }
            // the reference rounds to four places
            for (log, want) in logs.iter().zip(case["parts"].as_array().unwrap()) {
                for (key, want) in want.as_object().unwrap() {
                    let got = log.told.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("{name}: no {key}")).1;
                    assert!((got - want.as_f64().unwrap()).abs() < 3e-4, "{name} {key}: {got}, {want}");
                }
            }
            if let Some(want) = case.get("stats_last_nonzero") {
                let want: Vec<i64> = want.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect();
                assert_eq!(model.autoencoder().unwrap().idle(), want);
            }
            if let Some(want) = case.get("weight") {
                let params = model.params();
                let weight = params.iter().find(|p| p.name().ends_with("query.0.weight")).unwrap();
                assert_close(name, &values(weight.value()), &numbers(want), 1e-3);
            }
        }
    }
}

#[test]
fn a_bi_encoder_gets_an_autoencoder_and_goes_on_after_a_stop() {
    let recipe = r#"
        model_type = "SparseEncoder"
        [model]
        base = "tests/fixtures/tiny-bert"
        [model.sparse_auto_encoder]
        k = 5
        [train_dataset]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        [loss]
        name = "CSRLoss"
        [args]
        max_steps = 6
        save_strategy = "steps"
        save_steps = 3
    "#;
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = run(&plan(recipe, &[]), dir.path(), Options::default());
    let model = SentenceTransformer::load(&outcome.unwrap().model_dir).unwrap();
    let probe = ["a text of several words".to_owned()];
    let embeddings = encode(&model, &probe, None, None);
    assert_eq!((embeddings.dim(), embeddings.active_dims()), (128, 5.0));
    std::fs::remove_dir_all(dir.path().join("checkpoints/checkpoint-6")).unwrap();
    let resume = Options { resume: true, ..Options::default() };
    let (outcome, _) = run(&plan(recipe, &[]), dir.path(), resume);
    let again = SentenceTransformer::load(&outcome.unwrap().model_dir).unwrap();
    assert_eq!(encode(&again, &probe, None, None), embeddings);
    assert_eq!(again.autoencoder().unwrap().idle(), model.autoencoder().unwrap().idle());
    // without an autoencoder there is nothing to turn back
    let text = recipe.replace("[model.sparse_auto_encoder]\n        k = 5\n", "");
    let told = run(&plan(&text, &[]), dir.path(), Options::default()).0.unwrap_err();
    assert!(told.to_string().contains("does not end with a SparseAutoEncoder"), "{told}");
    let wide = recipe.replace("k = 5", "k = 50");
    let told = run(&plan(&wide, &[]), dir.path(), Options::default()).0.unwrap_err().to_string();
    assert!(told.contains("`model.sparse_auto_encoder.k` is 50, and of 128 dimensions it can be 1 to 32"), "{told}");
}

#[test]
fn other_models_are_told_what_a_router_is() {
    let options = |kind| ModelOptions { model_type: Some(kind), ..ModelOptions::default() };
    let directory = project("tests/fixtures/tiny-inference-free");
    let error = SentenceTransformer::load_with(&directory, &options(ModelType::CrossEncoder)).err().unwrap();
    assert!(error.to_string().contains("has a Router"), "{error}");
    // the network in it can be taken
    let network = directory.join("document_0_MLMTransformer");
    let model = SentenceTransformer::load_with(&network, &options(ModelType::SparseEncoder)).unwrap();
    assert!(model.new_layers().is_empty());
    assert_eq!(model.module_names(), ["Transformer", "SpladePooling"]);
}
