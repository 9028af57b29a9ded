//! `encode`: texts in, embeddings out.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine;
use super::{Answer, Reporter, Verb, vectors};
use crate::data::corpus;
use crate::error::{Error, Result};
use crate::eval::shared::encode_tokens;
use crate::flow::{Encode, EncodeOptions, EncodeSparse};
use crate::model::SentenceTransformer;
use crate::runs::folder::display;
use crate::scoring::quantize::{Precision, Ranges, quantize};
use crate::util::memory;

/// Encode the texts of a file with a saved model.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// The texts: `.txt` with one a line, or rows (`.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The column with the texts; needed where rows have several. BEIR rows are title and text without it.
    #[arg(long)]
    #[serde(default)]
    pub column: Option<String>,
    /// One of the model's prompts, put in front of every text; of a model with a Router, also the route of that name.
    /// Without it the model's default prompt is used.
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// This text in front of every text; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub prompt: Option<String>,
    /// Keep only the first dimensions of each embedding.
    #[arg(long, value_name = "D")]
    #[serde(default)]
    pub truncate_dim: Option<usize>,
    /// Of sparse embeddings keep only so many of the largest values.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    pub max_active_dims: Option<usize>,
    /// Write the words of sparse embeddings as well, so many of each, largest weight first.
    #[arg(long, value_name = "K")]
    #[serde(default)]
    pub decode: Option<usize>,
    /// Divide each embedding by its length.
    #[arg(long)]
    #[serde(default)]
    pub normalize: bool,
    /// Round the operands of matrix products to bfloat16 or nearer: faster, and embeddings off by about 0.001.
    #[arg(long)]
    #[serde(default)]
    pub bf16: bool,
    /// How values are kept: `int8` and `uint8` in 256 steps between the least and the largest value of each dimension,
    /// `binary` and `ubinary` in a bit, whether they are positive, eight a byte.
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    #[serde(default)]
    pub precision: Precision,
    /// Texts whose embeddings give the range of each dimension for `int8` and `uint8`, in a file like the input.
    /// Without it the input's own do.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub calibration: Option<PathBuf>,
    /// Where the embeddings go, by ending: `.npy`, `.jsonl` or `.safetensors`; sparse ones to `.jsonl`, those with a vector
    /// for each token to `.jsonl` or `.safetensors`.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file.
    pub output: PathBuf,
    /// Texts, one embedding each.
    pub rows: usize,
    /// The embeddings' width.
    pub dimension: usize,
    /// How values are kept.
    pub precision: Precision,
    /// Bytes of an embedding; of sparse ones and of those with a vector for each token on average.
    pub bytes: usize,
    /// Of sparse embeddings: values that are not zero, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_dims: Option<f64>,
    /// Of models with a vector for each token: vectors of a text, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<f64>,
    /// The prompt that was put in front.
    pub prompt: Option<String>,
    /// What encoding took, loading left out.
    pub seconds: f64,
    /// The most memory the program had.
    pub peak_memory_bytes: u64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        // what can be known to be wrong is said before the model is loaded
        vectors::Format::of(&self.output)?;
        if self.truncate_dim == Some(0) {
            return Err(Error::usage("`truncate_dim` is 0").with_hint("give the number of dimensions to keep"));
        }
        for (name, number) in [("max-active-dims", self.max_active_dims), ("decode", self.decode)] {
            if number == Some(0) {
                return Err(Error::usage(format!("`--{name}` is 0, which would keep nothing"))
                    .with_hint("give a number above 0, or leave it out"));
            }
        }
        if self.calibration.is_some() && !self.precision.has_ranges() {
            return Err(Error::usage(format!("`--calibration` has no effect with `{}`", self.precision.name()))
                .with_hint("it is for `--precision int8` and `--precision uint8`"));
        }
        let texts = corpus::read(&self.input, self.column.as_deref())?;
        let column = self.column.as_deref();
        let calibration = self.calibration.as_deref().map(|path| corpus::read(path, column)).transpose()?;
        if self.precision.has_ranges() && calibration.is_none() && texts.len() < 2 {
            return Err(Error::usage(format!("one text gives no ranges for `{}`", self.precision.name()))
                .with_hint("give texts for them with `--calibration FILE`"));
        }
        let model = engine::load_encoder(&self.model, reporter)?;
        let mut options =
            engine::named_options(&model, self.prompt, self.prompt_name.as_deref(), ("--prompt", "encoding"))?;
        if let Some(dim) = self.truncate_dim.filter(|d| *d > model.dimension()) {
            return Err(Error::usage(format!(
                "`truncate_dim` is {dim}, the model has {} dimensions",
                model.dimension()
            )));
        }
        engine::warn_of_bf16(self.bf16, reporter);
        if let Some(sparse) = model.sparse() {
            options.bf16 = self.bf16;
            options.max_active_dims = self.max_active_dims;
            let dense = [
                ("truncate-dim", self.truncate_dim.is_some()),
                ("normalize", self.normalize),
                ("precision", self.precision != Precision::Float32),
            ];
            return write_sparse(&model, sparse, (&texts, &options), &self.output, self.decode, &dense);
        }
        if model.multi_vector().is_some() {
            options.bf16 = self.bf16;
            options.normalize = self.normalize;
            let single = [
                ("truncate-dim", self.truncate_dim.is_some()),
                ("precision", self.precision != Precision::Float32),
                ("max-active-dims", self.max_active_dims.is_some()),
                ("decode", self.decode.is_some()),
            ];
            return write_tokens(&model, (&texts, &options), &self.output, &single);
        }
        for (name, given) in [("max-active-dims", self.max_active_dims.is_some()), ("decode", self.decode.is_some())] {
            if given {
                return Err(Error::usage(format!("`--{name}` is for sparse embeddings, and the model's are dense"))
                    .with_hint("leave it out"));
            }
        }
        options.truncate_dim = self.truncate_dim;
        options.normalize = self.normalize;
        options.bf16 = self.bf16;
        let begun = std::time::Instant::now();
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embeddings = model.encode(&all, &options)?;
        let seconds = begun.elapsed().as_secs_f64();
        let ranges = match calibration {
            Some(texts) => {
                let all: Vec<&str> = texts.iter().map(String::as_str).collect();
                Ranges::of(&model.encode(&all, &options)?)
            }
            None => Ranges::of(&embeddings),
        };
        if self.precision.has_ranges() && self.calibration.is_none() && embeddings.rows() < 100 {
            reporter.line(&format!(
                "warning: the ranges of `{}` rest on {} embeddings; `--calibration FILE` gives more",
                self.precision.name(),
                embeddings.rows()
            ));
        }
        let quantized = quantize(&embeddings, self.precision, &ranges);
        match &quantized {
            Some(quantized) => vectors::write_quantized(&self.output, quantized)?,
            None => vectors::write(&self.output, &embeddings)?,
        }
        Ok(Response {
            output: self.output,
            rows: embeddings.rows(),
            dimension: embeddings.dim(),
            precision: self.precision,
            bytes: quantized.map_or(4 * embeddings.dim(), |q| q.width),
            active_dims: None,
            vectors: None,
            prompt: options.prompt.filter(|p| !p.is_empty()),
            seconds,
            peak_memory_bytes: memory::peak(),
        })
    }
}

