//! What sparse training tells of itself, the number of active dimensions it aims at, and what is said of mistakes.

use serde_json::Value;
use tallow::flow::{EncodeOptions, EncodeSparse, ModelType, Preprocess};
use tallow::model::{ModelOptions, NetworkTokenizer, SentenceTransformer, StaticQueries, StaticWeights};
use tallow::train::{Options, TrainLog};

use crate::support::{copy_dir, project};
use crate::train::{plan, run};

fn recipe(splade: &str, steps: u64) -> String {
    format!(
        r#"
        model_type = "SparseEncoder"
        [model]
        base = "tests/fixtures/tiny-splade"
        dropout = 0.0
        [train_dataset]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        [loss]
        name = "SparseMultipleNegativesRankingLoss"
        [loss.splade]
        {splade}
        [args]
        max_steps = {steps}
        learning_rate = 1e-3
        logging_steps = 1
        save_strategy = "steps"
        save_steps = 5
        "#
    )
}

fn told(log: &TrainLog, key: &str) -> f64 {
    log.told.iter().find(|(known, _)| known == key).unwrap_or_else(|| panic!("no {key} in {:?}", log.told)).1
}

#[test]
fn terms_add_up_to_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let text = recipe("document_regularizer_weight = 0.02\nquery_regularizer_weight = 0.01", 6);
    let (outcome, logs) = run(&plan(&text, &["args.gradient_accumulation_steps=2"]), dir.path(), Options::default());
    outcome.unwrap();
    assert_eq!(logs.len(), 6);
    for log in &logs {
        let terms = ["base_loss", "document_regularizer_loss", "query_regularizer_loss"].map(|key| told(log, key));
        assert!((terms.iter().sum::<f64>() - log.loss).abs() < 1e-5 * log.loss.abs(), "{log:?}");
        assert!(told(log, "query_active_dims") > 1.0 && told(log, "corpus_active_dims") > 1.0);
    }
    let dense = tempfile::tempdir().unwrap();
    let (outcome, _) =
        run(&plan(&recipe("document_regularizer_weight = 0.02", 2), &[]), dense.path(), Options::default());
    let warnings = outcome.unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("queries are not regularised and stay dense")), "{warnings:?}");
    // the weights grow over the first third
    let weights: Vec<f64> = logs.iter().map(|log| told(log, "document_regularizer_weight")).collect();
    assert!(weights[0] == 0.0 && weights[1] > 0.0 && weights[1] < 0.02 && weights[5] == 0.02, "{weights:?}");
}

#[test]
fn a_run_ends_near_the_active_dimensions_it_aims_at() {
    let dir = tempfile::tempdir().unwrap();
    let targets = "target_document_active_dims = 40\ntarget_query_active_dims = 40";
    let (outcome, logs) = run(&plan(&recipe(targets, 150), &["args.save_strategy=no"]), dir.path(), Options::default());
    let near = |key: &str, target: f64| {
        let before = told(&logs[0], key);
        let end = logs[130..].iter().map(|log| told(log, key)).sum::<f64>() / (logs.len() - 130) as f64;
        println!("{key}: from {before} to {end}, aimed at {target}");
        assert!((before / target - 1.0).abs() > 0.5, "{key} began near its target: {before}");
        assert!((end / target - 1.0).abs() < 0.25, "{key}: {end}, aimed at {target}");
    };
    near("corpus_active_dims", 40.0);
    near("query_active_dims", 40.0);
    let model = SentenceTransformer::load(&outcome.unwrap().model_dir).unwrap();
    let text = std::fs::read_to_string(project("tests/golden/curves_pairs.jsonl")).unwrap();
    let passages: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["positive"].as_str().unwrap().to_owned())
        .collect();
    let passages: Vec<&str> = passages.iter().map(String::as_str).collect();
    let active = model.encode_sparse(&passages, &EncodeOptions::default()).unwrap().active_dims();
    assert!((active / 40.0 - 1.0).abs() < 0.3, "{active}");
}

#[test]
fn a_weight_that_follows_goes_on_where_it_was() {
    let whole = tempfile::tempdir().unwrap();
    let text = recipe("target_document_active_dims = 40\nquery_regularizer_weight = 0.01", 12);
    let (outcome, logs) = run(&plan(&text, &[]), whole.path(), Options::default());
    outcome.unwrap();
    let stopped = tempfile::tempdir().unwrap();
    copy_dir(&whole.path().join("checkpoints/checkpoint-5"), &stopped.path().join("checkpoints/checkpoint-5"));
    let resume = Options { resume: true, ..Options::default() };
    let (outcome, rest) = run(&plan(&text, &[]), stopped.path(), resume);
    outcome.unwrap();
    assert_eq!(rest.len(), 7);
    for (a, b) in logs[5..].iter().zip(&rest) {
        assert_eq!((a.step, a.loss, &a.told), (b.step, b.loss, &b.told));
    }
    let weights: Vec<f64> = logs.iter().map(|log| told(log, "document_regularizer_weight")).collect();
    assert!(weights.windows(2).all(|pair| pair[0] != pair[1]), "{weights:?}");
}

