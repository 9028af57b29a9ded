//! `smoke-test`: two steps on the first batches, before any time is spent.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::error::Result;
use crate::runs::receipt::{self, Tried};
use crate::train::{self, Event, SmokeReport};
use crate::util::{clock, memory};

/// Try a recipe with two steps on its first batches; nothing is saved.
///
/// Says whether losses are finite and gradients reach every trainable tensor, and estimates the peak memory and
/// the time of the whole run. `run` wants this of the same recipe, settings and data.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The recipe, a TOML file.
    pub recipe: PathBuf,
    /// Override one value of the recipe, as `args.max_steps=10`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(default)]
    pub set: Vec<String>,
}

/// What the steps showed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Whether the run can be started: finite losses, a gradient for every trainable tensor, enough memory.
    pub ok: bool,
    /// What speaks against it, one sentence each.
    pub problems: Vec<String>,
    /// The run's name.
    pub run_name: String,
    /// What was measured and estimated.
    pub report: SmokeReport,
    /// What was decided where the recipe left it open.
    pub notes: Vec<String>,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let (plan, notes) = engine::plan(&self.recipe, &self.set)?;
        let mut listener = |event: &Event<'_>| match event {
            Event::Message(text) => reporter.line(text),
            Event::Warning(text) => reporter.line(&format!("warning: {text}")),
            _ => {}
        };
        // as it is before the test: what changes meanwhile was not tried
        let tried = Tried::of(&plan)?;
        let report = train::smoke_test(&plan, &mut listener)?;
        let problems = problems(&report);
        let (memory, seconds) = (report.estimated_peak_memory_bytes, report.estimated_seconds);
        if let Err(error) = receipt::keep(&plan, tried, &problems, memory, seconds) {
            reporter.line(&format!("warning: `run` will not know of this test, so it needs `--force`: {error}"));
        }
        Ok(Response { ok: problems.is_empty(), problems, run_name: plan.run_name, report, notes })
    }
}

/// What speaks against starting the run.
fn problems(report: &SmokeReport) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(loss) = report.losses.iter().find(|l| !l.is_finite()) {
        problems.push(format!("a loss is {loss}"));
    }
    let coverage = &report.gradient_coverage;
    if !coverage.without_gradient.is_empty() {
        problems.push(format!("no gradient reaches {}", some_of(&coverage.without_gradient)));
    }
    if !coverage.not_finite.is_empty() {
        problems.push(format!("the gradient is not finite in {}", some_of(&coverage.not_finite)));
    }
    if let Some(available) = report.available_memory_bytes
        && report.estimated_peak_memory_bytes > available
    {
        problems.push(format!(
            "the run needs about {} of memory and {} is free: lower `args.per_device_train_batch_size`, or set \
             `args.gradient_cache_tokens` (lower)",
            memory::human(report.estimated_peak_memory_bytes),
            memory::human(available)
        ));
    }
    problems
}

fn some_of(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|n| format!("`{n}`")).collect();
    let more = names.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

impl Answer for Response {
    fn human(&self) -> String {
        let report = &self.report;
        let coverage = &report.gradient_coverage;
        let losses: Vec<String> = report.losses.iter().map(|l| format!("{l:.4}")).collect();
        let free = report.available_memory_bytes.map_or_else(String::new, |b| format!(", {} free", memory::human(b)));
        let parts = report.gradient_cache_tokens;
        let parts = parts.map_or_else(String::new, |tokens| format!(" in micro-batches of {tokens} tokens"));
        let mut lines = vec![
            format!("loss       {}", losses.join(", ")),
            format!("gradients  {} of {} trainable tensors", coverage.with_gradient, coverage.trainable),
            format!("memory     about {}{parts}{free}", memory::human(report.estimated_peak_memory_bytes)),
            format!(
                "time       about {}: {} steps of {}, {} evaluations of {}",
                clock::human(report.estimated_seconds),
                report.total_steps,
                short_time(report.seconds_per_step),
                report.evaluations,
                short_time(report.seconds_per_evaluation)
            ),
            format!("truncated  {} of {} texts", report.truncated_texts, report.texts),
            format!("decides    {}", report.metric.as_deref().unwrap_or("nothing: no evaluator, no evaluation data")),
        ];
        lines.extend(self.notes.iter().map(|n| format!("note       {n}")));
        lines.extend(report.warnings.iter().map(|w| format!("warning    {w}")));
        lines.extend(self.problems.iter().map(|p| format!("problem    {p}")));
        lines.push(if self.ok { "smoke test passed".to_owned() } else { "smoke test failed".to_owned() });
        lines.join("\n")
    }

    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { 3 }
    }
}

fn short_time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { clock::human(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Coverage;

    fn report() -> SmokeReport {
        SmokeReport {
            losses: vec![1.5],
            grad_norms: vec![1.0],
            gradient_coverage: Coverage { trainable: 10, with_gradient: 10, ..Coverage::default() },
            train_rows: 100,
            total_steps: 100,
            seconds_per_step: 0.6,
            seconds_per_evaluation: 0.2,
            evaluations: 5,
            estimated_seconds: 61.0,
            estimated_peak_memory_bytes: 1_000_000_000,
            gradient_cache_tokens: Some(4096),
            available_memory_bytes: Some(2_000_000_000),
            truncated_texts: 3,
            texts: 64,
            metrics: Vec::new(),
            metric: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_good_step_passes() {
        assert!(problems(&report()).is_empty());
        let good =
            Response { ok: true, problems: Vec::new(), run_name: "a".into(), report: report(), notes: Vec::new() };
        assert_eq!(good.exit_code(), 0);
        assert!(good.human().contains("about 1 min 1 s: 100 steps of 600 ms, 5 evaluations of 200 ms"));
        assert!(good.human().contains("about 1.0 GB in micro-batches of 4096 tokens, 2.0 GB free"));
    }

    #[test]
    fn every_fault_is_a_problem() {
        let mut bad = report();
        bad.losses = vec![f64::NAN];
        bad.gradient_coverage.without_gradient = (0..7).map(|i| format!("layer.{i}")).collect();
        bad.gradient_coverage.not_finite = vec!["bias".into()];
        bad.available_memory_bytes = Some(1);
        let found = problems(&bad);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[1].ends_with("`layer.4` and 2 more"), "{found:?}");
    }
}
