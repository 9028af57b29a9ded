//! DeBERTa, NomicBERT and GTE beyond what all architectures are tested for: distances, names and keys of older
//! checkpoints, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use tallow::error::Error;
use tallow::flow::{Batch, EncodeOptions, ModelType, PackedBatch};
use tallow::model::lora::LoraOptions;
use tallow::model::{ModelOptions, NetworkTokenizer, SentenceTransformer, backbone};
use tallow::ops::Context;
use tallow::util::seed::Rng;

use crate::backbones::{change_config, differentiate, fixture, pack};
use crate::support::{assert_close, copy_dir, golden, numbers, values};

fn config_of(directory: &Path) -> Map<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(directory.join("config.json")).unwrap()).unwrap()
}

fn tensors_of(directory: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(directory.join("model.safetensors"), &Device::Cpu).unwrap().into_iter().collect()
}

fn case(name: &str) -> Value {
    let cases = golden("backbones_encoders")["cases"].as_array().unwrap().clone();
    cases.into_iter().find(|case| case["model"] == name).unwrap()
}

/// Every distance has the row that the reference looks up, the shared ones included.
#[test]
fn distances_have_the_rows_that_transformers_looks_up() {
    let golden = golden("backbones_encoders");
    let cases = golden["distances"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let want: Vec<u32> = case["rows"].as_array().unwrap().iter().map(|row| row.as_u64().unwrap() as u32).collect();
        let reach = want.len() / 2;
        let mut config = config_of(&fixture("deberta-v3"));
        config.shift_remove("vocab_size");
        config["position_buckets"] = case["position_buckets"].clone();
        config["max_relative_positions"] = case["max_relative_positions"].clone();
        config["max_position_embeddings"] = 1000.into();
        let tokenizer = NetworkTokenizer::File(fixture("deberta-v3").join("tokenizer.json"));
        let model = SentenceTransformer::new_network(&config, &tokenizer, &ModelOptions::default()).unwrap();
        for length in 1..=reach + 1 {
            let ids = vec![5u32; length];
            let batch = Batch {
                packed: PackedBatch::pack([(&ids[..], 0)]),
                columns: 1,
                rows: 1,
                lists: Vec::new(),
                text_ids: Vec::new(),
                labels: None,
                row_ids: vec![0],
                dataset: 0,
            };
            let rows =
                model.rows(&batch).into_iter().find(|(param, _)| param.name().ends_with("rel_embeddings.weight"));
            let mut want = want[reach + 1 - length..reach + length].to_vec();
            want.sort_unstable();
            want.dedup();
            assert_eq!(rows.unwrap().1, want, "{}, {length} tokens", case["position_buckets"]);
        }
    }
}

/// What was read by the names of the code beside the checkpoints is saved by them, and read again.
#[test]
fn names_are_those_that_were_found() {
    for (name, heads) in [("nomic-old", true), ("new", true), ("nomic", true), ("gte", true), ("deberta-v3", true)] {
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        let options = ModelOptions { model_type: Some(ModelType::CrossEncoder), ..ModelOptions::default() };
        SentenceTransformer::load_with(&fixture(name), &options).unwrap().save(&saved).unwrap();
        // a classifier does not keep the head that fills masks
        let own =
            |(key, _): &(String, _)| !["cls.", "lm_head.", "lm_predictions."].iter().any(|head| key.starts_with(head));
        let (before, after) = (tensors_of(&fixture(name)), tensors_of(&saved));
        let before: BTreeMap<_, _> = before.into_iter().filter(own).collect();
        for (key, tensor) in &before {
            let kept = after.get(key).unwrap_or_else(|| panic!("{name}: {key} is not saved"));
            assert!(heads && values(kept) == values(tensor) && kept.dims() == tensor.dims(), "{name}: {key}");
        }
        assert_eq!(before.len(), after.len(), "{name}");
        let (before, after) = (config_of(&fixture(name)), config_of(&saved));
        for (key, value) in before.iter().filter(|(key, _)| !["architectures"].contains(&key.as_str())) {
            assert_eq!(after.get(key), Some(value), "{name}: {key}");
        }
    }
}

