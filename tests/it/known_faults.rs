//! Faults that trainers of this kind are known to have had, sentence-transformers among them, each kept out by a test.
//!
//! Tested elsewhere, beside what they belong to:
//!
//! | fault | test |
//! |---|---|
//! | cached losses pool a prompt's tokens although pooling leaves them out | `train/step/tests.rs`, `prompts_left_out_of_pooling_are_left_out_of_parts` |
//! | the deciding metric turns out not to exist at the first evaluation, hours in | `train.rs`, `a_wrong_metric_is_refused_before_any_step` |
//! | a resumed run sees other rows, dropout or moments than one that was not stopped | `train.rs`, `a_resumed_run_has_the_same_bits` |
//! | a resumed run of a model with several networks or with a loss's own parameters loses some | `train.rs`, `a_router_trains_and_resumes`, `losses_with_parameters_and_guides_train_and_resume` |

use std::sync::Arc;

use candle_core::Device;
use tallow::data::sampler::Mixed;
use tallow::data::{BatchSampler, MultiDatasetBatchSampler, RowFacts, Sampler, SamplerSettings};
use tallow::eval::trainer_key;
use tallow::flow::{Encode, EncodeOptions, PackedBatch};
use tallow::model::{SentenceTransformer, backbone};
use tallow::ops::{Context, Param};
use tallow::train::{self, Event, Options};

use crate::backbones::fixture;
use crate::support::{assert_close, copy_dir, values};
use crate::train::{SMALL, plan, run};

/// Positives that are the same text are no negatives of each other. Told by their embeddings they would be: dropout
/// makes those of equal texts differ.
#[test]
fn equal_texts_are_found_under_dropout() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..24)
        .map(|i| format!("{{\"anchor\": \"who sells chair {i}\", \"positive\": \"the sailor sells chairs\"}}\n"))
        .collect();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, rows).unwrap();
    let losses = |mask: bool, sets: &[&str]| {
        let text = format!(
            "[model]\nbase = \"tests/fixtures/tiny-bert\"\ndropout = 0.3\n[train_dataset]\npath = {path:?}\n\
             [loss]\nname = \"MultipleNegativesRankingLoss\"\nmask_duplicates = {mask}\n\
             [args]\nmax_steps = 3\nper_device_train_batch_size = 8\nlogging_steps = 1\nsave_strategy = \"no\"\n"
        );
        let (outcome, logs) =
            run(&plan(&text, sets), &dir.path().join(format!("{mask}{}", sets.len())), Options::default());
        outcome.unwrap();
        logs.iter().map(|line| line.loss).collect::<Vec<_>>()
    };
    // with all others left out the positive is the only candidate
    assert_eq!(losses(true, &[]), [0.0; 3]);
    assert_eq!(losses(true, &["args.gradient_cache_tokens=40"]), [0.0; 3]);
    let counted = losses(false, &[]);
    assert!(counted.iter().all(|loss| *loss > 1.0), "{counted:?}");
}

struct Rows(Vec<Vec<u64>>);

impl RowFacts for Rows {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn ids(&self, row: u32) -> &[u64] {
        &self.0[row as usize]
    }

    fn tokens(&self, row: u32) -> usize {
        1 + row as usize % 7
    }

    fn class(&self, row: u32) -> Option<i64> {
        Some(i64::from(row % 5))
    }
}

/// The length of the schedule, the last step and the progress all rest on the number of batches.
#[test]
fn samplers_give_as_many_batches_as_they_promise() {
    let rows: Vec<Vec<u64>> = (0..203u64).map(|i| vec![i % 31, 1000 + i % 90]).collect();
    let mut counts = std::collections::BTreeSet::new();
    for kind in BatchSampler::ALL {
        for (batch_size, drop_last, max_tokens) in
            [(4, false, None), (8, true, None), (16, false, Some(20)), (16, true, Some(30)), (6, false, Some(9))]
        {
            // a new sampler each time, so that a number cannot come from the epoch that was just made
            let made = |seed: u64| -> Arc<dyn Sampler> {
                let settings = SamplerSettings { batch_size, max_tokens, drop_last, shuffle: true, seed };
                Arc::from(kind.build(Arc::new(Rows(rows.clone())), settings).unwrap())
            };
            for epoch in 0..6 {
                let what = format!("{}, {batch_size} {drop_last} {max_tokens:?}, epoch {epoch}", kind.name());
                let promised = made(3).batches_per_epoch(epoch);
                let plan = made(3).epoch(epoch);
                assert_eq!((plan.len(), plan.from(0).count()), (promised, promised), "{what}");
                assert_eq!(plan.from(promised / 2).count(), promised - promised / 2, "{what}");
                counts.insert((kind.name(), promised));
                for how in MultiDatasetBatchSampler::ALL {
                    let both = || Mixed::new(vec![made(3), made(8)], how, true, 1);
                    assert_eq!(both().epoch(epoch).from(0).count(), both().batches_per_epoch(epoch), "{what}, {how:?}");
                }
            }
        }
    }
    let no_duplicates = counts.iter().filter(|(name, _)| *name == "no_duplicates").count();
    assert!(no_duplicates > 5, "epochs have to differ for this to prove anything: {counts:?}");
}

