#![allow(clippy::unwrap_used)]

use super::*;
use crate::data::report::Lengths;
use crate::train::facts::{ColumnFacts, DatasetFacts};

fn run() -> RunFacts {
    let tokens = Lengths { mean: 6.75, p50: 5, p90: 12, p99: 12, max: 300 };
    let column = |name: &str, truncated| ColumnFacts {
        name: name.into(),
        texts: 5749,
        truncated,
        tokens,
        lengths: vec![(5, 3), (12, 1)],
    };
    RunFacts {
        datasets: vec![DatasetFacts {
            name: "train|1.jsonl".into(),
            trained: true,
            rows: 5749,
            max_seq_length: Some(256),
            columns: vec![column("sentence1", 0), column("sentence2", 2)],
            label: Some("score".into()),
            examples: vec![["a <b> | c", "d \"e\"", "0.5"].map(str::to_owned).to_vec()],
        }],
        language: vec!["en".into()],
        license: Some("apache-2.0".into()),
        ..RunFacts::default()
    }
}

fn facts() -> Facts {
    Facts {
        name: "minilm: \"stsb\"".into(),
        model_type: ModelType::SentenceTransformer,
        base: Some("sentence-transformers/all-MiniLM-L6-v2".into()),
        dimension: 384,
        modules: vec!["Transformer", "Pooling"],
        max_seq_length: Some(256),
        similarity: "cosine".into(),
        activation: None,
        prompts: vec![("query".into(), "query: ".into()), ("document".into(), String::new())],
        matryoshka_dims: vec![384, 128],
        adapters: None,
        datasets: vec![Dataset {
            name: "train|1.jsonl".into(),
            hub: None,
            columns: vec!["sentence1".into(), "sentence2".into()],
            label: Some("score".into()),
        }],
        rows: 5749,
        losses: vec!["MatryoshkaLoss".into(), "CoSENTLoss".into()],
        loss_config: serde_json::json!({"scale": 20.0}),
        hyperparameters: vec![("learning_rate".into(), "2e-5".into())],
        evaluations: vec![Evaluation {
            evaluator: "EmbeddingSimilarityEvaluator".into(),
            name: "sts-dev".into(),
            metrics: vec![
                ("eval_sts-dev_spearman_cosine".into(), Some(0.8), 0.85),
                ("sts-dev_pearson_cosine".into(), None, f64::NAN),
            ],
        }],
        judgement: Judgement::new(Some("eval_sts-dev_spearman_cosine"), Some(0.85), Some(0.8), true),
        steps: 90,
        epochs: 1.0,
        seconds: 61.0,
        peak_memory_bytes: 1_400_000_000,
        run: Some(run()),
        course: Course {
            columns: ["epoch", "step", "training loss", "sts-dev_spearman_cosine"].map(str::to_owned).to_vec(),
            rows: vec![["0.0000", "0", "-", "0.8000"].map(str::to_owned).to_vec()],
        },
    }
}

#[test]
fn the_card_reads_as_it_should() {
    insta::assert_snapshot!(text(&facts()).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn metadata_is_quoted_and_free_of_nan() {
    let card = text(&facts()).unwrap();
    let front = card.split("---\n").nth(1).unwrap();
    assert!(front.contains("- name: \"minilm: \\\"stsb\\\"\""), "{front}");
    assert!(front.contains("- \"loss:CoSENTLoss\"") && front.contains("- \"dataset_size:5749\""));
    assert!(front.contains("- \"spearman_cosine\"\n") && front.contains("value: 0.85"));
    assert!(!front.contains("NaN"), "{front}");
}

#[test]
fn data_on_the_hub_and_adapters_are_named() {
    let mut facts = facts();
    facts.adapters = Some("rank 8, alpha 16, dropout 0, on queries and values".into());
    let set = Dataset { hub: Some("someone/pairs".into()), ..facts.datasets[0].clone() };
    facts.datasets = vec![set.clone(), set, facts.datasets[0].clone()];
    let card = text(&facts).unwrap();
    let front = card.split("---\n").nth(1).unwrap();
    assert!(front.contains("\ndatasets:\n- \"someone/pairs\"\nwidget:"), "{front}");
    assert_eq!(card.matches("](https://huggingface.co/datasets/someone/pairs) |").count(), 2, "{card}");
    assert!(card.contains("- **Trained as adapters (LoRA, merged here):** rank 8, alpha 16"), "{card}");
    let card = text(&self::facts()).unwrap();
    assert!(!card.contains("datasets:") && !card.contains("adapters"), "{card}");
}

#[test]
fn a_folder_is_no_hub_id() {
    let card = text(&Facts { base: Some("/home/someone/models/mine".into()), ..facts() }).unwrap();
    assert!(!card.contains("/home/someone") && !card.contains("base_model:") && card.contains("from `mine`"));
    let card = text(&Facts { base: None, evaluations: Vec::new(), ..facts() }).unwrap();
    assert!(card.contains("trained from scratch") && !card.contains("model-index") && !card.contains("## Evaluation"));
}

#[test]
fn letters_that_yaml_does_not_take_are_escaped() {
    let text = "a\u{7f}b\u{80}\u{84}\u{85}\u{86}\u{9f}\u{a0}\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}\u{1}ä語\"\\";
    let yaml = quoted(text);
    let forbidden =
        |c: char| matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff);
    assert!(!yaml.chars().any(forbidden) && yaml.contains("ä語") && yaml.contains("\\u2028"), "{yaml}");
    assert_eq!(serde_json::from_str::<String>(&yaml).unwrap(), text);
}
