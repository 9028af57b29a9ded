//! Every architecture against transformers: hidden states, gradients, heads, how pairs are framed, and what is saved.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use tallow::flow::{ActivationFn, Encode, EncodeOptions, EncodeSparse, ModelType, PackedBatch, Predict, Preprocess};
use tallow::model::{ModelOptions, NetworkTokenizer, SentenceTransformer, backbone};
use tallow::ops::{Context, Param, collect};
use tallow::train::Options;
use tallow::util::seed::Rng;

use crate::support::{assert_close, copy_dir, golden, numbers, project, values, whole};
use crate::train::{plan, run};

pub fn fixture(name: &str) -> PathBuf {
    project("tests/fixtures/backbones").join(name)
}

fn cases() -> Vec<Value> {
    let of = |file: &str| golden(file)["cases"].as_array().unwrap().clone();
    let cases: Vec<Value> = ["backbones", "backbones_encoders"].into_iter().flat_map(of).collect();
    assert!(cases.len() >= 14, "only {} cases", cases.len());
    cases
}

pub fn name(case: &Value) -> &str {
    case["model"].as_str().unwrap()
}

pub fn texts(case: &Value) -> Vec<&str> {
    case["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn pairs(case: &Value) -> Vec<(&str, &str)> {
    let pairs = case["pairs"].as_array().unwrap().iter();
    pairs.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect()
}

pub fn pack(ids: &Value) -> PackedBatch {
    let ids: Vec<Vec<u32>> = ids.as_array().unwrap().iter().map(whole).collect();
    PackedBatch::pack(ids.iter().map(|ids| (ids.as_slice(), 0)))
}

fn load(directory: &Path, kind: ModelType) -> SentenceTransformer {
    let options = ModelOptions { model_type: Some(kind), dropout: Some(0.0), ..ModelOptions::default() };
    SentenceTransformer::load_with(directory, &options).unwrap()
}

/// Backward from the sum of `y` times the pattern that golden values have.
pub fn differentiate(y: &Tensor, params: &[std::sync::Arc<Param>]) {
    let pattern: Vec<f32> = (0..y.elem_count()).map(|k| (0.1 * k as f64).sin() as f32).collect();
    let pattern = Tensor::from_vec(pattern, y.dims().to_vec(), &Device::Cpu).unwrap();
    let gradients = (y * pattern).unwrap().sum_all().unwrap().backward().unwrap();
    collect(&gradients, params).unwrap();
}

fn check_gradients<'a>(what: &str, wanted: &Value, params: impl Fn(&str) -> Option<&'a Param>) {
    for (name, want) in wanted.as_object().unwrap() {
        let param = params(name).unwrap_or_else(|| panic!("{what} has no {name}"));
        let got = param.gradient_tensor().unwrap().unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
        assert_close(&format!("{what}, {name}"), &values(&got), &numbers(want), 1e-4);
    }
}

#[test]
pub fn hidden_states_and_gradients_are_transformers() {
    for case in cases() {
        check_network(&fixture(name(&case)), &case);
    }
}

/// The network in a folder against a golden case: hidden states, gradients (every parameter has one), all layers.
pub fn check_network(folder: &Path, case: &Value) {
    let what = name(case);
    let (mut network, _) = backbone::load(folder, "", &Device::Cpu).unwrap();
    network.set_dropout(0.0);
    let batch = pack(&case["token_ids"]);
    let context = Context::training(DType::F32, Rng::new(0)).unwrap();
    let hidden = network.forward(&batch, &context).unwrap();
    assert_close(what, &values(&hidden), &numbers(&case["hidden"]), 1e-5);
    let named = network.params();
    let params: Vec<_> = named.iter().map(|(_, param)| std::sync::Arc::clone(param)).collect();
    differentiate(&hidden, &params);
    check_gradients(what, &case["gradients"], |name| {
        named.iter().find(|(other, _)| other == name).map(|(_, param)| param.as_ref())
    });
    for (name, param) in &named {
        assert!(param.gradient_tensor().unwrap().is_some(), "{what}: {name} has no gradient");
    }
    // every way through the layers ends in the same states
    let layers = network.forward_layers(&batch, &Context::inference()).unwrap();
    assert_eq!(layers.len(), network.layers() + 1);
    assert_close(what, &values(layers.last().unwrap()), &numbers(&case["hidden"]), 1e-5);
    let some = network.forward_some(&batch, &[1, 0], &Context::inference()).unwrap();
    assert_eq!(some.len(), 3);
    for (got, want) in some.iter().zip([1, 0, network.layers()]) {
        assert_close(what, &values(got), &values(&layers[want]), 1e-6);
    }
}

