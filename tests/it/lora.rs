//! Adapters: PEFT's numbers, its files, nothing else trained, and every way of training with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use tallow::flow::{ActivationFn, Encode, EncodeOptions, ModelType, Predict};
use tallow::model::lora::{LoraOptions, Targets};
use tallow::model::{ModelOptions, SentenceTransformer, backbone};
use tallow::ops::adapter::{A, B, MAGNITUDE};
use tallow::ops::{
    self, Activation, Adapter, Context, FeedForward, Param, Precision, SelfAttention, collect, composed,
};
use tallow::train::{self, Event, Options};
use tallow::util::seed::Rng;

use crate::backbones::{differentiate, pack};
use crate::curves::{embeds_alike, follow, recipe_of};
use crate::support::{assert_close, golden, numbers, project, tensor, values};
use crate::train::{SMALL, plan, resumes_exactly, run};

pub fn adapter_of(fixture: &str) -> std::collections::HashMap<String, Tensor> {
    let file = project(&format!("tests/fixtures/{fixture}/adapter_model.safetensors"));
    candle_core::safetensors::load(file, &Device::Cpu).unwrap()
}

pub fn names(folder: &Path) -> BTreeSet<String> {
    let file = folder.join("adapter_model.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).unwrap().into_keys().collect()
}

pub fn fixture(name: &str) -> PathBuf {
    project("tests/fixtures").join(name)
}

#[test]
fn hidden_states_and_gradients_are_pefts() {
    for (file, adapter) in [("lora", "tiny-adapter"), ("dora", "tiny-adapter-dora")] {
        hidden_states(file, adapter);
        composed::everywhere(|| hidden_states(file, adapter));
    }
}

/// With an adapter whose scale is 2.
fn hidden_states(file: &str, adapter: &str) {
    let case = &golden(file)["hidden"];
    let (mut network, _) = backbone::load(&fixture("tiny-bert"), "", &Device::Cpu).unwrap();
    network.set_dropout(0.0);
    let saved = adapter_of(adapter);
    let mut adapters = Vec::new();
    for (name, param) in network.params() {
        param.freeze();
        let at = |end: &str| format!("base_model.model.{}{end}", name.strip_suffix("weight").unwrap_or("-"));
        let given = |end: &str| saved.get(&at(end)).map(|value| Param::new(at(end), value).unwrap());
        if let (Some(a), Some(b)) = (given(A), given(B)) {
            let magnitude = given(MAGNITUDE);
            adapters.extend([Arc::clone(&a), Arc::clone(&b)]);
            adapters.extend(magnitude.clone());
            param.adapt(Adapter { a, b, scale: 2.0, dropout: 0.0, magnitude }).unwrap();
        }
    }
    assert_eq!(adapters.len(), saved.len());
    let context = Context::training(DType::F32, Rng::new(0)).unwrap();
    let hidden = network.forward(&pack(&case["token_ids"]), &context).unwrap();
    assert_close("hidden", &values(&hidden), &numbers(&case["hidden"]), 1e-5);
    differentiate(&hidden, &adapters);
    for param in &adapters {
        let want = numbers(&case["gradients"][param.name()]);
        let got = param.gradient_tensor().unwrap().unwrap();
        assert_close(param.name(), &values(&got), &want, 1e-4);
    }
    // the network is frozen, and merged it is another one with the same results
    for (name, param) in network.params() {
        assert!(param.gradient_tensor().unwrap().is_none(), "{name} has a gradient");
        if let Some(want) = case.get("merged").and_then(|merged| merged.get(&name)) {
            assert_close(&name, &values(&param.merged().unwrap()), &numbers(want), 1e-5);
        }
    }
    let adapted: usize = network.params().iter().filter_map(|(_, param)| Some(param.adapter()?.params().count())).sum();
    assert_eq!(adapted, adapters.len());
}

#[test]
fn classifiers_with_adapters_are_pefts() {
    let case = &golden("lora")["classifier"];
    let options =
        ModelOptions { model_type: Some(ModelType::CrossEncoder), dropout: Some(0.0), ..ModelOptions::default() };
    let mut model = SentenceTransformer::load_with(&fixture("tiny-cross-encoder"), &options).unwrap();
    let lora = LoraOptions {
        r: 4,
        target_modules: Some(Targets::Names(vec!["query".to_owned()])),
        adapter: Some(fixture("tiny-adapter-classifier").display().to_string()),
        ..LoraOptions::default()
    };
    model.add_adapter(&lora, "base", Rng::new(0)).unwrap();
    let pairs = case["pairs"].as_array().unwrap().iter();
    let pairs: Vec<(&str, &str)> = pairs.map(|p| (p[0].as_str().unwrap(), p[1].as_str().unwrap())).collect();
    let logits = model.predict(&pairs, Some(ActivationFn::Identity), &EncodeOptions::default()).unwrap();
    let got: Vec<f64> = logits.data().iter().map(|x| f64::from(*x)).collect();
    assert_close("logits", &got, &numbers(&case["logits"]), 1e-5);
    // the gradients, the classifier's among them
    let framing = model.pairs().unwrap();
    let (first, second) = framing.tokenize(&pairs, None).unwrap();
    let packed = framing.pack_tokens(&first.iter().zip(&second).collect::<Vec<_>>());
    let out = model.forward(&packed, &Context::training(DType::F32, Rng::new(0)).unwrap()).unwrap();
    differentiate(&out, &model.params());
    let wanted = case["gradients"].as_object().unwrap();
    for (name, want) in wanted {
        let name = name.strip_prefix("base_model.model.").unwrap();
        let end = name.strip_prefix("bert.").unwrap_or(name);
        let params = model.params();
        let param = params.iter().find(|param| param.name().ends_with(&format!(".{end}"))).unwrap();
        let got = param.gradient_tensor().unwrap().unwrap();
        assert_close(name, &values(&got), &numbers(want), 1e-4);
    }
    assert_eq!(model.params().iter().filter(|param| param.trainable()).count(), wanted.len());
    // what is saved has PEFT's names and values
    let dir = tempfile::tempdir().unwrap();
    model.lora().unwrap().save(dir.path()).unwrap();
    let saved = candle_core::safetensors::load(dir.path().join("adapter_model.safetensors"), &Device::Cpu).unwrap();
    let given = adapter_of("tiny-adapter-classifier");
    assert_eq!(saved.keys().collect::<BTreeSet<_>>(), given.keys().collect::<BTreeSet<_>>());
    for (name, value) in &given {
        assert_eq!(values(&saved[name]), values(value), "{name}");
    }
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["task_type"], &config["modules_to_save"]),
        (&"SEQ_CLS".into(), &serde_json::json!(["classifier"]))
    );
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &8.into()));
}

