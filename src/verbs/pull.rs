//! `pull`: a model or data set of the Hugging Face Hub into the cache.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::error::Result;
use crate::hub::Kind;

/// Fetch a model or data set of the Hugging Face Hub, and print its folder.
///
/// Brings what is missing of a model (its safetensors and what describes them) or of a data set's rows into the cache that
/// Python's `huggingface_hub` uses: `HF_HOME` or `HF_HUB_CACHE` say where it is, `HF_TOKEN` opens what is private. A run
/// takes what is in the cache; this asks for what is new. A download that was cut goes on where it was.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `owner/name`, or a name alone for the oldest ones (`gpt2`).
    pub repository: String,
    /// A branch, tag or commit; the main branch without it.
    #[arg(long, value_name = "REVISION")]
    #[serde(default)]
    pub revision: Option<String>,
    /// What it is; without it a model is looked for, then a data set.
    #[arg(long, value_name = "TYPE")]
    #[serde(default)]
    pub repo_type: Option<RepoType>,
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepoType {
    Model,
    Dataset,
}

/// Where it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The repository.
    pub repository: String,
    /// What it holds.
    pub repo_type: RepoType,
    /// The folder of its files, called after the commit they are from.
    pub folder: PathBuf,
    /// Files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not there before.
    pub fetched: usize,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let kind = self.repo_type.map(|repo_type| match repo_type {
            RepoType::Model => Kind::Model,
            RepoType::Dataset => Kind::Dataset,
        });
        let pulled = engine::pull(&self.repository, kind, self.revision.as_deref(), reporter)?;
        let repo_type = match pulled.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        let (files, bytes, fetched) = (pulled.files, pulled.bytes, pulled.came);
        Ok(Response { repository: self.repository, repo_type, folder: pulled.folder, files, bytes, fetched })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        self.folder.display().to_string()
    }
}
