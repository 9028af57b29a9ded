//! A run whose loss trains a classifier, and the evaluator that measures it.

use std::fmt::Write;

use tallow::train::{self, Event, Options};

use crate::train::{plan, run};

/// Pairs that are told apart by their words: class 0 about one thing, class 1 about another, class 2 mixed.
fn pairs(rows: usize) -> String {
    let (cats, ships) =
        (["the grey cat", "a small cat", "my cat sleeps"], ["the ship sails", "an old ship", "a ship at night"]);
    let mut text = String::new();
    for i in 0..rows {
        let class = i % 3;
        let first = if class == 1 { ships[i % 2] } else { cats[i % 2] };
        let second = if class == 0 { cats[(i / 3) % 3] } else { ships[(i / 3) % 3] };
        writeln!(text, r#"{{"sentence1": "{first}", "sentence2": "{second}", "label": {class}}}"#).unwrap();
    }
    text
}

const RECIPE: &str = r#"
    seed = 5
    [model]
    base = "tests/fixtures/tiny-bert"
    default_prompt_name = "any"
    truncate_dim = 8
    prompts = { any = "some words that mean nothing: " }
    [train_dataset]
    path = "TRAIN"
    [loss]
    name = "SoftmaxLoss"
    num_labels = 3
    [[evaluator]]
    type = "LabelAccuracyEvaluator"
    name = "nli"
    path = "DEV"
    [args]
    num_train_epochs = 8
    per_device_train_batch_size = 12
    learning_rate = 2e-3
    eval_steps = 10
"#;

#[test]
fn accuracy_is_that_of_the_loss_in_training() {
    let dir = tempfile::tempdir().unwrap();
    let (train, dev) = (dir.path().join("train.jsonl"), dir.path().join("dev.jsonl"));
    std::fs::write(&train, pairs(120)).unwrap();
    std::fs::write(&dev, pairs(30)).unwrap();
    let text = RECIPE.replace("TRAIN", train.to_str().unwrap()).replace("DEV", dev.to_str().unwrap());
    let plan_of = |text: &str| plan(text, &[]);
    let mut tables = Vec::new();
    let outcome =
        train::run(&plan_of(&text), &dir.path().join("run"), &Options::default(), &mut |event: &Event<'_>| {
            if let Event::Evaluation { tables: found, .. } = event {
                tables = found.iter().map(|csv| (csv.file.clone(), csv.header())).collect();
            }
        })
        .unwrap();
    assert!(outcome.baseline.unwrap() < 0.7, "{:?}", outcome.baseline);
    assert!(outcome.score.unwrap() > 0.95, "it has learnt what it was shown: {:?}", outcome.score);
    assert_eq!(tables, [("accuracy_evaluation_nli_results.csv".to_owned(), "epoch,steps,accuracy".to_owned())]);
    train::smoke_test(&plan_of(&text), &mut |_: &Event<'_>| {}).unwrap();

    let other = text.replace("name = \"SoftmaxLoss\"\n    num_labels = 3", "name = \"MultipleNegativesRankingLoss\"");
    let error = run(&plan_of(&other), &dir.path().join("other"), Options::default()).0.unwrap_err();
    assert!(error.to_string().contains("measures the classifier that SoftmaxLoss trains"), "{error}");

    let named = pairs(30).replace("\"label\": 0", "\"label\": \"no\"").replace("\"label\": 1", "\"label\": \"yes\"");
    std::fs::write(&dev, named.replace("\"label\": 2", "\"label\": \"may\"")).unwrap();
    let error = run(&plan_of(&text), &dir.path().join("named"), Options::default()).0.unwrap_err();
    assert!(error.hint().unwrap().contains("whole numbers"), "{error}");
}