/// Values of a formula, so that f64 has no random numbers to agree on.
fn made(dims: &[usize], seed: f64) -> Tensor {
    let count: usize = dims.iter().product();
    let data: Vec<f64> = (0..count).map(|i| (seed + 0.7 * i as f64).sin() * 0.5).collect();
    Tensor::from_vec(data, dims.to_vec(), &Device::Cpu).unwrap()
}

/// A frozen weight with an adapter, and its bias.
fn layer(name: &str, out: usize, input: usize, dropout: f64) -> (Arc<Param>, Arc<Param>, Vec<Arc<Param>>) {
    adapted(name, out, input, dropout, false)
}

/// As [`layer`], with lengths of its rows that are not its own.
fn adapted(
    name: &str,
    out: usize,
    input: usize,
    dropout: f64,
    dora: bool,
) -> (Arc<Param>, Arc<Param>, Vec<Arc<Param>>) {
    let weight = Param::new(name, &made(&[out, input], 1.0 + out as f64)).unwrap();
    weight.freeze();
    let bias = Param::new(format!("{name}.bias"), &made(&[out], 2.0)).unwrap();
    let a = Param::new(format!("{name}.a"), &made(&[3, input], 3.0)).unwrap();
    let b = Param::new(format!("{name}.b"), &made(&[out, 3], 4.0)).unwrap();
    let lengths = (made(&[out], 5.0) + 1.5).unwrap();
    let magnitude = dora.then(|| Param::new(format!("{name}.m"), &lengths).unwrap());
    let mut own = vec![Arc::clone(&a), Arc::clone(&b), Arc::clone(&bias)];
    own.extend(magnitude.clone());
    weight.adapt(Adapter { a, b, scale: 0.75, dropout, magnitude }).unwrap();
    (weight, bias, own)
}

