#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::data::sampler::batch::DefaultBatchSampler;
use crate::data::{BatchSampler, DatasetSpec, EpochPlan, Sampler, SamplerSettings, Store};
use crate::flow::{LabelKind, Preprocess, Tokens};
use crate::util::progress::Progress;

/// A token a letter.
struct Letters;

impl Preprocess for Letters {
    fn tokenize(&self, texts: &[&str], _: Option<&str>) -> Result<Vec<Tokens>> {
        let tokens = |text: &&str| {
            let ids: Vec<u32> = text.bytes().map(u32::from).collect();
            Tokens { full_length: ids.len() as u32, ids, prompt_length: 0 }
        };
        Ok(texts.iter().map(tokens).collect())
    }

    fn fingerprint(&self) -> u64 {
        1
    }

    fn max_seq_length(&self) -> Option<usize> {
        None
    }
}

fn store(dir: &Path, rows: usize) -> Arc<Store> {
    let file = dir.join("pairs.jsonl");
    let lines: Vec<String> =
        (0..rows).map(|i| format!("{{\"a\": \"q{i}\", \"b\": \"{}\"}}", "x".repeat(i + 1))).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let spec = DatasetSpec::new(vec![file.to_string_lossy().into_owned()], LabelKind::None);
    Arc::new(Store::open_or_build_in(&dir.join("cache"), &spec, Path::new(""), &Letters, &Progress::hidden()).unwrap())
}

fn sampler(store: &Arc<Store>, batch_size: usize) -> Arc<dyn Sampler> {
    let settings = SamplerSettings { batch_size, max_tokens: None, drop_last: false, shuffle: true, seed: 4 };
    Arc::from(BatchSampler::NoDuplicates.build(Arc::clone(store) as _, settings).unwrap())
}

fn wanted(steps: u64) -> Wanted {
    Wanted { steps, batches_per_step: 1 }
}

fn start(store: &Arc<Store>, sampler: Arc<dyn Sampler>, cursor: Cursor, wanted: Wanted) -> Result<Batches> {
    Batches::start(vec![Arc::clone(store).into()], Arc::new(Mixed::one(sampler)), cursor, wanted)
}

/// Counts the epochs that were asked for.
struct Counting {
    inner: Arc<dyn Sampler>,
    epochs: AtomicUsize,
    panics_at: Option<u64>,
}

impl Sampler for Counting {
    fn batches_per_epoch(&self, epoch: u64) -> usize {
        self.inner.batches_per_epoch(epoch)
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        assert!(self.panics_at != Some(epoch), "no epoch {epoch}");
        self.epochs.fetch_add(1, Ordering::SeqCst);
        self.inner.epoch(epoch)
    }
}

#[test]
fn every_place_leads_to_the_same_batches() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 10);
    let sampler = sampler(&store, 4);
    let mut expected = Vec::new();
    for epoch in 0..3 {
        let plan = sampler.epoch(epoch);
        assert_eq!(plan.len(), 3);
        for (batch, rows) in (0..).zip(plan.from(0)) {
            expected.push((Cursor { epoch, batch }, store.batch(rows).unwrap()));
        }
    }
    for (first, (cursor, _)) in expected.iter().enumerate().take(7) {
        let mut batches = start(&store, Arc::clone(&sampler), *cursor, wanted(100)).unwrap();
        for i in first..8 {
            let next = batches.take().unwrap();
            let (at, batch) = &expected[i];
            assert_eq!((&next.batch.packed, &next.batch.row_ids), (&batch.packed, &batch.row_ids), "{at:?}");
            assert_eq!(next.batch.text_ids, batch.text_ids);
            assert_eq!((next.cursor, next.last, next.batches_per_epoch), (expected[i + 1].0, at.batch == 2, 3));
        }
    }
    // a place behind the last batch of an epoch is the next epoch's first
    let end = Cursor { epoch: 0, batch: 3 };
    let next = start(&store, Arc::clone(&sampler), end, wanted(1)).unwrap().take().unwrap();
    assert_eq!((next.batch.row_ids.clone(), next.cursor), (expected[3].1.row_ids.clone(), expected[4].0));
}

