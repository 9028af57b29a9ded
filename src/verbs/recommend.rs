//! `recommend`: what to train with on given data, as keys of a recipe.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::catalog::bases;
use crate::catalog::bases::Base;
use crate::catalog::findings::{Severity, findings};
use crate::catalog::recommend::{Advice, Goal, Situation, recommend};
use crate::data::inspect;
use crate::error::Result;
use crate::flow::{ModelType, Preprocess};
use crate::model::facts::Facts;
use crate::util::memory;

/// Recommend loss, arguments, batch size, evaluator, metric and base model for given data; `settings` are keys of a recipe.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The type of model.
    #[arg(long, value_name = "TYPE", value_parser = engine::model_type)]
    pub model_type: ModelType,
    /// The training data: a file of rows, a glob or a directory.
    #[arg(long, value_name = "FILE")]
    pub data: String,
    /// The model to start from: a folder or an id. Without it one is recommended.
    #[arg(long, value_name = "MODEL")]
    #[serde(default)]
    pub base: Option<String>,
    /// What the model will be measured on: a file of rows, or a folder in the BEIR layout.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub eval: Option<String>,
    /// What the model is for.
    #[arg(long, value_enum, value_name = "GOAL")]
    #[serde(default)]
    pub goal: Option<Goal>,
    /// The columns with texts in the loss's order; all of them without.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// The label column; found by its name without.
    #[arg(long, value_name = "COLUMN")]
    #[serde(default)]
    pub label: Option<String>,
    /// Everything, not only what fits a short answer.
    #[arg(long)]
    #[serde(default)]
    pub full: bool,
}

/// The advice.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    #[serde(flatten)]
    #[schemars(skip)]
    pub advice: Advice,
    /// Errors in the data, to be seen to first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_errors: Vec<String>,
    /// What to do then.
    pub next: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let mut notes = Vec::new();
        let (base, tokenizer) = match &self.base {
            None => (None, None),
            Some(name) => (Some(base(name)?), engine::base_tokenizer(name, &mut notes)?),
        };
        let data = inspect::inspect(&inspect::Request {
            data: &self.data,
            columns: (!self.columns.is_empty()).then_some(&self.columns),
            label: self.label.as_deref(),
            eval: self.eval.as_deref(),
            tokenizer: tokenizer.as_ref().map(|t| t as &dyn Preprocess),
        })?;
        let advice = recommend(&Situation {
            model_type: self.model_type,
            goal: self.goal,
            data: &data,
            path: &self.data,
            eval: self.eval.as_deref(),
            base,
            memory: memory::available(),
        })?;
        let mut advice = if self.full { advice } else { advice.brief() };
        advice.why.extend(notes);
        let errors = findings(&data).into_iter().filter(|finding| finding.severity == Severity::Error);
        let data_errors = errors.map(|finding| format!("{}: {}", finding.what, finding.fix)).collect();
        let next = match self.eval {
            Some(_) => {
                "`render_template` with these `settings` and the same options (`tallow render --from` a file with this answer), then `smoke_test`"
            }
            None => {
                "hold rows out and name them as `eval`; then `render_template` with these `settings` (`tallow render --from` a file with this answer)"
            }
        };
        Ok(Response { advice, data_errors, next: next.to_owned() })
    }
}

/// What is known of a base model: by its files where it is on this machine, else by the list.
fn base(name: &str) -> Result<Base> {
    Ok(match engine::base_folder(name)? {
        Some(folder) => Base::of(name, Facts::read(&folder)?),
        None => bases::find(name).map_or_else(|| Base::unknown(name), Base::from),
    })
}

impl Answer for Response {
    fn human(&self) -> String {
        let advice = &self.advice;
        let mut lines: Vec<String> = self.data_errors.iter().map(|error| format!("error     {error}")).collect();
        for (i, loss) in advice.losses.iter().enumerate() {
            let arguments: Vec<String> = loss.arguments.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let arguments = if arguments.is_empty() { String::new() } else { format!(" ({})", arguments.join(", ")) };
            let place = if i == 0 { "loss" } else { "or" };
            lines.push(format!("{place:<9} {}{arguments}: {}", loss.name, loss.why));
        }
        lines.extend(advice.rejected.iter().map(|no| format!("not       {}: {}", no.name, no.why)));
        for (i, base) in advice.bases.iter().enumerate() {
            lines.push(format!("{:<9} {base}", if i == 0 { "base" } else { "or" }));
        }
        if let Some(evaluator) = &advice.evaluator {
            lines.push(format!("measure   {}, metric `{}`", evaluator.kind, evaluator.metric));
            lines.extend(evaluator.needs.as_ref().map(|needs| format!("needs     {needs}")));
        }
        lines.extend(advice.mine_first.iter().map(|mine| format!("mine      {}: {}", mine.how, mine.why)));
        lines.extend(advice.why.iter().map(|why| format!("because   {why}")));
        lines.push("settings".to_owned());
        lines.extend(advice.settings.iter().map(|(key, value)| format!("  {key} = {value}")));
        lines.push(format!("next      {}", self.next));
        lines.join("\n")
    }
}
