//! A static embedding out of a transformer: every token of its vocabulary goes through the network by itself.
//!
//! As model2vec's `distill` (Tulkens and van Dongen, 2024, <https://github.com/MinishLab/model2vec>): the token between
//! the special tokens that frame a text, the last hidden states pooled; then the principal components of all tokens,
//! and each token times `a / (a + p)`, where `p` is its frequency by Zipf's law (the smooth inverse frequency of Arora
//! et al., 2017). Vocabularies are ordered by frequency, so a token's number is its rank.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{self, Description};
use super::module::transformer::Transformer;
use super::module::{Features, Module, Source, class};
use super::options::ModelOptions;
use super::tokenizer::{TextTokenizer, prune};
use crate::error::{Error, Result};
use crate::flow::{ModelType, PackedBatch};
use crate::ops::{self, Context, PoolingMode};
use crate::util::files;
use crate::util::progress::Progress;

/// Tokens that go through the network at a time.
const TOKENS_PER_PASS: usize = 6144;
/// Rows that are in f64 at a time.
const ROWS_PER_BLOCK: usize = 2048;

/// How many principal components are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Components {
    /// So many, at most as many as the teacher has dimensions.
    Most(usize),
    /// The fewest that explain this part of the variance.
    Variance(f64),
    /// All.
    All,
    /// No principal components: the teacher's own dimensions.
    Off,
}

/// How a teacher becomes a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    pub components: Components,
    /// `a` of the weights; `None` for no weights.
    pub sif_coefficient: Option<f64>,
    /// A regular expression; tokens that begin with a match are left out.
    pub token_remove_pattern: Option<String>,
    /// Of the hidden states: `mean`, `cls` (the first) or `lasttoken`.
    pub pooling: PoolingMode,
}

impl Default for Distillation {
    /// As model2vec has it: 256 components, weights, and without the thousand unused tokens of BERT's vocabularies.
    fn default() -> Self {
        Self {
            components: Components::Most(256),
            sif_coefficient: Some(1e-4),
            token_remove_pattern: Some(r"\[unused\d+\]".to_owned()),
            pooling: PoolingMode::Mean,
        }
    }
}

/// Which of a teacher's hidden states become a token's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum TeacherPooling {
    /// The mean of all.
    #[default]
    Mean,
    /// The first special token's.
    First,
    /// The last special token's.
    Last,
}

impl TeacherPooling {
    /// The pooling it is.
    #[must_use]
    pub const fn mode(self) -> PoolingMode {
        match self {
            Self::Mean => PoolingMode::Mean,
            Self::First => PoolingMode::Cls,
            Self::Last => PoolingMode::LastToken,
        }
    }
}

/// A tokenizer, and a row for each of its tokens.
pub struct Distilled {
    pub tokenizer: TextTokenizer,
    /// `[tokens, dim]`, f32, on the host.
    pub table: Tensor,
}

/// The table of the teacher in `directory`, computed on `device`.
///
/// # Errors
/// When there is no transformer, or nothing is left of its vocabulary.
pub fn distill(directory: &Path, how: &Distillation, device: &Device) -> Result<Distilled> {
    let kind = Description::load(directory)?.kind;
    if kind != ModelType::SentenceTransformer {
        return Err(Error::model(format!("`{}` is a {kind}, which has no dense embeddings", directory.display()))
            .with_hint("name a SentenceTransformer as the teacher, or a network without a head"));
    }
    let folder = match directory::read_modules(directory)? {
        Some(entries) => match entries.first() {
            Some(first) if class(&first.kind) == "Transformer" => directory.join(&first.path),
            _ => {
                let text = format!("`{}` does not begin with a Transformer", directory.display());
                return Err(Error::model(text).with_hint("only transformers can be distilled: name another teacher"));
            }
        },
        None => directory.to_path_buf(),
    };
    let options = ModelOptions::default();
    let teacher = Transformer::load(&Source { directory: &folder, prefix: "", device, options: &options })?;
    let tokenizer = teacher.tokenizer(None)?.ok_or_else(|| Error::Internal("a Transformer reads no texts".into()))?;
    let pattern = |text: &String| {
        regex::Regex::new(text).map_err(|e| {
            Error::usage(format!("`token_remove_pattern`: {e}"))
                .with_hint("it is a regular expression, as `\\[unused\\d+\\]`")
        })
    };
    let remove = how.token_remove_pattern.as_ref().map(pattern).transpose()?;
    let named = |key| named_token(&folder, key);
    let (unknown, padding) = (named("unk_token")?, named("pad_token")?);
    let pruned = prune::prune(tokenizer.json(), unknown.as_deref(), padding.as_deref(), remove.as_ref())?;
    let (before, after) = tokenizer.frame()?;
    let sequences: Vec<Vec<u32>> =
        pruned.was.iter().map(|id| [before.as_slice(), &[*id], after.as_slice()].concat()).collect();
    let mut table = embed(&teacher, &sequences, how.pooling)?;
    table = components(&table, how.components)?;
    if let Some(a) = how.sif_coefficient {
        table = weigh(&table, a)?;
    }
    Ok(Distilled { tokenizer: TextTokenizer::from_bytes(pruned.bytes, &folder.join("tokenizer.json"), false)?, table })
}

/// `unk_token` or `pad_token` of the files beside a tokenizer.
fn named_token(folder: &Path, key: &str) -> Result<Option<String>> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let file = folder.join(name);
        if !file.exists() {
            continue;
        }
        let config: Value = serde_json::from_str(&files::read_text(&file)?)
            .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))?;
        if let Some(token) = config[key].as_str().or_else(|| config[key]["content"].as_str()) {
            return Ok(Some(token.to_owned()));
        }
    }
    Ok(None)
}