/// Output, the input's gradient, and those of the parameters.
type Results = Vec<(String, Vec<f64>)>;

fn results(x: &Var, params: &[Arc<Param>], y: &Tensor) -> Results {
    let pattern = made(y.dims(), 9.0);
    let gradients = (y * pattern).unwrap().sum_all().unwrap().backward().unwrap();
    collect(&gradients, params).unwrap();
    let mut all = vec![("y".to_owned(), values(y)), ("x".to_owned(), values(gradients.get(x).unwrap()))];
    for param in params {
        all.push((param.name().to_owned(), values(&param.gradient_tensor().unwrap().unwrap())));
    }
    all
}

/// Every operation with layers, each with adapters on all of them.
fn operations(dropout: f64, dora: bool) -> Vec<Results> {
    let (tokens, width, inner) = (7, 6, 10);
    let context = || Context::training(DType::F64, Rng::new(8)).unwrap();
    let ones = |name: &str| {
        let weight = Param::frozen(name, &Tensor::ones(width, DType::F64, &Device::Cpu).unwrap()).unwrap();
        (weight, Param::frozen("zeros", &Tensor::zeros(width, DType::F64, &Device::Cpu).unwrap()).unwrap())
    };
    let mut all = Vec::new();
    {
        let x = Var::from_tensor(&made(&[tokens, width], 0.3)).unwrap();
        let (weight, bias, own) = adapted("w", inner, width, dropout, dora);
        let y = ops::linear(&context(), x.as_tensor(), &weight, Some(&bias)).unwrap();
        all.push(results(&x, &own, &y));
    }
    {
        let x = Var::from_tensor(&made(&[tokens, width], 0.3)).unwrap();
        let (first, second) =
            (adapted("inner", inner, width, dropout, dora), adapted("outer", width, inner, dropout, dora));
        let norm = ones("norm");
        let feed = FeedForward {
            inner: (&first.0, &first.1),
            activation: Activation::Gelu,
            outer: (&second.0, &second.1),
            norm: (&norm.0, &norm.1),
            eps: 1e-12,
            dropout: ops::Dropout::NONE,
        };
        let y = ops::feed_forward(&context(), x.as_tensor(), &feed).unwrap();
        all.push(results(&x, &[first.2, second.2].concat(), &y));
    }
    {
        let x = Var::from_tensor(&made(&[tokens, width], 0.3)).unwrap();
        let [q, k, v, o] = ["q", "k", "v", "o"].map(|name| adapted(name, width, width, dropout, dora));
        let norm = ones("norm");
        let offsets = Arc::new(vec![0, 3, 7]);
        let attended = Arc::new(Vec::new());
        let attention = SelfAttention {
            query: (&q.0, &q.1),
            key: (&k.0, &k.1),
            value: (&v.0, &v.1),
            output: (&o.0, &o.1),
            norm: (&norm.0, &norm.1),
            eps: 1e-12,
            heads: 2,
            relative: None,
            attended: &attended,
            probability_dropout: ops::Dropout::NONE,
            dropout: ops::Dropout::NONE,
        };
        let y = ops::self_attention(&context(), x.as_tensor(), &offsets, &attention).unwrap();
        all.push(results(&x, &[q.2, k.2, v.2, o.2].concat(), &y));
    }
    all
}

#[test]
fn kernels_and_candles_graph_agree_with_and_without_dropout() {
    for (dropout, dora) in [(0.0, false), (0.4, false), (0.0, true), (0.4, true)] {
        let (kernels, graph) = (operations(dropout, dora), composed::everywhere(|| operations(dropout, dora)));
        for (number, (a, b)) in kernels.iter().zip(&graph).enumerate() {
            assert_eq!(a.len(), b.len());
            for ((name, got), (_, want)) in a.iter().zip(b) {
                assert!(want.iter().any(|x| *x != 0.0), "{number}: {name} is nothing but zeros");
                assert_close(&format!("{number} {name}, dropout {dropout}, DoRA {dora}"), got, want, 1e-9);
            }
        }
    }
    // something is dropped
    assert_ne!(operations(0.0, false)[0][0], operations(0.4, false)[0][0]);
    assert_ne!(operations(0.0, false)[0][0], operations(0.0, true)[0][0]);
}

