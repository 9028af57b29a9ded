//! Layers that are computed again for their gradients: the same bits in less memory.

use std::sync::Arc;

use candle_core::{DType, Device};
use tallow::model::backbone::{self, SUPPORTED};
use tallow::ops::{Context, Param, composed::everywhere};
use tallow::train::{self, Event, Options};
use tallow::util::seed::Rng;

use crate::backbones::{differentiate, fixture, pack};
use crate::support::{project, shared, values};
use crate::train::{SMALL, plan, run};

const NETWORKS: [&str; 12] = [
    "bert-untied",
    "deberta-v2",
    "deberta-v3",
    "distilbert",
    "electra",
    "gte",
    "modernbert",
    "modernbert-biases",
    "mpnet",
    "nomic",
    "roberta",
    "xlm-roberta",
];

/// Hidden states and the gradients of every parameter, with dropout: of a pass whose last states are used, or of one
/// where a layer in the middle has gradients from outside, too.
fn pass(name: &str, checkpointing: bool, middle: bool) -> Vec<Vec<f64>> {
    let (mut network, _) = backbone::load(&fixture(name), "", &Device::Cpu).unwrap();
    network.set_dropout(0.2);
    if checkpointing {
        network.set_checkpointing().unwrap();
    }
    let batch = pack(&serde_json::json!([[2, 7, 9, 11, 30, 8, 3], [2, 5, 3], [2, 12, 13, 14, 15, 3]]));
    let context = Context::training(DType::F32, Rng::new(8)).unwrap();
    let params: Vec<Arc<Param>> = network.params().into_iter().map(|(_, param)| param).collect();
    // the second pass goes on with the dropouts of the first
    let first = network.forward(&batch, &context).unwrap();
    let some = network.forward_some(&batch, &[1, 0], &context).unwrap();
    let y = match middle {
        true => ((&some[0] + (&some[1] * 2.0).unwrap()).unwrap() + &some[2]).unwrap(),
        false => some[2].clone(),
    };
    differentiate(&y, &params);
    let mut all = vec![values(&first), values(&y)];
    for param in params {
        all.push(values(&param.gradient_tensor().unwrap().unwrap_or_else(|| panic!("{name}: {}", param.name()))));
    }
    all
}

fn close(name: &str, a: &[Vec<f64>], b: &[Vec<f64>]) {
    for (a, b) in a.iter().zip(b) {
        let size = b.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        let apart = a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart <= 1e-5 * size, "{name}: {apart:e} of {size}");
    }
}

#[test]
fn every_network_has_the_same_bits() {
    for name in NETWORKS {
        let (again, plain) = (pass(name, true, false), pass(name, false, false));
        // all layers of DeBERTa share rows of distances, whose gradients add up in another order
        assert!(again == plain || name.starts_with("deberta"), "{name}");
        close(name, &again, &plain);
        // three gradients of one state add up in another order where layers are candle's graph
        let (again, plain) = (pass(name, true, true), pass(name, false, true));
        let composed = ["deberta", "gte", "modernbert", "nomic"].iter().any(|composed| name.starts_with(composed));
        assert!(again == plain || composed, "{name}");
        close(name, &again, &plain);
    }
    let known = |name: &&str| {
        let family = |known: &'static str| known.split(['-', '_']).next().unwrap_or_default();
        SUPPORTED.iter().any(|architecture| name.starts_with(family(architecture.model_type)))
    };
    assert!(NETWORKS.iter().all(known));
}

#[test]
fn a_gpus_operations_give_the_same_gradients() {
    for name in NETWORKS {
        let [a, b] = [true, false].map(|checkpointing| everywhere(|| pass(name, checkpointing, true)));
        close(name, &a, &b);
    }
}

#[test]
fn a_run_has_the_same_bits_and_needs_less() {
    let modern = SMALL.replace("fixtures/tiny-bert\"", "fixtures/backbones/modernbert\"\nmax_seq_length = 32");
    let lora = SMALL.replace("[train_dataset]", "[model.lora]\nr = 4\ndropout = 0.1\n[train_dataset]");
    let layers = SMALL.replace("[[evaluator]]", "[loss.matryoshka_2d]\nmatryoshka_dims = [32, 8]\n[[evaluator]]");
    for text in [SMALL, &modern, &lora, &layers] {
        let losses = |sets: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let sets: Vec<&str> = sets.iter().copied().chain(["args.max_steps=3", "model.dropout=0.2"]).collect();
            let plan = plan(text, &sets);
            let report = train::smoke_test(&plan, &mut |_: &Event<'_>| {}).unwrap();
            let (outcome, logs) = run(&plan, dir.path(), Options::default());
            let logs: Vec<_> = logs.iter().map(|l| (l.loss.to_bits(), l.grad_norm.to_bits())).collect();
            (logs, outcome.unwrap().score.map(f64::to_bits), report.estimated_peak_memory_bytes)
        };
        let (plain, score, memory) = losses(&[]);
        let (again, same, less) = losses(&["args.gradient_checkpointing=true"]);
        assert_eq!((again, same), (plain, score), "{text}");
        assert!(less < memory, "{less} and {memory}");
    }
}

