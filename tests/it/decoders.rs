//! Llama's relatives and T5's encoder against transformers, and what they are like as models that embed.

use std::path::PathBuf;

use candle_core::{DType, Device};
use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions, ModelType, Preprocess};
use tallow::model::{ModelOptions, SentenceTransformer, backbone};
use tallow::ops::{Context, PoolingMode};
use tallow::train::Options;
use tallow::util::seed::Rng;

use crate::backbones::{check_network, differentiate, keep, name, pack, texts};
use crate::support::{assert_close, copy_dir, golden, numbers, project, values, whole};
use crate::train::{plan, run};

fn fixture(name: &str) -> PathBuf {
    project("tests/fixtures/decoders").join(name)
}

fn cases() -> Vec<Value> {
    let cases = golden("backbones_decoders")["cases"].as_array().unwrap().clone();
    assert!(cases.len() >= 9, "only {} cases", cases.len());
    cases
}

fn load(what: &str) -> SentenceTransformer {
    SentenceTransformer::load(&fixture(what)).unwrap()
}

#[test]
fn hidden_states_and_gradients_are_transformers() {
    for case in cases() {
        check_network(&fixture(name(&case)), &case);
    }
}

#[test]
fn texts_end_with_the_token_that_the_tokenizer_adds() {
    for case in cases() {
        let tokens = load(name(&case)).tokenizer().tokenize(&texts(&case), None).unwrap();
        let want: Vec<Vec<u32>> = case["token_ids"].as_array().unwrap().iter().map(whole).collect();
        assert!(want.iter().all(|ids| ids.last() == Some(&2)));
        assert_eq!(tokens.into_iter().map(|tokens| tokens.ids).collect::<Vec<_>>(), want, "{}", name(&case));
    }
}

/// A network that was made to say the next token has its last token for a text, any other the mean.
#[test]
fn a_bare_network_is_pooled_as_in_sentence_transformers() {
    for case in cases() {
        let what = name(&case);
        let (hidden, dimension) = (numbers(&case["hidden"]), 16);
        let mut start = 0;
        let mut wanted = Vec::new();
        let of_next_tokens = ["llama", "qwen2"].contains(&what);
        for ids in case["token_ids"].as_array().unwrap() {
            let rows = &hidden[start * dimension..][..ids.as_array().unwrap().len() * dimension];
            start += rows.len() / dimension;
            if of_next_tokens {
                wanted.extend_from_slice(&rows[rows.len() - dimension..]);
            } else {
                let mean =
                    |d: usize| rows.iter().skip(d).step_by(dimension).sum::<f64>() / (rows.len() / dimension) as f64;
                wanted.extend((0..dimension).map(mean));
            }
        }
        let model = load(what);
        let got = model.encode(&texts(&case), &EncodeOptions::default()).unwrap();
        let got: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
        assert_close(what, &got, &wanted, 1e-5);
    }
}

