//! Losses of every family, and several data sets: twenty steps of the reference's trainer.

use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions};
use tallow::model::SentenceTransformer;
use tallow::recipe::Plan;
use tallow::train::{Options, TrainLog};

use crate::support::{golden, numbers, project};
use crate::train::{plan, run};

/// The recipe of a golden case, with the reference's arguments.
pub fn recipe_of(case: &Value, model_type: &str) -> String {
    let folder = |name: &str| project(name).display().to_string();
    let recipe = case["recipe"].as_str().unwrap();
    let recipe = recipe.replace("$GOLDEN", &folder("tests/golden")).replace("$FIXTURES", &folder("tests/fixtures"));
    // a case may have tables of its own under [args]
    let (recipe, own) = match recipe.split_once("[args.") {
        Some((recipe, own)) => (recipe.to_owned(), format!("[args.{own}")),
        None => (recipe, String::new()),
    };
    format!(
        r#"
        model_type = "{model_type}"
        {recipe}
        [args]
        num_train_epochs = 1
        per_device_train_batch_size = 8
        learning_rate = 2e-4
        weight_decay = 0.01
        shuffle = false
        logging_steps = 1
        save_strategy = "no"
        {own}
        "#
    )
}

/// Trains what a recipe says; losses and gradients' norms of all steps must be the golden case's.
pub fn follow(name: &str, case: &Value, plan: &Plan) -> SentenceTransformer {
    follow_logs(name, case, plan).0
}

/// As [`follow`], with the lines of the log.
pub fn follow_logs(name: &str, case: &Value, plan: &Plan) -> (SentenceTransformer, Vec<TrainLog>) {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, logs) = run(plan, dir.path(), Options::default());
    let outcome = outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
    for (key, got) in [
        ("losses", logs.iter().map(|l| l.loss).collect::<Vec<_>>()),
        ("grad_norms", logs.iter().map(|l| l.grad_norm).collect()),
    ] {
        let want: Vec<f64> = case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(got.len(), want.len(), "{name}");
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
        println!("{name}: {key} differ by {worst:.0e}");
        assert!(worst < if key == "losses" { 1e-4 } else { 2e-3 }, "{name}: {key} {got:?}, the reference {want:?}");
    }
    (SentenceTransformer::load(&outcome.model_dir).unwrap(), logs)
}

/// The trained model must embed the golden case's probes as the reference's did.
pub fn embeds_alike(name: &str, case: &Value, model: &SentenceTransformer) {
    let probes: Vec<&str> = case["probes"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let got = model.encode(&probes, &EncodeOptions::default()).unwrap();
    let want = numbers(&case["embeddings_after"]);
    let worst = got.data().iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "{name}: embeddings differ by {worst:e}");
}

#[test]
pub fn losses_of_every_family_follow_the_reference() {
    let golden = golden("curves_more");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 12, "only {} cases", cases.len());
    let folder = |name: &str| project(name).display().to_string();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let recipe = case["recipe"].as_str().unwrap();
        let recipe = recipe.replace("$GOLDEN", &folder("tests/golden")).replace("$FIXTURES", &folder("tests/fixtures"));
        // a case may have settings of its own under [args]
        let (recipe, own) = recipe.split_once("[args]\n").unwrap_or((&recipe, ""));
        let text = format!(
            r#"
            [model]
            base = "tests/fixtures/tiny-bert"
            dropout = 0.0
            {recipe}
            [args]
            {own}
            num_train_epochs = 1
            per_device_train_batch_size = 8
            learning_rate = 2e-4
            weight_decay = 0.01
            shuffle = false
            logging_steps = 1
            save_strategy = "no"
            "#
        );
        let model = follow(name, case, &plan(&text, &[]));
        embeds_alike(name, case, &model);
    }
}
