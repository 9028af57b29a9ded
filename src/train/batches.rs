//! Where does the next batch come from? A thread of its own makes it while a step runs.
//!
//! What is made, and in which order, does not depend on the thread: epochs are a function of seed and epoch, batches
//! of their rows. Each batch brings along where the one after it is, so that a checkpoint knows of the batches that
//! were used and nothing of those that were made ahead.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::data::{Feed, Mixed};
use crate::error::{Error, Result};
use crate::flow::Batch;

/// Batches that wait to be taken. One more is made, and held until there is room for it: two ahead in all.
const WAITING: usize = 1;
/// Epochs without any batch, in a row, after which no order of the rows is expected to have one.
const EMPTY_EPOCHS: u64 = 1000;

/// The place of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The batch of that epoch.
    pub batch: u64,
}

/// A batch and what the loop has to know of it.
pub struct Next {
    pub batch: Batch,
    /// Whether it is the last one of its epoch.
    pub last: bool,
    /// Where the batch after it is.
    pub cursor: Cursor,
    /// Batches of its epoch.
    pub batches_per_epoch: usize,
}

/// How many batches are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Optimizer steps.
    pub steps: u64,
    /// Batches of a step; the last step of an epoch may have fewer.
    pub batches_per_step: u64,
}

/// The batches from a place on, in order.
pub struct Batches {
    receiver: Option<Receiver<Result<Next>>>,
    thread: Option<JoinHandle<()>>,
}

impl Batches {
    /// Starts to make batches of `feeds`, by the epochs of `sampler` over them, from `cursor` on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(feeds: Vec<Feed>, sampler: Arc<Mixed>, cursor: Cursor, wanted: Wanted) -> Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = Builder::new()
            .name("batches".to_owned())
            .spawn(move || make(&feeds, &sampler, cursor, wanted, &sender))
            .map_err(|e| {
                Error::train(format!("cannot start the thread that makes batches: {e}"))
                    .with_hint("the system's limit of threads or memory is reached: end other programs and try again")
            })?;
        Ok(Self { receiver: Some(receiver), thread: Some(thread) })
    }

    /// The next batch; waits for it where it is not made yet.
    ///
    /// # Errors
    /// The error that making it met, or that there are no more.
    pub fn take(&mut self) -> Result<Next> {
        if let Some(Ok(next)) = self.receiver.as_ref().map(Receiver::recv) {
            return next;
        }
        Err(Error::Internal(match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => format!("the thread that makes batches panicked: {}", message(panic.as_ref())),
            _ => "more batches were taken than were wanted".to_owned(),
        }))
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // A thread that waits to hand over a batch then sees that nobody takes it.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// The rows of a data set as a batch.
fn batch(feeds: &[Feed], set: usize, rows: &[u32], epoch: u64) -> Result<Batch> {
    let feed = feeds.get(set).ok_or_else(|| Error::Internal(format!("there is no data set {set}")))?;
    Ok(Batch { dataset: set, ..feed.batch(rows, epoch)? })
}

/// Makes batches until all are made, one cannot be made, or nobody takes them any more.
fn make(feeds: &[Feed], sampler: &Mixed, mut cursor: Cursor, wanted: Wanted, sender: &SyncSender<Result<Next>>) {
    let (mut steps, mut in_step, mut empty) = (0, 0, 0);
    while steps < wanted.steps {
        let plan = sampler.epoch(cursor.epoch);
        // An epoch may lose every batch when incomplete ones are dropped; another order has some again.
        empty = if plan.is_empty() { empty + 1 } else { 0 };
        if empty > EMPTY_EPOCHS {
            let _ = sender.send(Err(Error::data("no order of the rows fills a batch")
                .with_hint("set `args.dataloader_drop_last = false`, or lower `args.per_device_train_batch_size`")));
            return;
        }
        let from = usize::try_from(cursor.batch).unwrap_or(usize::MAX);
        let epoch = cursor.epoch;
        for (number, (set, rows)) in (cursor.batch..).zip(plan.from(from)) {
            let last = number + 1 >= plan.len() as u64;
            cursor = if last {
                Cursor { epoch: cursor.epoch + 1, batch: 0 }
            } else {
                Cursor { epoch: cursor.epoch, batch: number + 1 }
            };
            let next =
                batch(feeds, set, rows, epoch).map(|batch| Next { batch, last, cursor, batches_per_epoch: plan.len() });
            let failed = next.is_err();
            if sender.send(next).is_err() || failed {
                return;
            }
            in_step += 1;
            if last || in_step >= wanted.batches_per_step {
                (steps, in_step) = (steps + 1, 0);
                if steps >= wanted.steps {
                    return;
                }
            }
        }
        if from >= plan.len() {
            cursor = Cursor { epoch: cursor.epoch + 1, batch: 0 };
        }
    }
}

#[cfg(test)]
mod tests;