#[test]
fn a_saved_network_is_the_same_network() {
    for case in cases() {
        let what = name(&case);
        let options = ModelOptions {
            model_type: Some(ModelType::SentenceTransformer),
            pooling_mode: vec![PoolingMode::LastToken],
            ..ModelOptions::default()
        };
        let model = SentenceTransformer::load_with(&fixture(what), &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        model.save(&saved).unwrap();
        let encode = |model: &SentenceTransformer| {
            model.encode(&texts(&case), &EncodeOptions::default()).unwrap().data().to_vec()
        };
        assert_eq!(encode(&SentenceTransformer::load(&saved).unwrap()), encode(&model), "{what}");
        let tensors = candle_core::safetensors::load(saved.join("model.safetensors"), &Device::Cpu).unwrap();
        assert!(!tensors.keys().any(|name| name.starts_with("lm_head") || name.starts_with("decoder")), "{what}");
        keep(&saved, &format!("decoders-{what}"));
    }
}

fn recipe(what: &str, more: &str) -> String {
    format!(
        "[model]\nbase = \"tests/fixtures/decoders/{what}\"\npooling_mode = \"lasttoken\"\n{more}\n\
         [train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\nlimit = 48\n\
         [loss]\nname = \"MultipleNegativesRankingLoss\"\n\
         [args]\nmax_steps = 12\nper_device_train_batch_size = 8\nlearning_rate = 5e-3\nlogging_steps = 1\n\
         lr_scheduler_type = \"constant\""
    )
}

#[test]
fn all_of_them_train_whole_and_by_adapters() {
    for what in ["llama", "mistral", "qwen2", "qwen3", "gemma3-bidirectional", "t5-gated"] {
        for more in ["", "[model.lora]\nr = 4\nalpha = 8"] {
            let dir = tempfile::tempdir().unwrap();
            let (outcome, logs) = run(&plan(&recipe(what, more), &[]), dir.path(), Options::default());
            outcome.unwrap_or_else(|e| panic!("{what}: {e}"));
            let losses: Vec<f64> = logs.iter().map(|log| log.loss).collect();
            let (first, last) = (losses[..3].iter().sum::<f64>(), losses[9..].iter().sum::<f64>());
            assert!(last < first, "{what} {more}: {losses:?}");
        }
    }
}

#[test]
fn what_is_computed_otherwise_is_refused() {
    let refused = |what: &str, change: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        copy_dir(&fixture(what), &model);
        let file = model.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&file, config.to_string()).unwrap();
        let Err(error) = backbone::load(&model, "", &Device::Cpu) else { panic!("{what} loaded") };
        assert!(
            error.to_string().contains("config.json") || error.to_string().contains("model.safetensors"),
            "{error}"
        );
        error.to_string()
    };
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
    for (what, key, value, message) in [
        ("qwen3", "head_dim", 7.into(), "an odd number"),
        ("qwen3", "num_key_value_heads", 3.into(), "`num_key_value_heads` 3 does not divide `num_attention_heads` 4"),
        ("qwen3", "hidden_act", "swiglu".into(), "the activation is `swiglu`"),
        ("qwen3", "rope_parameters", serde_json::json!({"rope_type": "yarn", "rope_theta": 1e6}), "`yarn`"),
        ("llama", "rope_parameters", serde_json::json!({"rope_type": "llama3"}), "has no `factor`"),
        ("gemma3", "attn_logit_softcapping", 50.0.into(), "`attn_logit_softcapping` is set"),
        ("gemma3", "sliding_window", 0.into(), "`sliding_window` is 0"),
        ("gemma3", "layer_types", serde_json::json!(["full_attention"]), "has 1 entries, `num_hidden_layers` is 3"),
        ("mistral", "intermediate_size", 21.into(), "gate_proj"),
        ("t5", "feed_forward_proj", "gated-swish".into(), "`feed_forward_proj` is `gated-swish`"),
        ("t5", "relative_attention_num_buckets", 30.into(), "30 buckets"),
        ("t5", "num_heads", 0.into(), "`num_heads` or `d_kv` is 0"),
    ] {
        let said = refused(what, &set(key, value));
        assert!(said.contains(message), "{what}, {key}: {said}");
    }
}

