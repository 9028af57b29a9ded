//! DenoisingAutoEncoderLoss: the decoder's value and gradients, twenty steps of the reference's trainer, damaged texts,
//! and resuming.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use tallow::flow::{PackedBatch, Piece, Preprocess};
use tallow::model::{ModelOptions, SentenceTransformer};
use tallow::ops::{self, Context, Param};
use tallow::train::{self, Event, Options};
use tallow::util::seed::Rng;

use crate::curves::{embeds_alike, follow};
use crate::support::{copy_dir, golden, numbers, project};
use crate::train::{plan, resumes_exactly, run};

/// A copy of the tiny BERT with a decoder's tensors, by the formula of `make_denoising.py`.
fn decoder_folder(out: &Path) -> PathBuf {
    let folder = out.join("tiny-decoder");
    copy_dir(&project("tests/fixtures/tiny-bert"), &folder);
    let file = folder.join("model.safetensors");
    let old = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let mut weights: HashMap<String, Tensor> = old.into_iter().map(|(k, v)| (format!("bert.{k}"), v)).collect();
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut pair = |name: String, shape: &[usize]| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        shapes.push((format!("{name}.bias"), vec![shape[0]]));
    };
    for i in 0..2 {
        let at = format!("bert.encoder.layer.{i}.crossattention");
        pair(format!("{at}.self.value"), &[32, 32]);
        pair(format!("{at}.output.dense"), &[32, 32]);
        pair(format!("{at}.output.LayerNorm"), &[32]);
    }
    pair("cls.predictions.transform.dense".to_owned(), &[32, 32]);
    pair("cls.predictions.transform.LayerNorm".to_owned(), &[32]);
    shapes.push(("cls.predictions.bias".to_owned(), vec![600]));
    for (salt, (name, shape)) in shapes.into_iter().enumerate() {
        let base = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let count: usize = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|i| (base + 0.15 * (0.37 * (i as f64 + 1.0) + salt as f64).sin()) as f32).collect();
        weights.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&weights, file).unwrap();
    folder
}

fn load(folder: &Path, prefix: &str) -> SentenceTransformer {
    let options = ModelOptions { dropout: Some(0.0), name_prefix: prefix.to_owned(), ..ModelOptions::default() };
    SentenceTransformer::load_with(folder, &options).unwrap()
}

fn tokens(model: &SentenceTransformer, texts: &Value) -> PackedBatch {
    let texts: Vec<&str> = texts.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    PackedBatch::from_tokens(&model.tokenizer().tokenize(&texts, None).unwrap())
}

/// Value and gradients of a case, all parameters by name.
fn reconstruct(folder: &Path, case: &Value) -> (f64, HashMap<String, Vec<f64>>) {
    let model = load(folder, "");
    let other = (case["tied"] == false).then(|| load(folder, "decoder."));
    let decoder = other.as_ref().unwrap_or(&model).decoder("decoder.", Rng::new(1)).unwrap();
    let context = Context::training(DType::F32, Rng::new(2)).unwrap();
    let sentence = model.forward(&tokens(&model, &case["damaged"]), &context).unwrap();
    let value = decoder.cross_entropy(&sentence, &tokens(&model, &case["original"]), &context).unwrap();
    let mut params = [model.params(), decoder.own_params()].concat();
    params.extend(other.iter().flat_map(|other| other.params()));
    ops::collect(&value.backward().unwrap(), &params).unwrap();
    let gradient = |param: &Arc<Param>| {
        let gradient = param.gradient_tensor().unwrap()?.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        Some((param.name().to_owned(), gradient.into_iter().map(f64::from).collect()))
    };
    (ops::number(&value).unwrap(), params.iter().filter_map(gradient).collect())
}

