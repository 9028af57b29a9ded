//! What a resumed run says of itself.

use std::fmt::Write as _;

use tallow::train::Options;

use crate::train::{plan, run};

/// Anchors that recur, so that the number of batches without duplicates depends on the order of the rows.
fn recurring(dir: &std::path::Path) -> String {
    let mut rows = String::new();
    for i in 0..18 {
        let _ = writeln!(rows, r#"{{"anchor": "who sells the chair {}", "positive": "the sailor sells {i}"}}"#, i % 5);
    }
    let path = dir.join("rows.jsonl");
    std::fs::write(&path, rows).unwrap();
    path.display().to_string()
}

#[test]
fn a_run_resumed_after_its_last_step_tells_the_same_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let path = recurring(dir.path());
    let mut other = 0;
    for steps in 5..15 {
        let text = format!(
            r#"
            [model]
            base = "tests/fixtures/tiny-bert"
            [train_dataset]
            path = "{path}"
            [loss]
            name = "MultipleNegativesRankingLoss"
            [args]
            max_steps = {steps}
            per_device_train_batch_size = 4
            batch_sampler = "no_duplicates"
            save_steps = {steps}
            logging_steps = 1
            "#
        );
        let run_dir = dir.path().join(format!("{steps}"));
        let (plan, resume) = (plan(&text, &[]), Options { resume: true, ..Options::default() });
        let (whole, logs) = run(&plan, &run_dir, Options::default());
        let whole = whole.unwrap();
        let resumed = run(&plan, &run_dir, resume).0.unwrap();
        assert_eq!((resumed.steps, resumed.epochs), (steps, whole.epochs), "{steps} steps");
        let Some(first) = logs.iter().find(|line| line.epoch >= 1.0) else { continue };
        let of_first = whole.epochs.fract() * first.step as f64;
        other += u32::from((of_first - of_first.round()).abs() > 1e-9);
    }
    assert!(other > 0, "some run has to end in an epoch that is longer or shorter than the first");
}