/// A line of sparse embeddings.
#[derive(Serialize)]
struct Line<'a> {
    indices: &'a [u32],
    values: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<(String, f32)>>,
}

/// Encodes and writes dimensions and values; `dense` are options that only dense embeddings have.
fn write_sparse(
    model: &SentenceTransformer,
    sparse: &dyn EncodeSparse,
    (texts, options): (&[String], &EncodeOptions),
    output: &Path,
    decode: Option<usize>,
    dense: &[(&str, bool)],
) -> Result<Response> {
    if let Some((name, _)) = dense.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!("`--{name}` is for dense embeddings, and the model's are sparse"))
            .with_hint("leave it out; `--max-active-dims` makes sparse embeddings smaller"));
    }
    if vectors::Format::of(output)? != vectors::Format::JsonLines {
        return Err(Error::usage(format!(
            "sparse embeddings are written as JSON lines, not to `{}`",
            output.display()
        ))
        .with_hint("end it in `.jsonl`: a line is `{\"indices\": [...], \"values\": [...]}`"));
    }
    let begun = std::time::Instant::now();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let embeddings = sparse.encode_sparse(&all, options)?;
    let seconds = begun.elapsed().as_secs_f64();
    let line = |row: usize| {
        let (indices, values) = embeddings.row(row);
        Line { indices, values, words: decode.map(|top_k| model.decode(&embeddings, row, Some(top_k))) }
    };
    vectors::write_lines(output, &(0..embeddings.rows()).map(line).collect::<Vec<_>>())?;
    let active_dims = embeddings.active_dims();
    Ok(Response {
        output: output.to_path_buf(),
        rows: embeddings.rows(),
        dimension: embeddings.dim(),
        precision: Precision::Float32,
        bytes: (8.0 * active_dims).round() as usize,
        active_dims: Some(active_dims),
        vectors: None,
        prompt: options.prompt.clone().filter(|p| !p.is_empty()),
        seconds,
        peak_memory_bytes: memory::peak(),
    })
}