/// transformers reads a configuration with keys of its own, so those stand beside the others.
#[test]
fn keys_of_transformers_stand_beside_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (source, saved) = (dir.path().join("source"), dir.path().join("saved"));
    copy_dir(&fixture("nomic"), &source);
    let native =
        ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings"];
    change_config(&source, |config| {
        let keys = config.as_object_mut().unwrap();
        native.iter().chain(&["rope_parameters", "hidden_act"]).for_each(|key| {
            keys.shift_remove(*key).unwrap();
        });
        keys.extend(
            json!({"n_embd": 16, "n_head": 2, "n_layer": 2, "n_inner": 20, "n_positions": 320, "rotary_emb_base": 1000,
                "rotary_emb_fraction": 1.0, "activation_function": "swiglu", "qkv_proj_bias": false,
                "mlp_fc1_bias": false, "mlp_fc2_bias": false})
            .as_object()
            .unwrap()
            .clone(),
        );
    });
    let case = case("nomic");
    let model = SentenceTransformer::load(&source).unwrap();
    model.save(&saved).unwrap();
    let (before, after) = (config_of(&fixture("nomic")), config_of(&saved));
    for key in native.iter().chain(&["hidden_act"]) {
        assert_eq!(after[*key], before[*key], "{key}");
    }
    assert_eq!(after["rope_parameters"], json!({"rope_type": "default", "rope_theta": 1000.0}));
    for directory in [&source, &saved] {
        let (network, _) = backbone::load(directory, "", &Device::Cpu).unwrap();
        let hidden = network.forward(&pack(&case["token_ids"]), &Context::inference()).unwrap();
        assert_close("older keys", &values(&hidden), &numbers(&case["hidden"]), 1e-5);
    }
    // with biases, which transformers has not, it would read another network
    change_config(&source, |config| config["qkv_proj_bias"] = true.into());
    let mut config = Value::Object(config_of(&source));
    backbone::complete(&mut config);
    assert_eq!((&config["hidden_size"], &config["hidden_act"]), (&Value::Null, &json!("silu")));
    // angles that change with the length of a text: no text is longer than those that leave them as they are
    change_config(&source, |config| {
        config["qkv_proj_bias"] = false.into();
        config["rotary_scaling_factor"] = 2.into();
        config["max_trained_positions"] = 100.into();
    });
    let (network, _) = backbone::load(&source, "", &Device::Cpu).unwrap();
    assert_eq!(network.max_positions(), Some(100));
}

/// Scaled angles are others, and so is each half of what scales them.
#[test]
fn gte_scales_angles() {
    let dir = tempfile::tempdir().unwrap();
    let case = case("new");
    let hidden = |number: usize, change: &dyn Fn(&mut Value)| {
        let source = dir.path().join(number.to_string());
        copy_dir(&fixture("new"), &source);
        change_config(&source, change);
        let (network, _) = backbone::load(&source, "", &Device::Cpu).unwrap();
        values(&network.forward(&pack(&case["token_ids"]), &Context::inference()).unwrap())
    };
    let want = numbers(&case["hidden"]);
    let far = |got: &[f64]| got.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-3);
    assert!(far(&hidden(0, &|config| config["rope_scaling"] = Value::Null)));
    assert!(far(&hidden(1, &|config| config["rope_scaling"]["factor"] = 3.0.into())));
    // the base alone is not all of it
    let base = |config: &mut Value| {
        config["rope_scaling"] = Value::Null;
        config["rope_theta"] = 600.0.into();
    };
    assert!(far(&hidden(2, &base)));
    // by its other key, and with a factor that leaves angles as they are
    let renamed =
        |config: &mut Value| config["rope_scaling"] = json!({"rope_type": "ntk", "factor": 2.0, "mixed_b": null});
    assert_close("rope_type", &hidden(3, &renamed), &want, 1e-5);
    let same = |config: &mut Value| config["rope_scaling"] = json!({"type": "ntk", "factor": 1.0});
    assert_eq!(hidden(4, &same), hidden(5, &|config| config["rope_scaling"] = Value::Null));
}

#[test]
fn a_network_may_have_queries_and_keys_apart() {
    let case = case("new");
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    copy_dir(&fixture("new"), &source);
    let mut tensors = tensors_of(&source);
    for part in ["weight", "bias"] {
        let whole = tensors.remove(&format!("new.encoder.layer.0.attention.qkv_proj.{part}")).unwrap();
        for (tensor, name) in whole.chunk(3, 0).unwrap().into_iter().zip(["q_proj", "k_proj", "v_proj"]) {
            tensors.insert(format!("new.encoder.layer.0.attention.{name}.{part}"), tensor.contiguous().unwrap());
        }
    }
    let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, source.join("model.safetensors")).unwrap();
    let (network, _) = backbone::load(&source, "", &Device::Cpu).unwrap();
    let hidden = network.forward(&pack(&case["token_ids"]), &Context::inference()).unwrap();
    assert_close("apart", &values(&hidden), &numbers(&case["hidden"]), 1e-5);
}