#[test]
fn the_merged_weight_is_the_layer() {
    let (weight, bias, _) = layer("w", 5, 4, 0.3);
    let x = made(&[3, 4], 0.1);
    let y = ops::linear(&Context::inference().with_precision(Precision::Full), &x, &weight, Some(&bias)).unwrap();
    let want = x.matmul(&weight.merged().unwrap().t().unwrap()).unwrap().broadcast_add(bias.value()).unwrap();
    assert_close("merged", &values(&y), &values(&want), 1e-12);
    let (weight, bias, _) = adapted("w", 5, 4, 0.3, true);
    let y = ops::linear(&Context::inference(), &x, &weight, Some(&bias)).unwrap();
    let want = x.matmul(&weight.merged().unwrap().t().unwrap()).unwrap().broadcast_add(bias.value()).unwrap();
    assert_close("merged, DoRA", &values(&y), &values(&want), 1e-12);
    assert!(
        weight.adapt(Adapter { a: bias.clone(), b: bias.clone(), scale: 1.0, dropout: 0.0, magnitude: None }).is_err()
    );
    let _ = tensor;
}

#[test]
pub fn twenty_steps_follow_the_reference() {
    for file in ["lora", "dora"] {
        let case = &golden(file)["curve"];
        let plan = plan(&recipe_of(case, "SentenceTransformer"), &[]);
        let model = follow(file, case, &plan);
        embeds_alike(file, case, &model);
    }
}

/// Small runs with adapters.
pub fn small(more: &str) -> String {
    SMALL.replace("[train_dataset]", &format!("[model.lora]\nr = 4\nalpha = 16\n{more}\n[train_dataset]"))
}

#[test]
fn a_run_saves_the_adapter_and_the_merged_model() {
    let dir = tempfile::tempdir().unwrap();
    let text = small("dropout = 0.1\ntarget_modules = \"all-linear\"");
    let (outcome, logs) = run(&plan(&text, &["args.learning_rate=1e-3"]), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    assert!(logs.last().unwrap().loss < logs[0].loss, "{} to {}", logs[0].loss, logs.last().unwrap().loss);
    assert!(!outcome.warnings.iter().any(|w| w.contains("gradient")), "{:?}", outcome.warnings);
    let adapter = outcome.adapter_dir.unwrap();
    let names = names(&adapter);
    assert_eq!(names.len(), 2 * 2 * 6, "{names:?}");
    assert!(names.contains("base_model.model.encoder.layer.1.attention.output.dense.lora_B.weight"));
    // what belongs to the network itself has not moved
    let load = |dir: &Path| candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let (before, after) = (load(&fixture("tiny-bert")), load(&outcome.model_dir));
    let moved: BTreeSet<&str> = after
        .iter()
        .filter(|(name, value)| values(value) != values(&before[*name]))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(moved.len(), 12, "{moved:?}");
    assert!(moved.iter().all(|name| name.ends_with("weight") && name.starts_with("encoder.")), "{moved:?}");
    // the adapter over its base is the merged model
    let model = SentenceTransformer::load(&outcome.model_dir).unwrap();
    let mut adapted = SentenceTransformer::load(&fixture("tiny-bert")).unwrap();
    let options = LoraOptions {
        r: 4,
        alpha: 16.0,
        target_modules: Some(Targets::Pattern("all-linear".to_owned())),
        adapter: Some(adapter.display().to_string()),
        ..LoraOptions::default()
    };
    let texts = ["the sailor sells the chair", "a doctor"];
    let encode = |model: &SentenceTransformer| model.encode(&texts, &EncodeOptions::default()).unwrap();
    let plain = encode(&adapted);
    adapted.add_adapter(&options, "", Rng::new(1)).unwrap();
    let (a, b) = (encode(&adapted), encode(&model));
    assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(a.data().iter().zip(plain.data()).any(|(a, b)| (a - b).abs() > 1e-3));
    // the optimizer knows of nothing else
    let checkpoints = dir.path().join("checkpoints");
    let checkpoint = std::fs::read_dir(checkpoints).unwrap().next().unwrap().unwrap().path();
    let state = candle_core::safetensors::load(checkpoint.join("optimizer.safetensors"), &Device::Cpu).unwrap();
    assert!(!state.is_empty() && state.keys().all(|name| name.contains("lora_")), "{:?}", state.keys());
    if let Ok(folder) = std::env::var("TALLOW_SAVED") {
        crate::support::copy_dir(&adapter, &Path::new(&folder).join("adapter"));
        crate::support::copy_dir(&outcome.model_dir, &Path::new(&folder).join("merged"));
    }
}

#[test]
fn micro_batches_and_resuming_are_exact_with_adapters() {
    let text = small("");
    let losses = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let sets: Vec<&str> = sets.iter().copied().chain(["model.dropout=0.0", "args.learning_rate=1e-3"]).collect();
        run(&plan(&text, &sets), dir.path(), Options::default())
            .1
            .iter()
            .map(|l| (l.loss, l.grad_norm))
            .collect::<Vec<_>>()
    };
    let (plain, cached) = (losses(&[]), losses(&["args.gradient_cache_tokens=50"]));
    for (step, (a, b)) in cached.iter().zip(&plain).enumerate() {
        assert!((a.0 - b.0).abs() < 1e-4 && (a.1 - b.1).abs() < 1e-3 * b.1.max(1.0), "step {step}: {a:?} {b:?}");
    }
    resumes_exactly(&small("dropout = 0.2"), &[], &[]);
}