#[test]
pub fn the_decoder_equals_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let folder = decoder_folder(dir.path());
    for case in golden("denoising")["cases"].as_array().unwrap() {
        let tied = case["tied"] == true;
        let (value, mut gradients) = reconstruct(&folder, case);
        assert!((value - case["value"].as_f64().unwrap()).abs() < 1e-5, "tied {tied}: {value}");
        for want in case["gradients"].as_array().unwrap() {
            let name = want["name"].as_str().unwrap();
            let own = ["crossattention", "cls."].iter().any(|part| name.contains(part));
            let name = match name.strip_prefix("decoder: ") {
                Some(name) if own => format!("decoder.{name}"),
                Some(name) if tied => format!("0.auto_model.{name}"),
                Some(name) => format!("decoder.0.auto_model.{name}"),
                None => name.replace("model: ", "0.auto_model."),
            };
            let got = gradients.remove(&name).unwrap_or_else(|| panic!("tied {tied}: no gradient of {name}"));
            let norm = got.iter().map(|g| g * g).sum::<f64>().sqrt();
            let wanted = want["norm"].as_f64().unwrap();
            assert!((norm - wanted).abs() < 1e-4 * wanted + 1e-6, "tied {tied}: {name}: {norm}, expected {wanted}");
            for (a, b) in got.iter().zip(numbers(&want["first"])) {
                assert!((a - b).abs() < 1e-4 * wanted + 1e-6, "tied {tied}: {name}: {got:?}");
            }
        }
        // what is left are biases of keys, whose gradient is 0 but for rounding
        for (name, gradient) in gradients {
            let most = gradient.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            assert!(most < 1e-5, "tied {tied}: {name} has a gradient of {most}");
        }
    }
}

#[test]
fn words_are_what_the_tokenizer_makes_pieces_of() {
    let model = load(&project("tests/fixtures/tiny-bert"), "");
    let pieces = model.tokenizer().pieces();
    let of = |text: &str| {
        let tokens = model.tokenizer().tokenize(&[text], None).unwrap().remove(0);
        tokens.ids.iter().map(|id| pieces[*id as usize]).collect::<Vec<_>>()
    };
    let plain = of("The farmer repairs it.");
    assert_eq!((plain.first(), plain.last()), (Some(&Piece::Special), Some(&Piece::Special)));
    // four words and a full stop, whatever pieces they are in
    assert_eq!(plain.iter().filter(|piece| **piece == Piece::Start).count(), 5, "{plain:?}");
    use Piece::{Continuation, Special, Start};
    assert_eq!(of("zzyzx"), [Special, Start, Continuation, Continuation, Continuation, Continuation, Special]);
    assert_eq!(of("日"), [Special, Start, Special], "an unknown word is one");
}

#[test]
fn composed_operations_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let folder = decoder_folder(dir.path());
    for case in golden("denoising")["cases"].as_array().unwrap() {
        let (value, gradients) = reconstruct(&folder, case);
        let (other, composed) = ops::composed::everywhere(|| reconstruct(&folder, case));
        assert!((value - other).abs() < 1e-5, "{value} {other}");
        for (name, gradient) in gradients {
            for (a, b) in gradient.iter().zip(&composed[&name]) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
            }
        }
    }
}

/// The recipe of a run on that base; `loss` are more settings.
fn recipe(base: &Path, data: &str, loss: &str, args: &str) -> String {
    format!(
        "[model]\nbase = \"{}\"\n[train_dataset]\npath = \"tests/golden/{data}\n[loss]\nname = \
         \"DenoisingAutoEncoderLoss\"\n{loss}\n[args]\nper_device_train_batch_size = 8\nlogging_steps = 1\n{args}",
        base.display()
    )
}

#[test]
fn twenty_steps_follow_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let folder = decoder_folder(dir.path());
    let untied = format!("tie_encoder_decoder = false\ndecoder_name_or_path = \"{}\"", folder.display());
    for case in golden("denoising")["curves"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let loss = if name == "denoising" { "" } else { &untied };
        let data = "curves_damaged.jsonl\"\ncolumns = [\"damaged\", \"original\"]";
        let args =
            "num_train_epochs = 1\nlearning_rate = 2e-4\nweight_decay = 0.01\nshuffle = false\nsave_strategy = \"no\"";
        let model = follow(name, case, &plan(&recipe(&folder, data, loss, args), &["model.dropout=0.0"]));
        embeds_alike(name, case, &model);
    }
}

