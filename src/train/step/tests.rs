#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::cached::Passes;
use super::micro::micro_batches;
use super::*;
use crate::flow::{Labels, ModelType, PackedBatch, Preprocess};
use crate::loss;
use crate::model::ModelOptions;
use crate::ops::Param;

fn model(fixture: &str, dropout: f64) -> SentenceTransformer {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let options = ModelOptions { dropout: (fixture != "tiny-static").then_some(dropout), ..ModelOptions::default() };
    SentenceTransformer::load_with(&directory, &options).unwrap()
}

fn loss(name: &str, settings: Value) -> Box<dyn Loss> {
    loss::build(name, settings.as_object().unwrap_or(&Map::new())).unwrap()
}

/// Rows of texts of 1 to 17 words, and scores.
fn batch(model: &SentenceTransformer, rows: usize, columns: usize, seed: u64) -> Batch {
    prompted(model, rows, columns, seed, None)
}

/// The same with a prompt before every text.
fn prompted(model: &SentenceTransformer, rows: usize, columns: usize, seed: u64, prompt: Option<&str>) -> Batch {
    const WORDS: [&str; 8] = ["loss", "model", "the", "of", "train", "rate", "is", "a"];
    let mut rng = Rng::new(seed);
    let mut text = || {
        let words = 1 + rng.below(17);
        (0..words).map(|_| WORDS[rng.below(8) as usize]).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..rows * columns).map(|_| text()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokens = model.tokenizer().tokenize(&texts, prompt).unwrap();
    Batch {
        packed: PackedBatch::from_tokens(&tokens),
        columns,
        rows,
        lists: Vec::new(),
        text_ids: Vec::new(),
        labels: Some(Labels::Float((0..rows).map(|i| (i * 7 % 5) as f32 / 4.0).collect())),
        row_ids: (0..rows as u64).collect(),
        dataset: 0,
    }
}

fn setting<'a>(model: &'a SentenceTransformer, loss: &'a dyn Loss, cache_tokens: Option<usize>) -> Setting<'a> {
    Setting {
        model,
        twin: None,
        decoder: None,
        loss,
        guide: None,
        precision: Precision::Full,
        cache_tokens,
        step: None,
    }
}

/// The gradients of every parameter, which forget them.
fn gradients(params: &[Arc<Param>]) -> Vec<(String, Vec<f32>)> {
    let take = |param: &Arc<Param>| {
        let gradient = param.gradient_tensor().unwrap();
        param.clear_gradient();
        let values = gradient.map_or_else(Vec::new, |g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        (param.name().to_owned(), values)
    };
    params.iter().map(take).collect()
}

fn close(what: &str, got: &[(String, Vec<f32>)], want: &[(String, Vec<f32>)], tolerance: f32) {
    let scale = want.iter().flat_map(|(_, values)| values).fold(0.0f32, |a, b| a.max(b.abs()));
    assert!(scale > 1e-4, "{what}: there are no gradients to compare");
    for ((name, a), (_, b)) in got.iter().zip(want) {
        assert_eq!(a.len(), b.len(), "{what}: {name}");
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance * scale, "{what}: {name} differs by {worst:e} of {scale:e}");
    }
}

#[test]
fn without_dropout_cached_equals_plain() {
    let losses = [
        ("MultipleNegativesRankingLoss", json!({})),
        ("MultipleNegativesRankingLoss", json!({ "matryoshka": { "dims": [12, 8], "n_dims_per_step": 1 } })),
        ("MultipleNegativesRankingLoss", json!({ "adaptive_layer": { "n_layers_per_step": -1 } })),
        ("CoSENTLoss", json!({})),
    ];
    for fixture in ["tiny-bert", "tiny-modules", "tiny-static"] {
        let model = model(fixture, 0.0);
        let params = model.params();
        let (first, second) = (batch(&model, 13, 2, 1), batch(&model, 6, 2, 2));
        for (name, settings) in &losses {
            if settings.get("adaptive_layer").is_some() && model.layers() == 0 {
                continue;
            }
            let loss = loss(name, settings.clone());
            let mut timings = Timings::default();
            let mut run = |cache_tokens| {
                // two batches whose gradients are added, as in an optimizer step over several
                let values = [&first, &second].map(|batch| {
                    forward_backward(setting(&model, loss.as_ref(), cache_tokens), batch, Rng::new(3), &mut timings)
                });
                (values.map(|value| value.unwrap().loss), gradients(&params))
            };
            let (values, plain) = run(None);
            for tokens in [1, 40, first.packed.tokens() - 1, 1 << 20] {
                let what = format!("{fixture}, {name}, {tokens} tokens");
                let (cached_values, cached) = run(Some(tokens));
                for (a, b) in cached_values.iter().zip(&values) {
                    assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{what}: {a} and {b}");
                }
                close(&what, &cached, &plain, 2e-5);
            }
            assert!(timings.get("forward") > 0.0 && timings.get("backward") > 0.0);
        }
    }
}

#[test]
fn rounded_products_are_cached_too() {
    let model = model("tiny-bert", 0.0);
    let (params, batch) = (model.params(), batch(&model, 12, 2, 5));
    let loss = loss("MultipleNegativesRankingLoss", json!({}));
    let run = |cache_tokens| {
        let setting = Setting { precision: Precision::Bf16, ..setting(&model, loss.as_ref(), cache_tokens) };
        let value = forward_backward(setting, &batch, Rng::new(3), &mut Timings::default()).unwrap().loss;
        (value, gradients(&params))
    };
    let ((a, plain), (b, cached)) = (run(None), run(Some(50)));
    assert!((a - b).abs() < 1e-3, "{a} and {b}");
    close("bf16", &cached, &plain, 2e-3);
}

#[test]
fn prompts_left_out_of_pooling_are_left_out_of_parts() {
    // six modes, of which none sees the prompt's tokens
    let model = model("modules/pooling", 0.0);
    let params = model.params();
    let loss = loss("MultipleNegativesRankingLoss", json!({}));
    let run = |prompt: Option<&str>, cache_tokens| {
        let batch = prompted(&model, 9, 2, 4, prompt);
        assert!(prompt.is_none() || batch.packed.prompt_lengths.iter().all(|length| *length > 1));
        let setting = setting(&model, loss.as_ref(), cache_tokens);
        let value = forward_backward(setting, &batch, Rng::new(3), &mut Timings::default()).unwrap().loss;
        (value, gradients(&params))
    };
    let (plain, gradients_of_plain) = run(Some("model rate: "), None);
    let (cached, gradients_of_cached) = run(Some("model rate: "), Some(40));
    assert!((plain - cached).abs() < 1e-5, "{plain} {cached}");
    close("prompts", &gradients_of_cached, &gradients_of_plain, 1e-4);
    assert!((run(None, None).0 - plain).abs() > 1e-4, "the prompt changes nothing");
}

#[test]
fn both_passes_drop_the_same() {
    let model = model("tiny-bert", 0.3);
    let params = model.params();
    let (batch, loss, rng) = (batch(&model, 9, 2, 7), loss("MultipleNegativesRankingLoss", json!({})), Rng::new(11));
    let setting = setting(&model, loss.as_ref(), Some(60));
    let parts = micro_batches(&batch.packed.offsets, 60);
    assert!(parts.len() > 2);
    let passes = Passes { setting, batch: &batch, layers: &[], rng };
    let values = |i: usize| {
        let embeddings = passes.forward(i, parts[i].clone()).unwrap().remove(0);
        (embeddings.flatten_all().unwrap().to_vec1::<f32>().unwrap(), embeddings.detach())
    };
    assert_eq!(values(0).0, values(0).0, "the same bits");
    let again = passes.forward(1, parts[0].clone()).unwrap().remove(0).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_ne!(values(0).0, again, "each part draws its own");

    // the value is the loss of all parts' embeddings together
    let all: Vec<Tensor> = (0..parts.len()).map(|i| values(i).1).collect();
    let all = Tensor::cat(&all, 0).unwrap();
    let (expected, _) = gradient(setting, &batch, &[], &[all], rng, &mut Timings::default()).unwrap();
    let step = || forward_backward(setting, &batch, rng, &mut Timings::default()).unwrap().loss;
    assert_eq!(step(), expected.loss);

    // and the gradient is that value's: along it the loss climbs by its length
    let all = gradients(&params);
    let norm = all.iter().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let move_by = |distance: f64| {
        for (param, (_, gradient)) in params.iter().zip(&all) {
            let add = |values: &mut [f32]| {
                values.iter_mut().zip(gradient).for_each(|(v, g)| *v += (distance * f64::from(*g) / norm) as f32);
            };
            param.update::<f32, ()>(add).unwrap();
        }
    };
    let distance = 2e-3;
    move_by(distance);
    let above = step();
    move_by(-2.0 * distance);
    let below = step();
    let slope = (above - below) / (2.0 * distance);
    assert!((slope - norm).abs() < 0.02 * norm, "the slope is {slope}, the gradient's length {norm}");
}

/// The loss of all parts' embeddings in one graph, which is taken back at once, and what it gives the parameters.
fn in_one_graph(setting: Setting<'_>, batch: &Batch, tokens: usize, rng: Rng) -> (f64, Vec<(String, Vec<f32>)>) {
    let parts = micro_batches(&views::offsets(setting, batch), tokens);
    assert!(parts.len() > 2, "{} parts", parts.len());
    let passes = Passes { setting, batch, layers: &[], rng };
    let all: Vec<Tensor> =
        parts.into_iter().enumerate().map(|(i, part)| passes.forward(i, part).unwrap().remove(0)).collect();
    let all = Tensor::cat(&all, 0).unwrap();
    let vectors = setting.model.vector_offsets(batch);
    let column = |span: std::ops::Range<usize>| {
        let rows = views::rows(vectors.as_deref(), &span);
        all.narrow(0, rows.start, rows.len()).unwrap()
    };
    let columns = views::spans(setting, batch).into_iter().map(column).collect();
    let context = Context::training(DType::F32, rng).unwrap();
    let outputs = views::outputs(setting, batch, columns, Vec::new(), rng, &context).unwrap();
    let value = setting.loss.compute(&outputs, batch.labels.as_ref()).unwrap();
    let found = value.backward().unwrap();
    ops::collect(&found, &setting.model.params()).unwrap();
    (f64::from(value.to_scalar::<f32>().unwrap()), gradients(&setting.model.params()))
}

/// A name, columns, and a loss with its cached twin.
type Cached = (&'static str, usize, Box<dyn Loss>, Box<dyn Loss>);

#[test]
fn with_dropout_cached_losses_have_the_plain_ones_gradients() {
    let guide = Guide::alike(model("tiny-bert", 0.0));
    let regularizer = json!({ "query_regularizer_weight": 0.02, "document_regularizer_weight": 0.05 });
    let splade = |name: &str| {
        let mut settings = regularizer.as_object().unwrap().clone();
        settings.insert("loss".to_owned(), json!({ "name": "SparseMultipleNegativesRankingLoss", "scale": 0.5 }));
        loss::build_for(ModelType::SparseEncoder, name, &settings).unwrap()
    };
    let guided = json!({ "guide": "a guide", "temperature": 0.1, "margin": 0.05 });
    let late = |name: &str| {
        let settings = json!({ "scale": 2.0 });
        loss::build_for(ModelType::MultiVectorEncoder, name, settings.as_object().unwrap()).unwrap()
    };
    let cases: Vec<Cached> = vec![
        (
            "tiny-bert",
            3,
            loss("CachedMultipleNegativesRankingLoss", json!({})),
            loss("MultipleNegativesRankingLoss", json!({})),
        ),
        (
            "tiny-bert",
            2,
            loss("CachedMultipleNegativesSymmetricRankingLoss", json!({})),
            loss("MultipleNegativesSymmetricRankingLoss", json!({})),
        ),
        ("tiny-bert", 3, loss("CachedGISTEmbedLoss", guided.clone()), loss("GISTEmbedLoss", guided)),
        (
            "tiny-bert",
            2,
            loss("MegaBatchMarginLoss", json!({ "negative_margin": -0.5 })),
            loss("MegaBatchMarginLoss", json!({ "negative_margin": -0.5, "use_mini_batched_version": false })),
        ),
        ("tiny-splade", 3, splade("CachedSpladeLoss"), splade("SpladeLoss")),
        (
            "tiny-colbert",
            2,
            late("CachedMultiVectorMultipleNegativesRankingLoss"),
            late("MultiVectorMultipleNegativesRankingLoss"),
        ),
    ];
    for (fixture, columns, cached, plain) in cases {
        let model = model(fixture, 0.25);
        let batch = batch(&model, 10, columns, 21);
        let name = cached.card().name;
        assert!(cached.micro_batch().is_some() && plain.micro_batch().is_none(), "{name}");
        let rng = Rng::new(17);
        let guide = plain.guide().map(|_| &guide);
        let (tokens, step) = (90, Some((5, 10)));
        let setting = |loss| Setting { guide, step, ..setting(&model, loss, Some(tokens)) };
        let (value, wanted) = in_one_graph(setting(plain.as_ref()), &batch, tokens, rng);
        let measured = forward_backward(setting(cached.as_ref()), &batch, rng, &mut Timings::default()).unwrap();
        assert!((measured.loss - value).abs() < 1e-5 * value.abs().max(1.0), "{name}: {} {value}", measured.loss);
        let got = gradients(&model.params());
        close(name, &got, &wanted, 2e-5);
        let reached = wanted.iter().filter(|(_, values)| values.iter().any(|value| *value != 0.0)).count();
        // a key's bias has no gradient: the softmax takes out what all scores have in common
        assert!(reached + 2 >= wanted.len(), "{name}: {reached} of {}", wanted.len());
    }
}

#[test]
fn a_loss_that_is_no_number_leaves_no_gradient() {
    let model = model("tiny-bert", 0.0);
    let (params, batch) = (model.params(), batch(&model, 8, 2, 5));
    params.first().unwrap().update::<f32, ()>(|values| values.fill(f32::NAN)).unwrap();
    let loss = loss("MultipleNegativesRankingLoss", json!({}));
    for tokens in [None, Some(30)] {
        let setting = setting(&model, loss.as_ref(), tokens);
        assert!(forward_backward(setting, &batch, Rng::new(1), &mut Timings::default()).unwrap().loss.is_nan());
        assert!(gradients(&params).iter().all(|(_, g)| g.is_empty()));
    }
}