/// Whatever a recipe trains gets a gradient: of the network, of a classifier, and of adapters on queries and values.
#[test]
fn gradients_reach_every_tensor() {
    let layers = [
        ("deberta-v3", 4, "query_proj"),
        ("deberta-v2", 4, "value_proj"),
        ("nomic", 4, "q_proj"),
        ("nomic-old", 1, "Wqkv"),
        ("gte", 4, "v_proj"),
        ("new", 1, "qkv_proj"),
    ];
    for (name, count, layer) in layers {
        let options = ModelOptions { model_type: Some(ModelType::CrossEncoder), ..ModelOptions::default() };
        let case = case(name);
        let mut model = SentenceTransformer::load_with(&fixture(name), &options).unwrap();
        let packed = pack(&case["pair_ids"]);
        let types = (0..packed.tokens()).map(|i| (i % 2) as u32).collect();
        let packed = packed.with_types(types);
        let reached = |model: &SentenceTransformer| {
            let context = Context::training(DType::F32, Rng::new(3)).unwrap();
            let out = model.forward(&packed, &context).unwrap();
            let params = model.params();
            differentiate(&out, &params);
            let params: Vec<_> = params.into_iter().filter(|param| param.trainable()).collect();
            for param in &params {
                let gradient = param.gradient_tensor().unwrap();
                let some = gradient.is_some_and(|g| values(&g).iter().any(|x| *x != 0.0));
                // softmax does not see what it adds to all scores of a query
                let shared = param.name().ends_with("k_proj.bias") || param.name().contains("lora_A");
                assert!(some || shared, "{name}: `{}` has no gradient", param.name());
            }
            params
        };
        reached(&model);
        model.add_adapter(&LoraOptions::default(), "base", Rng::new(1)).unwrap();
        let adapted: Vec<String> = model.lora().unwrap().layers().map(str::to_owned).collect();
        assert_eq!(adapted.len(), count, "{name}: {adapted:?}");
        assert!(adapted.iter().any(|adapted| adapted.ends_with(layer)), "{name}: {adapted:?}");
        model.params().iter().for_each(|param| param.clear_gradient());
        let trained = reached(&model);
        assert!(trained.iter().any(|param| param.name().contains("lora_B")), "{name}");
        assert!(!trained.iter().any(|param| param.name().contains("embeddings")), "{name}");
        let all = LoraOptions {
            target_modules: serde_json::from_value(json!("all-linear")).unwrap(),
            r: 1,
            ..LoraOptions::default()
        };
        let mut model = SentenceTransformer::load_with(&fixture(name), &options).unwrap();
        model.add_adapter(&all, "base", Rng::new(1)).unwrap();
        let tables = ["word_embeddings", "rel_embeddings", "position_embeddings", "token_type_embeddings", "conv"];
        let layers: Vec<String> = model.lora().unwrap().layers().map(str::to_owned).collect();
        assert!(!layers.iter().any(|layer| tables.iter().any(|table| layer.ends_with(table))), "{name}: {layers:?}");
        assert_eq!(
            layers.iter().any(|layer| layer.ends_with("embed_proj")),
            name == "deberta-v2",
            "{name}: {layers:?}"
        );
    }
}