#[test]
fn texts_have_the_tokens_that_transformers_makes() {
    for case in cases() {
        let model = load(&fixture(name(&case)), ModelType::SentenceTransformer);
        let tokens = model.tokenizer().tokenize(&texts(&case), None).unwrap();
        let want: Vec<Vec<u32>> = case["token_ids"].as_array().unwrap().iter().map(whole).collect();
        assert_eq!(tokens.into_iter().map(|tokens| tokens.ids).collect::<Vec<_>>(), want, "{}", name(&case));
    }
}

fn logits(model: &SentenceTransformer, case: &Value) -> Vec<f64> {
    let given = model.predict(&pairs(case), Some(ActivationFn::Identity), &EncodeOptions::default()).unwrap();
    given.data().iter().map(|x| f64::from(*x)).collect()
}

/// What stands before the names of networks that have a head.
const PREFIXES: [&str; 6] = ["bert.", "electra.", "mpnet.", "deberta.", "nomic_bert.", "gte."];

#[test]
pub fn classifiers_are_transformers() {
    for case in cases() {
        let what = name(&case);
        let model = load(&fixture(what), ModelType::CrossEncoder);
        // of BERT's folder the pooler is the network's, and there
        assert!(model.new_layers().is_empty(), "{what}: {:?}", model.new_layers());
        let framing = model.pairs().unwrap();
        let (first, second) = framing.tokenize(&pairs(&case), None).unwrap();
        let tokens: Vec<_> = first.iter().zip(&second).collect();
        let packed = framing.pack_tokens(&tokens);
        let want: Vec<u32> = case["pair_ids"].as_array().unwrap().iter().flat_map(whole).collect();
        assert_eq!(packed.ids.to_vec(), want, "{what}: how pairs are framed");
        let want = numbers(&case["logits"]);
        assert_close(what, &logits(&model, &case), &want, 1e-5);

        let context = Context::training(DType::F32, Rng::new(0)).unwrap();
        let params = model.params();
        let out = model.forward(&packed, &context).unwrap();
        assert_close(what, &values(&out), &want, 1e-5);
        differentiate(&out, &params);
        check_gradients(what, &case["head_gradients"], |name| {
            // the optimizer has other names before those of the network
            let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
            params.iter().find(|param| param.name().ends_with(&format!(".{name}"))).map(AsRef::as_ref)
        });

        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        model.save(&saved).unwrap();
        let again = SentenceTransformer::load(&saved).unwrap();
        assert_eq!(again.kind(), ModelType::CrossEncoder);
        assert_eq!(logits(&again, &case), logits(&model, &case), "{what}");
        keep(&saved, &format!("scores-{what}"));
    }
}

fn sparse(model: &SentenceTransformer, case: &Value) -> Vec<f64> {
    let texts = texts(case);
    let sparse = model.encode_sparse(&texts, &EncodeOptions::default()).unwrap();
    let mut dense = vec![0.0; texts.len() * model.dimension()];
    for row in 0..sparse.rows() {
        let (indices, values) = sparse.row(row);
        for (index, value) in indices.iter().zip(values) {
            dense[row * model.dimension() + *index as usize] = f64::from(*value);
        }
    }
    dense
}

