//! Models against the reference: hidden states, gradients, embeddings, and what is saved.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tallow::flow::{Encode, EncodeOptions, PackedBatch, Preprocess};
use tallow::model::{ModelOptions, SentenceTransformer, StaticOptions, TextTokenizer, backbone};
use tallow::ops::{Context, PoolingMode};
use tallow::util::seed::Rng;

use crate::support::{assert_close, copy_dir, difference, golden, numbers, project, shared, values, whole};

fn fixture(name: &str) -> std::path::PathBuf {
    project("tests/fixtures").join(name)
}

fn texts(value: &serde_json::Value) -> Vec<&str> {
    value["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect()
}

#[test]
fn tokens_equal_transformers() {
    let golden = golden("bert");
    let model = SentenceTransformer::load(&fixture("tiny-bert")).unwrap();
    let tokens = model.tokenizer().tokenize(&texts(&golden), None).unwrap();
    let want: Vec<Vec<u32>> = golden["token_ids"].as_array().unwrap().iter().map(whole).collect();
    assert_eq!(tokens.iter().map(|t| t.ids.clone()).collect::<Vec<_>>(), want);
    let cut = tokens.iter().filter(|t| t.full_length as usize > t.ids.len()).count();
    assert_eq!(cut, 1, "one text is longer than max_seq_length");
}

#[test]
fn bert_equals_transformers() {
    let golden = golden("bert");
    let (bert, _) = backbone::load(&fixture("tiny-bert"), "", &Device::Cpu).unwrap();
    let ids: Vec<Vec<u32>> = golden["token_ids"].as_array().unwrap().iter().map(whole).collect();
    let batch = PackedBatch::pack(ids.iter().map(|i| (i.as_slice(), 0)));
    // Training mode without dropout records the graph.
    let context = Context::training(DType::F32, Rng::new(0)).unwrap();
    let mut bert = bert;
    bert.set_dropout(0.0);
    let hidden = bert.forward(&batch, &context).unwrap();
    let want = numbers(&golden["hidden"]);
    let worst = values(&hidden).iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5, "hidden states differ by {worst:e}");

    let pattern: Vec<f32> = (0..want.len()).map(|k| (0.1 * k as f64).sin() as f32).collect();
    let pattern = Tensor::from_vec(pattern, hidden.dims().to_vec(), &Device::Cpu).unwrap();
    (hidden * pattern).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = golden["gradients"].as_object().unwrap();
    let params = bert.params();
    assert_eq!(params.len(), gradients.len(), "every tensor of the encoder has a gradient");
    for (name, param) in params {
        let got = values(&param.gradient_tensor().unwrap().unwrap_or_else(|| panic!("{name} has no gradient")));
        let want = numbers(&gradients[&name]);
        let scale = want.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // The reference in f32 drifts by 7e-5 from its own f64; key biases have a true gradient of zero.
        assert!(worst <= 1e-4 * scale.max(0.1), "{name}: differs by {worst:e}, largest is {scale:e}");
    }
}

#[test]
fn bert_equals_candle_transformers() {
    use candle_transformers::models::bert::{BertModel, Config};
    let dir = fixture("tiny-bert");
    let config: Config = serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let builder = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = BertModel::load(builder, &config).unwrap();
    let (ours, _) = backbone::load(&dir, "", &Device::Cpu).unwrap();
    let ids: Vec<u32> = vec![2, 40, 41, 300, 17, 3];
    let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let want = theirs.forward(&input, &input.zeros_like().unwrap(), None).unwrap();
    let got = ours.forward(&PackedBatch::pack([(ids.as_slice(), 0)]), &Context::inference()).unwrap();
    assert_close("hidden states", &values(&got), &values(&want), 1e-5);
}

