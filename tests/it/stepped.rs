//! Every loss of every type of model is trained for a few steps, and what it minimises falls.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use tallow::flow::{Card, LabelKind, ModelType};
use tallow::loss;
use tallow::train::Options;

use crate::support::project;
use crate::train::{plan, run};

const KINDS: [(ModelType, &str); 4] = [
    (ModelType::SentenceTransformer, "tiny-bert"),
    (ModelType::CrossEncoder, "tiny-cross-encoder"),
    (ModelType::SparseEncoder, "tiny-splade"),
    (ModelType::MultiVectorEncoder, "tiny-colbert"),
];

/// Eight rows that have everything a loss may ask for: one batch.
fn rows() -> String {
    let who = ["sailor", "doctor", "cook", "child", "king", "bird", "horse", "queen"];
    let what = ["chair", "boat", "house", "tree", "letter", "song", "road", "ring"];
    let mut lines = String::new();
    for (i, (who, what)) in who.iter().zip(what).enumerate() {
        let vector = |width: usize| (0..width).map(|j| ((i * 7 + j) as f64).sin() / 4.0).collect::<Vec<_>>();
        let other = what.chars().rev().collect::<String>();
        let row = json!({
            "a": format!("the {who} sells the {what}"), "b": format!("who sells the {what}"), "c": format!("a {other} by the sea"),
            "list": [format!("the old {what}"), format!("a {who} by the sea"), "nothing of that kind"],
            "score": i % 2, "class": i % 2, "margins": [4.0 + i as f64, 1.0],
            "wide": vector(32), "words": vector(600), "scores": [1.0, 0.5, 0.0],
        });
        let _ = writeln!(lines, "{row}");
    }
    lines
}

/// The columns of [`rows`] that a loss reads.
fn columns(kind: ModelType, card: &Card) -> (Vec<&'static str>, Option<&'static str>) {
    let texts: Vec<&str> = ["a", "b", "c"].into_iter().take(card.columns.0).collect();
    let label = match (card.name, card.labels) {
        (name, _) if name.contains("MarginMSE") => Some("margins"),
        ("SoftmaxLoss" | "CrossEntropyLoss", _) => Some("class"),
        ("GlobalOrthogonalRegularizationLoss", _) => None,
        (name, LabelKind::Any) if name.contains("AnglE") => Some("score"),
        (name, LabelKind::Matrix) if name.contains("DistillKLDiv") => Some("margins"),
        (_, LabelKind::Matrix) if kind == ModelType::SparseEncoder => Some("words"),
        (_, LabelKind::Matrix) => Some("wide"),
        (_, LabelKind::Lists) => return (vec!["a", "list"], Some("scores")),
        (_, LabelKind::Int) => Some("class"),
        (_, LabelKind::Float) if card.unlabelled_from > texts.len() => Some("score"),
        _ => None,
    };
    (texts, label)
}

/// `[loss]` of a loss by name, and the card of the one that reads columns.
fn table(kind: ModelType, card: &'static Card) -> (String, &'static Card) {
    let inner = match kind {
        ModelType::SparseEncoder => "SparseMultipleNegativesRankingLoss",
        _ => "MultipleNegativesRankingLoss",
    };
    let of = |name: &str| loss::cards_for(kind).find(|card| card.name == name).unwrap();
    let around = |more: &str| (format!("name = \"{}\"\nloss = {{ name = \"{inner}\" }}\n{more}", card.name), of(inner));
    // so light that the loss inside is what falls
    let regularizer = "query_regularizer_weight = 1e-9\ndocument_regularizer_weight = 1e-9";
    match card.name {
        "MatryoshkaLoss" => (format!("name = \"{inner}\"\n[loss.matryoshka]\ndims = [32, 8]"), of(inner)),
        "AdaptiveLayerLoss" => around("n_layers_per_step = -1"),
        "Matryoshka2dLoss" => around("dims = [32, 8]\nn_dims_per_step = -1\nn_layers_per_step = -1"),
        "SpladeLoss" | "CachedSpladeLoss" => around(regularizer),
        "CSRLoss" => around(""),
        "SparseMSELoss" => {
            // a single column, which is taken for documents
            let regularizer = "use_document_regularizer_only = true\ndocument_regularizer_weight = 1e-9";
            (format!("name = \"SparseMSELoss\"\n[loss.splade]\n{regularizer}"), card)
        }
        name if kind == ModelType::SparseEncoder => (format!("name = \"{name}\"\n[loss.splade]\n{regularizer}"), card),
        "SoftmaxLoss" => ("name = \"SoftmaxLoss\"\nnum_labels = 2".to_owned(), card),
        name if name.contains("GISTEmbed") => {
            (format!("name = \"{name}\"\nguide = \"tests/fixtures/tiny-modules\"\ntemperature = 0.1"), card)
        }
        name => (format!("name = \"{name}\""), card),
    }
}