#[test]
pub fn masked_lm_heads_are_transformers() {
    for case in cases() {
        let what = name(&case);
        let model = load(&fixture(what), ModelType::SparseEncoder);
        assert!(model.new_layers().is_empty(), "{what}: {:?}", model.new_layers());
        assert_close(what, &sparse(&model, &case), &numbers(&case["splade"]), 1e-5);
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        model.save(&saved).unwrap();
        let again = SentenceTransformer::load(&saved).unwrap();
        assert_eq!(again.kind(), ModelType::SparseEncoder);
        assert_eq!(sparse(&again, &case), sparse(&model, &case), "{what}");
        keep(&saved, &format!("sparse-{what}"));
    }
}

#[test]
fn a_saved_network_is_the_same_network() {
    for case in cases() {
        let what = name(&case);
        let model = load(&fixture(what), ModelType::SentenceTransformer);
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        model.save(&saved).unwrap();
        let encode = |model: &SentenceTransformer| {
            model.encode(&texts(&case), &EncodeOptions::default()).unwrap().data().to_vec()
        };
        assert_eq!(encode(&SentenceTransformer::load(&saved).unwrap()), encode(&model), "{what}");
        keep(&saved, &format!("embeddings-{what}"));
    }
}

/// Where `TALLOW_SAVED` is set, what was saved stays there, for the reference to load.
pub fn keep(saved: &Path, name: &str) {
    if let Some(folder) = std::env::var_os("TALLOW_SAVED") {
        let target = Path::new(&folder).join(name);
        let _ = std::fs::remove_dir_all(&target);
        copy_dir(saved, &target);
    }
}

/// Dropout that is set reaches all of a network, and its heads.
#[test]
fn dropout_is_set_for_networks_and_heads() {
    for case in cases() {
        let what = name(&case);
        let context = || Context::training(DType::F32, Rng::new(7)).unwrap();
        let (mut network, _) = backbone::load(&fixture(what), "", &Device::Cpu).unwrap();
        network.set_dropout(0.5);
        let batch = pack(&case["token_ids"]);
        let dropped = values(&network.forward(&batch, &context()).unwrap());
        let far = |got: &[f64], want: &[f64]| got.iter().zip(want).any(|(a, b)| (a - b).abs() > 0.1);
        assert!(far(&dropped, &numbers(&case["hidden"])), "{what}");
        assert_close(
            what,
            &values(&network.forward(&batch, &Context::inference()).unwrap()),
            &numbers(&case["hidden"]),
            1e-5,
        );
    }
}

/// `[model.config]`: a network of the shape of the fixture's, with random weights and the fixture's tokenizer.
#[test]
fn networks_are_made_from_their_configuration() {
    for case in cases() {
        let what = name(&case);
        let text = std::fs::read_to_string(fixture(what).join("config.json")).unwrap();
        let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
        config.shift_remove("vocab_size");
        config.shift_remove("pad_token_id");
        let tokenizer = NetworkTokenizer::File(fixture(what).join("tokenizer.json"));
        for kind in [ModelType::SentenceTransformer, ModelType::CrossEncoder, ModelType::SparseEncoder] {
            let options = |seed| ModelOptions { model_type: Some(kind), seed, ..ModelOptions::default() };
            let make = |seed| SentenceTransformer::new_network(&config, &tokenizer, &options(seed)).unwrap();
            let first = |model: &SentenceTransformer| values(model.params()[0].value());
            assert_eq!(first(&make(1)), first(&make(1)), "{what}");
            assert_ne!(first(&make(1)), first(&make(2)), "{what}");
            let dir = tempfile::tempdir().unwrap();
            let saved = dir.path().join("saved");
            make(1).save(&saved).unwrap();
            let again = SentenceTransformer::load(&saved).unwrap();
            assert_eq!((first(&again), again.kind()), (first(&make(1)), kind), "{what}");
            let config: Value =
                serde_json::from_str(&std::fs::read_to_string(saved.join("config.json")).unwrap()).unwrap();
            let second = what.contains("roberta") || what.starts_with("modernbert") || ["mpnet", "gte"].contains(&what);
            let padding = u32::from(second);
            assert_eq!(config["pad_token_id"], padding, "{what}: the tokenizer's");
        }
    }
}