#[test]
fn the_estimate_of_a_deep_network_falls_with_its_layers() {
    let (mut network, _) = backbone::load(&fixture("modernbert"), "", &Device::Cpu).unwrap();
    let all = network.activation_floats();
    network.set_checkpointing().unwrap();
    let (hidden, inner) = (16, 20);
    let layer = 10 * hidden + 3 * inner;
    assert_eq!(all - network.activation_floats(), 4 * layer - (4 * hidden + layer + hidden));
}

#[test]
fn what_computes_again_already_is_refused() {
    let told = |text: &str, sets: &[&str]| {
        let sets: Vec<String> =
            sets.iter().chain(&["args.gradient_checkpointing=true"]).map(|set| (*set).to_owned()).collect();
        tallow::recipe::parse(&project("test.toml"), text, &sets)
            .unwrap()
            .resolve(&tallow::recipe::Builtin)
            .err()
            .map(|error| (error.to_string(), error.hint().unwrap_or_default().to_owned()))
    };
    let cached = SMALL.replace("\"MultipleNeg", "\"CachedMultipleNeg");
    let wrapped = SMALL.replace(
        "name = \"MultipleNegativesRankingLoss\"",
        "name = \"AdaptiveLayerLoss\"\nloss = { name = \"CachedMultipleNegativesRankingLoss\" }",
    );
    for text in [cached, wrapped] {
        let (message, hint) = told(&text, &[]).unwrap();
        let wanted = "`args.gradient_checkpointing` can't be combined with CachedMultipleNegativesRankingLoss";
        assert!(message.replace("`: ", "` ").contains(wanted), "{message}");
        assert!(hint.contains("smaller `mini_batch_size`"), "{hint}");
    }
    let (message, _) = told(SMALL, &["args.gradient_cache_tokens=512"]).unwrap();
    assert!(message.contains("`args.gradient_cache_tokens`: both compute the network again"), "{message}");
    assert!(told(SMALL, &[]).is_none());
    let fresh = SMALL.replace(
        "base = \"tests/fixtures/tiny-bert\"",
        "[model.static_embedding]\nembedding_dim = 32\ntokenizer = \"tests/fixtures/tiny-bert\"",
    );
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = run(&plan(&fresh, &["args.gradient_checkpointing=true"]), dir.path(), Options::default());
    let error = outcome.err().unwrap().to_string();
    assert!(error.contains("the model has no layers to compute again"), "{error}");
}

/// A process of its own for each, since the peak is that of a process.
#[test]
#[ignore = "two steps of a real network on long texts"]
fn measured_memory_of_long_texts() {
    let Some(model) = shared("models/all-MiniLM-L6-v2") else { return };
    let dir = tempfile::tempdir().unwrap();
    let words = "the sailor sells the old chair by the sea and a doctor buys a small red boat for the long winter ";
    let rows: Vec<String> = (0..4)
        .map(|i| {
            serde_json::json!({"anchor": format!("{i} {}", words.repeat(40)), "positive": words.repeat(40)}).to_string()
        })
        .collect();
    std::fs::write(dir.path().join("long.jsonl"), rows.join("\n")).unwrap();
    let recipe = format!(
        "[model]\nbase = \"{}\"\nmax_seq_length = 512\n[train_dataset]\npath = \"long.jsonl\"\n[loss]\nname = \
         \"MultipleNegativesRankingLoss\"\n[args]\nmax_steps = 1\nper_device_train_batch_size = 4\nsave_strategy = \"no\"\n",
        model.canonicalize().unwrap().display()
    );
    std::fs::write(dir.path().join("r.toml"), recipe).unwrap();
    let peak = |checkpointing: bool| {
        let set = format!("args.gradient_checkpointing={checkpointing}");
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(["run", "r.toml", "--force", "--set", &set, "--json"])
            .current_dir(dir.path())
            .env("TALLOW_CACHE_DIR", dir.path().join("cache"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        let estimate = told.lines().find(|line| line.contains("of memory at the peak")).unwrap_or_default().to_owned();
        (answer["peak_memory_bytes"].as_u64().unwrap(), answer["seconds"].clone(), estimate)
    };
    let (with, without) = (peak(true), peak(false));
    println!("with {with:?}\nwithout {without:?}");
    // 4096 tokens, and 16896 values a token that are not kept: 277 MB
    assert!(with.0 + 200_000_000 < without.0, "{with:?} {without:?}");
}