fn refused(text: &str) -> tallow::Error {
    let loaded = tallow::recipe::parse(&project("test.toml"), text, &[]).unwrap_or_else(|e| panic!("{e}"));
    loaded.resolve(&tallow::recipe::Builtin).err().unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn mistakes_are_told() {
    let plain = "document_regularizer_weight = 1.0";
    for (splade, message) in [
        ("target_document_active_dims = 0", "`target_document_active_dims` must be at least 1, got 0"),
        (
            "target_document_active_dims = 9\ndocument_regularizer_weight = 0.0",
            "is 0, and a target moves it by factors",
        ),
        (
            "target_document_active_dims = 9\ntarget_query_active_dims = 9\nuse_document_regularizer_only = true",
            "`target_query_active_dims` has no effect",
        ),
    ] {
        let told = refused(&recipe(splade, 2)).to_string();
        assert!(told.contains(message), "{message}: {told}");
    }
    let named = |from: &str, to: &str| refused(&recipe(plain, 2).replace(from, to));
    let sparse = "name = \"SparseMultipleNegativesRankingLoss\"";
    for (to, message, hint) in [
        ("name = \"CoSENTLoss\"", "is for a SentenceTransformer, not for a SparseEncoder", "`SparseCoSENTLoss`"),
        ("name = \"LambdaLoss\"", "is for a CrossEncoder, not for a SparseEncoder", "model_type = \"CrossEncoder\""),
    ] {
        let error = named(sparse, to);
        let told = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(told.contains(message) && told.contains(hint), "{told}");
    }
    let evaluator = "[[evaluator]]\ntype = \"RerankingEvaluator\"\npath = \"tests/golden/curves_pairs.jsonl\"\n[args]";
    let error = named("[args]", evaluator);
    let told = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(told.contains("the evaluator `RerankingEvaluator` is for a SentenceTransformer"), "{told}");
    assert!(told.contains("`SparseRerankingEvaluator`"), "{told}");
    let built = tallow::loss::build_for(ModelType::CrossEncoder, "SparseTripletLoss", &serde_json::Map::new());
    assert!(built.err().unwrap().to_string().contains("is for a SparseEncoder, not for a CrossEncoder"));
}

/// The tokens of a text, whose words are longer than the limit.
fn tokens(model: &SentenceTransformer, text: &str) -> Vec<u32> {
    model.tokenizer().tokenize(&[text], None).unwrap().remove(0).ids
}

#[test]
fn limits_and_lower_case_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let text = "the of the of the of the of the of the of the of the of";
    // a bare tokenizer.json
    let bare = dir.path().join("tokenizer.json");
    std::fs::copy(project("tests/fixtures/tiny-bert/tokenizer.json"), &bare).unwrap();
    let config = serde_json::json!({
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    });
    for kind in [ModelType::SparseEncoder, ModelType::CrossEncoder] {
        let options =
            ModelOptions { model_type: Some(kind), max_seq_length: Some(9), seed: 1, ..ModelOptions::default() };
        let tokenizer = NetworkTokenizer::File(bare.clone());
        let model = SentenceTransformer::new_network(config.as_object().unwrap(), &tokenizer, &options).unwrap();
        let saved = dir.path().join(kind.name());
        model.save(&saved).unwrap();
        let again = SentenceTransformer::load(&saved).unwrap();
        assert_eq!(again.max_seq_length(), Some(9), "{kind}");
        assert_eq!(tokens(&again, text), tokens(&model, text));
    }
    // lower case as sentence-transformers has it, before a tokenizer that keeps case
    let base = dir.path().join("base");
    copy_dir(&project("tests/fixtures/tiny-splade"), &base);
    for (file, from, to) in [
        ("tokenizer.json", "\"lowercase\": true", "\"lowercase\": false"),
        ("sentence_bert_config.json", "{", "{\"do_lower_case\": true,"),
    ] {
        let text = std::fs::read_to_string(base.join(file)).unwrap();
        assert!(text.contains(from), "{file}: {text}");
        std::fs::write(base.join(file), text.replacen(from, to, 1)).unwrap();
    }
    let model = SentenceTransformer::load(&base).unwrap();
    assert_eq!(tokens(&model, "THE"), tokens(&model, "the"));
    let saved = dir.path().join("lower");
    model.save(&saved).unwrap();
    let again = SentenceTransformer::load(&saved).unwrap();
    assert_eq!(tokens(&again, "THE"), tokens(&model, "the"));
    // and for queries that are to need no network
    let queries = StaticQueries { weights: StaticWeights::Ones, frozen: true };
    let options = ModelOptions { static_queries: Some(queries), ..ModelOptions::default() };
    let saved = dir.path().join("queries");
    SentenceTransformer::load_with(&base, &options).unwrap().save(&saved).unwrap();
    let again = SentenceTransformer::load(&saved).unwrap();
    let encode = |text: &str| {
        let options = EncodeOptions { task: Some("query".into()), ..EncodeOptions::default() };
        again.encode_sparse(&[text], &options).unwrap()
    };
    assert_eq!(encode("THE LOSS"), encode("the loss"));
    assert!(encode("the").active_dims() == 1.0);
}

#[test]
fn random_heads_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    copy_dir(&project("tests/fixtures/tiny-bert"), &folder);
    // a network without a head, said to be a SparseEncoder
    let config = folder.join("config_sentence_transformers.json");
    std::fs::write(&config, "{\"model_type\": \"SparseEncoder\"}").unwrap();
    std::fs::remove_file(folder.join("modules.json")).unwrap();
    let texts = dir.path().join("texts.txt");
    std::fs::write(&texts, "bees make honey\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(["encode".as_ref(), folder.as_os_str(), "--input".as_ref(), texts.as_os_str(), "--output".as_ref()])
        .arg(dir.path().join("out.jsonl"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("has no weights for `cls.predictions.transform.dense`"), "{said}");
}