fn refused(directory: &Path) -> Error {
    SentenceTransformer::load(directory).err().unwrap_or_else(|| panic!("{} is loaded", directory.display()))
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut told = |name: &str, changes: Value| {
        number += 1;
        let source = dir.path().join(format!("source{number}"));
        copy_dir(&fixture(name), &source);
        change_config(&source, |config| config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone()));
        let error = refused(&source);
        assert!(error.to_string().contains("config.json`") && error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(told("deberta-v3", json!({"relative_attention": false})).contains("`relative_attention`"));
    assert!(told("deberta-v3", json!({"pos_att_type": "p2p"})).contains("`pos_att_type`"));
    assert!(told("deberta-v3", json!({"position_buckets": 1})).contains("`position_buckets` is 1"));
    assert!(told("deberta-v3", json!({"max_relative_positions": 9})).contains("go to 9"));
    assert!(told("deberta-v3", json!({"attention_head_size": 4})).contains("`attention_head_size`"));
    assert!(told("deberta-v3", json!({"num_attention_heads": 3})).contains("does not divide"));
    assert!(told("deberta-v2", json!({"conv_kernel_size": 4})).contains("`conv_kernel_size` is 4"));
    assert!(told("deberta-v2", json!({"conv_groups": 2})).contains("`conv_groups` 2"));
    assert!(told("deberta-v2", json!({"conv_act": "relu6"})).contains("`conv_act` is `relu6`"));
    let experts = json!({"num_experts": 8, "moe_every_n_layers": 2, "moe_top_k": 2, "activation_function": "gelu"});
    assert!(told("nomic-old", experts).contains("mixture of experts"));
    assert!(told("nomic-old", json!({"prenorm": true})).contains("`prenorm` is true"));
    assert!(told("nomic-old", json!({"rotary_emb_scale_base": 512})).contains("`rotary_emb_scale_base` is 512"));
    assert!(told("nomic-old", json!({"rotary_emb_fraction": 0.5})).contains("`rotary_emb_fraction` is 0.5"));
    assert!(told("nomic-old", json!({"activation_function": "gelu"})).contains("`activation_function` is `gelu`"));
    assert!(told("nomic", json!({"head_dim": 4})).contains("`head_dim` is not 8"));
    assert!(told("nomic", json!({"num_attention_heads": 16, "head_dim": null})).contains("an odd number"));
    assert!(told("gte", json!({"rope_parameters": {"rope_type": "yarn"}})).contains("`yarn`"));
    assert!(told("gte", json!({"rope_parameters": {"rope_theta": 0}})).contains("is 0"));
    assert!(told("new", json!({"position_embedding_type": "absolute"})).contains("`absolute`"));
    assert!(told("new", json!({"layer_norm_type": "rms_norm"})).contains("`rms_norm`"));
    assert!(told("new", json!({"logn_attention_scale": true})).contains("`logn_attention_scale`"));
    assert!(told("new", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})).contains("dynamic"));
    assert!(told("new", json!({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}})).contains("mixed_b"));
    assert!(told("deberta-v3", json!({"model_type": "deberta"})).contains("`deberta` are not supported"));
}

#[test]
fn only_a_slow_tokenizer_is_no_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    copy_dir(&fixture("deberta-v3"), &source);
    std::fs::rename(source.join("tokenizer.json"), source.join("spm.model")).unwrap();
    let error = refused(&source);
    let hint = error.hint().unwrap();
    assert!(error.to_string().contains("no tokenizer at") && hint.contains("`spm.model`"), "{error}: {hint}");
    assert!(hint.contains("AutoTokenizer.from_pretrained(DIR)"), "{hint}");
}

/// A DeBERTa network sees every token: the reference would hand tokens that are not seen on as zeros.
#[test]
fn deberta_sees_every_token() {
    let (network, _) = backbone::load(&fixture("deberta-v3"), "", &Device::Cpu).unwrap();
    let mut batch = PackedBatch::pack([(&[1u32, 6, 7, 2][..], 0)]);
    assert!(network.forward(&batch, &Context::inference()).is_ok());
    batch.attended = std::sync::Arc::new(vec![4]);
    assert!(network.forward(&batch, &Context::inference()).is_ok());
    batch.attended = std::sync::Arc::new(vec![3]);
    let error = network.forward(&batch, &Context::inference()).unwrap_err();
    assert!(error.to_string().contains("every token") && error.hint().unwrap().contains("attend"), "{error}");
    let long = vec![6u32; 321];
    let error = network.forward(&PackedBatch::pack([(&long[..], 0)]), &Context::inference()).unwrap_err();
    assert!(error.to_string().contains("321 tokens"), "{error}");
}

/// Of DeBERTa's two heads for words the one that is there is used, and what is saved says which that is.
#[test]
fn the_head_for_words_is_the_one_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for (name, other) in [("deberta-v3", true), ("deberta-v2", false)] {
        let (source, saved) = (dir.path().join(name), dir.path().join(format!("{name}-saved")));
        copy_dir(&fixture(name), &source);
        let options = ModelOptions { model_type: Some(ModelType::SparseEncoder), ..ModelOptions::default() };
        let load = || SentenceTransformer::load_with(&source, &options).unwrap();
        let encode = |model: &SentenceTransformer| {
            tallow::flow::EncodeSparse::encode_sparse(model, &["a fox"], &EncodeOptions::default()).unwrap()
        };
        let want = encode(&load());
        change_config(&source, |config| config["legacy"] = other.into());
        let model = load();
        assert!(model.new_layers().is_empty(), "{name}");
        assert_eq!(encode(&model).row(0), want.row(0), "{name}");
        model.save(&saved).unwrap();
        assert_eq!(config_of(&saved)["legacy"], !other, "{name}");
    }
}
