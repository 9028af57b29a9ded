//! `push`: a model onto the Hugging Face Hub.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::error::Result;
use crate::hub::Push;

/// Publish a model on the Hugging Face Hub, in one commit.
///
/// Needs a token that may write, in `HF_TOKEN` or left by `hf auth login`; it is never shown or logged. The repository is
/// made if there is none.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or a run's.
    pub model: PathBuf,
    /// Where to, as `owner/name`; a name alone is the token's own account's.
    pub repository: String,
    /// Whether a repository that is made for it is private.
    #[arg(long)]
    #[serde(default)]
    pub private: bool,
    /// The branch, made if there is none; the main one without it.
    #[arg(long, value_name = "BRANCH")]
    #[serde(default)]
    pub revision: Option<String>,
    /// What the commit is called.
    #[arg(long, value_name = "TEXT", default_value_t = message())]
    #[serde(default = "message")]
    pub message: String,
    /// Propose it as a pull request instead.
    #[arg(long)]
    #[serde(default)]
    pub create_pr: bool,
}

fn message() -> String {
    "Add a model trained with tallow".to_owned()
}

/// Where it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The repository.
    pub repository: String,
    /// Its page, or that of the pull request.
    pub url: String,
    /// The commit.
    pub commit: Option<String>,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let pushed = engine::push(&Push {
            folder: &self.model,
            id: &self.repository,
            private: self.private,
            revision: self.revision.as_deref(),
            message: &self.message,
            create_pr: self.create_pr,
        })?;
        Ok(Response { repository: pushed.id, url: pushed.url, commit: pushed.commit })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let commit = self.commit.as_ref().map(|commit| format!(" (commit {})", &commit[..commit.len().min(10)]));
        format!("published at {}{}", self.url, commit.unwrap_or_default())
    }
}
