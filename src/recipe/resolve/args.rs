//! The training arguments of the plan: Hugging Face's defaults, except where the schema says otherwise.

use std::collections::BTreeMap;

use super::Resolver;
use crate::catalog::trackers;
use crate::data::MultiDatasetBatchSampler;
use crate::optim::interval::{Every, Interval};
use crate::optim::schedule::SchedulerType;
use crate::recipe::plan::{ArgsPlan, DatasetPlan, EarlyStoppingPlan, EvaluatorPlan};
use crate::recipe::schema::{ArgsConfig, IntervalStrategy};

// Far above anything a run can come to, and low enough for the arithmetic on it: a number beyond is a slip.
const MOST_EPOCHS: f64 = 100_000.0;
const MOST_STEPS: i64 = 1_000_000_000_000;
const MOST_ROWS: usize = 1_000_000;
const MOST_THREADS: usize = 1024;

impl Resolver<'_> {
    pub(super) fn args(&mut self, args: &ArgsConfig, evaluators: &[EvaluatorPlan], eval: &[DatasetPlan]) -> ArgsPlan {
        let measurable = !evaluators.is_empty() || !eval.is_empty();
        let args = &super::cross_encoder::args(self, args, measurable);
        let num_train_epochs = self.number("num_train_epochs", args.num_train_epochs, 3.0, Bound::Epochs);
        let max_steps = self.max_steps(args);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let batch = "16 to 1024 is usual; memory is what limits it";
        self.at_most("per_device_train_batch_size", args.per_device_train_batch_size, MOST_ROWS, batch);
        self.at_most("per_device_eval_batch_size", args.per_device_eval_batch_size, MOST_ROWS, batch);
        self.at_most("num_threads", args.num_threads, MOST_THREADS, "leave it out for one a core");
        if args.full_determinism == Some(true) && args.num_threads.is_none() {
            self.notes.push(format!(
                "`args.full_determinism`: the plan fixes `args.num_threads` at {threads}, what this machine has; write \
                 `num_threads = {threads}` into the recipe for the same bits on another"
            ));
        }
        let metric_for_best_model = self.metric(args, evaluators, eval);
        let (eval_every, save_every) = self.cadence(args, measurable);
        let greater = metric_for_best_model.as_ref().is_none_or(|metric| !metric.ends_with("loss"));
        ArgsPlan {
            num_train_epochs,
            max_steps,
            per_device_train_batch_size: self.count("per_device_train_batch_size", args.per_device_train_batch_size, 8),
            max_tokens_per_batch: self.tokens("max_tokens_per_batch", args.max_tokens_per_batch),
            per_device_eval_batch_size: self.count("per_device_eval_batch_size", args.per_device_eval_batch_size, 8),
            gradient_accumulation_steps: self.count("gradient_accumulation_steps", args.gradient_accumulation_steps, 1),
            learning_rate: self.number("learning_rate", args.learning_rate, 5e-5, Bound::Above(0.0)),
            weight_decay: self.number("weight_decay", args.weight_decay, 0.0, Bound::From(0.0)),
            adam_beta1: self.number("adam_beta1", args.adam_beta1, 0.9, Bound::Part),
            adam_beta2: self.number("adam_beta2", args.adam_beta2, 0.999, Bound::Part),
            adam_epsilon: self.number("adam_epsilon", args.adam_epsilon, 1e-8, Bound::Above(0.0)),
            max_grad_norm: self.number("max_grad_norm", args.max_grad_norm, 1.0, Bound::From(0.0)),
            lr_scheduler_type: self.or("args.lr_scheduler_type", args.lr_scheduler_type, SchedulerType::Linear),
            warmup_steps: self.warmup(args),
            logging_steps: self.interval("logging_steps", args.logging_steps, Interval::Fraction(0.05)),
            eval: eval_every,
            save: save_every,
            save_total_limit: args.save_total_limit.map(|n| self.count("save_total_limit", Some(n), 1)),
            load_best_model_at_end: self.or("args.load_best_model_at_end", args.load_best_model_at_end, false),
            metric_for_best_model,
            greater_is_better: self.or("args.greater_is_better", args.greater_is_better, greater),
            early_stopping: self.early_stopping(args),
            batch_sampler: self.sampler(args),
            multi_dataset_batch_sampler: self.mixing(args),
            shuffle: self.or("args.shuffle", args.shuffle, true),
            dataloader_drop_last: self.or("args.dataloader_drop_last", args.dataloader_drop_last, false),
            bf16: self.or("args.bf16", args.bf16, false),
            gradient_cache_tokens: self.tokens("gradient_cache_tokens", args.gradient_cache_tokens),
            gradient_checkpointing: self.or("args.gradient_checkpointing", args.gradient_checkpointing, false),
            use_cpu: self.or("args.use_cpu", args.use_cpu, false),
            full_determinism: self.or("args.full_determinism", args.full_determinism, false),
            router_mapping: args.router_mapping.clone().unwrap_or_default(),
            learning_rate_mapping: self.learning_rates(args),
            prompts: args.prompts.clone(),
            report_to: self.report_to(args),
            project: self.named("project", args.project.as_ref()),
            trackio_space_id: self.named("trackio_space_id", args.trackio_space_id.as_ref()),
            num_threads: self.count("num_threads", args.num_threads, threads),
        }
    }

    fn learning_rates(&mut self, args: &ArgsConfig) -> BTreeMap<String, f64> {
        let mapping = args.learning_rate_mapping.clone().unwrap_or_default();
        for (pattern, rate) in &mapping {
            let key = format!("args.learning_rate_mapping.{pattern}");
            if let Err(error) = regex::Regex::new(pattern) {
                let what = error.to_string().lines().last().unwrap_or_default().to_owned();
                self.problem(key.as_str(), format!("is no regular expression: {what}"), "as `sub_modules.query`");
            }
            if !rate.is_finite() || *rate < 0.0 {
                self.problem(
                    key.as_str(),
                    format!("must be 0 or more, found {rate}"),
                    "1e-3 is usual for weights of words",
                );
            }
        }
        mapping
    }

    fn number(&mut self, name: &str, given: Option<f64>, default: f64, bound: Bound) -> f64 {
        let key = format!("args.{name}");
        if let Some(number) = given
            && let Some(rule) = bound.broken(number)
        {
            self.problem(
                key.as_str(),
                format!("must be {rule}, found {number}"),
                format!("the default is {default:?}"),
            );
        }
        self.or(&key, given, default)
    }

    fn count<T: Copy + PartialEq + From<u8> + std::fmt::Display>(
        &mut self,
        name: &str,
        given: Option<T>,
        default: T,
    ) -> T {
        let key = format!("args.{name}");
        if given == Some(T::from(0)) {
            self.problem(key.as_str(), "must be 1 or more, found 0", format!("the default is {default}"));
        }
        self.or(&key, given, default)
    }

    /// A number of tokens, if one is given.
    fn tokens(&mut self, name: &str, given: Option<usize>) -> Option<usize> {
        if given == Some(0) {
            self.problem(
                format!("args.{name}"),
                "must be 1 or more, found 0",
                "2048 to 65536 is usual; leave it out for no limit",
            );
        }
        given
    }

    fn at_most(&mut self, name: &str, given: Option<usize>, most: usize, hint: &str) {
        if let Some(number) = given.filter(|n| *n > most) {
            self.problem(format!("args.{name}"), format!("must be {most} or less, found {number}"), hint);
        }
    }

    /// Steps that must be at least one.
    fn interval(&mut self, name: &str, given: Option<f64>, default: Interval) -> Interval {
        let key = format!("args.{name}");
        let Some(number) = given else {
            return self.or(&key, None, default);
        };
        let found = match Interval::from_number(number) {
            Ok(interval) if interval.is_zero() => Err("must be above 0"),
            other => other,
        };
        found.unwrap_or_else(|rule| {
            self.problem(key, format!("{rule}, found {number}"), "give a number of steps, or a fraction of all steps");
            default
        })
    }

    fn max_steps(&mut self, args: &ArgsConfig) -> Option<u64> {
        let steps = args.max_steps.filter(|n| *n != -1)?;
        if steps == 0 {
            self.problem("args.max_steps", "must be 1 or more, or -1, found 0", "-1 lets `num_train_epochs` decide");
        }
        if steps > MOST_STEPS {
            self.problem(
                "args.max_steps",
                format!("must be {MOST_STEPS} or less, found {steps}"),
                "give the steps the run can take, or leave it out and set `num_train_epochs`",
            );
        }
        if args.num_train_epochs.is_some() {
            self.notes
                .push("`args.max_steps` decides how long the run is; `args.num_train_epochs` is not used".to_owned());
        }
        u64::try_from(steps).ok()
    }

    fn warmup(&mut self, args: &ArgsConfig) -> Interval {
        let (name, number) = match (args.warmup_steps, args.warmup_ratio) {
            (Some(_), Some(_)) => {
                self.problem(
                    "args.warmup_ratio",
                    "is another way to say `args.warmup_steps`, which is given too",
                    "leave out `warmup_ratio`; `warmup_steps` below 1 is a fraction of all steps",
                );
                return Interval::Steps(0);
            }
            (Some(steps), None) => ("warmup_steps", steps),
            (None, Some(ratio)) => {
                self.notes.push(format!(
                    "`args.warmup_ratio` is deprecated: write `warmup_steps = {ratio:?}`, which means the same"
                ));
                if ratio >= 1.0 {
                    self.problem("args.warmup_ratio", format!("must be below 1, found {ratio}"), "0.1 is usual");
                }
                ("warmup_ratio", ratio)
            }
            (None, None) => return self.or("args.warmup_steps", None, Interval::Steps(0)),
        };
        Interval::from_number(number).unwrap_or_else(|rule| {
            self.problem(
                format!("args.{name}"),
                format!("{rule}, found {number}"),
                "give a number of steps, or below 1 a fraction of all steps",
            );
            Interval::Steps(0)
        })
    }

    /// When to evaluate and when to save.
    fn cadence(&mut self, args: &ArgsConfig, measurable: bool) -> (Every, Every) {
        let best = args.load_best_model_at_end == Some(true);
        let default = match (args.eval_steps, measurable) {
            (Some(_), _) => IntervalStrategy::Steps,
            (None, true) => IntervalStrategy::Epoch,
            (None, false) => IntervalStrategy::No,
        };
        let strategy = args.eval_strategy.unwrap_or(default);
        if args.eval_strategy.is_none() && args.eval_steps.is_none() {
            self.defaulted.push("args.eval_strategy".to_owned());
        }
        if strategy != IntervalStrategy::No && !measurable {
            let key = if args.eval_strategy.is_some() { "args.eval_strategy" } else { "args.eval_steps" };
            self.problem(
                key,
                "there is nothing to evaluate with",
                "add an `[[evaluator]]` or an `[eval_dataset]`, or set `eval_strategy = \"no\"`",
            );
        }
        let eval = self.every("eval", strategy, args.eval_steps, Interval::Fraction(0.1));
        let default = match (args.save_steps, best) {
            (Some(_), _) => IntervalStrategy::Steps,
            (None, true) => strategy,
            (None, false) => IntervalStrategy::Epoch,
        };
        let strategy = args.save_strategy.unwrap_or(default);
        if args.save_strategy.is_none() && args.save_steps.is_none() {
            self.defaulted.push("args.save_strategy".to_owned());
        }
        let same = match eval {
            Every::Steps(interval) => interval,
            Every::No | Every::Epoch => Interval::Fraction(0.1),
        };
        (eval, self.every("save", strategy, args.save_steps, same))
    }

    fn every(&mut self, what: &str, strategy: IntervalStrategy, steps: Option<f64>, default: Interval) -> Every {
        if strategy != IntervalStrategy::Steps && steps.is_some() {
            self.notes.push(format!(
                "`args.{what}_steps` is not used: `args.{what}_strategy` is `{}`; write `steps` there to use it",
                strategy.name()
            ));
        }
        match strategy {
            IntervalStrategy::No => Every::No,
            IntervalStrategy::Epoch => Every::Epoch,
            IntervalStrategy::Steps => Every::Steps(self.interval(&format!("{what}_steps"), steps, default)),
        }
    }

    fn metric(&mut self, args: &ArgsConfig, evaluators: &[EvaluatorPlan], eval: &[DatasetPlan]) -> Option<String> {
        if let Some(metric) = &args.metric_for_best_model {
            if metric.trim().is_empty() {
                self.problem(
                    "args.metric_for_best_model",
                    "is empty",
                    "leave it out for the evaluator's primary metric",
                );
            }
            let prefix = if metric.starts_with("eval_") { "" } else { "eval_" };
            return Some(format!("{prefix}{metric}"));
        }
        self.defaulted.push("args.metric_for_best_model".to_owned());
        match evaluators.first() {
            // which one it is depends on the model's similarity function, and the model is not read yet
            Some(_) => None,
            None if eval.len() == 1 => Some("eval_loss".to_owned()),
            None => eval.first().map(|first| format!("eval_{}_loss", first.name)),
        }
    }

    fn early_stopping(&mut self, args: &ArgsConfig) -> Option<EarlyStoppingPlan> {
        let threshold = args
            .early_stopping_threshold
            .map(|t| self.number("early_stopping_threshold", Some(t), 0.0, Bound::From(0.0)));
        let Some(patience) = args.early_stopping_patience else {
            if threshold.is_some() {
                self.problem(
                    "args.early_stopping_threshold",
                    "has no effect without `args.early_stopping_patience`",
                    "set `early_stopping_patience = 3`, or leave it out",
                );
            }
            return None;
        };
        Some(EarlyStoppingPlan {
            patience: self.count("early_stopping_patience", Some(patience), 3),
            threshold: self.or("args.early_stopping_threshold", threshold, 0.0),
        })
    }

    fn sampler(&mut self, args: &ArgsConfig) -> String {
        let name = self.or("args.batch_sampler", args.batch_sampler.clone(), "batch_sampler".to_owned());
        let registry = self.registry;
        self.known("args.batch_sampler", "batch sampler", &name, &registry.samplers());
        name
    }

    fn mixing(&mut self, args: &ArgsConfig) -> String {
        let key = "args.multi_dataset_batch_sampler";
        let default = MultiDatasetBatchSampler::default().name().to_owned();
        // as Hugging Face's configuration files write it, too: `MultiDatasetBatchSamplers.ROUND_ROBIN`
        let given = args.multi_dataset_batch_sampler.as_ref();
        let given = given.map(|name| name.trim_start_matches("MultiDatasetBatchSamplers.").to_lowercase());
        let name = self.or(key, given, default);
        self.known(key, "multi-dataset batch sampler", &name, &MultiDatasetBatchSampler::NAMES);
        name
    }

    /// A name that is not empty, if one is given.
    fn named(&mut self, name: &str, given: Option<&String>) -> Option<String> {
        if given.is_some_and(|text| text.trim().is_empty()) {
            self.problem(format!("args.{name}"), "is empty", "leave it out for the default");
        }
        given.cloned()
    }

    fn report_to(&mut self, args: &ArgsConfig) -> Vec<String> {
        let Some(names) = &args.report_to else {
            return self.or("args.report_to", None, Vec::new());
        };
        let known = trackers::names();
        for name in &names.0 {
            self.known("args.report_to", "tracker", name, &known);
        }
        names.0.iter().filter(|n| *n != trackers::NONE).cloned().collect()
    }
}

/// What a number must be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Above(f64),
    /// Above 0, and few enough to be counted one by one.
    Epochs,
    From(f64),
    /// In 0..1.
    Part,
}

impl Bound {
    /// The rule, if `number` breaks it.
    fn broken(self, number: f64) -> Option<String> {
        let (fine, rule) = match self {
            Self::Above(least) => (number > least, format!("above {least}")),
            Self::Epochs if number > MOST_EPOCHS => (false, format!("{MOST_EPOCHS} or less")),
            Self::Epochs => (number > 0.0, "above 0".to_owned()),
            Self::From(least) => (number >= least, format!("{least} or more")),
            Self::Part => ((0.0..1.0).contains(&number), "0 or more and below 1".to_owned()),
        };
        (!fine || !number.is_finite()).then_some(rule)
    }
}