pub fn change_config(directory: &Path, change: impl FnOnce(&mut Value)) {
    let file = directory.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(file, config.to_string()).unwrap();
}

/// Without vectors of its own a head has the words' embeddings; what is saved says so, or transformers would make new
/// ones.
#[test]
fn what_is_saved_does_not_say_otherwise_than_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut saved_config = |name: &str, change: &dyn Fn(&mut Value)| {
        number += 1;
        let (source, target) = (dir.path().join(format!("source{number}")), dir.path().join(format!("saved{number}")));
        copy_dir(&fixture(name), &source);
        change_config(&source, change);
        load(&source, ModelType::SparseEncoder).save(&target).unwrap();
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(target.join("config.json")).unwrap()).unwrap();
        config["tie_word_embeddings"].clone()
    };
    assert_eq!(saved_config("roberta", &|config| config["tie_word_embeddings"] = false.into()), json!(true));
    assert_eq!(saved_config("bert-untied", &|_| {}), json!(false));
    let taken_out = |config: &mut Value| {
        config.as_object_mut().unwrap().shift_remove("tie_word_embeddings");
    };
    assert_eq!(saved_config("roberta", &taken_out), Value::Null);
}

#[test]
fn camembert_is_roberta_by_another_name() {
    let case = cases().into_iter().find(|case| name(case) == "roberta").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (source, saved) = (dir.path().join("source"), dir.path().join("saved"));
    copy_dir(&fixture("roberta"), &source);
    change_config(&source, |config| config["model_type"] = "camembert".into());
    let model = load(&source, ModelType::CrossEncoder);
    assert_close("camembert", &logits(&model, &case), &numbers(&case["logits"]), 1e-5);
    model.save(&saved).unwrap();
    let config: Value = serde_json::from_str(&std::fs::read_to_string(saved.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["CamembertForSequenceClassification"]));
    assert_eq!(config["model_type"], "camembert");
}

/// Recipes train each of them, whole and in parts, and from nothing but a configuration and the data's texts.
#[test]
fn every_architecture_is_trained() {
    let recipe = |model: &str| {
        format!(
            "{model}\n[train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\ncolumns = [\"anchor\", \"positive\"]\n\
             limit = 64\n[loss]\nname = \"MultipleNegativesRankingLoss\"\n[args]\nmax_steps = 24\nlogging_steps = 8\n\
             learning_rate = 5e-3\nper_device_train_batch_size = 8\nsave_strategy = \"no\"\n"
        )
    };
    let train = |text: &str, sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, logs) = run(&plan(text, sets), dir.path(), Options::default());
        let saved = outcome.unwrap().model_dir;
        let config: Value = serde_json::from_str(&std::fs::read_to_string(saved.join("config.json")).unwrap()).unwrap();
        assert!(SentenceTransformer::load(&saved).is_ok());
        (logs.iter().map(|line| line.loss).collect::<Vec<_>>(), config)
    };
    for name in ["roberta", "distilbert", "electra", "modernbert", "deberta-v3", "deberta-v2", "nomic", "new"] {
        let text = recipe(&format!("[model]\nbase = \"tests/fixtures/backbones/{name}\"\ndropout = 0.0"));
        let (whole, _) = train(&text, &[]);
        assert!(whole.len() == 3 && whole[2] < 0.9 * whole[0], "{name}: {whole:?}");
        let (parts, _) = train(&text, &["args.gradient_cache_tokens=150"]);
        assert_close(name, &parts, &whole, 2e-3);
    }
    let text = "[model.config]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\nintermediate_size = 64\n\
                max_position_embeddings = 64\nvocab_size = 300\n";
    for name in ["xlm-roberta", "modernbert"] {
        let (losses, config) = train(&recipe(&format!("{text}model_type = \"{name}\"")), &[]);
        assert!(losses[2] < 0.9 * losses[0], "{name}: {losses:?}");
        // that of the tokenizer that was learnt, and not the architecture's
        assert_eq!(config["pad_token_id"], 0, "{name}");
    }
}

