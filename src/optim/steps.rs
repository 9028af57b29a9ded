//! The Trainer's arithmetic: how many optimizer steps a run has, and at which of them something is due.
//!
//! Source: `Trainer.set_initial_training_values`, `TrainerState.compute_steps`, `TrainingArguments.get_warmup_steps`
//! and `DefaultFlowCallback` of transformers 5.

use serde::Serialize;

use super::interval::{Every, Interval};
use crate::error::{Error, Result};

/// How long a run is, in optimizer steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Batches in one pass over the data.
    pub batches_per_epoch: u64,
    /// Optimizer steps in one pass; the last one may have fewer batches.
    pub per_epoch: u64,
    /// Optimizer steps in all.
    pub total: u64,
    /// Epochs begun, the last one perhaps not finished.
    pub epochs: u64,
}

impl Steps {
    /// The Trainer's count: `max_steps` decides where it is given, else `ceil(num_train_epochs * per_epoch)`.
    ///
    /// # Errors
    /// When there is no batch or the run would have no step.
    pub fn new(
        batches_per_epoch: u64,
        gradient_accumulation_steps: u64,
        num_train_epochs: f64,
        max_steps: Option<u64>,
    ) -> Result<Self> {
        if batches_per_epoch == 0 {
            return Err(Error::data("the training data do not fill a single batch")
                .with_hint("lower `args.per_device_train_batch_size`, or leave `args.dataloader_drop_last` false"));
        }
        let per_epoch = batches_per_epoch.div_ceil(gradient_accumulation_steps.max(1));
        let total = match max_steps {
            Some(steps) => steps,
            None => (num_train_epochs * per_epoch as f64).ceil() as u64,
        };
        if total == 0 {
            return Err(Error::usage("the run has no step to take")
                .with_hint("raise `args.num_train_epochs` or `args.max_steps` above 0"));
        }
        Ok(Self { batches_per_epoch, per_epoch, total, epochs: total.div_ceil(per_epoch) })
    }
}

/// What has to happen after an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    pub log: bool,
    pub evaluate: bool,
    pub save: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolved {
    No,
    Epoch,
    Steps(u64),
}

impl Resolved {
    fn of(every: Every, total: u64) -> Self {
        match every {
            Every::No => Self::No,
            Every::Epoch => Self::Epoch,
            Every::Steps(interval) => Self::Steps(interval.resolve(total)),
        }
    }
}

/// At which steps of a run something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    steps: Steps,
    log: u64,
    evaluate: Resolved,
    save: Resolved,
}

impl Cadence {
    /// Resolves the intervals against the length of the run.
    ///
    /// `best` says that the best checkpoint is wanted, so that each save must fall on an evaluation. Two fractions
    /// are then rounded together (`save` becomes its multiple of the rounded `evaluate`): rounded apart, as the
    /// Trainer does, 0.1 and 0.2 of 25 steps would be 3 and 5.
    ///
    /// # Errors
    /// When an interval is no step at all, or `best` is asked for and a save would fall between evaluations.
    pub fn new(steps: Steps, log: Interval, evaluate: Every, save: Every, best: bool) -> Result<Self> {
        let log = log.resolve(steps.total);
        let resolved_evaluate = Resolved::of(evaluate, steps.total);
        let mut resolved_save = Resolved::of(save, steps.total);
        if best
            && let (Every::Steps(save), Every::Steps(every), Resolved::Steps(n)) = (save, evaluate, resolved_evaluate)
        {
            if let (Interval::Fraction(_), Some(ratio)) = (save, save.ratio(every)) {
                resolved_save = Resolved::Steps(n * ratio);
            }
            if let Resolved::Steps(saved) = resolved_save
                && (n == 0 || saved % n != 0)
            {
                return Err(Error::usage(format!(
                    "`args.save_steps` comes to {saved} steps and `args.eval_steps` to {n}: with \
                     `args.load_best_model_at_end` each save must fall on an evaluation"
                ))
                .with_hint(format!("set `args.save_steps` to a multiple of {}", n.max(1))));
            }
        }
        for (key, interval) in
            [("logging_steps", Resolved::Steps(log)), ("eval_steps", resolved_evaluate), ("save_steps", resolved_save)]
        {
            if interval == Resolved::Steps(0) {
                return Err(Error::usage(format!("`args.{key}` comes to 0 steps"))
                    .with_hint("give a number of steps from 1 on, or a fraction between 0 and 1"));
            }
        }
        Ok(Self { steps, log, evaluate: resolved_evaluate, save: resolved_save })
    }