/// Keys of configurations that transformers 4 wrote.
#[test]
fn older_configurations_mean_the_same() {
    for (what, change) in [
        ("qwen3", serde_json::json!({"rope_theta": 10000.0})),
        (
            "llama",
            serde_json::json!({"rope_theta": 500.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}}),
        ),
        (
            "gemma3",
            serde_json::json!({"rope_theta": 1000.0, "rope_local_base_freq": 100.0,
            "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        copy_dir(&fixture(what), &model);
        let file = model.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("rope_parameters");
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(&file, config.to_string()).unwrap();
        let case = cases().into_iter().find(|case| name(case) == what).unwrap();
        check_network(&model, &case);
    }
}

/// What a text is packed with changes nothing.
#[test]
fn a_text_alone_and_among_others_is_the_same() {
    for case in cases() {
        let model = load(name(&case));
        let together = model.encode(&texts(&case), &EncodeOptions::default()).unwrap();
        for (i, text) in texts(&case).iter().enumerate() {
            let alone = model.encode(&[text], &EncodeOptions::default()).unwrap();
            let row: Vec<f64> = together.data()[i * 16..][..16].iter().map(|x| f64::from(*x)).collect();
            let alone: Vec<f64> = alone.data().iter().map(|x| f64::from(*x)).collect();
            assert_close(name(&case), &alone, &row, 1e-6);
        }
    }
}

/// The bits of a network's hidden states and gradients.
fn bits(what: &str, checkpointing: bool) -> Vec<Vec<f64>> {
    let (mut network, _) = backbone::load(&fixture(what), "", &Device::Cpu).unwrap();
    network.set_dropout(0.2);
    if checkpointing {
        network.set_checkpointing().unwrap();
    }
    let case = cases().into_iter().find(|case| name(case) == what).unwrap();
    let context = Context::training(DType::F32, Rng::new(3)).unwrap();
    let hidden = network.forward(&pack(&case["token_ids"]), &context).unwrap();
    let named = network.params();
    let params: Vec<_> = named.iter().map(|(_, param)| std::sync::Arc::clone(param)).collect();
    differentiate(&hidden, &params);
    let gradients = params.iter().map(|param| values(&param.gradient_tensor().unwrap().unwrap()));
    std::iter::once(values(&hidden)).chain(gradients).collect()
}

#[test]
fn layers_that_are_computed_again_have_the_same_gradients() {
    for what in ["llama", "qwen3", "gemma3", "gemma3-bidirectional", "t5", "t5-gated"] {
        let (plain, again) = (bits(what, false), bits(what, true));
        assert_eq!(plain.len(), again.len());
        for (a, b) in plain.iter().zip(&again) {
            assert_close(what, a, b, 1e-5);
        }
        // the same dropout was drawn
        assert_eq!(plain[0], again[0], "{what}");
    }
}

#[test]
fn some_of_the_layers_are_a_network() {
    for (what, keep) in [("llama", vec![1]), ("qwen2", vec![1]), ("gemma3", vec![0, 2]), ("t5", vec![0])] {
        let options = ModelOptions { keep_layers: Some(keep.clone()), ..ModelOptions::default() };
        let student = SentenceTransformer::load_with(&fixture(what), &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        student.save(dir.path()).unwrap();
        let again = SentenceTransformer::load(dir.path()).unwrap();
        let encode = |model: &SentenceTransformer| {
            model.encode(&["bees carry pollen to the field"], &EncodeOptions::default()).unwrap().data().to_vec()
        };
        assert_eq!(encode(&student), encode(&again), "{what}");
        assert_ne!(encode(&student), encode(&load(what)), "{what}");
        let config: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        let count = if what == "t5" { "num_layers" } else { "num_hidden_layers" };
        assert_eq!(config[count], keep.len(), "{what}");
        match what {
            "gemma3" => {
                assert_eq!(config["layer_types"], serde_json::json!(["sliding_attention", "sliding_attention"]))
            }
            "qwen2" => assert_eq!(config["layer_types"], serde_json::json!(["sliding_attention"])),
            _ => assert!(
                config
                    .get("layer_types")
                    .is_none_or(|types| types.as_array().is_some_and(|all| all.len() == keep.len()))
            ),
        }
    }
    let options = ModelOptions { keep_layers: Some(vec![1]), ..ModelOptions::default() };
    let Err(error) = SentenceTransformer::load_with(&fixture("t5"), &options) else { panic!("it loaded") };
    assert!(error.to_string().contains("leaves out layer 0 of a `t5` network"), "{error}");
}