fn losses(kind: ModelType, base: &str, card: &'static Card, dir: &Path) -> Vec<f64> {
    let (table, reads) = table(kind, card);
    let (columns, label) = columns(kind, reads);
    let base = match card.name {
        "CSRLoss" => "tiny-csr",
        "CrossEntropyLoss" => "tiny-classifier",
        _ => base,
    };
    let label = label.map(|label| format!("label = \"{label}\"\n")).unwrap_or_default();
    let sampler = if reads.compares_labels { "group_by_label" } else { "batch_sampler" };
    let text = format!(
        "model_type = \"{kind}\"\nseed = 4\n[model]\nbase = \"tests/fixtures/{base}\"\ndropout = 0.0\n[train_dataset]\npath \
         = {:?}\ncolumns = {columns:?}\n{label}[loss]\n{table}\n[args]\nnum_train_epochs = \
         8\nper_device_train_batch_size = 8\nlearning_rate = 1e-3\nlogging_steps = 1\nbatch_sampler = \
         \"{sampler}\"\nsave_strategy = \"no\"\n",
        dir.join("rows.jsonl").display().to_string()
    );
    let run_dir = dir.join(format!("{kind}-{}", card.name));
    let (outcome, logs) = run(&plan(&text, &[]), &run_dir, Options::default());
    outcome.unwrap_or_else(|e| panic!("{kind} {}: {e}\n{text}", card.name));
    assert!(logs.iter().all(|log| log.loss.is_finite() && log.grad_norm.is_finite()), "{kind} {}", card.name);
    logs.iter().map(|log| log.loss).collect()
}

#[test]
fn every_loss_falls_in_a_few_steps() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), rows()).unwrap();
    assert!(project("tests/fixtures/tiny-modules").is_dir());
    let mut trained = 0;
    for (kind, base) in KINDS {
        for card in loss::cards_for(kind) {
            let losses = losses(kind, base, card, dir.path());
            let (first, last) = (losses[0], losses.iter().rev().take(2).copied().fold(f64::INFINITY, f64::min));
            assert!(losses.len() >= 8 && last < first, "{kind} {}: {losses:?}", card.name);
            trained += 1;
        }
    }
    assert!(trained > 50, "{trained}");
}

#[test]
fn what_the_reference_refuses_of_static_embeddings_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), rows()).unwrap();
    let tried = |base: &str, loss: &str| {
        let text = format!(
            "[model]\nbase = \"tests/fixtures/{base}\"\n[train_dataset]\npath = {:?}\ncolumns = [\"a\", \
             \"b\"]\n[loss]\n{loss}\n[args]\nmax_steps = 1\nsave_strategy = \"no\"\n",
            dir.path().join("rows.jsonl").display().to_string()
        );
        run(&plan(&text, &[]), &dir.path().join("run"), Options::default()).0.map(|_| ()).map_err(|e| e.to_string())
    };
    let guided = |name: &str, guide: &str| format!("name = \"{name}\"\nguide = \"tests/fixtures/{guide}\"");
    for name in [
        "CachedMultipleNegativesRankingLoss",
        "CachedMultipleNegativesSymmetricRankingLoss",
        "MegaBatchMarginLoss",
        "CachedGISTEmbedLoss",
    ] {
        let loss = if name == "CachedGISTEmbedLoss" { guided(name, "tiny-bert") } else { format!("name = \"{name}\"") };
        let told = tried("tiny-static", &loss).unwrap_err();
        assert!(told.starts_with(&format!("{name} takes a batch in parts, and the model is a static")), "{told}");
        // wrapped it is the same loss, and a network takes all
        let told = tried("tiny-static", &format!("{loss}\n[loss.matryoshka]\ndims = [24, 8]"));
        assert!(told.unwrap_err().contains("takes a batch in parts"), "{name}");
        tried("tiny-bert", &loss).unwrap();
    }
    tried("tiny-static", "name = \"MegaBatchMarginLoss\"\nuse_mini_batched_version = false").unwrap();
    // a guide with the same words, one with others
    tried("tiny-static", &guided("GISTEmbedLoss", "tiny-bert")).unwrap();
    let told = tried("tiny-static", &guided("GISTEmbedLoss", "backbones/roberta")).unwrap_err();
    assert!(told.contains("GISTEmbedLoss compares a static embedding with a guide that has other tokens"), "{told}");
    tried("tiny-bert", &guided("GISTEmbedLoss", "backbones/roberta")).unwrap();
}