#[test]
fn embeddings_equal_the_reference() {
    let golden = golden("embeddings");
    let mut seen = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let directory = project("tests").join(name);
        let directory = if directory.exists() { directory } else { fixture(name.rsplit('/').next().unwrap()) };
        let model = SentenceTransformer::load(&directory).unwrap();
        let options = EncodeOptions {
            truncate_dim: case["truncate_dim"].as_u64().map(|d| d as usize),
            normalize: case["normalize_embeddings"].as_bool().unwrap_or(false),
            ..EncodeOptions::default()
        };
        let got = model.encode(&texts(case), &options).unwrap();
        let got: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
        let want = numbers(&case["embeddings"]);
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert_eq!(got.len(), want.len());
        assert!(worst < 1e-5, "{name}: embeddings differ by {worst:e}");
        seen += 1;
    }
    assert!(seen >= 6);
}

#[test]
fn a_saved_model_is_the_same_model() {
    for name in ["tiny-bert", "tiny-modules", "tiny-static"] {
        let model = SentenceTransformer::load(&fixture(name)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        model.save(&target).unwrap();
        model.save(&target).unwrap();
        let again = SentenceTransformer::load(&target).unwrap();
        let texts = ["a small test", "the second text is longer than the first one"];
        let options = EncodeOptions::default();
        assert_eq!(model.encode(&texts, &options).unwrap(), again.encode(&texts, &options).unwrap(), "{name}");
        assert_eq!(model.module_names(), again.module_names());
        assert_eq!(model.max_seq_length(), again.max_seq_length());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary folder is left");
    }
}

#[test]
fn options_change_modules() {
    let options = ModelOptions {
        max_seq_length: Some(5),
        pooling_mode: vec![PoolingMode::Cls, PoolingMode::Max],
        normalize: Some(false),
        ..ModelOptions::default()
    };
    let model = SentenceTransformer::load_with(&fixture("tiny-bert"), &options).unwrap();
    assert_eq!(model.module_names(), ["Transformer", "Pooling"]);
    assert_eq!(model.dimension(), 64);
    let tokens = model.tokenizer().tokenize(&["one two three four five six seven"], None).unwrap();
    assert_eq!(tokens[0].ids.len(), 5);
    assert_eq!(tokens[0].ids[4], 3, "the last token is still [SEP]");
    let too_long = ModelOptions { max_seq_length: Some(500), ..ModelOptions::default() };
    let error = SentenceTransformer::load_with(&fixture("tiny-bert"), &too_long).err().unwrap();
    assert!(error.to_string().contains("64 positions"), "{error}");
}

#[test]
fn a_static_model_from_a_tokenizer_is_seeded() {
    let from = StaticOptions { tokenizer: fixture("tiny-bert"), embedding_dim: 16 };
    let make = |seed| SentenceTransformer::new_static(&from, &ModelOptions::default(), Rng::new(seed)).unwrap();
    let encode = |m: &SentenceTransformer| m.encode(&["a b c", ""], &EncodeOptions::default()).unwrap();
    assert_eq!(encode(&make(1)), encode(&make(1)));
    assert_ne!(encode(&make(1)), encode(&make(2)));
    assert_eq!(encode(&make(1)).row(1), [0.0; 16], "a text without tokens is a zero vector");
}

#[test]
fn prompts_are_put_in_front_and_counted() {
    let tokenizer = TextTokenizer::load(&fixture("tiny-bert"), true).unwrap();
    let with = tokenizer.tokenize(&["a test"], Some("query: ")).unwrap();
    let whole = tokenizer.tokenize(&["query: a test"], None).unwrap();
    assert_eq!(with[0].ids, whole[0].ids);
    let prompt = tokenizer.tokenize(&["query: "], None).unwrap();
    assert_eq!(with[0].prompt_length as usize, prompt[0].ids.len() - 1, "[CLS] and the prompt, not [SEP]");
}

#[test]
fn broken_models_are_named() {
    let load = |dir: &Path| SentenceTransformer::load(dir).err().map(|e| format!("{e} | {}", e.hint().unwrap_or("")));
    let missing = load(Path::new("/nowhere/model")).unwrap();
    assert!(missing.contains("/nowhere/model"), "{missing}");

    let break_it = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        copy_dir(&fixture("tiny-bert"), &model);
        change(&model);
        load(&model).expect("it must be refused")
    };
    let replace = |dir: &Path, file: &str, from: &str, to: &str| {
        let path = dir.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    let truncated = break_it(&|dir| {
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(truncated.contains("not a complete safetensors file"), "{truncated}");
    let other = break_it(&|dir| replace(dir, "config.json", "\"model_type\": \"bert\"", "\"model_type\": \"mamba\""));
    assert!(other.contains("`mamba` are not supported") && other.contains("`bert`"), "{other}");
    let module = break_it(&|dir| replace(dir, "modules.json", "pooling.Pooling", "clip_model.CLIPModel"));
    assert!(module.contains("clip_model.CLIPModel") && module.contains("`Pooling`"), "{module}");
    let shape = break_it(&|dir| replace(dir, "config.json", "\"vocab_size\": 600", "\"vocab_size\": 601"));
    assert!(shape.contains("word_embeddings") && shape.contains("601"), "{shape}");
    let tokenizer = break_it(&|dir| std::fs::remove_file(dir.join("tokenizer.json")).unwrap());
    assert!(tokenizer.contains("no tokenizer"), "{tokenizer}");
    let weights = break_it(&|dir| {
        std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    });
    assert!(weights.contains("safe_serialization"), "{weights}");
    let parts = break_it(&|dir| {
        std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin.index.json")).unwrap();
    });
    assert!(parts.contains("safe_serialization"), "{parts}");
    let alone = break_it(&|dir| {
        for file in ["config.json", "model.safetensors"] {
            std::fs::remove_file(dir.join(file)).unwrap();
        }
    });
    assert!(alone.contains("no config.json"), "{alone}");
    let act = break_it(&|dir| replace(dir, "config.json", "\"gelu\"", "\"mish\""));
    assert!(act.contains("mish"), "{act}");
}

#[test]
fn minilm_encodes_as_the_reference() {
    let Some(directory) = shared("models/all-MiniLM-L6-v2") else { return };
    let model = SentenceTransformer::load(&directory).unwrap();
    assert_eq!((model.dimension(), model.layers(), model.max_seq_length()), (384, 6, Some(256)));
    let golden = golden("curves_minilm");
    let case = &golden["cases"][0];
    let probes: Vec<&str> = case["probes"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let got = model.encode(&probes, &EncodeOptions::default()).unwrap();
    let got: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
    let worst = difference(&got, &numbers(&case["embeddings_before"]));
    assert!(worst < 1e-5, "{worst:e}");
}

/// A static embedding's only place for a limit is its tokenizer's truncation, which the reference obeys, too.
#[test]
fn a_static_model_keeps_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limit = |path: &Path| -> serde_json::Value {
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path.join("tokenizer.json")).unwrap()).unwrap();
        file["truncation"]["max_length"].clone()
    };
    let text = "one two three four five six seven eight nine ten";
    let options = ModelOptions { max_seq_length: Some(4), ..ModelOptions::default() };
    let model = SentenceTransformer::load_with(&fixture("tiny-static"), &options).unwrap();
    let target = dir.path().join("model");
    model.save(&target).unwrap();
    assert_eq!(limit(&target), 4);
    let again = SentenceTransformer::load(&target).unwrap();
    assert_eq!(again.max_seq_length(), Some(4));
    let encode = |m: &SentenceTransformer| m.encode(&[text], &EncodeOptions::default()).unwrap();
    assert_eq!(encode(&model), encode(&again));
    assert_ne!(encode(&model), encode(&SentenceTransformer::load(&fixture("tiny-static")).unwrap()));
    // from scratch, a tokenizer's own truncation holds
    let from = StaticOptions { tokenizer: target.join("tokenizer.json"), embedding_dim: 8 };
    let fresh = SentenceTransformer::new_static(&from, &ModelOptions::default(), Rng::new(0)).unwrap();
    assert_eq!(fresh.max_seq_length(), Some(4));
}

#[test]
fn weights_in_half_precision_are_saved_as_what_they_become() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("half");
    copy_dir(&fixture("tiny-bert"), &source);
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    std::fs::write(source.join("config.json"), config.replace("\"float32\"", "\"bfloat16\"")).unwrap();
    let model = SentenceTransformer::load(&source).unwrap();
    std::fs::remove_dir_all(&source).unwrap();
    let target = dir.path().join("saved");
    model.save(&target).unwrap();
    let saved = std::fs::read_to_string(target.join("config.json")).unwrap();
    assert!(saved.contains("\"dtype\": \"float32\""), "{saved}");
    assert!(target.join("tokenizer_config.json").exists(), "kept although the source is gone");
}