/// A line of a text's vectors.
#[derive(Serialize)]
struct Tokens<'a> {
    embeddings: Vec<&'a [f32]>,
}

/// Encodes and writes a vector for each token; `single` are options that only other models have.
fn write_tokens(
    model: &SentenceTransformer,
    (texts, options): (&[String], &EncodeOptions),
    output: &Path,
    single: &[(&str, bool)],
) -> Result<Response> {
    if let Some((name, _)) = single.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!("`--{name}` has no meaning for a model with a vector for each token"))
            .with_hint("leave it out"));
    }
    let format = vectors::Format::of(output)?;
    if format == vectors::Format::Npy {
        let text = format!("texts with a vector for each token are no matrix to write to `{}`", output.display());
        return Err(Error::usage(text).with_hint(
            "end it in `.jsonl` (a list of vectors a line) or `.safetensors` (`embeddings` of all, and `offsets`)",
        ));
    }
    let begun = std::time::Instant::now();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let embeddings = encode_tokens(model, &all, options)?;
    let seconds = begun.elapsed().as_secs_f64();
    let dimension = embeddings.dim();
    let line = |i: usize| Tokens { embeddings: embeddings.text(i).chunks(dimension.max(1)).collect() };
    match format {
        vectors::Format::Safetensors => vectors::write_tokens(output, &embeddings)?,
        _ => vectors::write_lines(output, &(0..embeddings.texts()).map(line).collect::<Vec<_>>())?,
    }
    let count = embeddings.data().len() / dimension.max(1);
    let mean = count as f64 / embeddings.texts().max(1) as f64;
    Ok(Response {
        output: output.to_path_buf(),
        rows: embeddings.texts(),
        dimension,
        precision: Precision::Float32,
        bytes: (4.0 * dimension as f64 * mean).round() as usize,
        active_dims: None,
        vectors: Some(mean),
        prompt: options.prompt.clone().filter(|p| !p.is_empty()),
        seconds,
        peak_memory_bytes: memory::peak(),
    })
}

impl Answer for Response {
    fn human(&self) -> String {
        let rate = self.rows as f64 / self.seconds.max(1e-9);
        if let Some(vectors) = self.vectors {
            return format!(
                "{} texts with {vectors:.1} vectors of {} dimensions on average in {} ({rate:.0} texts/s)",
                self.rows,
                self.dimension,
                display(&self.output)
            );
        }
        if let Some(active) = self.active_dims {
            return format!(
                "{} sparse embeddings with {active:.1} of {} dimensions on average in {} ({rate:.0} texts/s)",
                self.rows,
                self.dimension,
                display(&self.output)
            );
        }
        format!(
            "{} embeddings of {} dimensions ({}, {} bytes each) in {} ({rate:.0} texts/s)",
            self.rows,
            self.dimension,
            self.precision.name(),
            self.bytes,
            display(&self.output)
        )
    }
}