/// Before transformers 5 the layers' kinds were a number and the angles' bases keys of their own.
#[test]
fn modernbert_reads_old_keys() {
    let case = cases().into_iter().find(|case| name(case) == "modernbert").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let old = |number: usize, local: Value, global: f64, every: u64| {
        let source = dir.path().join(number.to_string());
        copy_dir(&fixture("modernbert"), &source);
        change_config(&source, |config| {
            let keys = config.as_object_mut().unwrap();
            keys.shift_remove("layer_types").unwrap();
            keys.shift_remove("rope_parameters").unwrap();
            keys.insert("local_rope_theta".to_owned(), local);
            keys.insert("global_rope_theta".to_owned(), global.into());
            keys.insert("global_attn_every_n_layers".to_owned(), every.into());
        });
        let (network, _) = backbone::load(&source, "", &Device::Cpu).unwrap();
        values(&network.forward(&pack(&case["token_ids"]), &Context::inference()).unwrap())
    };
    let want = numbers(&case["hidden"]);
    assert_close("old keys", &old(0, 1e4.into(), 16e4, 3), &want, 1e-5);
    // each of them counts
    let far = |got: &[f64]| got.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-3);
    assert!(
        far(&old(1, 100.0.into(), 16e4, 3)) && far(&old(2, 1e4.into(), 100.0, 3)) && far(&old(3, 1e4.into(), 16e4, 2))
    );
    assert_eq!(old(4, Value::Null, 16e4, 3), old(5, 16e4.into(), 16e4, 3), "without a base, the other layers'");
}

#[test]
fn configurations_that_cannot_be_computed_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut told = |name: &str, key: &str, value: Value| {
        number += 1;
        let source = dir.path().join(format!("source{number}"));
        copy_dir(&fixture(name), &source);
        change_config(&source, |config| config[key] = value);
        let error = backbone::load(&source, "", &Device::Cpu).err().unwrap_or_else(|| panic!("{name} {key}"));
        assert!(error.to_string().contains("config.json`") && error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(told("roberta", "pad_token_id", Value::Null).contains("`pad_token_id` is null"));
    assert!(told("roberta", "pad_token_id", 65.into()).contains("`max_position_embeddings` is 66"));
    assert!(told("roberta", "position_embedding_type", "relative_key".into()).contains("`relative_key`"));
    assert!(told("roberta", "is_decoder", true.into()).contains("`is_decoder`"));
    let (roberta, _) = backbone::load(&fixture("roberta"), "", &Device::Cpu).unwrap();
    let error = roberta.decoder("", Rng::new(0)).err().unwrap();
    assert!(error.to_string().contains("a RoBERTa network cannot be a decoder"), "{error}");
    assert!(told("electra", "hidden_act", "mish".into()).contains("`hidden_act` is `mish`"));
    assert!(told("distilbert", "activation", "mish".into()).contains("`activation` is `mish`"));
    assert!(told("distilbert", "n_heads", 3.into()).contains("`n_heads` 3 does not divide `dim` 16"));
    assert!(told("modernbert", "hidden_activation", "mish".into()).contains("`hidden_activation` is `mish`"));
    assert!(told("modernbert", "num_attention_heads", 16.into()).contains("an odd number"));
    assert!(told("modernbert", "layer_types", json!(["full_attention"])).contains("1 entries"));
    assert!(told("modernbert", "layer_types", json!(["a", "b", "c", "d"])).contains("`layer_types` has `a`"));
    let scaled = json!({"full_attention": {"rope_theta": 1e4, "rope_type": "yarn"}});
    assert!(told("modernbert", "rope_parameters", scaled).contains("`yarn`"));
    assert!(told("modernbert", "rope_scaling", json!({"type": "linear", "factor": 2.0})).contains("`linear`"));
    assert!(told("modernbert", "rope_parameters", json!({"full_attention": {"rope_theta": 0}})).contains("is 0"));
}
