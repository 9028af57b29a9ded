//! `inspect`: what is in a data set, what is wrong with it, and which losses take it.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::catalog::choose::TYPES;
use crate::catalog::findings::{Finding, Severity, findings};
use crate::catalog::recommend::fitting;
use crate::catalog::reshape::{Reshape, ways};
use crate::data::inspect::{self, Inspection};
use crate::error::Result;
use crate::flow::{ModelType, Preprocess};
use crate::util::numbers::thousands;

/// Look at a data set before training on it: rows, lengths, labels, duplicates, overlap with the evaluation data, columns
/// in a wrong order, and which losses fit.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A file of rows, a glob or a directory.
    pub data: String,
    /// What the model will be measured on: a file of rows, or a folder in the BEIR layout.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub eval: Option<String>,
    /// A model's folder or id: its tokenizer counts tokens, which are estimated without.
    #[arg(long, value_name = "MODEL")]
    #[serde(default)]
    pub base: Option<String>,
    /// Losses of this type only, with the ways to reshape the data for others.
    #[arg(long, value_name = "TYPE", value_parser = engine::model_type)]
    #[serde(default)]
    pub model_type: Option<ModelType>,
    /// The columns with texts in the loss's order; all of them without.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// The label column; found by its name without.
    #[arg(long, value_name = "COLUMN")]
    #[serde(default)]
    pub label: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    #[serde(flatten)]
    #[schemars(skip)]
    pub data: Inspection,
    /// What is wrong and the way out, the worst first.
    pub findings: Vec<Finding>,
    /// By model type, losses that take the data as they are.
    pub losses: Vec<Fitting>,
    /// Ways to other losses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reshape: Vec<Reshape>,
    /// What the numbers rest on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    pub seconds: f64,
    pub next: String,
}

/// The losses of a type.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Fitting {
    pub model_type: ModelType,
    pub losses: Vec<&'static str>,
}

/// Losses of a type that are shown where all types are.
const SHOWN: usize = 4;

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let begun = Instant::now();
        let mut notes = Vec::new();
        let tokenizer = match &self.base {
            Some(base) => engine::base_tokenizer(base, &mut notes)?,
            None => None,
        };
        let data = inspect::inspect(&inspect::Request {
            data: &self.data,
            columns: (!self.columns.is_empty()).then_some(&self.columns),
            label: self.label.as_deref(),
            eval: self.eval.as_deref(),
            tokenizer: tokenizer.as_ref().map(|t| t as &dyn Preprocess),
        })?;
        let types = self.model_type.map_or_else(|| TYPES.to_vec(), |one| vec![one]);
        let most = if self.model_type.is_some() { usize::MAX } else { SHOWN };
        let losses = types.iter().map(|model_type| Fitting {
            model_type: *model_type,
            losses: fitting(*model_type, &data).into_iter().take(most).collect(),
        });
        let losses = losses.filter(|of| !of.losses.is_empty() || self.model_type.is_some()).collect();
        let path = Path::new(&self.data).display();
        let next = match self.model_type {
            Some(model_type) => format!("`tallow recommend --model-type {model_type} --data {path}`"),
            None => {
                format!("`tallow choose` names a type for a task; `tallow recommend --model-type TYPE --data {path}`")
            }
        };
        Ok(Response {
            findings: findings(&data),
            losses,
            reshape: self.model_type.map(|model_type| ways(model_type, &data)).unwrap_or_default(),
            notes,
            seconds: (begun.elapsed().as_secs_f64() * 100.0).round() / 100.0,
            next,
            data,
        })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let data = &self.data;
        let mut lines = vec![format!("{} rows: {}", thousands(data.rows), data.shape.name())];
        for column in &data.columns {
            let [p50, p90, p99, max] = column.tokens;
            let languages =
                if column.languages.is_empty() { String::new() } else { format!("; {}", column.languages.join(", ")) };
            let about = if data.tokens_estimated { "about " } else { "" };
            lines.push(format!(
                "`{}`  tokens {about}{p50} (p50), {p90} (p90), {p99} (p99), {max} (max); {} repeated{languages}",
                column.name,
                thousands(column.repeated)
            ));
        }
        if let Some(label) = &data.label {
            let kind = format!("{:?}", label.kind).to_lowercase();
            let commonest: Vec<String> =
                label.commonest.iter().map(|(name, part)| format!("{name} {:.0} %", part * 100.0)).collect();
            let spread = if commonest.is_empty() {
                format!("{} to {}, mean {}", label.min, label.max, label.mean)
            } else {
                commonest.join(", ")
            };
            lines.push(format!("`{}`  label: {kind}, {} different; {spread}", label.column, label.different));
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            lines.push(format!("{severity}: {}\n    {}", finding.what, finding.fix));
        }
        lines.extend(self.losses.iter().map(|of| format!("{}: {}", of.model_type, of.losses.join(", "))));
        lines.extend(self.reshape.iter().map(|way| format!("for {}: {}", way.losses.join(", "), way.how)));
        lines.extend(self.notes.iter().cloned());
        lines.push(format!("next: {}", self.next));
        lines.join("\n")
    }
}