/// What a run says its metrics are called, before training, is what they are called: a metric that decides is checked
/// against it.
#[test]
fn metrics_are_called_what_was_announced() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[evaluator]]\ntype = \"EmbeddingSimilarityEvaluator\"\npath = \"tests/golden/curves_scored.jsonl\"\n\
                limit = 20\n[[evaluator]]\ntype = \"TripletEvaluator\"\nname = \"t\"\n\
                path = \"tests/golden/curves_labelled.jsonl\"\nlimit = 20\n[[eval_dataset]]\n\
                path = \"tests/golden/curves_pairs.jsonl\"\nlimit = 16\n[args]\n";
    let text = SMALL.replace("[args]\n", more);
    let mut announced = Vec::new();
    let plan = plan(&text, &["args.max_steps=4", "args.num_train_epochs=1"]);
    let outcome = train::run(&plan, dir.path(), &Options::default(), &mut |event: &Event<'_>| {
        if let Event::Message(text) = event
            && let Some(keys) = text.strip_prefix("metrics of this run: ")
        {
            announced = keys.split(", ").map(str::to_owned).collect();
        }
    })
    .unwrap();
    let had: Vec<String> = outcome.final_metrics.values.iter().map(|(key, _)| trainer_key(key)).collect();
    assert!(announced.len() > 15, "{announced:?}");
    assert_eq!(announced, had);
    assert!(announced.contains(&outcome.metric.unwrap()));
}

/// A resumed run goes on with the checkpoint's weights, not with the base model's.
#[test]
fn a_resumed_run_trains_the_checkpoints_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, resumed) = (dir.path().join("whole"), dir.path().join("resumed"));
    let sets = ["args.load_best_model_at_end=false", "args.save_steps=4", "args.weight_decay=0.0"];
    train::run(&plan(SMALL, &sets), &whole, &Options::default(), &mut |event: &Event<'_>| {
        if let Event::Checkpoint { step: 8, .. } = event {
            copy_dir(&whole.join("checkpoints"), &resumed.join("checkpoints"));
        }
    })
    .unwrap();
    // what is left of the run changes nothing, so that its end is where it began
    let still = [&sets[..], &["args.learning_rate=1e-30"]].concat();
    let resume = Options { resume: true, ..Options::default() };
    let outcome = run(&plan(SMALL, &still), &resumed, resume).0.unwrap();
    assert!(outcome.steps > 8);
    let texts = ["the sailor sells a chair", "who borrows the map?"];
    let embed = |path: &std::path::Path| {
        let model = SentenceTransformer::load(path).unwrap();
        model.encode(&texts, &EncodeOptions::default()).unwrap().data().to_vec()
    };
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let end = embed(&outcome.model_dir);
    let checkpoint = embed(&resumed.join("checkpoints/checkpoint-8"));
    let base = embed(&crate::support::project("tests/fixtures/tiny-bert"));
    assert!(differ(&end, &checkpoint) < 1e-6, "{}", differ(&end, &checkpoint));
    assert!(differ(&end, &base) > 1e-2, "{}", differ(&end, &base));
}