    /// What is due after step `step` (from 1), told whether an epoch ended with it.
    ///
    /// Beyond what the Trainer does, the last step is always logged and always evaluated, whatever the strategy: a
    /// run ends with a score. It is saved as the Trainer saves it, that is unless `save` is `no`.
    #[must_use]
    pub fn due_at(&self, step: u64, ends_epoch: bool) -> Due {
        let last = step >= self.steps.total;
        let on = |every: Resolved| match every {
            Resolved::No => false,
            Resolved::Epoch => last || ends_epoch,
            Resolved::Steps(n) => last || step.is_multiple_of(n),
        };
        Due { log: last || step.is_multiple_of(self.log), evaluate: last || on(self.evaluate), save: on(self.save) }
    }

    /// How many evaluations the run will make, the last one included.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        match self.evaluate {
            Resolved::No => 1,
            Resolved::Epoch => self.steps.epochs,
            Resolved::Steps(n) => self.steps.total.div_ceil(n),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn steps(batches: u64, accumulation: u64, epochs: f64, max: Option<u64>) -> Steps {
        Steps::new(batches, accumulation, epochs, max).unwrap()
    }

    fn every(number: f64) -> Every {
        Every::Steps(Interval::from_number(number).unwrap())
    }

    #[test]
    fn lengths_are_the_trainers() {
        // 7 batches, 3 at a time: 3 + 3 + 1
        let s = steps(7, 3, 1.5, None);
        assert_eq!((s.per_epoch, s.total, s.epochs), (3, 5, 2));
        // max_steps overrides the epochs
        let s = steps(7, 1, 3.0, Some(10));
        assert_eq!((s.total, s.epochs), (10, 2));
        assert_eq!(steps(1, 8, 1.0, None).total, 1);
        assert!(Steps::new(0, 1, 1.0, None).unwrap_err().hint().is_some());
        assert!(Steps::new(5, 1, 0.0, None).is_err());
    }

    #[test]
    fn due_by_steps_epochs_and_not_at_all() {
        let s = steps(4, 1, 2.5, None); // 10 steps
        let c = Cadence::new(s, Interval::Steps(3), every(4.0), Every::Epoch, false).unwrap();
        let due = |c: &Cadence, n: u64| c.due_at(n, n.is_multiple_of(4));
        let at = |f: fn(Due) -> bool| (1..=10).filter(|n| f(due(&c, *n))).collect::<Vec<_>>();
        assert_eq!(at(|d| d.log), [3, 6, 9, 10]);
        assert_eq!(at(|d| d.evaluate), [4, 8, 10]);
        assert_eq!(at(|d| d.save), [4, 8, 10]);
        assert_eq!(c.evaluations(), 3);
        let c = Cadence::new(s, Interval::Fraction(0.5), Every::No, Every::No, false).unwrap();
        let due: Vec<_> = (1..=10).map(|n| due(&c, n)).collect();
        assert!(due.iter().all(|d| !d.save));
        assert_eq!(due.iter().filter(|d| d.evaluate).count(), 1);
        assert!(due[9].evaluate && due[4].log && !due[3].log);
        assert_eq!(c.evaluations(), 1);
    }

    #[test]
    fn saves_fall_on_evaluations_when_the_best_is_wanted() {
        let s = steps(25, 1, 1.0, None);
        let log = Interval::Steps(1);
        let c = Cadence::new(s, log, every(0.1), every(0.2), true).unwrap();
        let due = |n: u64| c.due_at(n, n == 25);
        assert_eq!((1..=25).find(|n| due(*n).evaluate), Some(3));
        for n in 1..=25 {
            assert!(!due(n).save || due(n).evaluate, "{n}");
        }
        assert!(due(6).save && !due(5).save);
        let error = Cadence::new(s, log, every(4.0), every(6.0), true).unwrap_err();
        assert!(error.to_string().contains("save_steps"), "{error}");
        assert!(Cadence::new(s, log, every(4.0), every(6.0), false).is_ok());
        assert!(Cadence::new(s, Interval::Steps(0), every(4.0), Every::No, false).is_err());
    }
}