#[test]
fn a_default_prompt_must_exist() {
    let options = ModelOptions { default_prompt_name: Some("qeury".to_owned()), ..ModelOptions::default() };
    let error = SentenceTransformer::load_with(&fixture("tiny-bert"), &options).err().unwrap();
    assert!(error.to_string().contains("`qeury`") && error.hint().is_some(), "{error}");
}

#[test]
fn a_model_remembers_how_much_of_an_embedding_to_keep() {
    let dir = tempfile::tempdir().unwrap();
    let options = ModelOptions { truncate_dim: Some(8), ..ModelOptions::default() };
    let model = SentenceTransformer::load_with(&fixture("tiny-static"), &options).unwrap();
    let target = dir.path().join("model");
    model.save(&target).unwrap();
    let again = SentenceTransformer::load(&target).unwrap();
    let whole = SentenceTransformer::load(&fixture("tiny-static")).unwrap();
    let encode = |m: &SentenceTransformer| m.encode(&["a text"], &EncodeOptions::default()).unwrap();
    assert_eq!(encode(&again).dim(), 8);
    assert_eq!(encode(&again).row(0), &encode(&whole).row(0)[..8]);
    let too_many = ModelOptions { truncate_dim: Some(25), ..ModelOptions::default() };
    let error = SentenceTransformer::load_with(&fixture("tiny-static"), &too_many).err().unwrap();
    assert!(error.to_string().contains("24 dimensions"), "{error}");
}