#[test]
fn single_texts_are_damaged_and_a_stopped_run_has_the_same_bits() {
    let base = project("tests/fixtures/tiny-bert");
    let data = "curves_pairs.jsonl\"\ncolumns = [\"positive\"]\nlimit = 60";
    let args = "num_train_epochs = 2\nlearning_rate = 2e-3\nsave_steps = 4";
    resumes_exactly(&recipe(&base, data, "", args), &[], &[]);
    let untied = format!("tie_encoder_decoder = false\ndecoder_name_or_path = \"{}\"", base.display());
    resumes_exactly(&recipe(&base, data, &untied, args), &[], &[]);
    resumes_exactly(
        &recipe(&base, data, "", args),
        &["args.gradient_cache_tokens=40"],
        &["args.gradient_cache_tokens=40"],
    );

    let losses = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let text = recipe(&base, data, "", "num_train_epochs = 6\nlearning_rate = 5e-3\nsave_strategy = \"no\"");
        let (outcome, logs) = run(&plan(&text, sets), dir.path(), Options::default());
        outcome.unwrap();
        logs.iter().map(|l| l.loss).collect::<Vec<_>>()
    };
    let learned = losses(&[]);
    assert!(learned[47] < 0.8 * learned[0], "{learned:?}");
    assert_ne!(learned[0], losses(&["loss.del_ratio=0.0"])[0]);
    assert_ne!(learned[0], losses(&["seed=7"])[0]);
}

/// Data sets with other losses before it: the table's gradient is by rows there and as a whole here.
#[test]
fn it_goes_with_other_losses() {
    let text = r#"
        [model]
        base = "tests/fixtures/tiny-bert"
        dropout = 0.0
        [[train_dataset]]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        limit = 40
        loss = { name = "MultipleNegativesRankingLoss" }
        [[train_dataset]]
        path = "tests/golden/curves_pairs.jsonl"
        name = "texts"
        columns = ["positive"]
        limit = 40
        loss = { name = "DenoisingAutoEncoderLoss" }
        [[eval_dataset]]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["positive"]
        loss = { name = "DenoisingAutoEncoderLoss" }
        [args]
        num_train_epochs = 2
        per_device_train_batch_size = 4
        gradient_accumulation_steps = 2
        multi_dataset_batch_sampler = "round_robin"
        learning_rate = 1e-3
        logging_steps = 1
        save_steps = 4
        eval_steps = 8
    "#;
    resumes_exactly(text, &["args.num_train_epochs=3"], &["args.num_train_epochs=3"]);
}

#[test]
fn what_it_cannot_be_used_with_is_told() {
    let data = "curves_pairs.jsonl\"\ncolumns = [\"positive\"]";
    let told = |text: &str, sets: &[&str]| {
        let error = train::smoke_test(&plan(text, sets), &mut |_: &Event<'_>| {}).unwrap_err();
        format!("{error} ({})", error.hint().unwrap_or_default())
    };
    let fixed = told(&recipe(&project("tests/fixtures/tiny-static"), data, "", ""), &[]);
    assert!(fixed.contains("begins with StaticEmbedding has no decoder"), "{fixed}");
    let wide = recipe(&project("tests/fixtures/tiny-bert"), data, "", "");
    let wide = told(&wide, &["model.pooling_mode=[\"mean\", \"max\"]"]);
    assert!(wide.contains("its width is 32, the embeddings have 64 values"), "{wide}");
    let other = format!(
        "tie_encoder_decoder = false\ndecoder_name_or_path = \"{}\"",
        project("tests/fixtures/tiny-static").display()
    );
    let other = told(&recipe(&project("tests/fixtures/tiny-bert"), data, &other, ""), &[]);
    assert!(other.contains("has another tokenizer than the model"), "{other}");
}