#[test]
fn it_stops_with_the_last_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 10);
    // three batches an epoch, so steps of two and of one in turn
    let counting = Arc::new(Counting { inner: sampler(&store, 4), epochs: AtomicUsize::new(0), panics_at: None });
    let wanted = Wanted { steps: 4, batches_per_step: 2 };
    let mut batches = start(&store, Arc::clone(&counting) as _, Cursor::default(), wanted).unwrap();
    let lasts: Vec<bool> = (0..6).map(|_| batches.take().unwrap().last).collect();
    assert_eq!(lasts, [false, false, true, false, false, true]);
    assert!(batches.take().is_err());
    assert_eq!(counting.epochs.load(Ordering::SeqCst), 2, "no epoch is planned in vain");
}

#[test]
fn two_are_made_ahead_and_a_drop_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 3);
    // one batch an epoch, so that epochs count batches
    let counting = Arc::new(Counting { inner: sampler(&store, 8), epochs: AtomicUsize::new(0), panics_at: None });
    let made = || counting.epochs.load(Ordering::SeqCst);
    let sampler = Arc::clone(&counting) as Arc<dyn Sampler>;
    let mut batches = start(&store, sampler, Cursor::default(), wanted(1000)).unwrap();
    for taken in 0..4 {
        let started = Instant::now();
        while made() < taken + 2 && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(made(), taken + 2);
        batches.take().unwrap();
    }
    drop(batches);
    assert_eq!((Arc::strong_count(&store), Arc::strong_count(&counting)), (2, 1), "the thread is gone");
}

#[test]
fn errors_come_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let (five, nine) = (store(dir.path(), 5), tempfile::tempdir().unwrap());
    // a sampler of more rows than there are
    let settings = SamplerSettings { batch_size: 2, max_tokens: None, drop_last: false, shuffle: false, seed: 0 };
    let sampler = DefaultBatchSampler::new(store(nine.path(), 9), settings).unwrap();
    let mut batches = start(&five, Arc::new(sampler), Cursor::default(), wanted(9)).unwrap();
    assert!(batches.take().is_ok() && batches.take().is_ok());
    let error = batches.take().err().unwrap();
    assert_eq!(error.to_string(), five.batch(&[4, 5]).unwrap_err().to_string());
    assert!(error.to_string().contains("row 5 of a data set of 5 rows"), "{error}");
    assert!(batches.take().is_err(), "and nothing comes after it");
}

#[test]
fn a_panic_is_an_error_and_no_deadlock() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 3);
    let sampler = Counting { inner: sampler(&store, 8), epochs: AtomicUsize::new(0), panics_at: Some(1) };
    let mut batches = start(&store, Arc::new(sampler), Cursor::default(), wanted(9)).unwrap();
    assert!(batches.take().is_ok());
    let error = batches.take().err().unwrap();
    assert!(error.to_string().contains("no epoch 1"), "{error}");
}

#[test]
fn rows_that_never_fill_a_batch_are_an_error() {
    struct Empty(Arc<EpochPlan>);
    impl Sampler for Empty {
        fn batches_per_epoch(&self, _: u64) -> usize {
            0
        }
        fn epoch(&self, _: u64) -> Arc<EpochPlan> {
            Arc::clone(&self.0)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = Empty(Arc::new(EpochPlan::default()));
    let mut batches = start(&store(dir.path(), 3), Arc::new(empty), Cursor::default(), wanted(9)).unwrap();
    let error = batches.take().err().unwrap();
    assert!(error.hint().unwrap().contains("dataloader_drop_last"), "{error}");
}

#[test]
fn batches_know_their_data_set() {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = vec![store(small.path(), 4), store(large.path(), 12)];
    let samplers = stores.iter().map(|store| sampler(store, 4)).collect();
    let mixed = Mixed::new(samplers, crate::data::MultiDatasetBatchSampler::Proportional, true, 9);
    let mut batches =
        Batches::start(stores.into_iter().map(Into::into).collect(), Arc::new(mixed), Cursor::default(), wanted(8))
            .unwrap();
    let mut rows = [0, 0];
    for k in 0..8 {
        let next = batches.take().unwrap();
        assert_eq!((next.batches_per_epoch, next.last), (4, k % 4 == 3));
        rows[next.batch.dataset] += next.batch.rows;
    }
    assert_eq!(rows, [8, 24], "two epochs of each");
}
