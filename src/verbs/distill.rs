//! `distill`: a smaller model out of a transformer, a static embedding or some of its layers.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Reporter, Verb, engine};
use crate::error::{Error, Result};
use crate::util::clock;

/// Make a smaller model out of a transformer: a static embedding, or with `--keep-layers` a student with some of its
/// layers.
///
/// For a static embedding every token of the vocabulary goes through the transformer once. It encodes by a look-up and a
/// mean, hundreds of times faster, at some cost in quality; a recipe with
/// `[model.static_embedding] distill_from` trains it on. A student has to be trained before it is of use: `tallow teach`
/// gives the teacher's embeddings as labels, and a recipe with MSELoss brings the student near them.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The transformer's folder.
    pub model: PathBuf,
    /// The folder for what is made.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Keep these layers of the network, counted from 0, as `0,3,6,9`, and drop the others: a student, whose model is of
    /// the same type as its teacher, and no static embedding.
    #[arg(
        long,
        value_name = "LAYERS",
        value_delimiter = ',',
        conflicts_with_all = ["pca_dims", "sif_coefficient", "token_remove_pattern", "pooling"]
    )]
    #[serde(default)]
    pub keep_layers: Option<Vec<usize>>,
    /// Principal components to keep: a number, a part of the variance as 0.9, `auto` for all, or `none`.
    #[arg(long, value_name = "N", default_value_t = default_dims())]
    #[serde(default = "default_dims")]
    pub pca_dims: String,
    /// `a` in the weight `a / (a + p)` of a token, where `p` is its frequency by Zipf's law; 0 for no weights.
    #[arg(long, value_name = "A", default_value_t = default_sif())]
    #[serde(default = "default_sif")]
    pub sif_coefficient: f64,
    /// Tokens that begin with a match of this regular expression are left out; empty for none.
    #[arg(long, value_name = "REGEX", default_value_t = default_pattern())]
    #[serde(default = "default_pattern")]
    pub token_remove_pattern: String,
    /// Which of the hidden states of a token between the special tokens are used.
    #[arg(long, value_enum, default_value_t = engine::TeacherPooling::Mean)]
    #[serde(default)]
    pub pooling: engine::TeacherPooling,
}

fn default_dims() -> String {
    "256".to_owned()
}

const fn default_sif() -> f64 {
    1e-4
}

fn default_pattern() -> String {
    r"\[unused\d+\]".to_owned()
}

/// What was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Its folder.
    pub output: PathBuf,
    /// Tokens, a vector each.
    pub tokens: usize,
    /// The vectors' width; of a CrossEncoder the number of its scores.
    pub dimension: usize,
    /// Layers of a student's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// What it took.
    pub seconds: f64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        if !(0.0..1.0).contains(&self.sif_coefficient) {
            return Err(Error::usage(format!(
                "`--sif-coefficient` must be 0 or more and below 1, found {}",
                self.sif_coefficient
            ))
            .with_hint("1e-4 is usual"));
        }
        if self.output.exists() {
            return Err(Error::usage(format!("there is something at `{}` already", self.output.display()))
                .with_hint("name a new folder with `--output`"));
        }
        let begun = Instant::now();
        if let Some(keep) = &self.keep_layers {
            let (tokens, dimension, layers) = engine::prune(&self.model, keep, &self.output)?;
            let seconds = begun.elapsed().as_secs_f64();
            return Ok(Response { output: self.output, tokens, dimension, layers: Some(layers), seconds });
        }
        let dims = serde_json::from_str(&self.pca_dims).unwrap_or_else(|_| Value::String(self.pca_dims.clone()));
        let how = engine::distillation(dims, self.sif_coefficient, &self.token_remove_pattern, self.pooling)?;
        let (tokens, dimension) = engine::distill(&self.model, how, &self.output, reporter)?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Response { output: self.output, tokens, dimension, layers: None, seconds })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let (place, time) = (self.output.display(), clock::human(self.seconds));
        match self.layers {
            Some(layers) => format!("{layers} layers, {} dimensions in {place}, in {time}", self.dimension),
            None => format!("{} tokens of {} dimensions in {place}, in {time}", self.tokens, self.dimension),
        }
    }
}