#[test]
fn modules_that_do_not_fit_are_named() {
    let options = ModelOptions { pooling_mode: vec![PoolingMode::LastToken], ..ModelOptions::default() };
    let error = SentenceTransformer::load_with(&fixture("tiny-modules"), &options).err().unwrap();
    assert!(error.to_string().contains("Dense module takes a width of 48"), "{error}");
    assert!(error.hint().unwrap().contains("pooling_mode"));
}

#[test]
fn a_checkpoint_in_parts_is_the_same_model() {
    let fixture = project("tests/fixtures/tiny-bert");
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&fixture, dir.path());
    let file = dir.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    std::fs::remove_file(&file).unwrap();
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let part = format!("model-0000{}-of-00002.safetensors", i + 1);
        let some: std::collections::HashMap<String, Tensor> =
            names.iter().map(|name| (name.clone(), tensors[name].clone())).collect();
        candle_core::safetensors::save(&some, dir.path().join(&part)).unwrap();
        map.extend(names.iter().map(|name| (name.clone(), part.clone().into())));
    }
    let index = dir.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        std::fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    };
    write(&map);
    let encode = |dir: &std::path::Path| {
        let model = SentenceTransformer::load(dir).map_err(|e| format!("{e} {}", e.hint().unwrap_or_default()))?;
        Ok::<_, String>(model.encode(&["a chair by the sea"], &EncodeOptions::default()).unwrap())
    };
    assert_eq!(encode(dir.path()).unwrap(), encode(&fixture).unwrap());
    // what is missing or leads elsewhere is told
    std::fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let told = encode(dir.path()).unwrap_err();
    assert!(
        told.contains("the part `model-00002-of-00002.safetensors` is missing") && told.contains("again"),
        "{told}"
    );
    map.insert("x".to_owned(), "../model.safetensors".into());
    write(&map);
    let told = encode(dir.path()).unwrap_err();
    assert!(told.contains("`../model.safetensors` is no file beside it"), "{told}");
}
