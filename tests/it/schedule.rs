//! Learning rates and step counts are those of real runs of Hugging Face's Trainer.

use std::sync::Arc;

use serde_json::Value;
use tallow::data::sampler::batch::DefaultBatchSampler;
use tallow::data::sampler::{RowFacts, Sampler, SamplerSettings};
use tallow::optim::interval::{Every, Interval};
use tallow::optim::schedule::SchedulerType;
use tallow::optim::steps::{Cadence, Due, Steps};

fn golden(key: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedules.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let part = value[key].take();
    assert!(!part.is_null(), "no `{key}` in {path}");
    part
}

fn list(key: &str) -> Vec<Value> {
    let Value::Array(items) = golden(key) else { panic!("`{key}` is not a list") };
    assert!(!items.is_empty());
    items
}

fn whole(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key}: {value}"))
}

fn interval(value: &Value, key: &str) -> Interval {
    Interval::from_number(value[key].as_f64().unwrap()).unwrap()
}

#[test]
fn learning_rates_are_the_trainers() {
    let mut seen = Vec::new();
    for case in list("schedules") {
        let kind: SchedulerType = serde_json::from_value(case["lr_scheduler_type"].clone()).unwrap();
        seen.push(kind);
        let total = whole(&case, "total_steps");
        let warmup = interval(&case, "warmup_steps_argument").resolve(total);
        assert_eq!(warmup, whole(&case, "warmup_steps"));
        let base = case["base_lr"].as_f64().unwrap();
        let rates = case["learning_rates"].as_array().unwrap();
        assert_eq!(rates.len() as u64, total);
        for (step, rate) in (0..).zip(rates.iter().chain([&case["after_last_step"]])) {
            let (ours, theirs) = (base * kind.factor(step, total, warmup), rate.as_f64().unwrap());
            assert!((ours - theirs).abs() <= 1e-12 * base.max(1e-300), "{kind} step {step}: {ours} {theirs}");
        }
    }
    assert!(SchedulerType::ALL.iter().all(|kind| seen.contains(kind)), "not every schedule has a run: {seen:?}");
}

#[test]
fn warmup_is_the_trainers() {
    for case in list("warmup") {
        let given = case["warmup_steps_argument"].as_f64().unwrap();
        if given > 1.0 && given.fract() != 0.0 {
            // the Trainer cuts 2.5 steps to 2; here it is refused, as it can't be meant
            assert!(Interval::from_number(given).is_err());
            continue;
        }
        let steps = interval(&case, "warmup_steps_argument").resolve(whole(&case, "total_steps"));
        assert_eq!(steps, whole(&case, "warmup_steps"), "{case}");
    }
}

/// So many rows, of which nothing else is asked.
struct Count(usize);

impl RowFacts for Count {
    fn rows(&self) -> usize {
        self.0
    }

    fn ids(&self, _: u32) -> &[u64] {
        &[]
    }

    fn tokens(&self, _: u32) -> usize {
        1
    }
}

#[test]
fn lengths_are_the_trainers() {
    for case in list("arithmetic") {
        let settings = SamplerSettings {
            batch_size: whole(&case, "batch_size") as usize,
            max_tokens: None,
            drop_last: case["drop_last"].as_bool().unwrap(),
            shuffle: true,
            seed: 0,
        };
        let sampler = DefaultBatchSampler::new(Arc::new(Count(whole(&case, "rows") as usize)), settings).unwrap();
        let count = sampler.batches_per_epoch(0) as u64;
        assert_eq!(count, whole(&case, "batches_per_epoch"), "{case}");
        let steps = Steps::new(
            count,
            whole(&case, "gradient_accumulation_steps"),
            case["num_train_epochs"].as_f64().unwrap(),
            u64::try_from(case["max_steps_argument"].as_i64().unwrap()).ok(),
        )
        .unwrap();
        assert_eq!(steps.per_epoch, whole(&case, "steps_per_epoch"), "{case}");
        assert_eq!(steps.total, whole(&case, "total_steps"), "{case}");
        assert_eq!(steps.epochs, whole(&case, "epochs_entered"), "{case}");
    }
}

fn due_at(cadence: &Cadence, steps: Steps, what: fn(Due) -> bool) -> Vec<u64> {
    (1..=steps.total).filter(|step| what(cadence.due_at(*step, step.is_multiple_of(steps.per_epoch)))).collect()
}

fn steps_of(value: &Value, key: &str) -> Vec<u64> {
    value[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

/// The Trainer does not log the last step of its own; here a run's last loss is never lost.
fn with_last(mut steps: Vec<u64>, total: u64) -> Vec<u64> {
    if steps.last() != Some(&total) {
        steps.push(total);
    }
    steps
}

#[test]
fn evaluations_saves_and_logs_are_due_when_the_trainers_are() {
    for case in list("intervals") {
        let total = whole(&case, "total_steps");
        let every = interval(&case, "argument");
        for key in ["eval_steps", "save_steps", "logging_steps"] {
            assert_eq!(every.resolve(total), whole(&case, key), "{case}");
        }
        let steps = Steps::new(total, 1, 1.0, None).unwrap();
        let cadence = Cadence::new(steps, every, Every::Steps(every), Every::Steps(every), true).unwrap();
        assert_eq!(due_at(&cadence, steps, |d| d.evaluate), steps_of(&case, "evaluated_at"), "{case}");
        assert_eq!(due_at(&cadence, steps, |d| d.save), steps_of(&case, "saved_at"), "{case}");
        assert_eq!(due_at(&cadence, steps, |d| d.log), with_last(steps_of(&case, "logged_at"), total), "{case}");
        assert_eq!(cadence.evaluations(), steps_of(&case, "evaluated_at").len() as u64);
    }
    let case = golden("epoch_strategy");
    let total = whole(&case, "total_steps");
    let evaluated = steps_of(&case, "evaluated_at");
    let steps = Steps::new(evaluated[0], 1, evaluated.len() as f64, None).unwrap();
    assert_eq!(steps.total, total);
    let cadence = Cadence::new(steps, Interval::Steps(total), Every::Epoch, Every::Epoch, true).unwrap();
    assert_eq!(due_at(&cadence, steps, |d| d.evaluate), evaluated);
    assert_eq!(due_at(&cadence, steps, |d| d.save), steps_of(&case, "saved_at"));
}

#[test]
fn defaults_are_the_trainers_except_where_documented() {
    let defaults = golden("default_arguments");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jsonl"), "").unwrap();
    let text = "[model]\nbase = \"x\"\n[train_dataset]\npath = \"a.jsonl\"\n[loss]\nname = \"CoSENTLoss\"\n";
    let loaded = tallow::recipe::parse(&dir.path().join("r.toml"), text, &[]).unwrap();
    let plan = loaded.resolve(&tallow::recipe::Builtin).unwrap().0.to_json().unwrap();
    let (args, mut compared) = (&plan["args"], 0);
    for (key, theirs) in defaults.as_object().unwrap() {
        let documented = ["logging_steps", "save_steps", "eval_steps", "save_strategy"].contains(&key.as_str());
        let ours = if key == "seed" { &plan["seed"] } else { &args[key.as_str()] };
        if documented || ours.is_null() {
            continue;
        }
        compared += 1;
        let same = match (ours.as_f64(), theirs.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => ours == theirs,
        };
        assert!(same, "{key}: {ours} here, {theirs} there");
    }
    assert!(compared >= 15, "only {compared} defaults compared");
    assert_eq!((&args["max_steps"], &args["eval"]), (&Value::Null, &Value::from("no")));
}
