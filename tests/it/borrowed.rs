//! Networks that candle-transformers computes: as their papers say, as teachers and as guides, and never trained.

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device};
use serde_json::{Value, json};
use tallow::model::{SentenceTransformer, backbone};
use tallow::ops::Context;
use tallow::train::{self, Event, Options};
use tallow::util::seed::Rng;

use crate::backbones::pack;
use crate::support::{assert_close, copy_dir, golden, numbers, project, values};
use crate::train::{plan, run};

const JINA: &str = "tests/fixtures/borrowed/jina-bert";

/// A copy of the model whose config.json was changed.
fn changed(dir: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let model = dir.join("jina");
    copy_dir(&project(JINA), &model);
    let file = model.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&file, config.to_string()).unwrap();
    model
}

#[test]
fn jina_bert_computes_what_its_paper_says() {
    let case = golden("borrowed");
    let (network, _) = backbone::load(&project(JINA), "", &Device::Cpu).unwrap();
    let context = Context::training(DType::F32, Rng::new(0)).unwrap();
    let hidden = network.forward(&pack(&case["token_ids"]), &context).unwrap();
    assert_close("jina-bert", &values(&hidden), &numbers(&case["hidden"]), 1e-5);
    // what a text is beside does not matter: texts of one length go through together
    let one = json!([case["token_ids"][2].clone()]);
    let alone = network.forward(&pack(&one), &context).unwrap();
    let before: usize =
        case["token_ids"].as_array().unwrap()[..2].iter().map(|ids| ids.as_array().unwrap().len()).sum();
    let beside = hidden.narrow(0, before, alone.dim(0).unwrap()).unwrap();
    assert_close("a text alone", &values(&alone), &values(&beside), 1e-6);
}

#[test]
fn jina_bert_is_saved_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let model = SentenceTransformer::load(&project(JINA)).unwrap();
    model.save(dir.path()).unwrap();
    let tensors = |file: PathBuf| candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let before = tensors(project(JINA).join("model.safetensors"));
    let after = tensors(dir.path().join("model.safetensors"));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in &before {
        assert_eq!(values(tensor), values(&after[name]), "{name}");
    }
    SentenceTransformer::load(dir.path()).unwrap();
}

#[test]
fn jina_bert_teaches() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), "{\"text\": \"sugar\"}\n{\"text\": \"bees carry pollen\"}\n")
        .unwrap();
    let teacher = project(JINA).display().to_string();
    let tallow = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tallow")).args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    tallow(&["teach", "rows.jsonl", "--teacher", &teacher, "--output", "taught.jsonl"]);
    tallow(&["encode", &teacher, "--input", "rows.jsonl", "--column", "text", "--output", "encoded.jsonl"]);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for (taught, encoded) in lines("taught.jsonl").iter().zip(lines("encoded.jsonl")) {
        let list = |value: &Value| serde_json::from_value::<Vec<f64>>(value.clone()).unwrap();
        assert_close("an embedding", &list(&taught["label"]), &list(&encoded["embedding"]), 1e-6);
    }
}

#[test]
fn jina_bert_guides() {
    let recipe = |guide: &str| {
        format!(
            "[model]\nbase = \"tests/fixtures/tiny-bert\"\n[train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\nlimit = 24\n\
             [loss]\nname = \"GISTEmbedLoss\"\nguide = \"{guide}\"\n\
             [args]\nmax_steps = 2\nper_device_train_batch_size = 8\nlogging_steps = 1"
        )
    };
    let losses = |guide: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, logs) = run(&plan(&recipe(guide), &[]), dir.path(), Options::default());
        outcome.unwrap();
        logs.iter().map(|log| log.loss).collect::<Vec<_>>()
    };
    let (own, other) = (losses(JINA), losses("tests/fixtures/tiny-static"));
    assert!(own.len() == 2 && own.iter().all(|loss| loss.is_finite()), "{own:?}");
    assert_ne!(own, other);
}

#[test]
fn jina_bert_is_not_trained() {
    let recipe = format!(
        "[model]\nbase = \"{JINA}\"\n[train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\nlimit = 24\n\
         [loss]\nname = \"MultipleNegativesRankingLoss\"\n[args]\nmax_steps = 2\nper_device_train_batch_size = 8"
    );
    let error = train::smoke_test(&plan(&recipe, &[]), &mut |_: &Event<'_>| {}).unwrap_err();
    let (text, hint) = (error.to_string(), error.hint().unwrap_or_default().to_owned());
    assert!(text.contains("nothing to train"), "{text}");
    assert!(hint.contains("JinaBERT") && hint.contains("tallow teach"), "{hint}");
}

#[test]
fn what_candle_does_not_compute_is_refused() {
    let refused = |change: fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        let Err(error) = backbone::load(&changed(dir.path(), change), "", &Device::Cpu) else { panic!("it loaded") };
        error.to_string()
    };
    let gate = refused(|config| config["feed_forward_type"] = json!("reglu"));
    assert!(gate.contains("`feed_forward_type` is `reglu`") && gate.contains("config.json"), "{gate}");
    let heads = refused(|config| config["num_attention_heads"] = json!(0));
    assert!(heads.contains("`num_attention_heads` 0 does not divide `hidden_size` 24"), "{heads}");
    let shape = refused(|config| config["intermediate_size"] = json!(21));
    assert!(shape.contains("gated_layers") || shape.contains("shape"), "{shape}");
}

#[test]
fn a_text_beyond_the_positions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = changed(dir.path(), |config| config["max_position_embeddings"] = json!(4));
    let (network, _) = backbone::load(&model, "", &Device::Cpu).unwrap();
    let context = Context::training(DType::F32, Rng::new(0)).unwrap();
    let error = network.forward(&pack(&json!([[1, 2, 3, 4, 5]])), &context).unwrap_err();
    assert!(error.to_string().contains("a text has 5 tokens, the model has 4 positions"), "{error}");
    let error = network.forward(&pack(&json!([[1, 20000]])), &context).unwrap_err();
    assert!(error.to_string().contains("token 20000 is not in the vocabulary"), "{error}");
}
