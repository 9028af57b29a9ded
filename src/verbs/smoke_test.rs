//! `smoke-test`: one step on a slice, before any time is spent.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::error::Result;
use crate::train::events::Event;
use crate::util::{clock, memory};

/// Try a recipe with one step on a small slice of its data; nothing is saved.
///
/// Says whether losses are finite and gradients reach every trainable tensor, and estimates the peak memory and
/// the time of the whole run.
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

/// What one step showed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Whether the run can be started: finite losses, a gradient for every trainable tensor, enough memory.
    pub ok: bool,
    /// What speaks against it, one sentence each.
    pub problems: Vec<String>,
    /// The run's name.
    pub run_name: String,
    /// The losses of the steps done.
    pub losses: Vec<f64>,
    /// Trainable tensors.
    pub trainable_tensors: usize,
    /// Those that got a finite gradient that is not zero.
    pub tensors_with_gradient: usize,
    /// The names of the others.
    pub without_gradient: Vec<String>,
    /// The whole run's peak memory, estimated.
    pub estimated_peak_memory_bytes: u64,
    /// Memory the machine has free now.
    pub available_memory_bytes: Option<u64>,
    /// The whole run's time, estimated.
    pub estimated_seconds: f64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// What one step took.
    pub seconds_per_step: f64,
    /// Texts of the slice.
    pub texts: u64,
    /// Those that were cut to the model's maximum length.
    pub truncated_texts: u64,
    /// What needs attention but stops nothing.
    pub warnings: Vec<String>,
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
        let mut response = engine::smoke_test(&plan, &mut listener)?;
        response.notes = notes;
        Ok(response)
    }
}

impl Response {
    /// Finds what speaks against starting the run.
    pub(super) fn judged(mut self) -> Self {
        if let Some(loss) = self.losses.iter().find(|l| !l.is_finite()) {
            self.problems.push(format!("a loss is {loss}"));
        }
        if !self.without_gradient.is_empty() {
            let shown: Vec<String> = self.without_gradient.iter().take(5).map(|n| format!("`{n}`")).collect();
            let more = self.without_gradient.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.problems.push(format!("no gradient reaches {}{more}", shown.join(", ")));
        }
        if let Some(available) = self.available_memory_bytes
            && self.estimated_peak_memory_bytes > available
        {
            self.problems.push(format!(
                "the run needs about {} of memory and {} is free: lower `args.per_device_train_batch_size`",
                memory::human(self.estimated_peak_memory_bytes),
                memory::human(available)
            ));
        }
        self.ok = self.problems.is_empty();
        self
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let losses: Vec<String> = self.losses.iter().map(|l| format!("{l:.4}")).collect();
        let mut lines = vec![
            format!("loss       {}", losses.join(", ")),
            format!("gradients  {} of {} trainable tensors", self.tensors_with_gradient, self.trainable_tensors),
            format!(
                "memory     about {} at the most{}",
                memory::human(self.estimated_peak_memory_bytes),
                self.available_memory_bytes.map_or_else(String::new, |b| format!(", {} free", memory::human(b)))
            ),
            format!(
                "time       about {} for {} steps ({} each)",
                clock::human(self.estimated_seconds),
                self.total_steps,
                step_time(self.seconds_per_step)
            ),
            format!("truncated  {} of {} texts", self.truncated_texts, self.texts),
        ];
        lines.extend(self.warnings.iter().map(|w| format!("warning    {w}")));
        lines.extend(self.problems.iter().map(|p| format!("problem    {p}")));
        lines.push(if self.ok { "smoke test passed".to_owned() } else { "smoke test failed".to_owned() });
        lines.join("\n")
    }

    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { 3 }
    }
}

fn step_time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { clock::human(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> Response {
        Response {
            ok: false,
            problems: Vec::new(),
            run_name: "a".into(),
            losses: vec![1.5],
            trainable_tensors: 10,
            tensors_with_gradient: 10,
            without_gradient: Vec::new(),
            estimated_peak_memory_bytes: 1_000_000_000,
            available_memory_bytes: Some(2_000_000_000),
            estimated_seconds: 61.0,
            total_steps: 100,
            seconds_per_step: 0.6,
            texts: 64,
            truncated_texts: 3,
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_good_step_passes() {
        let good = response().judged();
        assert!(good.ok && good.exit_code() == 0);
        assert!(good.human().contains("about 1 min 1 s for 100 steps (600 ms each)"), "{}", good.human());
    }

    #[test]
    fn every_fault_is_a_problem() {
        let names: Vec<String> = (0..7).map(|i| format!("layer.{i}")).collect();
        let bad =
            Response { losses: vec![f64::NAN], without_gradient: names, available_memory_bytes: Some(1), ..response() }
                .judged();
        assert_eq!((bad.ok, bad.exit_code(), bad.problems.len()), (false, 3, 3));
        assert!(bad.human().contains("`layer.4` and 2 more"), "{}", bad.human());
    }
}
