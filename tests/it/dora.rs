//! Adapters with magnitudes (DoRA) in a run: what is saved, how it goes on, and what is not taken for it.

use std::path::Path;

use candle_core::Device;
use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions};
use tallow::model::SentenceTransformer;
use tallow::model::lora::LoraOptions;
use tallow::ops;
use tallow::train::Options;
use tallow::util::seed::Rng;

use crate::lora::{adapter_of, fixture, names, small};
use crate::support::values;
use crate::train::{SMALL, plan, resumes_exactly, run};

#[test]
fn magnitudes_are_saved_as_peft_saves_them_and_resume() {
    let dir = tempfile::tempdir().unwrap();
    let text = small("use_dora = true\ndropout = 0.1");
    // the model starts as it was
    let plain = plan(SMALL, &["args.max_steps=1"]);
    let adapted = plan(&text, &["args.max_steps=12", "args.learning_rate=5e-3"]);
    let baseline = |plan, name: &str| run(plan, &dir.path().join(name), Options::default()).0.unwrap();
    let (before, outcome) = (baseline(&plain, "plain"), baseline(&adapted, "dora"));
    assert!((before.baseline.unwrap() - outcome.baseline.unwrap()).abs() < 1e-6);
    let adapter = outcome.adapter_dir.unwrap();
    let given = adapter_of("tiny-adapter-dora");
    let name = given.keys().find(|name| name.ends_with("query.lora_magnitude_vector")).unwrap();
    assert!(names(&adapter).contains(name), "{:?}", names(&adapter));
    assert_eq!(names(&adapter).len(), 2 * 2 * 3);
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["use_dora"], true);
    // over its base it is the merged model, and its magnitudes have moved
    let base = SentenceTransformer::load(&fixture("tiny-bert")).unwrap();
    let merged = SentenceTransformer::load(&outcome.model_dir).unwrap();
    let mut again = SentenceTransformer::load(&fixture("tiny-bert")).unwrap();
    let mut options = LoraOptions {
        r: 4,
        alpha: 16.0,
        use_dora: true,
        adapter: Some(adapter.display().to_string()),
        ..LoraOptions::default()
    };
    again.add_adapter(&options, "", Rng::new(1)).unwrap();
    let encode = |model: &SentenceTransformer| {
        model.encode(&["the sailor sells the chair", "a doctor"], &EncodeOptions::default()).unwrap()
    };
    let apart = |a: &SentenceTransformer, b: &SentenceTransformer| {
        let (a, b) = (encode(a), encode(b));
        a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(apart(&again, &merged) < 1e-5 && apart(&again, &base) > 1e-3);
    let saved = candle_core::safetensors::load(adapter.join("adapter_model.safetensors"), &Device::Cpu).unwrap();
    let layer = "encoder.layer.1.attention.self.value";
    let (_, weight) =
        base.params().into_iter().map(|p| (p.name().to_owned(), p)).find(|(n, _)| n.contains(layer)).unwrap();
    let own = values(&ops::row_lengths(weight.value()).unwrap());
    let trained = values(&saved[&format!("base_model.model.{layer}.lora_magnitude_vector")]);
    assert!(own.iter().zip(&trained).any(|(a, b)| (a - b).abs() > 1e-3));
    if let Ok(folder) = std::env::var("TALLOW_SAVED") {
        crate::support::copy_dir(&adapter, &Path::new(&folder).join("dora"));
        crate::support::copy_dir(&outcome.model_dir, &Path::new(&folder).join("dora-merged"));
    }
    // another kind of adapter is not taken for it
    options.use_dora = false;
    let mut plain = SentenceTransformer::load(&fixture("tiny-bert")).unwrap();
    let error = plain.add_adapter(&options, "", Rng::new(1)).unwrap_err();
    assert!(error.to_string().contains("`use_dora` is true"), "{error}");
    assert_eq!(error.hint(), Some("write `use_dora = true`"));
    resumes_exactly(&text, &[], &[]);
}
