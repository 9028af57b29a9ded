//! Static embeddings out of transformers, and tokenizers out of texts.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;
use tallow::flow::Preprocess;
use tallow::model::TextTokenizer;
use tallow::model::distill::{Components, Distillation, distill};
use tallow::ops::PoolingMode;

use crate::support::{assert_close, golden, numbers, project, shape, values, whole};

/// The options of a call of the reference.
fn options(given: &Value) -> Distillation {
    let or = |key: &str, default: Value| given.get(key).cloned().unwrap_or(default);
    Distillation {
        components: match or("pca_dims", 256.into()) {
            Value::Null => Components::Off,
            Value::String(_) => Components::All,
            number if number.is_f64() => Components::Variance(number.as_f64().unwrap()),
            number => Components::Most(number.as_u64().unwrap() as usize),
        },
        sif_coefficient: or("sif_coefficient", 1e-4.into()).as_f64(),
        token_remove_pattern: or("token_remove_pattern", r"\[unused\d+\]".into()).as_str().map(str::to_owned),
        pooling: match or("pooling", "mean".into()).as_str().unwrap() {
            "first" => PoolingMode::Cls,
            "last" => PoolingMode::LastToken,
            _ => PoolingMode::Mean,
        },
    }
}

/// A teacher: a fixture, or its weights with another tokenizer.
fn teacher(golden: &Value, name: &str, folder: &Path) -> PathBuf {
    let fixture = project("tests/fixtures/tiny-bert");
    let Some(given) = golden["tokenizers"][name]["given"].as_object() else {
        return fixture;
    };
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    for (file, content) in given {
        std::fs::write(folder.join(file), content.to_string()).unwrap();
    }
    folder.to_path_buf()
}

/// `rows` of a table, and the products of each with each.
fn gram(rows: &[f64], width: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = rows.chunks_exact(width).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect()
}

#[test]
fn distilled_tables_equal_the_reference() {
    let golden = golden("distill");
    for case in golden["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let name = case["teacher"].as_str().unwrap();
        let what = format!("{name} {}", case["options"]);
        let directory = teacher(&golden, name, folder.path());
        let made = distill(&directory, &options(&case["options"]), &Device::Cpu).unwrap();
        let wanted_shape: Vec<usize> = whole(&case["shape"]).iter().map(|n| *n as usize).collect();
        assert_eq!(made.table.dims(), wanted_shape, "{what}");
        assert_eq!(made.tokenizer.vocabulary(), wanted_shape[0], "{what}");
        let width = wanted_shape[1];
        let all = values(&made.table);
        let rows: Vec<f64> = whole(&case["rows"])
            .iter()
            .flat_map(|row| all[*row as usize * width..(*row as usize + 1) * width].to_vec())
            .collect();
        let wanted = numbers(&case["table"]);
        assert_eq!(shape(&case["table"])[1], width, "{what}");
        // the rows are small numbers: compared by the largest of them
        let scale = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let scaled = |rows: &[f64]| rows.iter().map(|x| x / scale).collect::<Vec<_>>();
        let (rows, wanted) = (scaled(&rows), scaled(&wanted));
        assert_close(&format!("{what}: products"), &gram(&rows, width), &gram(&wanted, width), 1e-5);
        assert_close(&format!("{what}: rows"), &rows, &wanted, 1e-4);
    }
}

#[test]
fn pruned_tokenizers_equal_the_reference() {
    let golden = golden("distill");
    for (name, files) in golden["tokenizers"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let directory = teacher(&golden, name, folder.path());
        // the last options that the script made of this teacher
        let last = golden["cases"].as_array().unwrap().iter().rev().find(|case| case["teacher"] == name.as_str());
        let given = if name == "tiny-bert" { &golden["cases"][0]["options"] } else { &last.unwrap()["options"] };
        let made = distill(&directory, &options(given), &Device::Cpu).unwrap().tokenizer;
        let (own, wanted): (Value, &Value) = (serde_json::from_slice(made.json()).unwrap(), &files["made"]);
        for key in ["normalizer", "pre_tokenizer", "post_processor", "truncation", "padding", "added_tokens"] {
            assert_eq!(own[key], wanted[key], "{name} {key}");
        }
        for key in ["vocab", "merges", "unk_id", "unk_token"] {
            assert_eq!(own["model"].get(key), wanted["model"].get(key), "{name} {key}");
        }
        let reference = TextTokenizer::from_bytes(wanted.to_string().into_bytes(), Path::new("x"), false).unwrap();
        for text in ["The grey cat sleeps on the warm stove.", "<s> [MASK] zürich 42"] {
            let ids = |tokenizer: &TextTokenizer| tokenizer.tokenize(&[text], None).unwrap()[0].ids.clone();
            assert_eq!(ids(&made), ids(&reference), "{name} {text}");
        }
    }
}