/// `bf16` rounds the operands of a network's products, never scores: near-equal candidates would become ties, and a
/// ranking loss has nothing to learn from those. A static model has no products but those of its scores.
#[test]
fn scores_are_not_rounded() {
    let text = SMALL.replace(
        "base = \"tests/fixtures/tiny-bert\"",
        "[model.static_embedding]\nembedding_dim = 32\ntokenizer = \"tests/fixtures/tiny-bert\"",
    );
    let scored = r#"
        seed = 3
        [model.static_embedding]
        embedding_dim = 32
        tokenizer = "tests/fixtures/tiny-bert"
        [train_dataset]
        path = "tests/golden/curves_scored.jsonl"
        label = "score"
        [loss]
        name = "CoSENTLoss"
        [args]
        num_train_epochs = 1
        learning_rate = 1e-2
        logging_steps = 1
        save_strategy = "no"
    "#;
    for text in [text.as_str(), scored] {
        let losses = |sets: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let (outcome, logs) = run(&plan(text, sets), dir.path(), Options::default());
            outcome.unwrap();
            logs.iter().map(|line| line.loss).collect::<Vec<_>>()
        };
        let full = losses(&[]);
        assert!(full.len() > 10 && full.iter().any(|loss| *loss != full[0]));
        assert_eq!(losses(&["args.bf16=true"]), full);
    }
}

/// Each text of a packed batch has positions from the first on, behind the padding token's number in RoBERTa's family:
/// positions that ran on, or that were found in the whole batch at once, would make texts depend on their neighbours.
#[test]
fn positions_of_packed_texts_begin_anew() {
    for (name, first, most) in [("roberta", 2u32, 64usize), ("xlm-roberta", 2, 64), ("electra", 0, 66)] {
        let (network, _) = backbone::load(&fixture(name), "", &Device::Cpu).unwrap();
        let text = |length: usize| -> Vec<u32> { (0..length).map(|i| 5 + (i * 7 % 20) as u32).collect() };
        let together: Vec<Vec<u32>> = [3, most, 1, 17].map(text).to_vec();
        let batch = PackedBatch::pack(together.iter().map(|ids| (ids.as_slice(), 0)));
        let hidden = |batch: &PackedBatch| values(&network.forward(batch, &Context::inference()).unwrap());
        let alone: Vec<f64> =
            together.iter().flat_map(|ids| hidden(&PackedBatch::pack([(ids.as_slice(), 0)]))).collect();
        assert_close(name, &hidden(&batch), &alone, 1e-6);
        // what the optimizer and the guards are told of is what was read
        let table = |rows: &[(Arc<Param>, Vec<u32>)]| {
            let (_, rows) = rows.iter().find(|(param, _)| param.name().contains("position")).unwrap();
            rows.clone()
        };
        assert_eq!(table(&network.rows(&batch)), (first..first + most as u32).collect::<Vec<_>>(), "{name}");
        assert_eq!(network.max_positions(), Some(most));
        let long = text(most + 1);
        let error = network.forward(&PackedBatch::pack([(long.as_slice(), 0)]), &Context::inference()).unwrap_err();
        assert!(error.to_string().contains(&format!("has {most} positions")), "{error}");
    }
}

/// Triplets are counted, not made: those of 4,096 rows would be 69 billion numbers. With `--ignored --nocapture` it
/// says what time and memory they take.
#[test]
#[ignore = "measures this process, so that it has to run alone"]
fn triplets_of_large_batches_take_little_memory() {
    use candle_core::Var;
    use tallow::flow::{Labels, Outputs};
    for name in ["BatchHardTripletLoss", "BatchSemiHardTripletLoss", "BatchAllTripletLoss"] {
        let loss = tallow::loss::build(name, &serde_json::Map::new()).unwrap();
        for rows in [1024usize, 2048, 4096] {
            let x = Var::randn(0f32, 1.0, (rows, 384), &Device::Cpu).unwrap();
            let outputs = Outputs::new(vec![x.as_tensor().clone()]);
            let labels = Labels::Int((0..rows as i64).map(|i| i % 64).collect());
            // the peak from here on, as far as the system lets a process ask for it
            let _ = std::fs::write("/proc/self/clear_refs", "5");
            let (begun, before) = (std::time::Instant::now(), tallow::util::memory::resident());
            let value = loss.compute(&outputs, Some(&labels)).unwrap();
            let gradient = value.backward().unwrap();
            let norm = gradient.get(&x).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(norm.is_finite() && norm > 0.0);
            let (seconds, peak) = (begun.elapsed().as_secs_f64(), tallow::util::memory::peak());
            let more = peak.saturating_sub(before) as f64;
            println!("{name}, {rows} rows: {seconds:.2} s, {:.0} MB", more / 1e6);
            assert!(more < 500e6, "{name}: {more} bytes for {rows} rows");
        }
    }
}
