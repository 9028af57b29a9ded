//! `choose`: which type of model a task asks for.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb};
use crate::catalog::choose::{TYPES, Verdict, choose, purpose};
use crate::error::Result;
use crate::flow::ModelType;

/// Choose the type of model for a task told in plain words, in any of eleven languages; asks back where it is unclear.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What the model is for, as the user said it.
    pub task: String,
}

/// The choice.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// None where it is unclear, or a task for other programs.
    pub model_type: Option<ModelType>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The words that decided.
    pub reasons: Vec<String>,
    /// What to read before writing a recipe.
    pub required_reading: Vec<String>,
    /// To be asked, where it is unclear.
    pub question: Option<String>,
    /// What to do then.
    pub next: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let choice = choose(&self.task);
        let (model_type, question, next) = match choice.verdict {
            Verdict::Type(found) => {
                let next = format!("`tallow inspect DATA --model-type {found}`, then `tallow recommend`");
                (Some(found), None, next)
            }
            Verdict::Ask(question) => (None, Some(question), "ask, and choose again with the answer".to_owned()),
            Verdict::Outside => {
                let kinds: Vec<String> = TYPES.iter().map(|t| format!("{t} ({})", purpose(*t))).collect();
                let next =
                    format!("not a task for tallow, which trains models that compare texts: {}", kinds.join("; "));
                (None, None, next)
            }
        };
        let required_reading = model_type.map(reading).unwrap_or_default();
        let (confidence, reasons) = (choice.confidence, choice.reasons);
        Ok(Response { model_type, confidence, reasons, required_reading, question, next })
    }
}

/// Documents of this project, and a recipe of the kind.
fn reading(model_type: ModelType) -> Vec<String> {
    let (part, example) = match model_type {
        ModelType::SentenceTransformer => ("sentence_transformer", "squad-mnrl"),
        ModelType::CrossEncoder => ("cross_encoder", "trecqa-reranker"),
        ModelType::SparseEncoder => ("sparse_encoder", "squad-splade"),
        ModelType::MultiVectorEncoder => ("multi_vector_encoder", "squad-colbert"),
    };
    vec![
        "SKILL.md".to_owned(),
        format!("references/losses_{part}.md"),
        format!("references/evaluators_{part}.md"),
        "references/training_args.md".to_owned(),
        format!("examples/{example}.toml"),
    ]
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = match (self.model_type, &self.question) {
            (Some(found), _) => vec![format!("{found} (confidence {})", self.confidence), purpose(found).to_owned()],
            (None, Some(question)) => vec![question.clone()],
            (None, None) => Vec::new(),
        };
        lines.extend(self.reasons.iter().map(|reason| format!("because  {reason}")));
        if !self.required_reading.is_empty() {
            lines.push(format!("read     {}", self.required_reading.join(", ")));
        }
        lines.push(format!("next     {}", self.next));
        lines.join("\n")
    }
}
