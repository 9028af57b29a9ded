//! `check`: does a recipe or a training script keep what every run has to keep?

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb};
use crate::check::{self, Report};
use crate::error::Result;
use crate::util::files;

/// Check a recipe or a Python training script against what every run has to keep.
///
/// A score before training, a verdict line, a log file, no row both trained on and measured with, and more: each is a rule
/// with an id, a line and a fix. Of a script only what runs counts: not comments, strings or dead code. Nothing is executed.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The recipe (`.toml`) or the script (`.py`).
    pub file: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file.
    pub file: PathBuf,
    /// Whether no rule is broken.
    pub ok: bool,
    #[serde(flatten)]
    pub report: Report,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let report = check::check(&self.file, &files::read_text(&self.file)?)?;
        Ok(Response { ok: report.violations.is_empty(), file: self.file, report })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = Vec::new();
        for violation in &self.report.violations {
            let line = violation.line.map(|line| format!(":{line}")).unwrap_or_default();
            lines.push(format!("{}{line}: {}: {}", self.file.display(), violation.rule, violation.message));
            if !violation.fix.is_empty() {
                lines.push(format!("    fix: {}", violation.fix));
            }
        }
        let held = self.report.passed.len();
        let kept = match self.report.kept_by_the_run.len() {
            0 => String::new(),
            n => format!(", {n} kept by the run itself"),
        };
        lines.push(match self.report.violations.len() {
            0 => format!("{} passes: {held} rules hold{kept}", self.file.display()),
            1 => format!("1 violation; {held} rules hold{kept}"),
            n => format!("{n} violations; {held} rules hold{kept}"),
        });
        lines.join("\n")
    }

    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { 3 }
    }
}