#[test]
fn an_adapter_of_the_pooler_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = adapter_of("tiny-adapter");
    for (end, dims) in [(A, (4, 32)), (B, (32, 4))] {
        let name = format!("base_model.model.pooler.dense.{end}");
        tensors.insert(name, Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap());
    }
    let save = |tensors: &std::collections::HashMap<String, Tensor>| {
        candle_core::safetensors::save(tensors, dir.path().join("adapter_model.safetensors")).unwrap();
    };
    let options = LoraOptions {
        r: 4,
        target_modules: Some(Targets::Names(["query", "value", "intermediate.dense"].map(str::to_owned).to_vec())),
        adapter: Some(dir.path().display().to_string()),
        ..LoraOptions::default()
    };
    let add = || SentenceTransformer::load(&fixture("tiny-bert")).unwrap().add_adapter(&options, "", Rng::new(0));
    save(&tensors);
    add().unwrap();
    // what would be read is not passed over
    tensors.insert(
        "base_model.model.encoder.layer.0.output.dense.lora_A.weight".to_owned(),
        tensors[&format!("base_model.model.pooler.dense.{A}")].clone(),
    );
    save(&tensors);
    let told = add().unwrap_err().to_string();
    assert!(told.contains("encoder.layer.0.output.dense"), "{told}");
}

#[test]
fn the_best_adapter_is_kept() {
    /// The files below a folder, as paths from it.
    fn walk(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let below = entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] });
        below.collect()
    }
    let dir = tempfile::tempdir().unwrap();
    let text = small("use_rslora = true");
    let sets = [
        "args.load_best_model_at_end=true",
        "args.eval_steps=4",
        "args.save_steps=4",
        "args.learning_rate=0.5",
        "args.prompts={anchor=\"query: \", positive=\"passage: \"}",
    ];
    let outcome = run(&plan(&text, &sets), dir.path(), Options::default()).0.unwrap();
    let best = outcome.best_step.unwrap();
    assert!(best < outcome.steps, "a rate of 0.5 has to spoil the model: {best} of {}", outcome.steps);
    let checkpoint = dir.path().join(format!("checkpoints/checkpoint-{best}"));
    let prompts = std::fs::read_to_string(outcome.model_dir.join("config_sentence_transformers.json")).unwrap();
    assert!(prompts.contains("\"query: \""), "{prompts}");
    for file in walk(&outcome.model_dir) {
        let same = checkpoint.join(file.strip_prefix(&outcome.model_dir).unwrap());
        assert!(std::fs::read(&file).unwrap() == std::fs::read(same).unwrap(), "{}", file.display());
    }
}

