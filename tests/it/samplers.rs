//! Batches equal the reference's where its random numbers are taken out of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tallow::data::sampler::{self, Mixed};
use tallow::data::{BatchSampler, MultiDatasetBatchSampler, RowFacts, Sampler, SamplerSettings};

use crate::support::golden;

struct Rows {
    ids: Vec<Vec<u64>>,
    classes: Vec<u64>,
}

impl RowFacts for Rows {
    fn rows(&self) -> usize {
        self.ids.len()
    }

    fn ids(&self, row: u32) -> &[u64] {
        &self.ids[row as usize]
    }

    fn tokens(&self, _: u32) -> usize {
        1
    }

    fn class(&self, row: u32) -> Option<i64> {
        self.classes.get(row as usize).map(|class| *class as i64)
    }
}

fn list(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect()
}

fn build(kind: BatchSampler, case: &Value, ids: Vec<Vec<u64>>) -> Arc<dyn Sampler> {
    let settings = SamplerSettings {
        batch_size: case["batch_size"].as_u64().unwrap() as usize,
        max_tokens: None,
        drop_last: case["drop_last"].as_bool().unwrap_or(false),
        shuffle: false,
        seed: 0,
    };
    let classes = if case["labels"].is_array() { list(&case["labels"]) } else { Vec::new() };
    Arc::from(kind.build(Arc::new(Rows { ids, classes }), settings).unwrap())
}

#[test]
fn samplers_equal_the_reference() {
    let golden = golden("samplers");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
        let name = case["sampler"].as_str().unwrap();
        *counts.entry(name).or_default() += 1;
        let wanted: Vec<Vec<u64>> = case["batches"].as_array().unwrap().iter().map(list).collect();
        if let Ok(kind) = MultiDatasetBatchSampler::from_name(name) {
            let lengths = list(&case["lengths"]);
            let each = |n: &u64| build(BatchSampler::BatchSampler, case, (0..*n).map(|i| vec![i]).collect());
            let plan = Mixed::new(lengths.iter().map(each).collect(), kind, false, 0).epoch(0);
            let mut got: Vec<(usize, Vec<u64>)> =
                plan.from(0).map(|(set, rows)| (set, rows.iter().map(|r| u64::from(*r)).collect())).collect();
            let sets = list(&case["sets"]);
            let mut wanted: Vec<(usize, Vec<u64>)> = sets.iter().map(|s| *s as usize).zip(wanted).collect();
            if kind == MultiDatasetBatchSampler::Proportional {
                // every batch once; their order is drawn there, and spread evenly here
                got.sort();
                wanted.sort();
            }
            assert_eq!(got, wanted, "case {number}: {name}");
            continue;
        }
        let kind = BatchSampler::from_name(name).unwrap();
        let ids: Vec<Vec<u64>> = case["texts"].as_array().unwrap().iter().map(list).collect();
        if wanted.is_empty() {
            continue; // here an error, since nothing could be trained on
        }
        let sampler = build(kind, case, ids);
        let plan = sampler.epoch(0);
        let got: Vec<Vec<u64>> = plan.from(0).map(|rows| rows.iter().map(|r| u64::from(*r)).collect()).collect();
        assert_eq!(got, wanted, "case {number}: {name}");
        assert_eq!(sampler.batches_per_epoch(0), wanted.len());
    }
    let cards = sampler::cards().map(|card| card.name);
    for name in cards.chain(BatchSampler::NAMES).chain(MultiDatasetBatchSampler::NAMES) {
        assert!(counts.get(name).is_some_and(|count| *count >= 3), "{name}: {counts:?}");
    }
}