/// `[sequences, hidden]`: the pooled hidden states, in f32 on the host.
fn embed(teacher: &Transformer, sequences: &[Vec<u32>], mode: PoolingMode) -> Result<Tensor> {
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let progress = Progress::new("distilling", sequences.len() as u64);
    let mut parts = Vec::new();
    for block in sequences.chunks((TOKENS_PER_PASS / longest).max(1)) {
        let batch = PackedBatch::pack(block.iter().map(|ids| (ids.as_slice(), 0)));
        let offsets = Arc::clone(&batch.offsets);
        let features = teacher.forward(Features::new(batch, None), &Context::inference())?;
        let pooled = ops::pool(features.tokens("Pooling")?, &offsets, &Arc::new(Vec::new()), mode)?;
        parts.push(pooled.to_device(&Device::Cpu)?);
        progress.inc(block.len() as u64);
    }
    progress.finish();
    let table = Tensor::cat(&parts, 0)?;
    // as the reference does: a value that is none is 0
    let finite = table.eq(&table)?;
    Ok(finite.where_cond(&table, &table.zeros_like()?)?)
}

/// The table's principal components, each turned so that its largest value is positive.
fn components(table: &Tensor, wanted: Components) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    let most = match wanted {
        Components::Off => return Ok(table.clone()),
        Components::Most(n) => n.min(width),
        Components::All => width,
        Components::Variance(_) => 1,
    };
    if rows <= most {
        return Ok(table.clone());
    }
    let mean = blocks(table)?.try_fold(Tensor::zeros((1, width), DType::F64, &Device::Cpu)?, |sum, block| {
        Ok::<_, Error>((sum + block?.sum_keepdim(0)?)?)
    })?;
    let mean = (mean / rows as f64)?;
    let mut covariance = Tensor::zeros((width, width), DType::F64, &Device::Cpu)?;
    for block in blocks(table)? {
        let centred = block?.broadcast_sub(&mean)?;
        covariance = (covariance + centred.t()?.contiguous()?.matmul(&centred)?)?;
    }
    let covariance = (covariance / (rows as f64 - 1.0))?;
    let (values, vectors) = ops::symmetric_eigen(covariance.flatten_all()?.to_vec1()?, width)?;
    let kept = match wanted {
        Components::Variance(part) => explaining(&values, part),
        _ => most,
    };
    let axes = Tensor::from_slice(&vectors[..kept * width], (kept, width), &Device::Cpu)?.t()?.contiguous()?;
    let mut scores = Vec::new();
    for block in blocks(table)? {
        let block = block?.broadcast_sub(&mean)?.matmul(&axes)?;
        scores.push(block.to_dtype(DType::F32)?);
    }
    let scores = Tensor::cat(&scores, 0)?;
    let signs = signs(&scores)?;
    Ok(scores.broadcast_mul(&signs)?)
}

/// The table, some rows at a time, in f64.
fn blocks(table: &Tensor) -> Result<impl Iterator<Item = Result<Tensor>> + '_> {
    let rows = table.dim(0)?;
    let starts = (0..rows).step_by(ROWS_PER_BLOCK);
    Ok(starts.map(move |start| {
        let block = table.narrow(0, start, ROWS_PER_BLOCK.min(rows - start))?;
        Ok(block.to_dtype(DType::F64)?)
    }))
}

/// How many of the largest variances come to this part of their sum.
fn explaining(variances: &[f64], part: f64) -> usize {
    let total: f64 = variances.iter().map(|v| v.max(0.0)).sum();
    let mut sum = 0.0;
    let before = variances.iter().take_while(|v| {
        sum += v.max(0.0);
        sum / total < part
    });
    (before.count() + 1).min(variances.len())
}

/// `[1, dim]`: the sign of each column's value of largest size.
fn signs(scores: &Tensor) -> Result<Tensor> {
    let width = scores.dim(1)?;
    let mut largest = vec![0.0f32; width];
    for row in scores.flatten_all()?.to_vec1::<f32>()?.chunks_exact(width.max(1)) {
        for (largest, x) in largest.iter_mut().zip(row) {
            if x.abs() > largest.abs() {
                *largest = *x;
            }
        }
    }
    let signs: Vec<f32> = largest.iter().map(|x| if *x == 0.0 { 0.0 } else { x.signum() }).collect();
    Ok(Tensor::from_vec(signs, (1, width), &Device::Cpu)?)
}

/// Each row times its weight; the first token has rank 2.
fn weigh(table: &Tensor, a: f64) -> Result<Tensor> {
    let rows = table.dim(0)?;
    let inverse = |row: usize| 1.0 / (row + 2) as f64;
    let total: f64 = (0..rows).map(inverse).sum();
    let weights: Vec<f32> = (0..rows).map(|row| (a / (a + inverse(row) / total)) as f32).collect();
    Ok(table.broadcast_mul(&Tensor::from_vec(weights, (rows, 1), &Device::Cpu)?)?)
}

#[cfg(test)]
mod tests {
    use super::explaining;

    #[test]
    fn as_many_components_as_the_variance_asks_for() {
        let variances = [4.0, 3.0, 2.0, 1.0, -1e-18];
        for (part, wanted) in [(0.1, 1), (0.4, 1), (0.41, 2), (0.7, 2), (0.95, 4), (0.999_999, 4)] {
            assert_eq!(explaining(&variances, part), wanted, "{part}");
        }
    }
}