#[test]
fn rerankers_and_sparse_encoders_train_with_adapters() {
    let smoke = |text: &str| train::smoke_test(&plan(text, &[]), &mut |_: &Event<'_>| {}).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rows =
        (0..24).map(|i| format!("{{\"q\": \"who sells chair {i}\", \"p\": \"sailor {i}\", \"label\": {}}}\n", i % 2));
    std::fs::write(dir.path().join("rows.jsonl"), rows.collect::<String>()).unwrap();
    let path = dir.path().join("rows.jsonl").display().to_string();
    let text = format!(
        "model_type = \"CrossEncoder\"\n[model]\nbase = \"tests/fixtures/tiny-bert\"\n[model.lora]\nr = 2\n[train_dataset]\n\
         path = \"{path}\"\ncolumns = [\"q\", \"p\"]\n[loss]\nname = \"BinaryCrossEntropyLoss\"\n[args]\nlearning_rate = 1e-3\n"
    );
    let outcome = run(&plan(&text, &[]), &dir.path().join("run"), Options::default()).0.unwrap();
    // the classifier is new, and trained whole; BERT's pooler is neither
    let names = names(&outcome.adapter_dir.unwrap());
    assert!(names.contains("base_model.model.classifier.weight"), "{names:?}");
    assert!(names.contains("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"), "{names:?}");
    let sparse = "model_type = \"SparseEncoder\"\n[model]\nbase = \"tests/fixtures/tiny-splade\"\n[model.lora]\nr = 2\n\
         [train_dataset]\npath = \"tests/golden/curves_pairs.jsonl\"\ncolumns = [\"anchor\", \"positive\"]\nlimit = 32\n[loss]\n\
         name = \"SparseMultipleNegativesRankingLoss\"\n[loss.splade]\ndocument_regularizer_weight = 3e-3\n\
         query_regularizer_weight = 5e-3\n[args]\nlearning_rate = 1e-3\n";
    let report = smoke(sparse);
    assert!(
        report.gradient_coverage.without_gradient.is_empty() && report.gradient_coverage.trainable == 8,
        "{:?}",
        report.gradient_coverage
    );
    let late = sparse
        .replace("SparseEncoder", "MultiVectorEncoder")
        .replace("tiny-splade", "tiny-colbert")
        .replace("SparseMultiple", "MultiVectorMultiple")
        .replace("[loss.splade]\ndocument_regularizer_weight = 3e-3\nquery_regularizer_weight = 5e-3\n", "");
    let report = smoke(&late);
    assert!(
        report.gradient_coverage.without_gradient.is_empty() && report.gradient_coverage.trainable > 8,
        "{:?}",
        report.gradient_coverage
    );
}

#[test]
fn what_cannot_be_adapted_is_told() {
    let told = |text: &str, sets: &[&str]| -> String {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let loaded = tallow::recipe::parse(&project("test.toml"), text, &sets);
        let planned = loaded.and_then(|loaded| loaded.resolve(&tallow::recipe::Builtin));
        let error = match planned {
            Err(error) => error,
            Ok((plan, _)) => train::smoke_test(&plan, &mut |_: &Event<'_>| {}).unwrap_err(),
        };
        format!("{error} {}", error.hint().unwrap_or_default())
    };
    let text = small("");
    for (text, sets, message) in [
        (text.clone(), &["model.lora.r=0"][..], "`model.lora.r`: is 0"),
        (text.clone(), &["model.lora.alpha=-1.0"], "`model.lora.alpha`: must be above 0"),
        (text.clone(), &["model.lora.dropout=1.0"], "must be in [0, 1)"),
        (text.clone(), &["model.lora.target_modules=[]"], "is an empty list"),
        (text.clone(), &["model.lora.target_modules=\"(\""], "no regular expression"),
        (
            text.clone(),
            &["model.lora.target_modules=[\"q_proj\"]"],
            "the network's layers are called dense, key, query, value",
        ),
        (text.clone(), &["model.lora.adapter=\"nowhere\""], "there is no `nowhere`"),
        (text.clone(), &["model.lora.adapter=\"tests/fixtures/tiny-bert\""], "adapter_model.safetensors"),
        (text.clone(), &["model.lora.adapter=\"tests/fixtures/tiny-adapter\"", "model.lora.r=2"], "write `r = 4`"),
        (text.clone(), &["model.lora.r=1000000000000"], "no update of it has a higher rank"),
        (text.clone(), &["model.lora.target_modules=\"(?x)query # q\""], "no regular expression"),
        (text.replace("tests/fixtures/tiny-bert", "tests/fixtures/tiny-static"), &[], "one network"),
        (text.replace("r = 4", "rank = 4"), &[], "rank"),
    ] {
        let told = told(&text, sets);
        assert!(told.contains(message), "{sets:?}: {told}");
    }
}
